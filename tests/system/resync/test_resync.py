"""Incremental snapshots: tables are read again while their stream continues; rows become views and not edits, and none is lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.system.postgres.reading import run, wait_for
from tests.system.resync.driven_sidecar import DrivenSidecar, in_the_database, rows_at_source, start_and_copy

Make = Callable[..., DrivenSidecar]
MANY = "INSERT INTO customer SELECT 'C' || g, 'n' || g, '1', 10 FROM generate_series(1, {}) g"
C1 = "INSERT INTO customer VALUES ('C1', 'n', '1', 10)"


def behind_the_readers_back(dsn: str, *statements: str) -> None:
    """Change rows as a lost piece of the stream would leave them: without a word in the log."""
    kept = "UPDATE pg_class SET relpersistence = '{}' WHERE relname = 'customer'"
    run(dsn, "; ".join(["BEGIN", kept.format("u"), *statements, kept.format("p"), "COMMIT"]))


def resync(sidecar: DrivenSidecar, source: str = "crm", **wanted: str) -> None:
    sidecar.posted(f"/api/v1/sources/{source}/resync", dict(wanted))
    sidecar.until_resynced(source)


@contextmanager
def writers(dsn: str, count: int) -> Iterator[list[int]]:
    """Edits random rows, inserts and deletes until the block ends; how many transactions there were."""
    over = threading.Event()
    done = [0]

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not over.is_set():
                n = done[0] = done[0] + 1
                connection.execute(
                    "UPDATE customer SET points = points - 1, name = %s WHERE no = %s", [f"w{n}", f"C{n % count + 1}"]
                )
                if n % 7 == 0:
                    connection.execute("DELETE FROM customer WHERE no = %s", [f"C{n * 13 % count + 1}"])
                if n % 5 == 0:
                    connection.execute(
                        "INSERT INTO customer VALUES (%s, 'new', '2', 1) ON CONFLICT DO NOTHING",
                        [f"C{n * 13 % count + 1}"],
                    )
                if n % 11 == 0:
                    connection.execute("UPDATE customer SET note = %s WHERE no = %s", [f"{n}", f"C{n * 3 % count + 1}"])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def test_a_resync_records_an_unseen_change_as_a_view_and_not_as_an_edit(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    run(it.dsns["erp"], "UPDATE customer SET phone = '5' WHERE no = 'C1'")
    behind_the_readers_back(it.dsns["crm"], "UPDATE customer SET phone = '2', name = 'x' WHERE no = 'C1'")
    it.until_level()
    assert it.held("C1", "crm")["phone"] == "1"
    resync(it)
    assert it.held("C1", "crm") == {"name": "x", "phone": "2", "points": 10}
    assert it.merged("C1")["phone"] == "5"
    assert it.open_conflicts() == []
    kinds = [each["kind"] for each in it.get("/api/v1/records/customer/C1/history")["items"] if each["source"] == "crm"]
    assert set(kinds) == {"snapshot"}


def test_a_resync_ends_a_deleted_row_and_adds_an_unreported_one(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    gone = "INSERT INTO customer VALUES ('C2', 'only here', '5', 1)"
    run(it.dsns["crm"], gone)
    it.until_level()
    behind_the_readers_back(
        it.dsns["crm"], "DELETE FROM customer WHERE no = 'C2'", "INSERT INTO customer VALUES ('C3', 'c', '3', 3)"
    )
    resync(it)
    assert it.record("C2")["deleted"] is True
    assert it.record("C2")["sources"]["crm"]["presence"] == "deleted"
    assert it.merged("C3") == {"name": "c", "phone": "3", "points": 3}
    assert it.record("C1")["deleted"] is False
    assert it.open_conflicts() == []


def test_only_the_requested_record_is_read_again(sidecar: Make) -> None:
    it = start_and_copy(sidecar(MANY.format(3)))
    behind_the_readers_back(
        it.dsns["crm"], "UPDATE customer SET phone = '9' WHERE no <> 'C3'", "DELETE FROM customer WHERE no = 'C3'"
    )
    resync(it, key="C2")
    assert [it.held(key, "crm")["phone"] for key in ("C1", "C2")] == ["1", "9"]
    assert it.record("C3")["sources"]["crm"]["presence"] == "present"
    resync(it, table="public.customer", key="C3")
    assert it.record("C3")["sources"]["crm"]["presence"] == "deleted"


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_resync_under_concurrent_writes_ends_with_the_views_of_the_database(sidecar: Make, identity: str) -> None:
    rows = 6000
    it = start_and_copy(sidecar(f"ALTER TABLE customer REPLICA IDENTITY {identity}", MANY.format(rows)))
    dsn = it.dsns["crm"]
    behind_the_readers_back(
        dsn, "UPDATE customer SET phone = '8' WHERE no LIKE '%1'", "DELETE FROM customer WHERE no LIKE '%77'"
    )
    with writers(dsn, rows) as done:
        wait_for(lambda: done[0] > 100, "people were writing")
        resync(it)
        during = done[0]
    it.until_level()
    assert during > 200, "the resync was too quick to meet anybody"
    assert rows_at_source(it, "crm") == in_the_database(dsn)
    assert it.open_conflicts() == []
    assert 'cdc_merge_resync_rows_total{source="crm"}' in it.metrics()


def test_a_killed_resync_resumes_after_its_last_chunk(sidecar: Make) -> None:
    rows = 10_000
    it = start_and_copy(sidecar(MANY.format(rows)))
    behind_the_readers_back(
        it.dsns["crm"], "UPDATE customer SET phone = '8'", "DELETE FROM customer WHERE no LIKE '%77'"
    )
    it.posted("/api/v1/sources/crm/resync", {"table": "public.customer"})
    it.until(lambda: _rows(it) > 2000, "some pieces were on disk")
    it.end(signal.SIGKILL)
    before = json.loads(it.cli("--output", "json", "source", "list").stdout)
    (noted,) = next(each for each in before["items"] if each["name"] == "crm")["resyncs"]
    assert noted["rows"] >= 2000
    it.start()
    seen = it.until(lambda: _rows(it), "the resync was listed")
    assert seen >= noted["rows"]
    it.until_resynced("crm")
    assert rows_at_source(it, "crm") == in_the_database(it.dsns["crm"])


def _rows(sidecar: DrivenSidecar) -> int:
    resyncs = sidecar.source("crm")["resyncs"]
    return int(resyncs[0]["rows"]) if resyncs else 0


def test_a_reader_killed_during_a_resync_is_replaced_and_the_resync_finishes(sidecar: Make) -> None:
    rows = 10_000
    it = start_and_copy(sidecar(MANY.format(rows)))
    behind_the_readers_back(it.dsns["crm"], "UPDATE customer SET phone = '8'")
    it.posted("/api/v1/sources/crm/resync")
    it.until(lambda: _rows(it) > 2000, "some pieces were on disk")
    name = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}'"
    run(it.dsns["crm"], name.format(it.slot("crm")))
    it.until_resynced("crm")
    assert rows_at_source(it, "crm") == in_the_database(it.dsns["crm"])


def test_the_resync_of_a_paused_source_waits_for_its_resume(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    it.posted("/api/v1/sources/crm/pause")
    it.posted("/api/v1/sources/crm/resync")
    behind_the_readers_back(it.dsns["crm"], "UPDATE customer SET phone = '2'")
    it.until_level("erp")
    assert it.held("C1", "crm")["phone"] == "1"
    it.posted("/api/v1/sources/crm/resume")
    it.until_resynced("crm")
    assert it.held("C1", "crm")["phone"] == "2"


def test_an_unreadable_table_fails_the_resync_and_not_the_stream(sidecar: Make) -> None:
    it = sidecar(C1)
    dsn = it.dsns["crm"]
    run(
        dsn,
        "DROP ROLE IF EXISTS reader_resync",
        "CREATE ROLE reader_resync LOGIN REPLICATION",
        "GRANT SELECT ON customer TO reader_resync",
    )
    try:
        it.dsns = {"crm": f"{dsn} user=reader_resync", "erp": it.dsns["erp"]}
        start_and_copy(it)
        run(dsn, "REVOKE SELECT ON customer FROM reader_resync")
        it.posted("/api/v1/sources/crm/resync")
        failed = it.until(
            lambda: [r for r in it.source("crm")["resyncs"] if r["state"] == "failed"], "the resync failed"
        )
        assert "permission denied" in failed[0]["problem"]
        run(dsn, "INSERT INTO customer VALUES ('C2', 'n', '1', 10)")
        it.until_level()
        assert it.held("C2", "crm")["phone"] == "1"
        run(dsn, "GRANT SELECT ON customer TO reader_resync")
        resync(it)
    finally:
        it.end()
        run(
            dsn,
            f"SELECT pg_drop_replication_slot('{it.slot('crm')}')",
            "DROP OWNED BY reader_resync",
            "DROP ROLE reader_resync",
        )


def test_row_security_makes_a_resync_fail_and_ends_no_row(sidecar: Make) -> None:
    it = sidecar(C1)
    dsn = it.dsns["crm"]
    run(
        dsn,
        "DROP ROLE IF EXISTS reader_rls",
        "CREATE ROLE reader_rls LOGIN REPLICATION",
        "GRANT SELECT ON customer TO reader_rls",
    )
    try:
        it.dsns = {"crm": f"{dsn} user=reader_rls", "erp": it.dsns["erp"]}
        start_and_copy(it)
        run(dsn, "ALTER TABLE customer ENABLE ROW LEVEL SECURITY")
        it.posted("/api/v1/sources/crm/resync")
        failed = it.until(
            lambda: [r for r in it.source("crm")["resyncs"] if r["state"] == "failed"], "the resync failed"
        )
        assert "row-level security" in failed[0]["problem"]
        assert it.record("C1")["sources"]["crm"]["presence"] == "present"
    finally:
        it.end()
        run(
            dsn,
            f"SELECT pg_drop_replication_slot('{it.slot('crm')}')",
            "DROP OWNED BY reader_rls",
            "DROP ROLE reader_rls",
        )


def test_a_resync_does_not_revert_a_transaction_logged_but_not_yet_visible(sidecar: Make) -> None:
    """With synchronous replication a commit is in the log, and in our stream, before any snapshot shows it."""
    it = start_and_copy(sidecar(C1))
    dsn = it.dsns["crm"]
    held = threading.Thread(target=_commit_held, args=(dsn,))
    run(dsn, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    try:
        held.start()
        it.until(
            lambda: it.held("C1", "crm")["phone"] == "held", "the stream delivered a commit that no query sees yet"
        )
        assert run(dsn, "SELECT phone FROM customer") == [("1",)]
        it.posted("/api/v1/sources/crm/resync")
        time.sleep(1.0)  # nothing can be waited for: it must not end
        assert it.source("crm")["resyncs"], "the resync ended with a reading that could not see the row"
        assert it.held("C1", "crm")["phone"] == "held"
    finally:
        run(dsn, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        held.join()
    it.until_resynced("crm")
    assert it.held("C1", "crm")["phone"] == "held"
    assert it.open_conflicts() == []


def _commit_held(dsn: str) -> None:
    run(f"{dsn} options='-c synchronous_commit=on'", "UPDATE customer SET phone = 'held' WHERE no = 'C1'")


def test_the_resync_command_waits_for_its_end(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    behind_the_readers_back(it.dsns["crm"], "UPDATE customer SET phone = '2'")
    assert it.cli("source", "resync", "crm", "--table", "public.nothing").returncode == 1
    assert it.cli("source", "resync", "crm", "--dry-run").returncode == 0
    assert it.held("C1", "crm")["phone"] == "1"
    done = it.cli("source", "resync", "crm", "--table", "public.customer", "--wait")
    assert done.returncode == 0, done.stderr
    assert it.held("C1", "crm")["phone"] == "2"
