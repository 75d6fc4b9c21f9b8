"""One examination: collect the facts of each source, probe its path when enabled, run the checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from cdc_merge.doctor.check_list import run_checks, run_checks_across, unreachable
from cdc_merge.doctor.collect import collect_facts
from cdc_merge.doctor.findings import CheckResult
from cdc_merge.doctor.probe import probe_path, probe_sidecar
from cdc_merge.doctor.source_facts import (
    CapacityFacts,
    Facts,
    FactUnavailable,
    PathProbe,
    SidecarProbe,
    StoredPosition,
    Subject,
)
from cdc_merge.doctor.targets import Positions
from cdc_merge.errors import CdcMergeError

SHORTEST_RATE_S: Final = 10.0  # over less time, a single checkpoint would look like a trend


class Examination(NamedTuple):
    """The results of every check, and the errors of sources that could not be queried."""

    checks: tuple[CheckResult, ...]
    errors: tuple[CdcMergeError, ...]


class Doctor:
    """Examines sources, and keeps the end of their WAL, so that the next examination has the rate of WAL.

    `positions` reads the stored positions after each source; `probing` enables the probes (probe.py).
    """

    def __init__(self, positions: Callable[[], Positions], now_us: Callable[[], int], *, probing: bool) -> None:
        self._positions = positions
        self._now_us = now_us
        self._probing = probing
        self._wal: dict[str, tuple[int, int]] = {}

    def examine(self, targets: Sequence[tuple[Subject, str]]) -> Examination:
        """Every check of these sources, given with their DSNs. The error of one source does not stop the others."""
        examined: list[Facts] = []
        checks: list[CheckResult] = []
        errors: list[CdcMergeError] = []
        for subject, dsn in targets:
            try:
                facts = self._collect(subject, dsn)
            except CdcMergeError as error:
                errors.append(error)
                checks.append(unreachable(subject.source, str(error), error.hint))
                continue
            examined.append(facts)
            checks += run_checks(facts)
        return Examination((*checks, *run_checks_across(examined)), tuple(errors))

    def _collect(self, subject: Subject, dsn: str) -> Facts:
        facts = self._with_wal_rate(collect_facts(subject, dsn, self._now_us))
        after = self._positions()
        if after is not None:
            facts = facts.also({StoredPosition: (StoredPosition(after.get(subject.source)),)})
        return with_probes(facts, dsn) if self._probing else facts

    def _with_wal_rate(self, facts: Facts) -> Facts:
        """With the WAL rate since the last examination instead of the average since the statistics were reset."""
        try:
            room = facts.one(CapacityFacts)
        except FactUnavailable:
            return facts
        source, at_us = facts.subject.source, self._now_us()
        lsn, before_us = self._wal.get(source, (room.wal_lsn, at_us))
        passed_s = (at_us - before_us) / 1e6
        if passed_s < SHORTEST_RATE_S:
            self._wal.setdefault(source, (room.wal_lsn, at_us))
            return facts
        self._wal[source] = (room.wal_lsn, at_us)
        return facts.also({CapacityFacts: (room._replace(wal_bytes_per_s=max(0, room.wal_lsn - lsn) / passed_s),)})


def with_probes(facts: Facts, dsn: str) -> Facts:
    """The facts with the probes' results."""
    probes: dict[type[Any], object] = {PathProbe: (probe_path(facts.subject, dsn, facts),)}
    if _sidecar_is_running(facts):
        result = probe_sidecar(facts.subject, dsn)
        probes[SidecarProbe] = result if isinstance(result, FactUnavailable) else (result,)
    return facts.also(probes)


def _sidecar_is_running(facts: Facts) -> bool:
    try:
        slot = facts.our_slot()
    except FactUnavailable:
        return False
    return slot is not None and slot.active and (slot.holder or "").startswith("cdc_merge/")
