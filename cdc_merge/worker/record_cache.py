"""Record states between batches: a bounded cache over the log. What is not in it comes back from the record's base and
the changes after it, so that a change costs the same however long the history is.

Nothing here is truth. A batch that fails clears the cache, and every answer can be had again from the log. A base is
made at the end of the history, after some number of changes; earlier ones move up a ladder whose rungs lie ever further
apart. A late change takes with it the bases that should hold it, and folds from the one before it: its cost is a few
times the number of changes it is late by, and no watermark is needed for it to be right.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final

from cdc_merge.conflicts.lifecycle import ConflictIdentity, conflict_identity
from cdc_merge.merge.checkpoint import dump_state
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Outcomes, Record
from cdc_merge.merge.replay import folded, policy_of
from cdc_merge.merge.units import Units
from cdc_merge.model import DELETE, UPDATE, Change, Checkpoint, Conflict, RecordKey, Stamp
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import StoreTransaction

# About 10 kB a record of ten fields: 200 MB. A record beyond it costs one read of its history when it changes again.
CAPACITY = 20_000

# A record that stays in the cache has its base renewed after so many changes. Making one costs as much as folding about
# ten changes; a restart then folds at most so many again.
RENEW_AFTER = 128
# One that had to be read gets a base when more than so many changes were folded to have it.
RENEW_WHEN_READ = 16
# Each slot holds every fourth base of the slot below, so eight of them reach back 2 million changes.
RUNG = 4
LADDER = 8

BEGINNING: Final = Stamp(0, 0, "")

_stamp = attrgetter("stamp")
# Once per change: tuple.__new__ makes the same value as the class in half the time.
_new_tuple = tuple.__new__


class CachedRecord:
    """A record's state and its unfinished conflicts. `late`: the earliest change that came out of order since it was
    folded. `number`: of its newest base; `since`: how many changes were folded after that."""

    __slots__ = ("known", "late", "number", "record", "since")

    def __init__(self, record: Record, known: dict[ConflictIdentity, Conflict], number: int, since: int) -> None:
        self.record = record
        self.known = known
        self.number = number
        self.since = since
        self.late: Stamp | None = None


def _traced(entry: CachedRecord) -> bool:
    """Traces wait to be told; a base would forget them."""
    return any(cell.lost_updates for cell in entry.record.cells.values())


class RecordCache:
    def __init__(self, plan: Plan, capacity: int = CAPACITY) -> None:
        self._units = {name: Units(entity) for name, entity in plan.entities.items()}
        self._max_ahead_us = plan.max_ahead_us
        self._policy = policy_of(plan)
        self.capacity = capacity
        self._entries: OrderedDict[RecordKey, CachedRecord] = OrderedDict()
        self.touched: dict[RecordKey, CachedRecord] = {}
        self._outcomes: defaultdict[str, Outcomes] = defaultdict(list)
        self.late = 0
        self.loads: Counter[str] = Counter()  # by where the state was, until somebody takes the counts
        self.unknown: list[tuple[str, str]] = []
        self.beyond: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self) -> None:
        """A batch begins: nothing is touched, nothing counted."""
        self.touched = {}
        self._outcomes = defaultdict(list)
        self.late = 0
        self.unknown, self.beyond = [], []

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
        self.loads["memory"] += len(wanted) - len(missing)
        if not missing:
            return
        self.loads["store"] += len(missing)
        conflicts = tx.open_conflicts(missing)
        for key, (record, number, since) in self._folded(dict.fromkeys(missing), tx):
            entry = entries[key] = CachedRecord(
                record, {conflict_identity(c.detected): c for c in conflicts.get(key, ())}, number, since
            )
            if since > RENEW_WHEN_READ and not _traced(entry):
                self._renew(key, entry, tx)

    def _folded(
        self, wanted: Mapping[RecordKey, Stamp | None], tx: StoreTransaction
    ) -> Iterator[tuple[RecordKey, tuple[Record, int, int]]]:
        """RecordCache from their newest base (before the stamp, where one is given) and the changes after it: each with the
        number of that base and how many changes were folded."""
        bases = {}
        for key, base in tx.checkpoints(wanted).items():
            if base.pruned or base.policy == self._policy:
                bases[key] = base
            else:
                tx.forget_checkpoints(key, BEGINNING)
        histories = tx.histories(wanted, {key: base.stamp for key, base in bases.items()})
        for key in wanted:
            found, history = bases.get(key), histories.get(key, ())
            record = folded(self._units[key.entity], key.key, (found, history), max_ahead_us=self._max_ahead_us)
            yield key, (record, 0 if found is None else found.number, len(history))

    def get(self, key: RecordKey) -> CachedRecord:
        return self._entries[key]

    def cached(self, key: RecordKey) -> CachedRecord | None:
        return self._entries.get(key)

    def apply(self, changes: Sequence[Change], tx: StoreTransaction) -> None:
        """Append changes to the log and fold them in, each record in stamp order."""
        self.load([_new_tuple(RecordKey, change[:2]) for change in changes], tx)
        repeated = tx.append(changes)
        entries, touched, outcomes = self._entries, self.touched, self._outcomes
        for change in sorted(changes, key=_stamp):
            key = _new_tuple(RecordKey, change[:2])
            entry = touched[key] = entries[key]
            if entry.record.last is None and change.operation in (UPDATE, DELETE) and change.copy is None:
                self.unknown.append((change.stamp.source, change.entity))
            if key in repeated:
                entry.late = min(entry.late or change.stamp, change.stamp)
            elif advance(entry.record, change, outcomes[change.entity]):
                entry.since += 1
            else:
                entry.late = min(entry.late or change.stamp, change.stamp)
                self._count_late(change)

    def touch(self, keys: Sequence[RecordKey], tx: StoreTransaction) -> None:
        """These records are looked at again in this batch, although nothing was written to them."""
        self.load(keys, tx)
        for key in keys:
            self.touched[key] = self._entries[key]

    @property
    def merges(self) -> dict[tuple[str, str, str, str], int]:
        """How often (entity, field, merge, outcome) happened in this batch."""
        return {(entity, *what): n for entity, told in self._outcomes.items() for what, n in Counter(told).items()}

    def _count_late(self, change: Change) -> None:
        self.late += 1
        units = self._units[change.entity]
        for field in change.fields:
            plan = units.entity.fields.get(field) or units.group_of.get(field)
            if plan is not None:
                self._outcomes[change.entity].append((plan.name, plan.merge, "late"))

    def refold(self, tx: StoreTransaction) -> None:
        """Fold again every touched record that received a late change, and renew the bases that are due."""
        late = {key: entry.late for key, entry in self.touched.items() if entry.late is not None}
        for key, stamp in late.items():
            tx.forget_checkpoints(key, stamp)
        if late:
            self._note_beyond(late, tx)
            for key, (record, number, since) in self._folded(late, tx):
                entry = self.touched[key]
                entry.record, entry.number, entry.since, entry.late = record, number, since, None
        for key, entry in self.touched.items():
            if entry.since >= RENEW_AFTER and not _traced(entry):
                self._renew(key, entry, tx)

    def _note_beyond(self, late: Mapping[RecordKey, Stamp], tx: StoreTransaction) -> None:
        """Changes older than what retention has left of their record are not merged."""
        for key, stamp in late.items():
            root = tx.pruned(key)
            if root is not None and stamp <= root.stamp:
                self.beyond.append((stamp.source, key.entity))

    def _renew(self, key: RecordKey, entry: CachedRecord, tx: StoreTransaction) -> None:
        """A base at the end of the history; every fourth of a slot moves up."""
        last = entry.record.last
        assert last is not None, "a base of changes"
        entry.number += 1
        for slot in reversed(range(_rungs(entry.number))):
            tx.promote_checkpoint(key, slot)
        tx.save_checkpoint(key, Checkpoint(last, entry.number, self._policy, dump_state(entry.record)), 0)
        entry.since = 0

    def forget(self, keys: Iterable[RecordKey], tx: StoreTransaction) -> None:
        """The log lost part of these records' histories (an unfinished first copy): fold them from what is left."""
        wanted = list(keys)
        for key in wanted:
            self._entries.pop(key, None)
        self.load(wanted, tx)
        for key in wanted:
            self.touched[key] = self._entries[key]

    def removed(self, keys: Iterable[RecordKey]) -> None:
        """Retention removed these records: nothing is known of them any more."""
        for key in keys:
            self._entries.pop(key, None)

    def shrink(self) -> None:
        """Forget the records that were used longest ago, down to the capacity."""
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)

    def entities(self) -> Mapping[str, Units]:
        return self._units


def _rungs(number: int) -> int:
    """How many slots move up before the base of that number is saved."""
    rungs = 1
    while number % RUNG == 0 and rungs < LADDER:
        number, rungs = number // RUNG, rungs + 1
    return rungs
