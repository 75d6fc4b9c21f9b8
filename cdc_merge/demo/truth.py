"""The ground truth of the demo: expected records and expected conflicts. No I/O.

Rules: one act at a time has a record (`World.pick`), so every act has the rows of each system at the edit and the
causal context of each writer. A field with an open conflict is frozen until an act closes the conflict. A record is
`is_partially_seen` once a system has not seen every write of the others (a counter change that was not copied): only
then can a delete conflict, so acts that delete or rename records choose others.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cdc_merge.demo.systems import Entity, FactValue, entities

PICK_TRIES: Final = 40  # random records tried before an act gives up this time

OPEN: Final = "open"
CLOSED: Final = "closed"


class Planned(NamedTuple):
    """A conflict that the workload has caused. `field` is None for row-level conflicts."""

    entity: str
    key: str
    field: str | None
    kind: str


@dataclass(slots=True)
class TrueRecord:
    """The expected state of one record. `rows`: source → the row's values (sources without a row are absent)."""

    entity: Entity
    key: str
    rows: dict[str, dict[str, FactValue]]
    merged: dict[str, FactValue]
    deleted: bool = False
    ended_by: str = ""
    is_partially_seen: bool = False
    frozen: set[str] = field(default_factory=set)
    unsynced: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sources_with(self, name: str) -> list[str]:
        """The systems that map a field and have a row of the record."""
        return [source for source in self.entity.sources_with(name) if source in self.rows]

    def free(self, name: str) -> bool:
        return not self.deleted and name not in self.frozen

    @property
    def is_undisturbed(self) -> bool:
        """Every mapped system has a fully synchronised row, and no conflict is open."""
        return not (self.deleted or self.frozen or self.is_partially_seen or self.unsynced) and len(self.rows) == len(
            self.entity.tables
        )

    @property
    def can_be_reinserted(self) -> bool:
        """Whether a new incarnation starts empty: a delete ends old values only of fields that the deleting system maps."""
        return (
            self.deleted
            and not self.frozen
            and len(self.entity.tables[self.ended_by].columns) == len(self.entity.merges)
        )

    def freeze(self) -> None:
        """No field of this record is touched again."""
        self.frozen.update(self.entity.merges)

    def ended(self, by: str) -> None:
        """The record is deleted in every system, first by `by`."""
        self.deleted = True
        self.ended_by = by
        self.merged = {}
        self.rows = {}


class World:
    """All records and planned conflicts; shared by the workload's threads."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, TrueRecord]] = {name: {} for name in entities()}
        self.planned: dict[Planned, str] = {}
        self._keys: dict[str, list[str]] = {name: [] for name in entities()}
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}

    def add(self, record: TrueRecord) -> None:
        with self._lock:
            self.records[record.entity.name][record.key] = record
            self._keys[record.entity.name].append(record.key)

    def number(self, name: str) -> int:
        """1, 2, 3 … for each name."""
        with self._lock:
            self._numbers[name] = self._numbers.get(name, 0) + 1
            return self._numbers[name]

    @contextmanager
    def pick(self, entity: str, fits: Callable[[TrueRecord], bool], dice: random.Random) -> Iterator[TrueRecord | None]:
        """A random record for which `fits` is true, locked for the block; None after PICK_TRIES failures."""
        record = self._lock_one(entity, fits, dice)
        try:
            yield record
        finally:
            if record is not None:
                record.lock.release()

    def _lock_one(self, entity: str, fits: Callable[[TrueRecord], bool], dice: random.Random) -> TrueRecord | None:
        keys = self._keys[entity]
        for _ in range(PICK_TRIES):
            record = self.records[entity][dice.choice(keys)]
            if not record.lock.acquire(blocking=False):
                continue
            if fits(record):
                return record
            record.lock.release()
        return None

    @contextmanager
    def pick_with_conflict(self, kind: str, dice: random.Random) -> Iterator[tuple[TrueRecord, str] | None]:
        """A random record and field with an open expected conflict of this kind, locked for the block."""
        candidates = [planned for planned in self.open_of_kind(kind) if planned.field is not None]
        conflict = dice.choice(candidates) if candidates else None
        record = self.records[conflict.entity][conflict.key] if conflict else None
        if conflict is None or conflict.field is None or record is None or not record.lock.acquire(blocking=False):
            yield None
            return
        try:
            yield (record, conflict.field) if self.planned.get(conflict) == OPEN else None
        finally:
            record.lock.release()

    @contextmanager
    def pick_with_record_conflict(self, kind: str, dice: random.Random) -> Iterator[TrueRecord | None]:
        """A random record with an open expected conflict of this kind about the whole record, locked for the block."""
        candidates = [planned for planned in self.open_of_kind(kind) if planned.field is None]
        conflict = dice.choice(candidates) if candidates else None
        record = self.records[conflict.entity][conflict.key] if conflict else None
        if conflict is None or record is None or not record.lock.acquire(blocking=False):
            yield None
            return
        try:
            yield record if self.planned.get(conflict) == OPEN else None
        finally:
            record.lock.release()

    def expect_open(self, record: TrueRecord, name: str | None, kind: str) -> None:
        """A conflict of this kind must be open from here on."""
        self._note(record, name, kind, OPEN)
        record.frozen.update([name] if name else record.entity.merges)

    def expect_closed(self, record: TrueRecord, name: str | None, kind: str) -> None:
        """The conflict is resolved: it must be closed at the end."""
        self._note(record, name, kind, CLOSED)
        record.frozen.difference_update([name] if name else record.entity.merges)

    def _note(self, record: TrueRecord, name: str | None, kind: str, state: str) -> None:
        with self._lock:
            self.planned[Planned(record.entity.name, record.key, name, kind)] = state

    def open_of_kind(self, kind: str) -> list[Planned]:
        with self._lock:
            return [planned for planned, state in self.planned.items() if state == OPEN and planned.kind == kind]

    def expected_conflicts(self) -> Mapping[Planned, str]:
        with self._lock:
            return dict(self.planned)
