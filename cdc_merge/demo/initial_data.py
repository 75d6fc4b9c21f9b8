"""The initial rows: the same customers, orders and contracts in every system, except for a few planned differences.

Deterministic for a seed. A difference in the initial snapshots has no causal order, so each such field is an expected
`divergence` (label `baseline`), and its merged value follows semantics §4 on snapshot reads.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

import psycopg
from psycopg import sql

from cdc_merge.demo.systems import FactValue, Table, column_value, entities, schema
from cdc_merge.demo.truth import TrueRecord, World

COUNTS: Final[Mapping[str, int]] = {"customer": 240, "order": 160, "contract": 80}
PREFIXES: Final[Mapping[str, str]] = {"customer": "C", "order": "O", "contract": "K"}
FAMILIES: Final = (
    "Wang",
    "Li",
    "Zhang",
    "Chen",
    "Meyer",
    "Rossi",
    "Novak",
    "Silva",
    "Khan",
    "Sato",
    "Okafor",
    "Dubois",
)
TRADES: Final = ("Trading", "Logistics", "Foods", "Textiles", "Tools", "Optics", "Papers", "Pumps")
STATES: Final = ("draft", "confirmed", "picked", "shipped", "invoiced")
LONG_TEXT: Final = 3_000  # characters; stored outside the row, so an update of another column does not send it
EVERY_LONG_NOTE: Final = 4
FIRST_DAY: Final = date(2026, 1, 1)

BASELINE_PHONES: Final = (3, 7, 11, 19, 23)  # customers whose phones differ from the start
BASELINE_TAGS: Final = (5, 13)
BASELINE_BALANCES: Final = (2,)


def key_of(entity: str, number: int) -> str:
    return f"{PREFIXES[entity]}{number:04d}"


def phone(dice: random.Random) -> str:
    """A mobile number; half of them with dashes, which normalise to the same value."""
    digits = "".join(dice.choices(string.digits, k=8))
    return f"138-{digits[:4]}-{digits[4:]}" if dice.random() < 0.5 else f"138{digits}"


def company(dice: random.Random) -> str:
    return f"{dice.choice(FAMILIES)} {dice.choice(TRADES)} {dice.randrange(100, 999)}"


def money(dice: random.Random, most: int = 90_000) -> Decimal:
    return Decimal(dice.randrange(100, most * 100)).scaleb(-2)


def day(dice: random.Random) -> str:
    return (FIRST_DAY + timedelta(days=dice.randrange(120))).isoformat()


def long_text(dice: random.Random) -> str:
    return "".join(dice.choices(string.ascii_letters + " ", k=LONG_TEXT))


def _customer(dice: random.Random) -> dict[str, FactValue]:
    return {
        "name": company(dice),
        "phone": phone(dice),
        "points": dice.randrange(20, 400),
        "tags": frozenset({"retail" if dice.random() < 0.5 else "wholesale"}),
        "last_contact": day(dice),
        "payment_days": dice.choice((30, 45, 60)),
        "remark": "as agreed",
    }


def _order(dice: random.Random) -> dict[str, FactValue]:
    long = dice.randrange(EVERY_LONG_NOTE) == 0
    note = long_text(dice) if long else "deliver to the back door"
    return {"status": dice.choice(STATES), "amount": money(dice), "promised": day(dice), "note": note}


def _contract(dice: random.Random) -> dict[str, FactValue]:
    amount = money(dice)
    return {
        "title": f"Frame contract {dice.randrange(1000, 9999)}",
        "amount": amount,
        "balance": amount + 1000,
        "parties": frozenset({dice.choice(FAMILIES), "ourselves"}),
        "remark": None,
    }


GENERATORS: Final = {"customer": _customer, "order": _order, "contract": _contract}


def new_record(entity: str, number: int, values: Mapping[str, FactValue], sources: tuple[str, ...]) -> TrueRecord:
    """A record with these values in these sources, fully synchronised."""
    described = entities()[entity]
    rows = {
        source: {name: values.get(name) for name in described.tables[source].columns if name in values}
        for source in sources
    }
    return TrueRecord(described, key_of(entity, number), rows, dict(values))


def fill(world: World, dice: random.Random) -> None:
    """Add the initial records with their planned differences."""
    for entity, count in COUNTS.items():
        for _ in range(count):
            number = world.number(entity)
            record = new_record(entity, number, GENERATORS[entity](dice), tuple(entities()[entity].tables))
            world.add(record)
    for number in BASELINE_PHONES:
        differ(world, world.records["customer"][key_of("customer", number)], "phone", {"erp": phone(dice)})
    for number in BASELINE_TAGS:
        record = world.records["customer"][key_of("customer", number)]
        differ(world, record, "tags", {"erp": frozenset({"from-the-erp"})})
        record.merged["tags"] = _set(record, "crm") | _set(record, "erp")
    for number in BASELINE_BALANCES:
        record = world.records["contract"][key_of("contract", number)]
        differ(world, record, "balance", {"finance": money(dice)})


def differ(world: World, record: TrueRecord, name: str, values: Mapping[str, FactValue]) -> None:
    """Give some systems another initial value; the first configured source gives the merged value."""
    for source, value in values.items():
        record.rows[source][name] = value
    record.merged[name] = record.rows[record.sources_with(name)[0]][name]
    record.is_partially_seen = True
    world.expect_open(record, name, "divergence")


def _set(record: TrueRecord, source: str) -> frozenset[str]:
    value = record.rows[source]["tags"]
    assert isinstance(value, frozenset)
    return value


def prepare(dsns: Mapping[str, str], world: World) -> None:
    """Create the tables and publications of the three systems and write the initial rows."""
    for source, dsn in dsns.items():
        with psycopg.connect(dsn) as connection:
            connection.execute(schema(source).encode())
            for entity in entities().values():
                if source in entity.tables:
                    _copy_in(connection, entity.tables[source], world)


def _copy_in(connection: psycopg.Connection[tuple[object, ...]], table: Table, world: World) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, (table.key, *table.columns.values())))
    into = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(*table.name.split(".")), names)
    with connection.cursor() as cursor, cursor.copy(into) as copy:
        for record in world.records[table.entity].values():
            row = record.rows.get(table.source)
            if row is not None:
                copy.write_row((record.key, *(column_value(row[name]) for name in table.columns)))
