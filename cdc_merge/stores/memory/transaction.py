"""A transaction in memory: it works on copies of what it touches and publishes them in one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from cdc_merge.model import Change, Checkpoint, Conflict, Place, Position, RecordKey, Stamp
from cdc_merge.model.ports import NO_DIGESTS, NOTHING_FOLDED, PRUNED_SLOT
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.conflict_filters import CLOSED
from cdc_merge.stores.memory.disk import Disk, Slots, Trail, newest_before, ordered_trail
from cdc_merge.stores.memory.quarantine import QuarantineList

K = TypeVar("K")
V = TypeVar("V")


class MemoryTransaction(QuarantineList):
    """ports.StoreTransaction over a disk: changed parts overlay the committed ones until `publish`."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.parked)
        self._disk = disk
        self._trails: dict[RecordKey, Trail] = {}
        self._checkpoints: dict[RecordKey, Slots] = {}
        self._lost: set[str] = set()
        self._conflicts: dict[str, Conflict] = {}
        self._positions: dict[str, tuple[Position, Stamp]] = {}
        self._orders: dict[str, SourceOrders] = {}
        self._identities: dict[tuple[str, str, str], str | None] = {}
        self._deadlines: dict[RecordKey, int | None] = {}
        self._digests: dict[RecordKey, frozenset[bytes]] = {}
        self._holders: dict[tuple[str, bytes], frozenset[str]] = {}
        self._evaluated: dict[str, tuple[str, str | None]] = {}
        self._missing: dict[RecordKey, Mapping[str, int] | None] = {}

    def histories(
        self, keys: Iterable[RecordKey], after: Mapping[RecordKey, Stamp] = NOTHING_FOLDED
    ) -> Mapping[RecordKey, list[Change]]:
        return {RecordKey(*key): ordered_trail(self._trail(RecordKey(*key)), after.get(key)) for key in keys}

    def checkpoints(self, wanted: Mapping[RecordKey, Stamp | None]) -> dict[RecordKey, Checkpoint]:
        newest = {key: newest_before(self._slots(key), before) or self.pruned(key) for key, before in wanted.items()}
        return {key: checkpoint for key, checkpoint in newest.items() if checkpoint is not None}

    def save_checkpoint(self, key: RecordKey, checkpoint: Checkpoint, slot: int) -> None:
        self._own_slots(key)[slot] = checkpoint._replace(pruned=slot == PRUNED_SLOT)

    def promote_checkpoint(self, key: RecordKey, slot: int) -> None:
        slots = self._own_slots(key)
        if slot in slots:
            slots[slot + 1] = slots.pop(slot)

    def forget_checkpoints(self, key: RecordKey, since: Stamp) -> None:
        slots = self._own_slots(key)
        self._checkpoints[key] = {slot: each for slot, each in slots.items() if each.pruned or each.stamp < since}

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

    def save_pruned_checkpoint(self, key: RecordKey, checkpoint: Checkpoint) -> None:
        later = {slot: each for slot, each in self._slots(key).items() if each.stamp > checkpoint.stamp}
        self._checkpoints[key] = later | {PRUNED_SLOT: checkpoint._replace(pruned=True)}

    def oldest(self, limit: int) -> list[tuple[RecordKey, Stamp]]:
        return [(record, change.stamp) for record, change in self._in_order()[: min(limit, len(self._in_order()) - 1)]]

    def forget_oldest(self, count: int) -> None:
        for record, change in self._in_order()[:count]:
            trail = self._trail(record)
            self._trails[record] = {place: each for place, each in trail.items() if place != change.place}

    def forget_record(self, key: RecordKey) -> None:
        self._trails[key], self._checkpoints[key] = {}, {}
        self._lost.add(key.entity)

    def _in_order(self) -> list[tuple[RecordKey, Change]]:
        records = self._disk.trails.keys() | self._trails.keys()
        log = [(record, change) for record in records for change in self._trail(record).values()]
        return sorted(log, key=lambda entry: entry[1].stamp)

    def open_conflicts(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Conflict]]:
        conflicts: dict[RecordKey, list[Conflict]] = {RecordKey(*key): [] for key in keys}
        for conflict in (self._disk.conflicts | self._conflicts).values():
            record = RecordKey(conflict.detected.entity, conflict.detected.key)
            if record in conflicts and conflict.status != CLOSED:
                conflicts[record].append(conflict)
        return conflicts

    def save_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        self._conflicts.update((conflict.id, conflict) for conflict in conflicts)

    def save_position(self, source: str, position: Position, clock: Stamp) -> None:
        self._positions[source] = (position, clock)

    def save_orders(self, source: str, orders: SourceOrders) -> None:
        self._orders[source] = orders

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        keys = {identity: self._key_of((source, table, identity)) for identity in identities}
        return {identity: key for identity, key in keys.items() if key is not None}

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        self._identities.update({(source, table, identity): key for identity, key in changes.items()})

    def save_deadlines(self, due: Mapping[RecordKey, int | None]) -> None:
        self._deadlines.update(due)

    def digests_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, frozenset[bytes]]:
        return {RecordKey(*key): digests for key in keys if (digests := self._digests_of(key))}

    def keys_with(self, entity: str, digest: bytes, limit: int) -> list[str]:
        return sorted(self._holders_of((entity, digest)))[:limit]

    def save_digests(self, digests: Mapping[RecordKey, frozenset[bytes]]) -> None:
        for key, present in digests.items():
            for digest in self._digests_of(key) ^ present:
                indexed = (key.entity, digest)
                self._holders[indexed] = self._holders_of(indexed) ^ {key.key}
            self._digests[key] = present

    def _digests_of(self, key: RecordKey) -> frozenset[bytes]:
        return self._digests[key] if key in self._digests else self._disk.digests.get(key, NO_DIGESTS)

    def _holders_of(self, indexed: tuple[str, bytes]) -> frozenset[str]:
        return self._holders[indexed] if indexed in self._holders else self._disk.holders.get(indexed, frozenset())

    def save_evaluated(self, entity: str, policy: str, reached: str | None) -> None:
        self._evaluated[entity] = (policy, reached)

    def missing_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, Mapping[str, int]]:
        missing: dict[RecordKey, Mapping[str, int] | None] = {**self._disk.missing, **self._missing}
        return {RecordKey(*key): sources for key in keys if (sources := missing.get(RecordKey(*key)))}

    def save_missing(self, missing: Mapping[RecordKey, Mapping[str, int]]) -> None:
        self._missing.update({key: sources or None for key, sources in missing.items()})

    def forget_missing(self, entity: str) -> None:
        self._missing.update({key: None for key in {**self._disk.missing, **self._missing} if key.entity == entity})

    def forget_source(self, source: str) -> list[RecordKey]:
        touched = []
        for record in sorted(self._disk.trails.keys() | self._trails.keys()):
            trail = self._trail(record)
            others = {place: change for place, change in trail.items() if not _is_clock_of(source, change.stamp)}
            if len(others) < len(trail):
                self._trails[record] = others
                self._checkpoints[record] = {slot: each for slot, each in self._slots(record).items() if each.pruned}
                touched.append(record)
        identities = self._disk.identities.keys() | self._identities.keys()
        self._identities.update({identity: None for identity in identities if identity[0] == source})
        self.forget_quarantined_of(source)
        return touched

    def publish(self) -> None:
        disk = self._disk
        with disk.lock:
            trails = {record: trail if trail or self._slots(record) else None for record, trail in self._trails.items()}
            _overlay(disk.trails, trails)
            disk.lost.update(self._lost)
            _overlay(disk.checkpoints, {record: slots or None for record, slots in self._checkpoints.items()})
            _overlay(disk.identities, self._identities)
            disk.conflicts.update(self._conflicts)
            disk.positions.update(self._positions)
            disk.orders.update(self._orders)
            _overlay(disk.deadlines, self._deadlines)
            _overlay(disk.digests, {key: digests or None for key, digests in self._digests.items()})
            _overlay(disk.holders, {indexed: keys or None for indexed, keys in self._holders.items()})
            disk.evaluated.update(self._evaluated)
            _overlay(disk.missing, self._missing)
            disk.parked = self.quarantined

    def _trail(self, record: RecordKey) -> Trail:
        return self._trails[record] if record in self._trails else self._disk.trails.get(record, {})

    def _slots(self, record: RecordKey) -> Slots:
        return self._checkpoints[record] if record in self._checkpoints else self._disk.checkpoints.get(record, {})

    def _own_slots(self, record: RecordKey) -> Slots:
        if record not in self._checkpoints:
            self._checkpoints[record] = dict(self._disk.checkpoints.get(record, {}))
        return self._checkpoints[record]

    def _key_of(self, row: tuple[str, str, str]) -> str | None:
        return self._identities[row] if row in self._identities else self._disk.identities.get(row)


def _is_clock_of(source: str, stamp: Stamp) -> bool:
    """A source's clocks are its name, or its name and a partition (semantics §2)."""
    return stamp.source == source or stamp.source.startswith(f"{source}/")


def _overlay(committed: dict[K, V], changed: Mapping[K, V | None]) -> None:
    for name, value in changed.items():
        if value is None:
            committed.pop(name, None)
        else:
            committed[name] = value
