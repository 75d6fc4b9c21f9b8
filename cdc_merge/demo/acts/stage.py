"""The context of an act, and generators of edited values."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from cdc_merge.demo import initial_data
from cdc_merge.demo.editor import Editor
from cdc_merge.demo.systems import FactValue
from cdc_merge.demo.truth import TrueRecord, World

USERS: Final[Mapping[str, Sequence[str]]] = {
    "crm": ("wang", "li", "chen"),
    "erp": ("meyer", "novak", "sato"),
    "finance": ("rossi", "khan"),
}
IMPORTER: Final = "importer"  # a job that copies without a mark
CONFLICTING: Final = {"mv"}
JOINING: Final = {"max", "min"}


@dataclass(frozen=True, slots=True)
class Stage:
    """The context of one thread's acts: ground truth, editor, random generator; `wait` ends early at the stop."""

    world: World
    editor: Editor
    dice: random.Random
    wait: Callable[[float], None]

    def chance(self, part: float) -> bool:
        return self.dice.random() < part

    def actor_at(self, source: str) -> str:
        return self.dice.choice(USERS[source])

    def edit(self, record: TrueRecord, source: str, fields: Mapping[str, FactValue]) -> None:
        """A user changes fields of a record at one system, in one transaction."""
        with self.editor.user_transaction(source, self.actor_at(source)) as tx:
            tx.update(record, fields)

    def copy(self, record: TrueRecord, name: str, value: FactValue) -> None:
        """The sync job copies a value to every system with another one."""
        for source in record.sources_with(name):
            if record.rows[source].get(name) != value:
                with self.editor.copy_transaction(source) as tx:
                    tx.update(record, {name: value})

    def import_value(self, record: TrueRecord, name: str, value: FactValue) -> None:
        """The same by a job without a mark, within 300 ms."""
        for source in record.sources_with(name):
            if record.rows[source].get(name) != value:
                self.wait(self.dice.uniform(0, 0.1))
                with self.editor.user_transaction(source, IMPORTER) as tx:
                    tx.update(record, {name: value})

    def new_value(self, record: TrueRecord, name: str) -> FactValue:
        """A value that no system has in this field."""
        current = {record.rows[source].get(name) for source in record.sources_with(name)}
        while True:
            value = FRESH[name](self.dice, record.merged.get(name))
            if value not in current:
                return value


def fields_of(record: TrueRecord, merges: set[str]) -> list[str]:
    """The free, fully synchronised fields of these merge types that at least two systems have."""
    return [
        name
        for name, merge in record.entity.merges.items()
        if merge in merges and record.free(name) and name not in record.unsynced and len(record.sources_with(name)) > 1
    ]


def all_sources_agree(record: TrueRecord, name: str) -> bool:
    """Whether every system has the merged value."""
    return all(record.rows[source].get(name) == record.merged.get(name) for source in record.sources_with(name))


def _later(dice: random.Random, value: FactValue) -> str:
    start = date.fromisoformat(value) if isinstance(value, str) else initial_data.FIRST_DAY
    return (start + timedelta(days=dice.randrange(1, 9))).isoformat()


def _earlier(dice: random.Random, value: FactValue) -> str:
    start = date.fromisoformat(value) if isinstance(value, str) else initial_data.FIRST_DAY
    return (start - timedelta(days=dice.randrange(1, 9))).isoformat()


def _fewer(dice: random.Random, value: FactValue) -> int:
    return (value if isinstance(value, int) else 60) - dice.randrange(1, 4)


def _remark(dice: random.Random, _: FactValue) -> FactValue:
    return None if dice.randrange(6) == 0 else f"call back in week {dice.randrange(1, 53)}, line {dice.randrange(999)}"


# Field → generator of an edited value, given the merged one. Dates and terms move in one direction: their join is known.
FRESH: Final[Mapping[str, Callable[[random.Random, FactValue], FactValue]]] = {
    "name": lambda dice, _: initial_data.company(dice),
    "phone": lambda dice, _: initial_data.phone(dice),
    "last_contact": _later,
    "payment_days": _fewer,
    "remark": _remark,
    "status": lambda dice, _: dice.choice(initial_data.STATES),
    "amount": lambda dice, _: initial_data.money(dice),
    "promised": _earlier,
    "note": _remark,
    "title": lambda dice, _: f"Frame contract {dice.randrange(1000, 9999)}",
}
