"""A store in memory: for tests, rehearsals and pure replays. What it forgets on exit is everything.

Rules: the same contract as the stores on disk. A transaction works on a copy of what it touches and publishes it in one
step. `Disk` is what outlives a worker: a second store on the same disk sees what the first one committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Lock
from typing import Final, TypeVar

from cdc_merge.errors import NotFound, StoreUnavailable
from cdc_merge.model import Change, Checkpoint, Conflict, Missing, Place, Position, RecordKey, Stamp, StoreFigures
from cdc_merge.model.ports import NO_DIGESTS, NOTHING_FOLDED, PRUNED_SLOT
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.conflict_filters import CLOSED, FILTERS, OPEN, matches
from cdc_merge.stores.memory.quarantine import Kept, Quarantine, awaited, counts

K = TypeVar("K")
V = TypeVar("V")
_Trail = dict[Place, Change]
_Slots = dict[int, Checkpoint]

_in_order: Final = itemgetter(2, 3)


@dataclass(slots=True)
class Disk:
    """What is committed, who may write, and the lock under which both change hands."""

    trails: dict[RecordKey, _Trail] = field(default_factory=dict)
    checkpoints: dict[RecordKey, _Slots] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    conflicts: dict[str, Conflict] = field(default_factory=dict)
    positions: dict[str, tuple[Position, Stamp]] = field(default_factory=dict)
    orders: dict[str, SourceOrders] = field(default_factory=dict)
    identities: dict[tuple[str, str, str], str] = field(default_factory=dict)
    deadlines: dict[RecordKey, int] = field(default_factory=dict)
    digests: dict[RecordKey, frozenset[bytes]] = field(default_factory=dict)
    holders: dict[tuple[str, bytes], frozenset[str]] = field(default_factory=dict)
    evaluated: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    missing: dict[RecordKey, Mapping[str, int]] = field(default_factory=dict)
    parked: Kept = ()
    claimed: tuple[object, str] | None = None
    lock: Lock = field(default_factory=Lock)
    writing: Lock = field(default_factory=Lock)


class MemoryTransaction:
    """ports.StoreTransaction over a disk: `changed` parts lie on top of the committed ones until `publish`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._trails: dict[RecordKey, _Trail] = {}
        self._bases: dict[RecordKey, _Slots] = {}
        self._lost: set[str] = set()
        self._conflicts: dict[str, Conflict] = {}
        self._positions: dict[str, tuple[Position, Stamp]] = {}
        self._orders: dict[str, SourceOrders] = {}
        self._identities: dict[tuple[str, str, str], str | None] = {}
        self._due: dict[RecordKey, int | None] = {}
        self._digests: dict[RecordKey, frozenset[bytes]] = {}
        self._holders: dict[tuple[str, bytes], frozenset[str]] = {}
        self._judged: dict[str, tuple[str, str | None]] = {}
        self._missing: dict[RecordKey, Mapping[str, int] | None] = {}
        self._parking = parking = Quarantine(disk.parked)
        self.quarantine, self.release_quarantined, self.awaited_identities = (
            parking.quarantine,
            parking.release_quarantined,
            parking.awaited_identities,
        )
        self.forget_quarantined, self.forget_quarantined_before = (
            parking.forget_quarantined,
            parking.forget_quarantined_before,
        )

    def histories(
        self, keys: Iterable[RecordKey], after: Mapping[RecordKey, Stamp] = NOTHING_FOLDED
    ) -> Mapping[RecordKey, list[Change]]:
        return {RecordKey(*key): _ordered(self._trail(RecordKey(*key)), after.get(key)) for key in keys}

    def checkpoints(self, wanted: Mapping[RecordKey, Stamp | None]) -> dict[RecordKey, Checkpoint]:
        found = {key: _newest(self._slots(key), before) or self.pruned(key) for key, before in wanted.items()}
        return {key: base for key, base in found.items() if base is not None}

    def save_checkpoint(self, key: RecordKey, base: Checkpoint, slot: int) -> None:
        self._own_slots(key)[slot] = base._replace(pruned=slot == PRUNED_SLOT)

    def promote_checkpoint(self, key: RecordKey, slot: int) -> None:
        slots = self._own_slots(key)
        if slot in slots:
            slots[slot + 1] = slots.pop(slot)

    def forget_checkpoints(self, key: RecordKey, since: Stamp) -> None:
        slots = self._own_slots(key)
        self._bases[key] = {slot: base for slot, base in slots.items() if base.pruned or base.stamp < since}

    def append(self, changes: Iterable[Change]) -> set[RecordKey]:
        repeated: set[RecordKey] = set()
        for change in changes:
            record = RecordKey(change.entity, change.key)
            trail = self._trails.get(record)
            if trail is None:
                trail = self._trails[record] = dict(self._disk.trails.get(record, {}))
            stored = trail.get(change.place)
            if stored is not None:
                repeated.add(record)
            if stored is None or change.stamp < stored.stamp:
                trail[change.place] = change
        return repeated

    def stamps_of(self, key: RecordKey, places: Iterable[Place]) -> list[Stamp]:
        trail = self._trail(key)
        return [trail[place].stamp for place in places if place in trail]

    def pruned(self, key: RecordKey) -> Checkpoint | None:
        return self._slots(key).get(PRUNED_SLOT)

    def save_pruned_checkpoint(self, key: RecordKey, base: Checkpoint) -> None:
        kept = {slot: each for slot, each in self._slots(key).items() if each.stamp > base.stamp}
        self._bases[key] = kept | {PRUNED_SLOT: base._replace(pruned=True)}

    def oldest(self, limit: int) -> list[tuple[RecordKey, Stamp]]:
        return [(record, change.stamp) for record, change in self._in_order()[: min(limit, len(self._in_order()) - 1)]]

    def forget_oldest(self, count: int) -> None:
        for record, change in self._in_order()[:count]:
            trail = self._trail(record)
            self._trails[record] = {place: each for place, each in trail.items() if place != change.place}

    def forget_record(self, key: RecordKey) -> None:
        self._trails[key], self._bases[key] = {}, {}
        self._lost.add(key.entity)

    def _in_order(self) -> list[tuple[RecordKey, Change]]:
        records = self._disk.trails.keys() | self._trails.keys()
        log = [(record, change) for record in records for change in self._trail(record).values()]
        return sorted(log, key=lambda entry: entry[1].stamp)

    def open_conflicts(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Conflict]]:
        found: dict[RecordKey, list[Conflict]] = {RecordKey(*key): [] for key in keys}
        for conflict in (self._disk.conflicts | self._conflicts).values():
            record = RecordKey(conflict.detected.entity, conflict.detected.key)
            if record in found and conflict.status != CLOSED:
                found[record].append(conflict)
        return found

    def save_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        self._conflicts.update((conflict.id, conflict) for conflict in conflicts)

    def save_position(self, source: str, position: Position, clock: Stamp) -> None:
        self._positions[source] = (position, clock)

    def save_orders(self, source: str, orders: SourceOrders) -> None:
        self._orders[source] = orders

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        found = {identity: self._key_of((source, table, identity)) for identity in identities}
        return {identity: key for identity, key in found.items() if key is not None}

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        self._identities.update({(source, table, identity): key for identity, key in changes.items()})

    def save_deadlines(self, due: Mapping[RecordKey, int | None]) -> None:
        self._due.update(due)

    def digests_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, frozenset[bytes]]:
        return {RecordKey(*key): found for key in keys if (found := self._digests_of(key))}

    def keys_with(self, entity: str, digest: bytes, limit: int) -> list[str]:
        return sorted(self._holders_of((entity, digest)))[:limit]

    def save_digests(self, digests: Mapping[RecordKey, frozenset[bytes]]) -> None:
        for key, held in digests.items():
            for digest in self._digests_of(key) ^ held:
                named = (key.entity, digest)
                self._holders[named] = self._holders_of(named) ^ {key.key}
            self._digests[key] = held

    def _digests_of(self, key: RecordKey) -> frozenset[bytes]:
        return self._digests[key] if key in self._digests else self._disk.digests.get(key, NO_DIGESTS)

    def _holders_of(self, named: tuple[str, bytes]) -> frozenset[str]:
        return self._holders[named] if named in self._holders else self._disk.holders.get(named, frozenset())

    def save_evaluated(self, entity: str, policy: str, reached: str | None) -> None:
        self._judged[entity] = (policy, reached)

    def missing_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, Mapping[str, int]]:
        kept: dict[RecordKey, Mapping[str, int] | None] = {**self._disk.missing, **self._missing}
        return {RecordKey(*key): found for key in keys if (found := kept.get(RecordKey(*key)))}

    def save_missing(self, missing: Mapping[RecordKey, Mapping[str, int]]) -> None:
        self._missing.update({key: sources or None for key, sources in missing.items()})

    def forget_missing(self, entity: str) -> None:
        self._missing.update({key: None for key in {**self._disk.missing, **self._missing} if key.entity == entity})

    def forget_source(self, source: str) -> list[RecordKey]:
        touched = []
        for record in sorted(self._disk.trails.keys() | self._trails.keys()):
            trail = self._trail(record)
            kept = {place: change for place, change in trail.items() if not _clock_of(source, change.stamp)}
            if len(kept) < len(trail):
                self._trails[record] = kept
                self._bases[record] = {slot: base for slot, base in self._slots(record).items() if base.pruned}
                touched.append(record)
        known = self._disk.identities.keys() | self._identities.keys()
        self._identities.update({name: None for name in known if name[0] == source})
        self._parking.forget_quarantined_of(source)
        return touched

    def publish(self) -> None:
        disk = self._disk
        with disk.lock:
            known = {record: trail if trail or self._slots(record) else None for record, trail in self._trails.items()}
            _lay_over(disk.trails, known)
            disk.lost.update(self._lost)
            _lay_over(disk.checkpoints, {record: slots or None for record, slots in self._bases.items()})
            _lay_over(disk.identities, self._identities)
            disk.conflicts.update(self._conflicts)
            disk.positions.update(self._positions)
            disk.orders.update(self._orders)
            _lay_over(disk.deadlines, self._due)
            _lay_over(disk.digests, {key: held or None for key, held in self._digests.items()})
            _lay_over(disk.holders, {named: keys or None for named, keys in self._holders.items()})
            disk.evaluated.update(self._judged)
            _lay_over(disk.missing, self._missing)
            disk.parked = self._parking.kept

    def _trail(self, record: RecordKey) -> _Trail:
        return self._trails[record] if record in self._trails else self._disk.trails.get(record, {})

    def _slots(self, record: RecordKey) -> _Slots:
        return self._bases[record] if record in self._bases else self._disk.checkpoints.get(record, {})

    def _own_slots(self, record: RecordKey) -> _Slots:
        if record not in self._bases:
            self._bases[record] = dict(self._disk.checkpoints.get(record, {}))
        return self._bases[record]

    def _key_of(self, name: tuple[str, str, str]) -> str | None:
        return self._identities[name] if name in self._identities else self._disk.identities.get(name)


class MemoryStore:
    """ports.Store over a `Disk`, its own unless one is given."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = Disk() if disk is None else disk
        self._closed = False

    def claim(self, owner: str) -> None:
        with self._disk.lock:
            self._refuse_when_closed()
            if self._disk.claimed not in (None, (self, owner)):
                raise StoreUnavailable(
                    f"the store is held by {self._disk.claimed[1]}",
                    hint="One worker writes to a store; close it before another one claims it.",
                )
            self._disk.claimed = (self, owner)

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        with self._disk.writing:
            if self._disk.claimed is None or self._disk.claimed[0] is not self:
                self.claim("no name given")
            batch = MemoryTransaction(self._disk)
            yield batch
            batch.publish()

    def positions(self) -> Mapping[str, tuple[Position, Stamp]]:
        with self._reading() as disk:
            return dict(disk.positions)

    def orders(self) -> Mapping[str, SourceOrders]:
        with self._reading() as disk:
            return dict(disk.orders)

    def history(self, record: RecordKey) -> list[Change]:
        with self._reading() as disk:
            return _ordered(disk.trails.get(record, {}))

    def history_page(self, record: RecordKey, after: tuple[Stamp, int] | None, limit: int) -> list[Change]:
        history = self.history(record)
        if after is not None:
            stamp, given = after
            history = [change for change in history if change.stamp >= stamp][given:]
        return history[:limit]

    def folded(
        self, record: RecordKey, until: Stamp | None = None, *, whole: bool = False
    ) -> tuple[Checkpoint | None, list[Change]]:
        with self._reading() as disk:
            slots = disk.checkpoints.get(record, {})
            base = (None if whole else _newest(slots, until)) or slots.get(PRUNED_SLOT)
            return base, _ordered(disk.trails.get(record, {}), base.stamp if base else None)

    def records(self, entity: str, after: str | None, limit: int) -> list[str]:
        with self._reading() as disk:
            keys = (key for name, key in disk.trails if name == entity and (after is None or key > after))
            return sorted(keys)[:limit]

    def conflict(self, conflict_id: str) -> Conflict | None:
        with self._reading() as disk:
            return disk.conflicts.get(conflict_id)

    def conflicts(self, where: Mapping[str, str], after: str | None, limit: int) -> list[Conflict]:
        """As ports.Store says; NotFound when `after` is no conflict's id."""
        assert where.keys() <= FILTERS.keys(), f"no such filters: {sorted(where.keys() - FILTERS.keys())}"
        with self._reading() as disk:
            ids = list(disk.conflicts)
            if after is not None and after not in disk.conflicts:
                raise NotFound(
                    "the list cannot go on after a conflict that is not in it", hint="Start again without a cursor."
                )
            begin = 0 if after is None else ids.index(after) + 1
            found = (disk.conflicts[each] for each in ids[begin:])
            return [conflict for conflict in found if matches(conflict, where)][:limit]

    def unfinished_conflicts(self) -> Iterator[Conflict]:
        with self._reading() as disk:
            unfinished = [conflict for conflict in disk.conflicts.values() if conflict.status != CLOSED]
        yield from unfinished

    def awaited_identities(self) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
        with self._reading() as disk:
            return awaited(disk.parked)

    def parked(self) -> Mapping[tuple[str, str], int]:
        with self._reading() as disk:
            return counts(disk.parked)

    def deadlines(self) -> Mapping[RecordKey, int]:
        with self._reading() as disk:
            return dict(disk.deadlines)

    def evaluated(self) -> Mapping[str, tuple[str, str | None]]:
        with self._reading() as disk:
            return dict(disk.evaluated)

    def missing(self, where: tuple[str, str | None], after: str | None, limit: int) -> list[Missing]:
        entity, wanted = where
        with self._reading() as disk:
            kept = sorted(key for key in disk.missing if key.entity == entity and (after is None or key.key > after))
            found = [[Missing(*key, *each) for each in sorted(disk.missing[key].items())] for key in kept]
        named = [[each for each in several if wanted in (None, each.source)] for several in found]
        return [each for several in [several for several in named if several][:limit] for each in several]

    def lost(self) -> frozenset[str]:
        with self._reading() as disk:
            return frozenset(disk.lost)

    def figures(self) -> StoreFigures:
        with self._reading() as disk:
            history_changes = sum(map(len, disk.trails.values()))
            open_ones = [conflict for conflict in disk.conflicts.values() if conflict.status == OPEN]
        count: dict[tuple[str, str, str], int] = {}
        oldest: dict[tuple[str, str], int] = {}
        for conflict in open_ones:
            question = conflict.detected
            kind, since = (question.entity, question.kind, question.severity), (question.entity, question.severity)
            count[kind] = count.get(kind, 0) + 1
            oldest[since] = min(conflict.raised_us, oldest.get(since, conflict.raised_us))
        missing = Counter((key.entity, source) for key, sources in disk.missing.items() for source in sources)
        return StoreFigures(
            history_changes=history_changes,
            conflicts_open=count,
            oldest_open_us=oldest,
            missing=dict(missing),
            parked=self.parked(),
        )

    def close(self) -> None:
        """Let go of the claim; the disk stays for the next store on it."""
        with self._disk.writing, self._disk.lock:
            self._closed = True
            if self._disk.claimed and self._disk.claimed[0] is self:
                self._disk.claimed = None

    @contextmanager
    def _reading(self) -> Iterator[Disk]:
        with self._disk.lock:
            self._refuse_when_closed()
            yield self._disk

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed", hint="Ask again when the sidecar is running.")


def _ordered(trail: _Trail, after: Stamp | None = None) -> list[Change]:
    changes = trail.values() if after is None else [change for change in trail.values() if change.stamp > after]
    return sorted(changes, key=_in_order)


def _newest(slots: _Slots, before: Stamp | None) -> Checkpoint | None:
    stamped = [base for base in slots.values() if before is None or base.stamp < before]
    return max(stamped, key=itemgetter(0), default=None)


def _clock_of(source: str, stamp: Stamp) -> bool:
    """A source's clocks are its name, or its name and a partition (semantics §2)."""
    return stamp.source == source or stamp.source.startswith(f"{source}/")


def _lay_over(committed: dict[K, V], changed: Mapping[K, V | None]) -> None:
    for name, value in changed.items():
        if value is None:
            committed.pop(name, None)
        else:
            committed[name] = value
