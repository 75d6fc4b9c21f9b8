"""What became of every write of one cell, noted while the cell forgets, so that a long history is explained in one pass.

Compacting lets one write stand for all that the same sets contain (compaction.py). So every kept write stands here for a
*class*: of each source, the latest write in it. What a source has seen of another source is always all of that
source's writes up to one of them, and so a class and a list of stamps say exactly what a mask of the full fold says.
The law suite compares both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from cdc_merge.merge.compaction import Joins, compact
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import BASELINE, COMPACT_AT, Write
from cdc_merge.model import Change, Stamp

Latest = dict[str, Stamp]
"""Of each source the latest write of a class."""

# Of what a writer had seen so many writes are named, the latest; the others are counted. A list of all of them would
# make the answer about n writes as long as n².
NAMED = 10


class WriteOutcome:
    """One write, and what is known of it when the cell has forgotten it. `by`: the earliest write that had seen it."""

    __slots__ = ("by", "earlier", "saw", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.saw: tuple[Stamp, ...] | None = None
        self.earlier = 0
        self.by: Write | None = None


class WriteOutcomes:
    """The writes of one cell in stamp order. `watch` after every change, `finish` at the end."""

    def __init__(self) -> None:
        self.told: list[WriteOutcome] = []
        self._stamps: dict[str, list[Stamp]] = {}
        self._classes: dict[Write, Latest] = {}
        self._unseen: dict[Write, list[WriteOutcome]] = {}
        self._masks: dict[Write, int] = {}
        self._open: list[WriteOutcome] = []
        self._next = 0

    def watch(self, cell: UnitState) -> None:
        """Note what the last change brought; then the cell may forget."""
        if cell.next != self._next or cell.waiting or len(self._masks) != len(cell.writes):
            self._note(cell)
        if len(cell.writes) > COMPACT_AT and not cell.waiting:
            self._compact(cell)
        self._next = cell.next

    def finish(self, cell: UnitState) -> None:
        self._note(cell)
        self._close(cell)

    def _note(self, cell: UnitState) -> None:
        for write in list(cell.writes.values()):
            if write not in self._masks:
                self._begin(write)
        met: set[Write] = set()
        for write in cell.writes.values():
            fresh = write.seen & ~self._masks[write]
            if fresh:
                self._masks[write] = write.seen
                met.update(self._meet(cell, write, fresh))
        # While copies wait, an earlier write may yet turn out to have seen them.
        for write in () if cell.waiting else met:
            self._unseen[write] = []

    def _meet(self, cell: UnitState, write: Write, fresh: int) -> list[Write]:
        """What a writer is now known to have seen; the earliest such writer is remembered."""
        if write.kind == BASELINE:
            return []
        found = list(cell.of(fresh & sum(cell.writes)))
        for other in found:
            for fate in self._unseen[other]:
                if fate.by is None or write.stamp < fate.by.stamp:
                    fate.by = write
        return found

    def _begin(self, write: Write) -> None:
        self._masks[write] = 0
        self._classes[write] = {}
        self._unseen[write] = []
        if write.kind == BASELINE:
            return
        fate = WriteOutcome(write)
        self.told.append(fate)
        self._open.append(fate)
        self._stamps.setdefault(write.source, []).append(write.stamp)
        self._classes[write][write.source] = write.stamp
        self._unseen[write].append(fate)

    def _close(self, cell: UnitState) -> None:
        """What the writers of the kept writes had seen will not change any more."""
        kept = set(cell.writes.values())
        for fate in self._open:
            if fate.write in kept:
                fate.saw, fate.earlier = self._listed(cell.of(fate.write.seen & sum(cell.writes)))
        self._open = []

    def _listed(self, seen: Iterable[Write]) -> tuple[tuple[Stamp, ...], int]:
        latest: Latest = {}
        for write in seen:
            _join(latest, self._classes[write])
        named: list[Stamp] = []
        count = 0
        for source, stamp in latest.items():
            stamps = self._stamps[source]
            upto = bisect_right(stamps, stamp)
            named += stamps[max(0, upto - NAMED) : upto]
            count += upto
        named.sort()
        return tuple(named[-NAMED:]), count - min(count, NAMED)

    def _compact(self, cell: UnitState) -> None:
        self._close(cell)
        joins: Joins = []
        compact(cell, joins)
        for forgotten, standing in joins:
            _join(self._classes[standing], self._classes[forgotten])
            self._unseen[standing] += self._unseen[forgotten]
        kept = {write: write.seen for write in cell.writes.values()}
        self._masks = kept
        self._classes = {write: self._classes[write] for write in kept}
        self._unseen = {write: self._unseen[write] for write in kept}


def _join(latest: Latest, other: Latest) -> None:
    for source, stamp in other.items():
        if source not in latest or latest[source] < stamp:
            latest[source] = stamp


def watch_outcomes(record: Record, changes: Iterable[Change], name: str) -> list[WriteOutcome]:
    """Fold the changes (in stamp order) into a record that does not compact by itself; the fates of the writes of one
    unit. Its cells stay small."""
    assert not record.compacts, "what a cell forgets must be noted first"
    fates = WriteOutcomes()
    for change in changes:
        advance(record, change)
        for unit, cell in record.cells.items():
            if unit == name:
                fates.watch(cell)
            elif len(cell.writes) > COMPACT_AT:
                compact(cell)
    if name in record.cells:
        fates.finish(record.cells[name])
    return fates.told
