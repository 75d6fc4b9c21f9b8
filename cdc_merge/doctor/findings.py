"""The vocabulary of the doctor: a check, its finding at one source, and the SQL that fixes it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.doctor.source_facts import Facts, FactUnavailable

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
UNKNOWN: Final = "unknown"
SEVERITIES: Final = (OK, WARN, FAIL, UNKNOWN)
"""In the order of the metric's values: 0 ok, 1 warn, 2 bad, 3 unknown."""

MOST_UNMAPPED: Final = 3
UNMAPPED: Final = "other tables"
"""`about` of the one finding for many tables that are not mapped."""
TRANSACTION: Final = ("BEGIN;", "COMMIT;")

GUIDE: Final = "docs/dba-guide.md"


class Fix(NamedTuple):
    """`sql` are statements in order. A line that begins with `--` needs the DBA's decision: it may affect others.

    `restart`: requires a restart of the server. `lock`: takes a lock that blocks writers for a moment. `superuser`: the
    owner of the table or publication is not sufficient.
    """

    sql: tuple[str, ...]
    restart: bool = False
    lock: bool = False
    superuser: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(name for name in ("restart", "lock", "superuser") if getattr(self, name))


NO_FIX: Final = Fix(())


class Finding(NamedTuple):
    """One finding of a check. `about` is the table, slot or setting, for a check that covers several."""

    severity: str
    seen: str
    fix: Fix = NO_FIX
    about: str = ""


Findings: TypeAlias = Iterator[Finding]


class DoctorCheck(NamedTuple):
    """One check: a stable code, a title, why it matters, and the function from facts to findings."""

    code: str
    title: str
    why: str
    evaluate: Callable[[Facts], Findings]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One finding of a check at one source."""

    source: str
    code: str
    severity: str
    title: str
    seen: str
    why: str
    fix: Fix
    about: str

    @property
    def docs(self) -> str:
        return f"{GUIDE}#{self.code.lower()}"


def ok(seen: str, about: str = "") -> Finding:
    return Finding(OK, seen, about=about)


def warn(seen: str, fix: Fix = NO_FIX, about: str = "") -> Finding:
    return Finding(WARN, seen, fix, about)


def fail(seen: str, fix: Fix = NO_FIX, about: str = "") -> Finding:
    return Finding(FAIL, seen, fix, about)


def unknown(seen: str, fix: Fix = NO_FIX, about: str = "") -> Finding:
    return Finding(UNKNOWN, seen, fix, about)


def run_check(kind: DoctorCheck, facts: Facts) -> list[CheckResult]:
    """The results of a check at a source. A missing fact makes it unknown."""
    try:
        found = list(kind.evaluate(facts))
    except FactUnavailable as missing:
        found = [unknown(str(missing))]
    found = one_line_for_the_rest(found, facts)
    return [result_of(kind, facts.subject.source, finding) for finding in found]


def one_line_for_the_rest(findings: list[Finding], facts: Facts) -> list[Finding]:
    """Findings about mapped tables in full; those about many others of one severity as one, with all of their SQL.

    A publication FOR ALL TABLES has thousands of tables that the sidecar does not map, and partitions.
    """
    unmapped = {name for name in facts.published() if name not in facts.subject.tables}
    kept = list(findings)
    for severity in SEVERITIES:
        rest = [each for each in findings if each.severity == severity and each.about in unmapped]
        if len(rest) > MOST_UNMAPPED:
            kept = [each for each in kept if each not in rest]
            kept.append(_summary_of(severity, rest))
    return kept


def _summary_of(severity: str, findings: list[Finding]) -> Finding:
    statements = tuple(dict.fromkeys(line for each in findings for line in each.fix.sql))
    if any(line in TRANSACTION for line in statements):
        statements = tuple(line for each in findings for line in each.fix.sql)
    needs = {need: any(getattr(each.fix, need) for each in findings) for need in ("restart", "lock", "superuser")}
    names = ", ".join(each.about for each in findings[:MOST_UNMAPPED])
    seen = f"{len(findings)} tables that are not mapped ({names}, …): {findings[0].seen}"
    return Finding(severity, seen, Fix(statements, **needs), UNMAPPED)


def result_of(kind: DoctorCheck, source: str, finding: Finding) -> CheckResult:
    return CheckResult(
        source, kind.code, finding.severity, kind.title, finding.seen, kind.why, finding.fix, finding.about
    )


def worst(checks: list[CheckResult]) -> str:
    """The worst severity: fail before unknown before warn before ok."""
    order = (FAIL, UNKNOWN, WARN, OK)
    return min((check.severity for check in checks), key=order.index, default=OK)
