"""Record states between batches: a bounded cache over the log. What is not in it comes back by folding the history.

Nothing here is truth. A batch that fails clears the cache, and every answer can be had again from the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from cdc_merge.decision.queue import Asked, asked
from cdc_merge.merge.fold import advance, fold
from cdc_merge.merge.record import Outcomes, Record
from cdc_merge.merge.units import Units
from cdc_merge.model import Change, Conflict, RecordKey
from cdc_merge.plan import Plan
from cdc_merge.ports import StoreTransaction

# About 10 kB a record of ten fields: 200 MB. A record beyond it costs one read of its history when it changes again.
CAPACITY = 20_000


_stamp = attrgetter("stamp")


class Entry:
    """A record's state and its unfinished conflicts. `late`: changes came out of order, so it must be folded again."""

    __slots__ = ("known", "late", "record")

    def __init__(self, record: Record, known: dict[Asked, Conflict]) -> None:
        self.record = record
        self.known = known
        self.late = False


class Records:
    def __init__(self, plan: Plan, capacity: int = CAPACITY) -> None:
        self._units = {name: Units(entity) for name, entity in plan.entities.items()}
        self._max_ahead_us = plan.max_ahead_us
        self._capacity = capacity
        self._entries: OrderedDict[RecordKey, Entry] = OrderedDict()
        self.touched: dict[RecordKey, Entry] = {}
        self._outcomes: dict[str, Outcomes] = {}
        self.late = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self) -> None:
        """A batch begins: nothing is touched, nothing counted."""
        self.touched = {}
        self._outcomes = {}
        self.late = 0

    def clear(self) -> None:
        """A batch failed: what was folded in memory may be ahead of the log."""
        self._entries.clear()
        self.begin()

    def load(self, keys: Iterable[RecordKey], tx: StoreTransaction) -> None:
        """Bring records into the cache; those with no history yet begin empty."""
        entries = self._entries
        wanted = dict.fromkeys(keys)
        missing = []
        for key in wanted:
            if key in entries:
                entries.move_to_end(key)
            else:
                missing.append(key)
        if not missing:
            return
        histories = tx.histories(missing)
        conflicts = tx.open_conflicts(missing)
        for key in missing:
            entries[key] = self._entry(key, histories.get(key, ()), conflicts.get(key, ()))

    def _entry(self, key: RecordKey, history: Sequence[Change], conflicts: Sequence[Conflict]) -> Entry:
        record = self._folded(key, history)
        for cell in record.cells.values():
            cell.traces = ()
        return Entry(record, {asked(c.question): c for c in conflicts})

    def _folded(self, key: RecordKey, history: Sequence[Change]) -> Record:
        record = fold(self._units[key.entity], history, max_ahead_us=self._max_ahead_us, compacts=True)
        record.key = key.key
        return record

    def get(self, key: RecordKey) -> Entry:
        return self._entries[key]

    def cached(self, key: RecordKey) -> Entry | None:
        return self._entries.get(key)

    def apply(self, changes: Sequence[Change], tx: StoreTransaction) -> None:
        """Append changes to the log and fold them in, each record in stamp order."""
        self.load([RecordKey(change.entity, change.key) for change in changes], tx)
        repeated = tx.append(changes)
        entries, touched, outcomes = self._entries, self.touched, self._outcomes
        for change in sorted(changes, key=_stamp):
            key = RecordKey(change.entity, change.key)
            entry = entries[key]
            touched[key] = entry
            if key in repeated:
                entry.late = True
            elif not advance(entry.record, change, outcomes.setdefault(change.entity, {})):
                entry.late = True
                self._count_late(change)

    @property
    def merges(self) -> dict[tuple[str, str, str, str], int]:
        """How often (entity, field, merge, outcome) happened in this batch."""
        return {(entity, *what): count for entity, counted in self._outcomes.items() for what, count in counted.items()}

    def _count_late(self, change: Change) -> None:
        self.late += 1
        units = self._units[change.entity]
        for field in change.fields:
            plan = units.entity.fields.get(field) or units.group_of.get(field)
            if plan is not None:
                counted = self._outcomes.setdefault(change.entity, {})
                counted[(plan.name, plan.merge, "late")] = counted.get((plan.name, plan.merge, "late"), 0) + 1

    def refold(self, tx: StoreTransaction) -> None:
        """Fold again every touched record that received a late change."""
        late = [key for key, entry in self.touched.items() if entry.late]
        if not late:
            return
        histories = tx.histories(late)
        for key in late:
            entry = self.touched[key]
            entry.record = self._folded(key, histories[key])
            entry.late = False

    def forget(self, keys: Iterable[RecordKey], tx: StoreTransaction) -> None:
        """The log lost part of these records' histories (an unfinished first copy): fold them from what is left."""
        wanted = list(keys)
        for key in wanted:
            self._entries.pop(key, None)
        self.load(wanted, tx)
        for key in wanted:
            self.touched[key] = self._entries[key]

    def shrink(self) -> None:
        """Forget the records that were used longest ago, down to the capacity."""
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def entities(self) -> Mapping[str, Units]:
        return self._units
