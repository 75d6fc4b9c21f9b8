"""RecordCache that may not share a value: who holds which digest, and what is asked about those that match.

The index is in the store and commits with the batch, so that it always says what the open questions rest on: whatever
the order of arrival, the batches or the restarts, the same records are asked about. A batch looks at the records it
touched and at those that matched one of them before. When the rules have changed, records not yet judged again
(rejudging.py) match by the earlier ones, unless one that matched them is.
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
from cdc_merge.merge.record_state import Record
from cdc_merge.model import Conflict, DetectedConflict, RecordKey
from cdc_merge.model.ports import NO_DIGESTS, Store, StoreTransaction
from cdc_merge.worker.record_cache import CachedRecord, RecordCache

# A record has few conflicts; those that people have answered are among them.
TOLD: Final = 1_000


class UniqueIndex:
    """The duplicates of one worker. `review` belongs into a batch, when all its records are folded."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def review(
        self,
        tx: StoreTransaction,
        eventful: Mapping[RecordKey, CachedRecord],
        records: RecordCache,
        judged: tuple[Mapping[str, Rulebook], LifecycleContext],
    ) -> Iterator[Conflict]:
        """The duplicates that the batch's records raise, change or end. `eventful`: those of which anything may be asked."""
        rulebooks, moment = judged
        touched: dict[str, dict[str, CachedRecord]] = {}
        for key, entry in eventful.items():
            if rulebooks[key.entity].unique or _was_asked(entry) or has_duplicate_rows(entry.record):
                touched.setdefault(key.entity, {})[key.key] = entry
        for entity, entries in touched.items():
            for conflict in _Entity(entity, tx, records, rulebooks[entity]).reviewed(entries, moment):
                is_raised = conflict.status == "settling" and conflict.revision == 1
                if not (is_raised and is_dismissed(conflict.detected, self._told(conflict.detected))):
                    yield conflict

    def _told(self, asked: DetectedConflict) -> list[Conflict]:
        return self._store.conflicts({"entity": asked.entity, "key": asked.key, "kind": KIND}, None, TOLD)


class _Entity:
    """One entity's records and index in one batch."""

    def __init__(self, name: str, tx: StoreTransaction, records: RecordCache, rulebook: Rulebook) -> None:
        self._name = name
        self._tx = tx
        self._records = records
        self._rulebook = rulebook
        self._keys: dict[bytes, list[str]] = {}

    # ------------------------------------------------------------ the index

    def digests_of(self, key: str) -> Iterable[bytes]:
        record = RecordKey(self._name, key)
        return self._tx.digests_of([record]).get(record, NO_DIGESTS)

    def keys_with(self, digest: bytes) -> list[str]:
        found = self._keys.get(digest)
        if found is None:
            found = self._keys[digest] = self._tx.keys_with(self._name, digest, MOST_RECORDS)
        return found

    def _save(self, held: Mapping[str, frozenset[bytes]]) -> dict[str, frozenset[bytes]]:
        """What these records hold from here on. What those of them that gave something up held of it."""
        named = {RecordKey(self._name, key): its for key, its in held.items()}
        kept = self._tx.digests_of(named)
        self._tx.save_digests({key: its for key, its in named.items() if its != kept.get(key, NO_DIGESTS)})
        return {key.key: its - named[key] for key, its in kept.items() if its - named[key]}

    # ------------------------------------------------------------ what is asked

    def reviewed(self, entries: Mapping[str, CachedRecord], moment: LifecycleContext) -> Iterator[Conflict]:
        suspects = self._suspects(entries)
        sets = {connected(key, self) for key in suspects}
        known = self._known(suspects | {key for keys in sets for key in keys})
        found = [each for keys in sets if (each := self._question(keys)) is not None]
        return duplicate_transitions(known, found, moment, is_decided=self._is_decided)

    def _suspects(self, entries: Mapping[str, CachedRecord]) -> set[str]:
        """The records whose sets may have changed; the index is up to date from here on. Who held what a record gave up
        is looked at as well: when rules change, a set moves as one."""
        latest = {key: self._held(entry.record, self._count) for key, entry in entries.items()}
        found = {key for key, entry in entries.items() if _was_asked(entry) or has_duplicate_rows(entry.record)}
        done = dict[str, frozenset[bytes]]()
        while latest:
            left = self._save(latest)
            done |= latest
            near = {key for gone in left.values() for digest in gone for key in self.keys_with(digest)}
            found |= left.keys() | near
            others = sorted(near - done.keys())
            records = self._loaded(others)
            latest = {key: self._held(record, _uncounted) for key, record in zip(others, records, strict=True)}
        self._keys.clear()
        return found | {key for key, its in done.items() if any(len(self.keys_with(each)) > 1 for each in its)}

    def _held(self, record: Record, count: Callable[[str, str], None]) -> frozenset[bytes]:
        return frozenset(digests(record, self._rulebook.unique, count))

    def _count(self, rule: str, said: str) -> None:
        self._rulebook.tally[rule, said] += 1

    def _question(self, keys: Sequence[str]) -> DetectedConflict | None:
        """What is asked about records that match, as far as they do by the present rules."""
        records = self._loaded(keys)
        held = [digests(record, self._rulebook.unique, _uncounted) for record in records]
        holders = Counter(digest for its in held for digest in its)
        rules = [tuple(rule for digest, rule in its.items() if holders[digest] > 1) for its in held]
        both = zip(records, rules, strict=True)
        return detected_duplicate(
            [Member(record, its) for record, its in both if its or has_duplicate_rows(record)], self._rulebook
        )

    def _known(self, keys: Iterable[str]) -> list[Conflict]:
        """The unfinished duplicates that stand under these keys."""
        found = self._tx.open_conflicts([RecordKey(self._name, key) for key in sorted(keys)])
        return [conflict for several in found.values() for conflict in several if conflict.detected.kind == KIND]

    def _is_decided(self, conflict: Conflict) -> bool:
        return any(decided_by_people(each, conflict.detected) for each in self._loaded(conflict.detected.records))

    def _loaded(self, keys: Sequence[str]) -> list[Record]:
        wanted = [RecordKey(self._name, key) for key in keys]
        self._records.load(wanted, self._tx)
        return [self._records.get(key).record for key in wanted]


def _was_asked(entry: CachedRecord) -> bool:
    return any(conflict.detected.kind == KIND for conflict in entry.known.values())


def _uncounted(rule: str, said: str) -> None:
    """Counted when its record was touched."""
