"""Every check there is, in the order in which they are told. To add one: write its judge and its line in its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cdc_merge.doctor import capacity, position, publication, role, server, slots, tables
from cdc_merge.doctor.findings import Check, CheckResult, Findings, answer, examined, fail, ok, unknown
from cdc_merge.doctor.source_facts import Facts, NotAnswered


def _reached(facts: Facts) -> Findings:
    yield ok("The source answers.")


REACHED: Final = Check("SRC01", "The source answers", "What cannot be asked cannot be judged.", _reached)
ACROSS: Final = Check(
    tables.ACROSS,
    "One type for the keys of one entity",
    "Records of two systems are one record when their keys are equal.",
    lambda facts: iter(()),
)

FAMILIES: Final[Mapping[str, tuple[Check, ...]]] = {
    "The source": (REACHED,),
    "Server": server.CHECKS,
    "Capacity and limits": capacity.CHECKS,
    "Role and privileges": role.CHECKS,
    # Before the publication: a table must have its identity before it is published, or the fixes would break writes.
    "Tables": (*tables.CHECKS, ACROSS),
    "Publication": publication.CHECKS,
    "Slots": slots.CHECKS,
    "Position": position.CHECKS,
}
KINDS: Final = tuple(kind for family in FAMILIES.values() for kind in family)


def judged(facts: Facts) -> list[CheckResult]:
    """Every check of one source by itself."""
    return [check for kind in KINDS for check in examined(kind, facts)]


def judged_across(sources: Sequence[Facts]) -> list[CheckResult]:
    """What only several sources together can show."""
    if len(sources) < 2:
        return []
    try:
        found = tables.key_types_across(sources)
    except NotAnswered as missing:
        found = [(facts, unknown(str(missing))) for facts in sources]
    return [answer(ACROSS, facts.subject.source, finding) for facts, finding in found]


def unreachable(source: str, sentence: str, hint: str) -> CheckResult:
    """The only answer about a source that could not be asked."""
    return answer(REACHED, source, fail(f"{sentence} {hint}".strip()))
