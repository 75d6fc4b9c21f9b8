"""What the demo's people did, and what therefore must come out: expected records and planned conflicts. No I/O.

Rules: one act at a time has a record (`World.pick`), so every act knows what each system held when somebody edited,
and who had seen what. A field with an open question is frozen: nobody touches it until an act answers it. A record is
`joint` once some system has not seen everything that another wrote into it (an unshared counter booking): only then
could a delete be opposed, so acts that end records or rename them choose others.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cdc_merge.demo.systems import Entity, FactValue, entities

PICK_TRIES: Final = 40  # random records looked at before an act gives up for this time

OPEN: Final = "open"
CLOSED: Final = "closed"


class Planned(NamedTuple):
    """A question that the workload provoked. `field` is None for row-level conflicts."""

    entity: str
    key: str
    field: str | None
    kind: str


@dataclass(slots=True)
class TrueRecord:
    """One record as it should be. `held` is what each system's row holds (systems without a row are absent)."""

    entity: Entity
    key: str
    held: dict[str, dict[str, FactValue]]
    merged: dict[str, FactValue]
    deleted: bool = False
    ended_by: str = ""
    joint: bool = False
    frozen: set[str] = field(default_factory=set)
    spread: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def holders(self, name: str) -> list[str]:
        """The systems that map a field and hold the record now."""
        return [source for source in self.entity.holders(name) if source in self.held]

    def free(self, name: str) -> bool:
        return not self.deleted and name not in self.frozen

    @property
    def calm(self) -> bool:
        """Whether every system that could hold it does, has seen everything, and no question is open."""
        return not (self.deleted or self.frozen or self.joint or self.spread) and len(self.held) == len(
            self.entity.tables
        )

    @property
    def returnable(self) -> bool:
        """Whether a new life starts from nothing: it ends old values only of fields that the deleting system maps."""
        return (
            self.deleted
            and not self.frozen
            and len(self.entity.tables[self.ended_by].columns) == len(self.entity.merges)
        )

    def freeze(self) -> None:
        """No field of this record is touched again."""
        self.frozen.update(self.entity.merges)

    def ended(self, by: str) -> None:
        """Nobody holds it any more; `by` deleted it first."""
        self.deleted = True
        self.ended_by = by
        self.merged = {}
        self.held = {}


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
        """A random record for which `fits` holds, for the length of the block; None when none was found soon."""
        record = self._taken(entity, fits, dice)
        try:
            yield record
        finally:
            if record is not None:
                record.lock.release()

    def _taken(self, entity: str, fits: Callable[[TrueRecord], bool], dice: random.Random) -> TrueRecord | None:
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
    def pick_open(self, kind: str, dice: random.Random) -> Iterator[tuple[TrueRecord, str] | None]:
        """A random record and field with an open planned question of this kind, for the length of the block."""
        waiting = [planned for planned in self.open_questions(kind) if planned.field is not None]
        found = dice.choice(waiting) if waiting else None
        record = self.records[found.entity][found.key] if found else None
        if found is None or found.field is None or record is None or not record.lock.acquire(blocking=False):
            yield None
            return
        try:
            still = self.planned.get(found) == OPEN
            yield (record, found.field) if still else None
        finally:
            record.lock.release()

    @contextmanager
    def pick_asked(self, kind: str, dice: random.Random) -> Iterator[TrueRecord | None]:
        """A random record that has an open planned question of this kind about all of it, for the length of the block."""
        waiting = [planned for planned in self.open_questions(kind) if planned.field is None]
        found = dice.choice(waiting) if waiting else None
        record = self.records[found.entity][found.key] if found else None
        if found is None or record is None or not record.lock.acquire(blocking=False):
            yield None
            return
        try:
            yield record if self.planned.get(found) == OPEN else None
        finally:
            record.lock.release()

    def plan(self, record: TrueRecord, name: str | None, kind: str) -> None:
        """A question of this kind must be open from here on."""
        self._note(record, name, kind, OPEN)
        record.frozen.update([name] if name else record.entity.merges)

    def settled(self, record: TrueRecord, name: str | None, kind: str) -> None:
        """The question has been answered: it must be among the closed ones at the end."""
        self._note(record, name, kind, CLOSED)
        record.frozen.difference_update([name] if name else record.entity.merges)

    def _note(self, record: TrueRecord, name: str | None, kind: str, state: str) -> None:
        with self._lock:
            self.planned[Planned(record.entity.name, record.key, name, kind)] = state

    def open_questions(self, kind: str) -> list[Planned]:
        with self._lock:
            return [planned for planned, state in self.planned.items() if state == OPEN and planned.kind == kind]

    def expected_conflicts(self) -> Mapping[Planned, str]:
        with self._lock:
            return dict(self.planned)
