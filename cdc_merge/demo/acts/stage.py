"""What an act works with, and the values that people type."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from cdc_merge.demo import stock
from cdc_merge.demo.desk import Desk
from cdc_merge.demo.systems import FactValue
from cdc_merge.demo.truth import TrueRecord, World

PEOPLE: Final[Mapping[str, Sequence[str]]] = {
    "crm": ("wang", "li", "chen"),
    "erp": ("meyer", "novak", "sato"),
    "finance": ("rossi", "khan"),
}
IMPORTER: Final = "importer"  # a job that copies without saying so
QUESTIONING: Final = {"mv"}
JOINING: Final = {"max", "min"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One thread's means: the truth, a desk at each system, its own dice; `wait` ends early when people go home."""

    world: World
    desk: Desk
    dice: random.Random
    wait: Callable[[float], None]

    def chance(self, part: float) -> bool:
        return self.dice.random() < part

    def someone(self, source: str) -> str:
        return self.dice.choice(PEOPLE[source])

    def types(self, record: TrueRecord, source: str, fields: Mapping[str, FactValue]) -> None:
        """A person changes fields of a record at one system, in a transaction of its own."""
        with self.desk.person(source, self.someone(source)) as hand:
            hand.update(record, fields)

    def copies(self, record: TrueRecord, name: str, value: FactValue) -> None:
        """The sync job brings a value to every system that holds another one."""
        for source in record.holders(name):
            if record.held[source].get(name) != value:
                with self.desk.copying(source) as hand:
                    hand.update(record, {name: value})

    def imports(self, record: TrueRecord, name: str, value: FactValue) -> None:
        """The same, by a job that leaves no mark, within 300 ms."""
        for source in record.holders(name):
            if record.held[source].get(name) != value:
                self.wait(self.dice.uniform(0, 0.1))
                with self.desk.person(source, IMPORTER) as hand:
                    hand.update(record, {name: value})

    def fresh(self, record: TrueRecord, name: str) -> FactValue:
        """A value that no system holds in this field."""
        held = {record.held[source].get(name) for source in record.holders(name)}
        while True:
            value = FRESH[name](self.dice, record.merged.get(name))
            if value not in held:
                return value


def fields_of(record: TrueRecord, merges: set[str]) -> list[str]:
    """The free fields of these merge types that at least two systems hold, where all have seen everything."""
    return [
        name
        for name, merge in record.entity.merges.items()
        if merge in merges and record.free(name) and name not in record.spread and len(record.holders(name)) > 1
    ]


def united(record: TrueRecord, name: str) -> bool:
    """Whether every system holds the merged value."""
    return all(record.held[source].get(name) == record.merged.get(name) for source in record.holders(name))


def _later(dice: random.Random, value: FactValue) -> str:
    start = date.fromisoformat(value) if isinstance(value, str) else stock.FIRST_DAY
    return (start + timedelta(days=dice.randrange(1, 9))).isoformat()


def _earlier(dice: random.Random, value: FactValue) -> str:
    start = date.fromisoformat(value) if isinstance(value, str) else stock.FIRST_DAY
    return (start - timedelta(days=dice.randrange(1, 9))).isoformat()


def _fewer(dice: random.Random, value: FactValue) -> int:
    return (value if isinstance(value, int) else 60) - dice.randrange(1, 4)


def _remark(dice: random.Random, _: FactValue) -> FactValue:
    return None if dice.randrange(6) == 0 else f"call back in week {dice.randrange(1, 53)}, line {dice.randrange(999)}"


# What people type into each field, given the merged value. Dates and terms move one way: their joins are foreseeable.
FRESH: Final[Mapping[str, Callable[[random.Random, FactValue], FactValue]]] = {
    "name": lambda dice, _: stock.company(dice),
    "phone": lambda dice, _: stock.phone(dice),
    "last_contact": _later,
    "payment_days": _fewer,
    "remark": _remark,
    "status": lambda dice, _: dice.choice(stock.STATES),
    "amount": lambda dice, _: stock.money(dice),
    "promised": _earlier,
    "note": _remark,
    "title": lambda dice, _: f"Frame contract {dice.randrange(1000, 9999)}",
}
