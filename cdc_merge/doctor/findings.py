"""The vocabulary of the doctor: a check, what it found at one source, and the SQL that mends it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.doctor.source_facts import Facts, NotAnswered

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
UNKNOWN: Final = "unknown"
SEVERITIES: Final = (OK, WARN, FAIL, UNKNOWN)
"""In the order of the metric's values: 0 ok, 1 warn, 2 bad, 3 unknown."""

GUIDE: Final = "docs/dba-guide.md"


class Fix(NamedTuple):
    """`sql` are statements in order. A line that begins with `--` is left to a person to decide: it may touch others.

    `restart`: the server must be restarted for it. `lock`: it takes a lock that stops writers for a moment.
    `superuser`: the owner of the table or publication is not enough.
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
    """What one check saw. `about` is the table, slot or setting, where a check looks at several."""

    severity: str
    seen: str
    fix: Fix = NO_FIX
    about: str = ""


Findings: TypeAlias = Iterator[Finding]


class Check(NamedTuple):
    """One check: a stable code, what it asks as a title, why it matters, and how facts answer it."""

    code: str
    title: str
    why: str
    judge: Callable[[Facts], Findings]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer of one check about one source."""

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


def examined(kind: Check, facts: Facts) -> list[CheckResult]:
    """What a check says about a source. A fact that the server did not tell makes it unknown."""
    try:
        found = list(kind.judge(facts))
    except NotAnswered as missing:
        found = [unknown(str(missing))]
    return [answer(kind, facts.subject.source, finding) for finding in found]


def answer(kind: Check, source: str, finding: Finding) -> CheckResult:
    return CheckResult(
        source, kind.code, finding.severity, kind.title, finding.seen, kind.why, finding.fix, finding.about
    )


def worst(checks: list[CheckResult]) -> str:
    """The severity that counts: fail before unknown before warn before ok."""
    order = (FAIL, UNKNOWN, WARN, OK)
    return min((check.severity for check in checks), key=order.index, default=OK)
