"""The initial snapshot of several tables: in parallel, as of one LSN, and resumed without the finished tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.postgres.reading import run
from tests.system.resync.driven_sidecar import C1, DrivenSidecar, in_the_database, rows_at_source, start_and_copy

Make = Callable[..., DrivenSidecar]
PLACES = (
    "CREATE TABLE place (no text PRIMARY KEY, city text, stock int)",
    "ALTER PUBLICATION cdc_merge ADD TABLE place",
)
MANY = "INSERT INTO customer SELECT 'C' || g, 'n' || g, '1', 10 FROM generate_series(1, {}) g"


def with_places(sidecar: DrivenSidecar) -> DrivenSidecar:
    """A second entity of a second table, with a counter of its own."""
    sidecar.entities["place"] = {
        "from": {
            name: {"table": "public.place", "key": "no", "fields": {"city": "city", "stock": "stock"}}
            for name in sidecar.dsns
        },
        "fields": {"city": {"merge": "mv"}, "stock": {"merge": "counter"}},
    }
    return sidecar


@pytest.mark.parametrize("workers", [1, 4])
def test_all_tables_are_copied_with_any_number_of_workers(sidecar: Make, workers: int) -> None:
    it = with_places(
        sidecar(
            C1, *PLACES, "INSERT INTO place SELECT g, 'b', g FROM generate_series(1, 3000) g", snapshot_workers=workers
        )
    )
    start_and_copy(it)
    assert len(it.get("/api/v1/records/place?limit=1000")["items"]) == 1000
    assert it.get("/api/v1/records/place/3000")["merged"] == {"city": "b", "stock": 3000}
    assert it.merged("C1")["phone"] == "1"
    assert it.source("crm")["snapshot"] == {
        "state": "done",
        "rows": 3001,
        "expected": it.source("crm")["snapshot"]["expected"],
    }


def test_a_killed_snapshot_keeps_its_finished_tables_and_reads_the_others_beside_the_stream(sidecar: Make) -> None:
    places = ("INSERT INTO place VALUES ('P1', 'b', 5)", "ANALYZE place")
    it = with_places(sidecar(*PLACES, *places, snapshot_workers=2))
    dsn = it.dsns["crm"]
    run(dsn, MANY.format(36_000), "ANALYZE customer")
    run(it.dsns["erp"], MANY.format(100), "ANALYZE customer")
    it.start()
    it.until(lambda: "crm" in it.get("/api/v1/records/place/P1")["sources"], "the small table was copied")
    it.until(lambda: "crm" in it.record("C500")["sources"], "the large one was begun")
    assert it.source("crm")["snapshot"]["state"] == "running", "the copy was too quick"
    it.kill()
    run(
        dsn,
        "UPDATE customer SET points = points - 1 WHERE no IN ('C1', 'C19999')",
        "DELETE FROM customer WHERE no = 'C19998'",
        "INSERT INTO customer VALUES ('NEW', 'n', '1', 1)",
        "UPDATE place SET stock = stock + 1 WHERE no = 'P1'",
    )
    it.start()
    it.until(lambda: it.source("crm")["resyncs"], "what was not finished is read beside the stream")
    assert {each["table"] for each in it.source("crm")["resyncs"]} == {"public.customer"}
    it.until_state("crm", "streaming")
    it.until_resynced("crm")
    it.until(
        lambda: not it.source("erp")["resyncs"] and it.source("erp")["snapshot"]["state"] == "done", "erp was copied"
    )
    it.until_level()
    assert rows_at_source(it, "crm") == in_the_database(dsn)
    history = it.get("/api/v1/records/place/P1/history")["items"]
    assert [each["kind"] for each in history if each["source"] == "crm"] == ["snapshot", "write"]
    assert it.get("/api/v1/records/place/P1")["merged"]["stock"] == 6
    assert [each["kind"] for each in it.open_conflicts() if each["kind"] != "divergence"] == []


def test_a_snapshot_killed_before_any_table_is_finished_starts_over(sidecar: Make) -> None:
    it = sidecar(MANY.format(20_000), "ANALYZE customer")
    it.start()
    it.until(lambda: it.source("crm")["snapshot"]["rows"] > 5000, "the copy was begun")
    it.kill()
    run(it.dsns["crm"], "UPDATE customer SET points = 3 WHERE no = 'C19999'")
    it.start()
    it.until(lambda: it.source("crm")["snapshot"]["state"] == "done", "the copy was done")
    it.until_level("crm")
    assert rows_at_source(it, "crm") == in_the_database(it.dsns["crm"])
    assert {(each["kind"], *each["labels"]) for each in it.open_conflicts()} <= {("divergence", "baseline")}
