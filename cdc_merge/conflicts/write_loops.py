"""Write loop detection: two sources alternately restore each other's value, again and again (two replication jobs).

A notice only: it changes neither merge nor conflicts. A turn is a change by another source than the record's last one,
shortly after it in stamp time, which sets a field back to a value of an earlier turn. People do that once; a loop goes on
until one of the jobs is stopped. Fields whose values join (counters, sets, logs, maps) and flags are left out: their values
recur without a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc_merge.model import UPDATE, Change, LoopDetected
from cdc_merge.model.plan import Plan

# Two changes that lie further apart are no turn; a job that runs every minute still makes turns.
TURN_WITHIN_US: Final = 120_000_000
# So many turns are a loop: two people who correct each other stop before.
TURNS: Final = 10
# Remembered values of a field, as hashes: a loop has two, or a few more where sources rewrite them.
VALUES: Final = 4
# Watched records; the one watched for longest leaves first.
RECORDS: Final = 10_000
WATCHED: Final = frozenset({"mv", "lww", "priority", "immutable", "lattice"})


class _RecordTurns:
    """The last source that changed a record and when, the turns so far, and each field's last values. Mutable: it is
    updated once per change."""

    __slots__ = ("source", "turns", "values", "wall_us")

    def __init__(self, source: str, wall_us: int) -> None:
        self.source = source
        self.wall_us = wall_us
        self.turns = 0
        self.values: dict[str, tuple[int, ...]] = {}


class WriteLoops:
    """Observes every change once, approximately in stamp order."""

    def __init__(self, plan: Plan) -> None:
        self._watched = _watched_fields(plan)
        self._turns: dict[tuple[str, str], _RecordTurns] = {}

    def observe(self, change: Change) -> LoopDetected | None:
        """The loop that this change makes certain; it is reported again after as many turns."""
        if change.operation != UPDATE or change.entity not in self._watched:
            return None
        key, stamp = (change.entity, change.key), change.stamp
        record = self._turns.get(key)
        if record is None or not 0 <= stamp.wall_us - record.wall_us <= TURN_WITHIN_US:
            self._watch(key, _RecordTurns(stamp.source, stamp.wall_us))
            return None
        before, record.source, record.wall_us = record.source, stamp.source, stamp.wall_us
        if before == stamp.source or not self._is_turn(record, change):
            return None
        record.turns += 1
        if record.turns < TURNS:
            return None
        record.turns = 0
        return LoopDetected(change.entity, change.key, (before, stamp.source))

    def _watch(self, key: tuple[str, str], record: _RecordTurns) -> None:
        self._turns[key] = record
        if len(self._turns) > RECORDS:
            del self._turns[next(iter(self._turns))]

    def _is_turn(self, record: _RecordTurns, change: Change) -> bool:
        """Whether the change sets a field back to a value of an earlier turn; it remembers the values."""
        watched = self._watched.get(change.entity, frozenset())
        is_turn = False
        for field, (_, after) in change.fields.items():
            if field in watched:
                earlier, value = record.values.get(field, ()), hash(after)
                if earlier[-1:] != (value,):  # a repetition of the other source's value is a copy
                    is_turn = is_turn or value in earlier
                    record.values[field] = (*earlier, value)[-VALUES:]
        return is_turn


def _watched_fields(plan: Plan) -> Mapping[str, frozenset[str]]:
    """entity → the fields whose recurring values indicate a loop; only entities of several sources."""
    return {
        name: frozenset(
            [field.name for field in entity.fields.values() if field.merge in WATCHED]
            + [member for group in entity.groups.values() for member in group.members]
        )
        for name, entity in plan.entities.items()
        if len(entity.sources) > 1
    }
