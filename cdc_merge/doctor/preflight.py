"""One examination: ask each source, walk its path when wanted, judge. A source that cannot be asked is told, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from cdc_merge.doctor.check_list import judged, judged_across, unreachable
from cdc_merge.doctor.collect import ask
from cdc_merge.doctor.findings import CheckResult
from cdc_merge.doctor.probe import canary, probed
from cdc_merge.doctor.source_facts import Canary, CapacityFacts, Facts, NotAnswered, Probed, Stored, Subject
from cdc_merge.doctor.targets import Positions
from cdc_merge.errors import CdcMergeError

SHORTEST_RATE_S: Final = 10.0  # over less time, a single checkpoint would look like a trend


class Examination(NamedTuple):
    """Every check's answer, and why sources could not be asked."""

    checks: tuple[CheckResult, ...]
    errors: tuple[CdcMergeError, ...]


class Doctor:
    """Examines sources, and remembers how far their WAL was, so that the next examination knows how fast it grows.

    `positions` is asked after each source; `probing` allows what does something there (probe.py).
    """

    def __init__(self, positions: Callable[[], Positions], now_us: Callable[[], int], *, probing: bool) -> None:
        self._positions = positions
        self._now_us = now_us
        self._probing = probing
        self._wal: dict[str, tuple[int, int]] = {}

    def examine(self, patients: Sequence[tuple[Subject, str]]) -> Examination:
        """Every check of these sources, given with their DSNs. A source that cannot be asked stops nothing."""
        heard: list[Facts] = []
        checks: list[CheckResult] = []
        errors: list[CdcMergeError] = []
        for subject, dsn in patients:
            try:
                facts = self._asked(subject, dsn)
            except CdcMergeError as error:
                errors.append(error)
                checks.append(unreachable(subject.source, str(error), error.hint))
                continue
            heard.append(facts)
            checks += judged(facts)
        return Examination((*checks, *judged_across(heard)), tuple(errors))

    def _asked(self, subject: Subject, dsn: str) -> Facts:
        facts = self._rated(ask(subject, dsn, self._now_us))
        after = self._positions()
        if after is not None:
            facts = facts.also({Stored: (Stored(after.get(subject.source)),)})
        return walked(facts, dsn) if self._probing else facts

    def _rated(self, facts: Facts) -> Facts:
        """With the WAL written since the last examination in place of the average since the statistics began."""
        try:
            room = facts.one(CapacityFacts)
        except NotAnswered:
            return facts
        source, at_us = facts.subject.source, self._now_us()
        lsn, before_us = self._wal.get(source, (room.wal_lsn, at_us))
        passed_s = (at_us - before_us) / 1e6
        if passed_s < SHORTEST_RATE_S:
            self._wal.setdefault(source, (room.wal_lsn, at_us))
            return facts
        self._wal[source] = (room.wal_lsn, at_us)
        return facts.also({CapacityFacts: (room._replace(wal_bytes_per_s=max(0, room.wal_lsn - lsn) / passed_s),)})


def walked(facts: Facts, dsn: str) -> Facts:
    """The facts with the probes' results."""
    found: dict[type[Any], object] = {Probed: (probed(facts.subject, dsn, facts),)}
    if _is_read_by_us(facts):
        answer = canary(facts.subject, dsn)
        found[Canary] = answer if isinstance(answer, NotAnswered) else (answer,)
    return facts.also(found)


def _is_read_by_us(facts: Facts) -> bool:
    try:
        slot = facts.our_slot()
    except NotAnswered:
        return False
    return slot is not None and slot.active and (slot.holder or "").startswith("cdc_merge/")
