"""Record states between batches: a bounded cache over the log. A record outside it is folded from its checkpoint and the
changes after that, so a change costs the same however long the history is.

Nothing here is truth. A batch that fails clears the cache, and every state can be folded again from the log. A late change
needs no watermark: it drops the checkpoints that lack it, and its record is folded from the one before.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter

from cdc_merge.conflicts.tracked_record import TrackedRecord
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Outcomes, Record
from cdc_merge.merge.replay import fold_from_checkpoint, policy_of
from cdc_merge.merge.units import Units
from cdc_merge.model import DELETE, UPDATE, Change, Conflict, RecordKey, Stamp
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker.checkpoint_ladder import CheckpointLadder
from cdc_merge.worker.limits import DEFAULT_LIMITS, Limits

_stamp = attrgetter("stamp")
# Once per change: tuple.__new__ makes the same value as the class in half the time.
_new_tuple = tuple.__new__


class CachedRecord(TrackedRecord):
    """`checkpoint_number`: of its newest checkpoint. `changes_since`: the changes folded after that. `late_since`: the earliest
    change that arrived out of order since it was folded."""

    __slots__ = ("changes_since", "checkpoint_number", "late_since")

    def __init__(
        self, record: Record, unfinished: Iterable[Conflict], checkpoint_number: int, changes_since: int
    ) -> None:
        super().__init__(record, unfinished)
        self.checkpoint_number = checkpoint_number
        self.changes_since = changes_since
        self.late_since: Stamp | None = None

    @property
    def has_lost_updates(self) -> bool:
        """Lost updates wait to be recorded; a checkpoint would drop them."""
        return any(state.lost_updates for state in self.record.unit_states.values())


class RecordCache:
    """`touched`: the records of the batch. Its counts: `late_changes`, `loads` by origin (until they are published), changes
    of records without history (`unseen`) and changes older than the pruned history (`before_pruned`), by source and entity."""

    def __init__(self, plan: Plan, limits: Limits = DEFAULT_LIMITS) -> None:
        self._units = {name: Units(entity) for name, entity in plan.entities.items()}
        self._max_ahead_us = plan.max_ahead_us
        self._checkpoints = CheckpointLadder(policy_of(plan))
        self._limits = limits
        self._entries: OrderedDict[RecordKey, CachedRecord] = OrderedDict()
        self.touched: dict[RecordKey, CachedRecord] = {}
        self._outcomes: defaultdict[str, Outcomes] = defaultdict(list)
        self.late_changes = 0
        self.loads: Counter[str] = Counter()
        self.unseen: list[tuple[str, str]] = []
        self.before_pruned: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self) -> None:
        """A batch begins: nothing is touched, nothing counted."""
        self.touched = {}
        self._outcomes = defaultdict(list)
        self.late_changes = 0
        self.unseen, self.before_pruned = [], []

    def clear(self) -> None:
        """A batch failed: states in memory may be ahead of the log."""
        self._entries.clear()
        self.begin()

    # ------------------------------------------------------------ reading

    def load(self, keys: Iterable[RecordKey], tx: StoreTransaction) -> None:
        """Bring records into the cache; those with no history yet begin empty."""
        entries = self._entries
        wanted = dict.fromkeys(keys)
        uncached = []
        for key in wanted:
            if key in entries:
                entries.move_to_end(key)
            else:
                uncached.append(key)
        self.loads["memory"] += len(wanted) - len(uncached)
        if not uncached:
            return
        self.loads["store"] += len(uncached)
        conflicts = tx.open_conflicts(uncached)
        for key, (record, number, changes) in self._folded(dict.fromkeys(uncached), tx):
            entry = entries[key] = CachedRecord(record, conflicts.get(key, ()), number, changes)
            self._checkpoint_if(key, entry, tx, is_due=changes > self._limits.checkpoint_when_read)

    def states(self, keys: Sequence[RecordKey], tx: StoreTransaction) -> list[Record]:
        """The states of these records, in the same order."""
        self.load(keys, tx)
        return [self._entries[key].record for key in keys]

    def _folded(
        self, wanted: Mapping[RecordKey, Stamp | None], tx: StoreTransaction
    ) -> Iterator[tuple[RecordKey, tuple[Record, int, int]]]:
        """Records from their newest checkpoint (before the stamp, where one is given) and the changes after it: each with the
        number of that checkpoint and the count of folded changes."""
        checkpoints = self._checkpoints.newest(wanted, tx)
        histories = tx.histories(wanted, {key: checkpoint.stamp for key, checkpoint in checkpoints.items()})
        for key in wanted:
            checkpoint, history = checkpoints.get(key), histories.get(key, ())
            units = self._units[key.entity]
            record = fold_from_checkpoint(units, key.key, (checkpoint, history), max_ahead_us=self._max_ahead_us)
            yield key, (record, 0 if checkpoint is None else checkpoint.number, len(history))

    def get(self, key: RecordKey) -> CachedRecord:
        return self._entries[key]

    def cached(self, key: RecordKey) -> CachedRecord | None:
        return self._entries.get(key)

    # ------------------------------------------------------------ folding

    def apply(self, changes: Sequence[Change], tx: StoreTransaction) -> None:
        """Append changes to the log and fold them in, each record in stamp order."""
        self.load([_new_tuple(RecordKey, change[:2]) for change in changes], tx)
        repeated = tx.append(changes)
        entries, touched, outcomes = self._entries, self.touched, self._outcomes
        for change in sorted(changes, key=_stamp):
            key = _new_tuple(RecordKey, change[:2])
            entry = touched[key] = entries[key]
            if entry.record.last is None and change.operation in (UPDATE, DELETE) and change.copy is None:
                self.unseen.append((change.stamp.source, change.entity))
            if key in repeated:
                entry.late_since = min(entry.late_since or change.stamp, change.stamp)
            elif advance(entry.record, change, outcomes[change.entity]):
                entry.changes_since += 1
            else:
                entry.late_since = min(entry.late_since or change.stamp, change.stamp)
                self._count_late(change)

    def touch(self, keys: Sequence[RecordKey], tx: StoreTransaction) -> None:
        """Detect these records' conflicts in this batch, although no change of it is about them."""
        self.load(keys, tx)
        for key in keys:
            self.touched[key] = self._entries[key]

    @property
    def merges(self) -> dict[tuple[str, str, str, str], int]:
        """How often (entity, field, merge, outcome) happened in this batch."""
        return {
            (entity, *outcome): count
            for entity, outcomes in self._outcomes.items()
            for outcome, count in Counter(outcomes).items()
        }

    def _count_late(self, change: Change) -> None:
        self.late_changes += 1
        units = self._units[change.entity]
        for field in change.fields:
            plan = units.entity.fields.get(field) or units.group_of.get(field)
            if plan is not None:
                self._outcomes[change.entity].append((plan.name, plan.merge, "late"))

    def refold(self, tx: StoreTransaction) -> None:
        """Fold again every touched record that received a late change, and make the checkpoints that are due."""
        late = {key: entry.late_since for key, entry in self.touched.items() if entry.late_since is not None}
        for key, stamp in late.items():
            self._checkpoints.drop_since(key, stamp, tx)
        if late:
            self._count_before_pruned(late, tx)
            for key, (record, number, changes) in self._folded(late, tx):
                entry = self.touched[key]
                entry.record, entry.checkpoint_number, entry.changes_since = record, number, changes
                entry.late_since = None
        for key, entry in self.touched.items():
            self._checkpoint_if(key, entry, tx, is_due=entry.changes_since >= self._limits.checkpoint_after)

    def _count_before_pruned(self, late: Mapping[RecordKey, Stamp], tx: StoreTransaction) -> None:
        """Changes older than their record's pruned history are not merged."""
        for key, stamp in late.items():
            pruned = tx.pruned(key)
            if pruned is not None and stamp <= pruned.stamp:
                self.before_pruned.append((stamp.source, key.entity))

    def _checkpoint_if(self, key: RecordKey, entry: CachedRecord, tx: StoreTransaction, *, is_due: bool) -> None:
        if is_due and not entry.has_lost_updates:
            entry.checkpoint_number += 1
            self._checkpoints.add(key, entry.record, entry.checkpoint_number, tx)
            entry.changes_since = 0

    # ------------------------------------------------------------ evicting

    def fold_again(self, keys: Iterable[RecordKey], tx: StoreTransaction) -> None:
        """The log lost part of these records' histories (an incomplete initial snapshot): fold them from the rest."""
        wanted = list(keys)
        self.evict(wanted)
        self.touch(wanted, tx)

    def evict(self, keys: Iterable[RecordKey]) -> None:
        """Drop these records from the cache."""
        for key in keys:
            self._entries.pop(key, None)

    def shrink(self) -> None:
        """Evict the least recently used records, down to the limit."""
        while len(self._entries) > self._limits.cached_records:
            self._entries.popitem(last=False)

    def entities(self) -> Mapping[str, Units]:
        return self._units
