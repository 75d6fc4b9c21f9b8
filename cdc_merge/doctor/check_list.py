"""All checks in their printed order. To add one: write its function and its line in its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cdc_merge.doctor import capacity, position, publication, role, server, slots, tables
from cdc_merge.doctor.findings import CheckResult, DoctorCheck, Findings, fail, ok, result_of, run_check, unknown
from cdc_merge.doctor.source_facts import Facts, FactUnavailable


def reachable(facts: Facts) -> Findings:
    yield ok("The source answers.")


REACHABLE: Final = DoctorCheck(
    "SRC01", "The source answers", "A source that does not answer cannot be checked.", reachable
)
ACROSS: Final = DoctorCheck(
    tables.ACROSS,
    "One type for the keys of one entity",
    "Records of two systems are one record when their keys are equal.",
    lambda facts: iter(()),
)

FAMILIES: Final[Mapping[str, tuple[DoctorCheck, ...]]] = {
    "The source": (REACHABLE,),
    "Server": server.CHECKS,
    "Capacity and limits": capacity.CHECKS,
    "Role and privileges": role.CHECKS,
    # Before the publication: a table needs its replica identity before it is published, or the fixes would break writes.
    "Tables": (*tables.CHECKS, ACROSS),
    "Publication": publication.CHECKS,
    "Slots": slots.CHECKS,
    "Position": position.CHECKS,
}
ALL_CHECKS: Final = tuple(check for family in FAMILIES.values() for check in family)


def run_checks(facts: Facts) -> list[CheckResult]:
    """Every check of one source by itself."""
    return [result for check in ALL_CHECKS for result in run_check(check, facts)]


def run_checks_across(sources: Sequence[Facts]) -> list[CheckResult]:
    """The checks that compare several sources."""
    if len(sources) < 2:
        return []
    try:
        findings = tables.key_types_across(sources)
    except FactUnavailable as missing:
        findings = [(facts, unknown(str(missing))) for facts in sources]
    return [result_of(ACROSS, facts.subject.source, finding) for facts, finding in findings]


def unreachable(source: str, sentence: str, hint: str) -> CheckResult:
    """The only result for a source that could not be queried."""
    return result_of(REACHABLE, source, fail(f"{sentence} {hint}".strip()))
