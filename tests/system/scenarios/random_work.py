"""A working day, drawn by lot: what people and jobs in three systems do, one transaction after the other.

The draw is seeded, and it looks at what the databases hold, so a day can be lived again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from psycopg import sql

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.people import COPY, PLAIN, Mark, Rows, System

STAGES = ("draft", "confirmed", "shipped")
FIELDS: Mapping[str, Any] = {
    "phone": "mv",
    "name": "lww",
    "segment": {"merge": "priority", "order": ["erp", "crm", "finance"]},
    "points": {"merge": "counter", "min": 0},
    "tags": "set",
    "labels": {"merge": "set", "wins": "remove"},
    "level": "max",
    "risk": "min",
    "stage": {"merge": "lattice", "order": list(STAGES)},
    "profile": {"merge": "map", "keys": {"seat": {"merge": "lww"}}},
    "vip": {"merge": "flag", "wins": True},
    "city": "mv",
    "street": "mv",
}
GROUPS = {"address": {"fields": ["city", "street"], "merge": "mv"}}
# Few values and many customers: some share what they may not, all day long.
UNIQUE = [{"fields": ["phone"], "when": "record.phone != 'a'"}]
ENTITY = {"groups": GROUPS, "unique": UNIQUE}
FEW = tuple("abc")


class RandomWork:
    """One person's or job's transaction after the other; `keys` are the business keys that are used."""

    def __init__(self, incident: Incident, seed: int, keys: int = 12) -> None:
        self._chance = random.Random(seed)
        self._systems = list(incident.systems.values())
        self._keys = [f"C{n}" for n in range(1, keys + 1)]
        self._values: Mapping[str, Callable[[], Any]] = {
            "points": lambda: self._chance.randint(0, 20),
            "level": lambda: self._chance.randint(0, 9),
            "risk": lambda: self._chance.randint(0, 9),
            "tags": self._some,
            "labels": self._some,
            "stage": lambda: self._chance.choice(STAGES),
            "profile": lambda: {key: self._chance.choice(FEW) for key in self._some(("city", "seat", "zip"))},
            "vip": lambda: self._chance.random() < 0.5,
        }

    def act(self) -> None:
        """One committed transaction of one system."""
        system = self._chance.choice(self._systems)
        acts = (self._edit, self._count, self._job, self._enter, self._leave, self._move, self._several)
        act = self._chance.choices(acts, weights=(10, 4, 5, 2, 2, 1, 2))[0]
        act(system)

    def row(self, fields: Mapping[str, Any] = FIELDS) -> dict[str, Any]:
        return {field: self._value(field) for field in fields}

    # ---------------------------------------------------------------- acts

    def _edit(self, system: System) -> None:
        key = self._held(system)
        if key is not None:
            actor = self._chance.choice([None, "li", "wang"])
            system.update(key, Mark(actor=actor), **self._some_values())

    def _count(self, system: System) -> None:
        key = self._held(system)
        if key is not None:
            system.add(key, points=self._chance.choice([-3, -1, 1, 2]))

    def _job(self, system: System) -> None:
        """Carry what another system holds over to this one; marked, marked with its source, or not."""
        other = self._chance.choice([each for each in self._systems if each is not system])
        key = self._held(other)
        if key is None:
            return
        mark = self._chance.choice([COPY, COPY, Mark(copy=True, of=other.name), PLAIN])
        fields = self._chance.sample(list(FIELDS), self._chance.randint(1, 4))
        values = self._read(other, key)
        if key in self._rows(system):
            system.update(key, mark, **{field: values[field] for field in fields})
        else:
            system.insert(key, mark, **values)

    def _enter(self, system: System) -> None:
        free = sorted(set(self._keys) - set(self._rows(system)))
        if free:
            system.insert(self._chance.choice(free), **self.row())

    def _leave(self, system: System) -> None:
        key = self._held(system)
        if key is not None:
            system.delete(key, self._chance.choice([PLAIN, PLAIN, COPY]))

    def _move(self, system: System) -> None:
        key = self._held(system)
        free = sorted(set(self._keys) - set(self._rows(system)))
        if key is not None and free:
            system.rekey(key, self._chance.choice(free))

    def _several(self, system: System) -> None:
        """One transaction that touches several rows, one of them twice, or that swaps two keys."""
        held = self._rows(system)
        if len(held) < 2:
            return
        one, two = self._chance.sample(held, 2)
        with system.transaction() as rows:
            if self._chance.random() < 0.3:
                self._swap(rows, one, two)
            rows.update(one, **self._some_values())
            rows.add(two, points=1)
            rows.update(one, **self._some_values())
            if self._chance.random() < 0.3:
                rows.delete(two)
                rows.insert(two, **self.row())

    @staticmethod
    def _swap(rows: Rows, one: str, two: str) -> None:
        rows.rekey(one, "between")
        rows.rekey(two, one)
        rows.rekey("between", two)

    # ---------------------------------------------------------------- what there is

    def _rows(self, system: System) -> list[str]:
        text = sql.SQL("select {0} from {1} where {0} = any(%s) order by 1")
        statement = text.format(sql.Identifier(system.table.key), system.table.identifier)
        return [row[0] for row in system.connection.execute(statement, [self._keys])]

    def _held(self, system: System) -> str | None:
        held = self._rows(system)
        return self._chance.choice(held) if held else None

    def _read(self, system: System, key: str) -> dict[str, Any]:
        columns = sql.SQL(",").join(sql.Identifier(system.table.columns[field]) for field in FIELDS)
        text = sql.SQL("select {} from {} where {} = %s")
        statement = text.format(columns, system.table.identifier, sql.Identifier(system.table.key))
        row = system.connection.execute(statement, [key]).fetchone()
        assert row is not None
        return dict(zip(FIELDS, row, strict=True))

    def _some(self, among: tuple[str, ...] = FEW) -> list[str]:
        return sorted(self._chance.sample(among, self._chance.randint(0, len(among))))

    def _some_values(self) -> dict[str, Any]:
        fields = self._chance.sample(list(FIELDS), self._chance.randint(1, 3))
        return {field: self._value(field) for field in fields}

    def _value(self, field: str) -> Any:
        return self._values.get(field, lambda: self._chance.choice(FEW))()
