"""What a reader maps ahead is what the mapper tells: compared over transactions of every sort, through the pipe's parcels."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_merge.bodies import update_of
from cdc_merge.mapping.ahead import Ahead
from cdc_merge.mapping.changes import Mapper
from cdc_merge.mapping.mapped import Mapped
from cdc_merge.model import (
    DELETE,
    INSERT,
    TRUNCATE,
    UNCHANGED,
    UPDATE,
    Cell,
    Column,
    Message,
    Relation,
    RowChange,
    Stamp,
    Transaction,
)
from cdc_merge.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.sources.parcels import Packer, Unpacker

COMMIT_US = 1_790_000_000_000_000
NAMES = ("no", "id", "name", "price", "seats", "tags", "changed_by")
TYPES = (25, 23, 25, 1700, 23, 1009, 25)
FIELDS = {"name": "name", "price": "price", "seats": "seats", "tags": "tags"}


def relation(identity: str, *flagged: str) -> Relation:
    columns = tuple(Column(n, oid, "", n in flagged) for n, oid in zip(NAMES, TYPES, strict=True))
    return Relation(7, "public", f"of_{identity}", identity, columns)


FULL, BY_KEY, BY_ID = relation("f", *NAMES), relation("d", "no"), relation("i", "id")
TABLES = (
    TableMap("crm", "plain", "public.of_f", ("no",), FIELDS),
    TableMap("crm", "plain", "public.of_d", ("no",), FIELDS),
    TableMap("crm", "named", "public.of_i", ("no",), FIELDS),
)
SHARED = (*TABLES, TableMap("crm", "other", "public.of_f", ("name",), {"seats": "seats"}))


def plan(tables: tuple[TableMap, ...]) -> Plan:
    fields = {name: FieldPlan(name) for name in FIELDS}
    names = sorted({table.entity for table in tables})
    entities = {n: EntityPlan(n, ("crm",), {"crm": frozenset(fields)}, fields) for n in names}
    return Plan(entities, tables)


CELLS: Mapping[str, tuple[Cell, ...]] = {
    "no": (b"K1", b"K2", b"K3", None),
    "id": (b"1", b"2"),
    "name": (b"Li", "王".encode() * 40, None, UNCHANGED, b"x" * 300, b"\xff", b""),
    "price": (b"1.0", b"1.00", b"7.25", b"NaN", b"0.00", b"-0", b"0.00000000012", b"1" * 300 + b".50"),
    "seats": (b"1", b"2", None, b"broken"),
    "tags": (b"{a,b}", b"{}", None),
    "changed_by": (b"u1", None),
}
rows = st.tuples(*[st.sampled_from(CELLS[name]) for name in NAMES])
usual = st.tuples(*[st.sampled_from(CELLS[name][:3] if name != "seats" else CELLS[name][:2]) for name in NAMES])


@st.composite
def changes(draw: st.DrawFn, ordinal: int, rows: st.SearchStrategy[tuple[Cell, ...]]) -> RowChange:
    table = draw(st.sampled_from((FULL, FULL, FULL, BY_KEY, BY_ID)))
    operation = draw(st.sampled_from((UPDATE,) * 6 + (INSERT, DELETE, TRUNCATE)))
    old, new = draw(rows), draw(rows)
    if draw(st.booleans()):  # as most updates are: the key stays
        new = (*old[:2], *new[2:])
    if operation == TRUNCATE:
        return RowChange(TRUNCATE, table, None, False, None, ordinal)
    if operation == INSERT:
        return RowChange(INSERT, table, None, False, new, ordinal)
    if operation == DELETE:
        return RowChange(DELETE, table, old, True, None, ordinal)
    full = table is FULL or draw(st.booleans())
    return RowChange(UPDATE, table, old if full else None, full, new, ordinal)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    cells = draw(st.sampled_from((rows, usual, usual)))
    told = tuple(draw(changes(n, cells)) for n in range(draw(st.integers(0, 6))))
    if draw(st.booleans()):
        told = tuple(c for c in told if c.relation is FULL and c.operation == UPDATE)
    messages = draw(st.sampled_from(((), (), (), (Message("cdc_merge.actor", b"u9", True),))))
    return Transaction("crm", "1", 1, 500, COMMIT_US, draw(st.sampled_from((None, None, "sync"))), messages, told)


def sent(tx: Transaction) -> Transaction:
    packer, unpacker = Packer(), Unpacker()
    found = [unpacker.unpack(parcel.body) for parcel in packer.pack(tx)]
    assert isinstance(found[-1], Transaction)
    return found[-1]


def read(mapped: Mapped) -> Mapped:
    """With the updates that nobody has read yet among the changes."""
    updates = mapped.updates
    unread = () if updates is None else tuple([update_of(updates, row) for row in updates.rows])
    return mapped._replace(changes=(*mapped.changes, *unread), updates=None)


@pytest.mark.parametrize("tables", [TABLES, SHARED], ids=["one entity a table", "two entities of one table"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_told_ahead_is_what_the_mapper_tells(tables: tuple[TableMap, ...], data: st.DataObject) -> None:
    ahead, mapper = Ahead("crm", Mapper("crm", tables, plan(tables))), Mapper("crm", tables, plan(tables))
    clock = Stamp(data.draw(st.sampled_from((0, COMMIT_US, COMMIT_US + 9))), 3, "crm")
    now_us = COMMIT_US + data.draw(st.sampled_from((0, -60_000_000)))
    for tx in (data.draw(transactions()) for _ in range(3)):
        wanted = mapper.transaction(tx, clock, now_us, {})
        told = sent(ahead(tx))
        if told.ticks:
            assert told.size == len(tx.changes)
            found: Any = read(mapper.told(told, clock, now_us))
            assert repr(found) == repr(wanted._replace(shapes=(), identities={}))  # by text: NaN is not equal to itself
            assert not wanted.identities
        else:
            assert told == tx
        clock = wanted.clock


def test_plain_updates_and_inserts_are_told_ahead_once_their_table_is_known() -> None:
    ahead = pickle.loads(pickle.dumps(Ahead("crm", Mapper("crm", TABLES, plan(TABLES)))))
    row = (b"K1", b"1", b"Li", b"1.0", b"1", b"{}", b"u1")
    updated = RowChange(UPDATE, FULL, row, True, (*row[:2], b"Wang", *row[3:]), 0)
    inserted = RowChange(INSERT, FULL, None, False, (b"K2", *row[1:]), 1)
    first = Transaction("crm", "1", 1, 500, COMMIT_US, None, (), (updated,))
    assert ahead(first) == first, "the first announcement of a table is the merging side's to judge"
    (update,) = ahead(first).updates
    assert update[:6] == ("plain", "K1", "public.of_f", 0, 0, ("name",))
    assert msgpack.unpackb(update[6]) == ["name", "Li", "Wang"]
    both = ahead(first._replace(changes=(updated, inserted)))
    assert [(row[2], row[5]) for row in both.told] == [("K1", UPDATE), ("K2", INSERT)]
    assert both.ticks == 2
