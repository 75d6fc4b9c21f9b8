"""A source that is shown a write is not earlier than that: what its people edit next is later than what they saw (semantics §2)."""

from __future__ import annotations

import json

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    SNAPSHOT,
    UPDATE,
    Change,
    Column,
    Message,
    Place,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    Stamp,
    Transaction,
)
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.model.ports import Store
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.ingest_result import IngestResult

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


# ---------------------------------------------------------------- the future is suspicious in a snapshot, too

HOUR_US = 3_600_000_000


def copied(at_us: int, now_us: int = NOW_US) -> tuple[SourceIngest, list[IngestResult]]:
    """The ingest of an initial snapshot that began at `at_us` by the server's clock, with the results of its deliveries."""
    store, ingest = MemoryStore(), SourceIngest("erp", Mapper("erp", PLAN.tables, PLAN), "slot", SpillFile)
    row = RowChange(SNAPSHOT, TABLE, None, False, (b"K1", b"2"), 0)  # noqa: FBT003 - a tuple's field
    with store.transaction() as tx:
        began = SnapshotBegan("erp", "5", 1, 10, at_us, {})
        rows, done = SnapshotRows("erp", (row,)), SnapshotDone("erp", 10)
        return ingest, [ingest.take(delivery, tx, now_us) for delivery in (began, rows, done)]


def test_a_snapshot_of_a_fast_clock_is_stamped_no_further_ahead_than_a_commit_and_is_reported() -> None:
    ingest, (began, rows, _) = copied(NOW_US + HOUR_US)
    limit_us = NOW_US + PLAN.max_ahead_us
    assert [change.stamp for change in rows.changes] == [Stamp(limit_us, 0, "erp")]
    assert ingest.passed_us == ingest.clock.wall_us == limit_us
    assert began.clock_cut_us == HOUR_US - PLAN.max_ahead_us


def test_a_snapshot_of_an_honest_clock_is_not_cut() -> None:
    ingest, (began, rows, _) = copied(NOW_US - 7)
    assert [change.stamp for change in rows.changes] == [Stamp(NOW_US - 7, 0, "erp")]
    assert (ingest.passed_us, began.clock_cut_us) == (NOW_US - 7, 0)


def test_an_empty_snapshot_of_a_fast_clock_passes_no_more_than_our_own_time() -> None:
    store, ingest = MemoryStore(), SourceIngest("erp", Mapper("erp", PLAN.tables, PLAN), "slot", SpillFile)
    with store.transaction() as tx:
        for delivery in (SnapshotBegan("erp", "5", 1, 10, NOW_US + HOUR_US, {}), SnapshotDone("erp", 10)):
            ingest.take(delivery, tx, NOW_US)
    assert ingest.passed_us == NOW_US


def test_an_edit_ten_seconds_after_the_first_copy_of_a_fast_source_is_later_than_its_edit() -> None:
    ingest, _ = copied(NOW_US + HOUR_US)
    store, now_us = MemoryStore(), NOW_US + 1_000_000
    with store.transaction() as tx:
        fast = ingest.take(transaction(20, now_us + HOUR_US), tx, now_us).changes[0].stamp
    assert fast < Stamp(now_us + 9_000_000, 0, "crm")
