"""Duplicate detection between records: an index of the digests that unique rules give, and the conflicts of those that match.

The index is in the store and commits with the batch, so it always agrees with the open conflicts: whatever the order of
arrival, the batches or the restarts, the same records are in conflict. A batch looks at the records it touched and at those
that matched one of them before. When the rules have changed, records that wait for their re-evaluation (reevaluation.py)
match by the earlier rules, unless one that matched them is evaluated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from cdc_merge.conflicts.lifecycle import LifecycleContext, decided_by_people
from cdc_merge.conflicts.rules.duplicate import (
    KIND,
    MOST_RECORDS,
    Member,
    connected,
    detected_duplicate,
    duplicate_transitions,
    has_duplicate_rows,
    is_dismissed,
)
from cdc_merge.conflicts.rules.rulebook import Rulebook
from cdc_merge.conflicts.rules.unique import digests
from cdc_merge.conflicts.tracked_record import LoadRecords, TrackedRecord
from cdc_merge.merge.record_state import Record
from cdc_merge.model import Conflict, DetectedConflict, RecordKey
from cdc_merge.model.ports import NO_DIGESTS, Store, StoreTransaction

# A record has few conflicts; those that people have decided are among them.
CONFLICTS_READ: Final = 1_000


class UniqueIndex:
    """`transitions` belongs into a batch, when all its records are folded."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def transitions(
        self,
        tx: StoreTransaction,
        tracked: Mapping[RecordKey, TrackedRecord],
        load: LoadRecords,
        rulebooks: Mapping[str, Rulebook],
        context: LifecycleContext,
    ) -> Iterator[Conflict]:
        """The duplicates that these records raise, change or close."""
        by_entity: dict[str, dict[str, TrackedRecord]] = {}
        for key, entry in tracked.items():
            if rulebooks[key.entity].unique or _has_duplicate_conflict(entry) or has_duplicate_rows(entry.record):
                by_entity.setdefault(key.entity, {})[key.key] = entry
        for entity, entries in by_entity.items():
            for conflict in _EntityIndex(entity, tx, load, rulebooks[entity]).transitions(entries, context):
                is_raised = conflict.status == "settling" and conflict.revision == 1
                if not (is_raised and is_dismissed(conflict.detected, self._earlier(conflict.detected))):
                    yield conflict

    def _earlier(self, detected: DetectedConflict) -> list[Conflict]:
        """The duplicates recorded earlier under the same key."""
        where = {"entity": detected.entity, "key": detected.key, "kind": KIND}
        return self._store.conflicts(where, None, CONFLICTS_READ)


class _EntityIndex:
    """One entity's records and index in one batch."""

    def __init__(self, entity: str, tx: StoreTransaction, load: LoadRecords, rulebook: Rulebook) -> None:
        self._entity = entity
        self._tx = tx
        self._load = load
        self._rulebook = rulebook
        self._keys: dict[bytes, list[str]] = {}

    # ------------------------------------------------------------ the index

    def digests_of(self, key: str) -> Iterable[bytes]:
        record = RecordKey(self._entity, key)
        return self._tx.digests_of([record]).get(record, NO_DIGESTS)

    def keys_with(self, digest: bytes) -> list[str]:
        keys = self._keys.get(digest)
        if keys is None:
            keys = self._keys[digest] = self._tx.keys_with(self._entity, digest, MOST_RECORDS)
        return keys

    def _save(self, digests_by_key: Mapping[str, frozenset[bytes]]) -> dict[str, frozenset[bytes]]:
        """Save these records' digests. The digests that records gave up, of those that gave up any."""
        after = {RecordKey(self._entity, key): its for key, its in digests_by_key.items()}
        before = self._tx.digests_of(after)
        self._tx.save_digests({key: its for key, its in after.items() if its != before.get(key, NO_DIGESTS)})
        return {key.key: its - after[key] for key, its in before.items() if its - after[key]}

    # ------------------------------------------------------------ detection

    def transitions(self, entries: Mapping[str, TrackedRecord], context: LifecycleContext) -> Iterator[Conflict]:
        suspects = self._update(entries)
        sets = {connected(key, self) for key in suspects}
        unfinished = self._unfinished(suspects | {key for keys in sets for key in keys})
        duplicates = [each for keys in sets if (each := self._detect(keys)) is not None]
        return duplicate_transitions(unfinished, duplicates, context, is_decided=self._is_decided)

    def _update(self, entries: Mapping[str, TrackedRecord]) -> set[str]:
        """Bring the index up to date. The records whose sets may have changed. Records that share a digest which another
        one gave up are updated as well: when rules change, a set moves as one."""
        pending = {key: self._digests(entry.record, self._count) for key, entry in entries.items()}
        suspects = {
            key for key, entry in entries.items() if _has_duplicate_conflict(entry) or has_duplicate_rows(entry.record)
        }
        updated = dict[str, frozenset[bytes]]()
        while pending:
            given_up = self._save(pending)
            updated |= pending
            sharing = {key for its in given_up.values() for digest in its for key in self.keys_with(digest)}
            suspects |= given_up.keys() | sharing
            others = sorted(sharing - updated.keys())
            records = self._records(others)
            pending = {key: self._digests(record, _uncounted) for key, record in zip(others, records, strict=True)}
        self._keys.clear()
        return suspects | {key for key, its in updated.items() if any(len(self.keys_with(each)) > 1 for each in its)}

    def _digests(self, record: Record, count: Callable[[str, str], None]) -> frozenset[bytes]:
        return frozenset(digests(record, self._rulebook.unique, count))

    def _count(self, rule: str, outcome: str) -> None:
        self._rulebook.tally[rule, outcome] += 1

    def _detect(self, keys: Sequence[str]) -> DetectedConflict | None:
        """The conflict of records that match, as far as they match by the present rules."""
        records = self._records(keys)
        digests_of_each = [digests(record, self._rulebook.unique, _uncounted) for record in records]
        sharing = Counter(digest for its in digests_of_each for digest in its)
        rules = [tuple(rule for digest, rule in its.items() if sharing[digest] > 1) for its in digests_of_each]
        both = zip(records, rules, strict=True)
        return detected_duplicate(
            [Member(record, its) for record, its in both if its or has_duplicate_rows(record)], self._rulebook
        )

    def _unfinished(self, keys: Iterable[str]) -> list[Conflict]:
        """The unfinished duplicates that stand under these keys."""
        conflicts = self._tx.open_conflicts([RecordKey(self._entity, key) for key in sorted(keys)])
        return [conflict for its in conflicts.values() for conflict in its if conflict.detected.kind == KIND]

    def _is_decided(self, conflict: Conflict) -> bool:
        return any(decided_by_people(each, conflict.detected) for each in self._records(conflict.detected.records))

    def _records(self, keys: Sequence[str]) -> list[Record]:
        return self._load([RecordKey(self._entity, key) for key in keys])


def _has_duplicate_conflict(entry: TrackedRecord) -> bool:
    return any(conflict.detected.kind == KIND for conflict in entry.unfinished.values())


def _uncounted(rule: str, outcome: str) -> None:
    """Counted already, when its record was touched."""
