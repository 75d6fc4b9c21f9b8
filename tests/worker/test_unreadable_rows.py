"""Rows that cannot be read are counted by table until that table is read whole again; the count is durable."""

from __future__ import annotations

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    INSERT,
    SNAPSHOT,
    ChunkRead,
    Column,
    Position,
    Relation,
    RowChange,
    SnapshotBegan,
    Stamp,
    Transaction,
)
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.worker.ingest import SourceIngest

NOW_US = 1_790_000_000_000_000
RELATION = Relation(7, "public", "t", "d", (Column("no", 25, "", is_identity=True), Column("n", 23, "int4")))
TABLE = TableMap("crm", "thing", "public.t", ("no",), {"n": "n", "gone": "dropped"})
PLAN = Plan({"thing": EntityPlan("thing", ("crm",), {"crm": frozenset({"n"})}, {"n": FieldPlan("n")})}, (TABLE,))


def row(operation: str, number: bytes, ordinal: int = 0) -> RowChange:
    return RowChange(operation, RELATION, None, old_is_full=False, new=(b"K1", number), ordinal=ordinal)


def transaction(lsn: int, *numbers: bytes) -> Transaction:
    rows = tuple(row(INSERT, number, ordinal) for ordinal, number in enumerate(numbers))
    return Transaction("crm", "5", 1, lsn, NOW_US, None, (), rows)


def new_ingest() -> SourceIngest:
    ingest = SourceIngest("crm", Mapper("crm", (TABLE,), PLAN), "slot", SpillFile)
    ingest.resume(Position("5", 1, 1, "done", "slot"), Stamp(0, 0, "crm"), {})
    return ingest


def test_a_row_that_cannot_be_read_is_counted_and_a_missing_column_is_none() -> None:
    store, ingest = MemoryStore(), new_ingest()
    with store.transaction() as tx:
        ingest.take(transaction(10, b"1", b"x", b"y"), tx, NOW_US)
        ingest.take(transaction(20, b"z"), tx, NOW_US)
        ingest.take(transaction(20, b"z"), tx, NOW_US)
        ingest.save(tx)
    assert store.orders()["crm"].parked == {"public.t": 3}


def test_a_table_that_is_read_whole_is_counted_anew() -> None:
    store, ingest = MemoryStore(), new_ingest()
    with store.transaction() as tx:
        ingest.take(transaction(10, b"x", b"y"), tx, NOW_US)
        ingest.resyncs.enqueue("public.t", None, ingest.clock, NOW_US)
        request = ingest.resyncs.next_request()
        assert request is not None
        read = ChunkRead("crm", "5", 1, 30, NOW_US, request.number, (row(SNAPSHOT, b"q"),), None, 1)
        ingest.take(read, tx, NOW_US)
    assert ingest.resyncs.orders.parked == {"public.t": 1}


def test_an_initial_snapshot_begins_to_count_at_none() -> None:
    store, ingest = MemoryStore(), new_ingest()
    with store.transaction() as tx:
        ingest.take(transaction(10, b"x"), tx, NOW_US)
        ingest.take(SnapshotBegan("crm", "5", 1, 40, NOW_US, {}), tx, NOW_US)
    assert ingest.resyncs.orders.parked == {}
