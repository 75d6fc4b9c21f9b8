"""A source that is shown a write is not earlier than that: what its people edit next is later than what they saw (semantics §2)."""

from __future__ import annotations

import json

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import UPDATE, Change, Column, Message, Place, Relation, RowChange, Stamp, Transaction
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.model.ports import Store
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.worker.ingest import SourceIngest

NOW_US = 1_790_000_000_000_000
COLUMNS = (Column("no", 25, "", is_identity=True), Column("phone", 25, ""))
TABLE = Relation(7, "public", "client", "d", COLUMNS)
PLAN = Plan(
    {"customer": EntityPlan("customer", ("crm", "erp"), {"erp": frozenset({"phone"})}, {"phone": FieldPlan("phone")})},
    (TableMap("erp", "customer", "public.client", ("no",), {"phone": "phone"}),),
)
WRITTEN = Change(
    "customer", "K1", Stamp(NOW_US - 10, 4, "crm"), Place("9", 1, 77, "public.kunde", 0), UPDATE, {"phone": ("1", "2")}
)


def store_with(change: Change) -> Store:
    store = MemoryStore()
    with store.transaction() as tx:
        tx.append([change])
    return store


def transaction(lsn: int, commit_us: int, *named: Place) -> Transaction:
    message = Message("cdc_merge.apply", json.dumps({"writes": [list(place) for place in named]}).encode(), True)
    row = RowChange(UPDATE, TABLE, None, False, (b"K1", b"2"), 0)
    return Transaction("erp", "5", 1, lsn, commit_us, None, (message,) if named else (), (row,))


def stamps(*deliveries: Transaction) -> list[Stamp]:
    store, ingest = store_with(WRITTEN), SourceIngest("erp", Mapper("erp", PLAN.tables, PLAN), "slot", SpillFile)
    with store.transaction() as tx:
        return [change.stamp for delivery in deliveries for change in ingest.take(delivery, tx, NOW_US).changes]


def test_a_source_with_a_slow_clock_edits_later_than_the_write_it_was_given() -> None:
    given, edited = stamps(transaction(10, NOW_US - 500, WRITTEN.place), transaction(20, NOW_US - 400))
    assert WRITTEN.stamp < given < edited
    assert given == Stamp(NOW_US - 10, 5, "erp")


def test_without_a_name_a_slow_clock_stays_slow() -> None:
    assert stamps(transaction(10, NOW_US - 500)) == [Stamp(NOW_US - 500, 0, "erp")]


def test_a_copy_of_an_unknown_write_moves_no_clock() -> None:
    unknown = WRITTEN.place._replace(lsn=78)
    assert stamps(transaction(10, NOW_US - 500, unknown)) == [Stamp(NOW_US - 500, 0, "erp")]


def test_a_source_that_is_ahead_already_stays_where_it_is() -> None:
    assert stamps(transaction(10, NOW_US - 3, WRITTEN.place)) == [Stamp(NOW_US - 3, 0, "erp")]
