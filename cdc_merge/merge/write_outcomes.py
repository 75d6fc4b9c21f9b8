"""The outcome of every write of one unit, noted while the unit's state is compacted: a long history is explained in one pass.

Compaction lets one write stand for all that the same masks contain (compaction.py). So every kept write stands here for a
*class*: of each source, the latest write in it. What a source has seen of another source is always all of that
source's writes up to one of them, and so a class and a list of stamps say exactly what a mask of the full fold says.
The law suite compares both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from cdc_merge.merge.compaction import Joins, compact
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import BASELINE, CompactionLimits, Write
from cdc_merge.model import Change, Stamp

Latest = dict[str, Stamp]
"""Of each source the latest write of a class."""

# Of the writes that a writer had seen the latest are named, the others counted. A list of all of them would make the
# answer about n writes as long as n².
NAMED: Final = 10


class WriteOutcome:
    """One write, and what explains it after the state has forgotten it. `saw`: the writes that its writer had seen, and how
    many `earlier` ones; `seen_by`: the earliest write that had seen it."""

    __slots__ = ("earlier", "saw", "seen_by", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.saw: tuple[Stamp, ...] | None = None
        self.earlier = 0
        self.seen_by: Write | None = None


class WriteOutcomes:
    """The writes of one unit in stamp order. `note_change` after every change, `finish` at the end. `named`: see NAMED."""

    def __init__(self, limits: CompactionLimits, named: int) -> None:
        self._limits = limits
        self._named = named
        self.outcomes: list[WriteOutcome] = []
        self._stamps: dict[str, list[Stamp]] = {}
        self._classes: dict[Write, Latest] = {}
        self._unseen: dict[Write, list[WriteOutcome]] = {}
        self._masks: dict[Write, int] = {}
        self._open: list[WriteOutcome] = []
        self._next = 0

    def note_change(self, state: UnitState) -> None:
        """Note the writes of the last change; then the state may forget."""
        if state.next_bit != self._next or state.waiting_copies or len(self._masks) != len(state.writes):
            self._note(state)
        if len(state.writes) > self._limits.writes and not state.waiting_copies:
            self._compact(state)
        self._next = state.next_bit

    def finish(self, state: UnitState) -> None:
        self._note(state)
        self._close(state)

    def _note(self, state: UnitState) -> None:
        for write in list(state.writes.values()):
            if write not in self._masks:
                self._begin(write)
        now_seen: set[Write] = set()
        for write in state.writes.values():
            fresh = write.seen & ~self._masks[write]
            if fresh:
                self._masks[write] = write.seen
                now_seen.update(self._note_context(state, write, fresh))
        # While copies wait, an earlier write may yet turn out to have seen them.
        for write in () if state.waiting_copies else now_seen:
            self._unseen[write] = []

    def _note_context(self, state: UnitState, write: Write, fresh: int) -> list[Write]:
        """The writes that have joined a writer's context; each remembers the earliest writer that has seen it."""
        if write.kind == BASELINE:
            return []
        seen = list(state.writes_in(fresh & sum(state.writes)))
        for other in seen:
            for outcome in self._unseen[other]:
                if outcome.seen_by is None or write.stamp < outcome.seen_by.stamp:
                    outcome.seen_by = write
        return seen

    def _begin(self, write: Write) -> None:
        self._masks[write] = 0
        self._classes[write] = {}
        self._unseen[write] = []
        if write.kind == BASELINE:
            return
        outcome = WriteOutcome(write)
        self.outcomes.append(outcome)
        self._open.append(outcome)
        self._stamps.setdefault(write.source, []).append(write.stamp)
        self._classes[write][write.source] = write.stamp
        self._unseen[write].append(outcome)

    def _close(self, state: UnitState) -> None:
        """The contexts of the kept writes do not change any more."""
        kept = set(state.writes.values())
        for outcome in self._open:
            if outcome.write in kept:
                outcome.saw, outcome.earlier = self._listed(state.writes_in(outcome.write.seen & sum(state.writes)))
        self._open = []

    def _listed(self, seen: Iterable[Write]) -> tuple[tuple[Stamp, ...], int]:
        latest: Latest = {}
        for write in seen:
            _join(latest, self._classes[write])
        latest_stamps: list[Stamp] = []
        count = 0
        for source, stamp in latest.items():
            stamps = self._stamps[source]
            upto = bisect_right(stamps, stamp)
            latest_stamps += stamps[max(0, upto - self._named) : upto]
            count += upto
        latest_stamps.sort()
        return tuple(latest_stamps[-self._named :]), count - min(count, self._named)

    def _compact(self, state: UnitState) -> None:
        self._close(state)
        joins: Joins = []
        compact(state, self._limits, joins)
        for forgotten, standing in joins:
            _join(self._classes[standing], self._classes[forgotten])
            self._unseen[standing] += self._unseen[forgotten]
        kept = {write: write.seen for write in state.writes.values()}
        self._masks = kept
        self._classes = {write: self._classes[write] for write in kept}
        self._unseen = {write: self._unseen[write] for write in kept}


def _join(latest: Latest, other: Latest) -> None:
    for source, stamp in other.items():
        if source not in latest or latest[source] < stamp:
            latest[source] = stamp


def fold_and_track(record: Record, changes: Iterable[Change], name: str, *, named: int = NAMED) -> list[WriteOutcome]:
    """Fold the changes (in stamp order) into a record that does not compact by itself, and return the outcomes of the
    writes of one unit. All its unit states stay small."""
    assert not record.compacts, "a write must be noted before the state forgets it"
    limits = record.units.limits
    tracked = WriteOutcomes(limits, named)
    for change in changes:
        advance(record, change)
        for unit, state in record.unit_states.items():
            if unit == name:
                tracked.note_change(state)
            elif len(state.writes) > limits.writes:
                compact(state, limits)
    if name in record.unit_states:
        tracked.finish(record.unit_states[name])
    return tracked.outcomes
