"""A stream that cannot be continued: each case has a name, a policy decides, and what is found is seen, not invented."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc_merge.demo.servers import DemoServer
from tests.system.postgres.positions import switch_timeline
from tests.system.postgres.reading import run, wait_for
from tests.system.resync.driven_sidecar import C1, DrivenSidecar, in_the_database, mark, rows_at_source, start_and_copy

Make = Callable[..., DrivenSidecar]
MORE = "INSERT INTO customer VALUES ('C2', 'm', '2', 20), ('C3', 'o', '3', 30)"
UNSEEN = (
    "UPDATE customer SET phone = 'unseen', points = 7 WHERE no = 'C1'",
    "DELETE FROM customer WHERE no = 'C2'",
    "INSERT INTO customer VALUES ('C4', 'new', '4', 40)",
)


def dropped(sidecar: DrivenSidecar) -> None:
    run(sidecar.dsns["crm"], f"SELECT pg_drop_replication_slot('{sidecar.slot('crm')}')", *UNSEEN)


def recreated(sidecar: DrivenSidecar) -> None:
    dropped(sidecar)
    run(sidecar.dsns["crm"], f"SELECT pg_create_logical_replication_slot('{sidecar.slot('crm')}', 'pgoutput')")


def advanced(sidecar: DrivenSidecar) -> None:
    run(sidecar.dsns["crm"], *UNSEEN)
    mark(sidecar.dsns["crm"])
    run(sidecar.dsns["crm"], f"SELECT pg_replication_slot_advance('{sidecar.slot('crm')}', pg_current_wal_lsn())")


def republished(sidecar: DrivenSidecar) -> None:
    leave, come = (f"ALTER PUBLICATION cdc_merge {word} TABLE customer" for word in ("DROP", "ADD"))
    run(sidecar.dsns["crm"], leave, *UNSEEN, come)


LOSSES = {"slot_missing": dropped, "slot_recreated": recreated, "advanced": advanced, "republished": republished}


def lose(sidecar: DrivenSidecar, how: Callable[[DrivenSidecar], None]) -> None:
    """What happens at the source while the sidecar is away."""
    run(sidecar.dsns["erp"], "UPDATE customer SET phone = 'erp' WHERE no = 'C1'")
    sidecar.until_level()
    sidecar.end()
    how(sidecar)


def as_in_the_database(sidecar: DrivenSidecar) -> None:
    assert rows_at_source(sidecar, "crm") == in_the_database(sidecar.dsns["crm"])
    assert sidecar.record("C2")["sources"]["crm"]["presence"] == "deleted"
    assert sidecar.record("C2")["deleted"] is True
    assert sidecar.merged("C4")["name"] == "new"
    assert sidecar.merged("C1")["phone"] == "erp", "a view won over an edit"
    assert sidecar.open_conflicts() == []


@pytest.mark.parametrize("how", [*LOSSES])
def test_by_default_a_source_whose_position_was_lost_stops_until_a_resync_is_requested(sidecar: Make, how: str) -> None:
    it = start_and_copy(sidecar(C1, MORE))
    lose(it, LOSSES[how])
    run(it.dsns["erp"], "DELETE FROM customer WHERE no = 'C2'")
    it.start()
    it.until_state("crm", "stopped")
    problem = it.source("crm")["problem"]
    assert "cdc-merge source resync crm" in problem
    it.until_level("erp")
    assert it.held("C1", "crm")["phone"] == "1"
    done = it.cli("source", "resync", "crm", "--wait")
    assert done.returncode == 0, done.stderr
    it.until_state("crm", "streaming")
    it.until_level()
    as_in_the_database(it)
    run(it.dsns["crm"], "UPDATE customer SET points = points - 1 WHERE no = 'C3'")
    it.until_level()
    assert it.merged("C3")["points"] == 29
    it.end()
    it.start()
    it.until_state("crm", "streaming")


@pytest.mark.parametrize("how", [*LOSSES])
def test_with_resnapshot_a_lost_position_is_followed_by_a_new_snapshot_into_the_history(
    sidecar: Make, how: str
) -> None:
    it = start_and_copy(sidecar(C1, MORE, on_lost_position="resnapshot"))
    lose(it, LOSSES[how])
    run(it.dsns["erp"], "DELETE FROM customer WHERE no = 'C2'")
    it.start()
    it.until_state("crm", "streaming")
    it.until_resynced("crm")
    it.until_level()
    as_in_the_database(it)
    history = it.get("/api/v1/records/customer/C1/history")["items"]
    assert [each["kind"] for each in history if each["source"] == "crm"] == ["snapshot", "snapshot"]


def test_a_slot_lost_while_it_is_read_is_followed_by_a_new_snapshot(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1, MORE, on_lost_position="resnapshot"))
    slot = it.slot("crm")
    run(
        it.dsns["crm"],
        f"DO $$ BEGIN PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '{slot}'; "
        f"PERFORM pg_drop_replication_slot('{slot}'); END $$",
        "UPDATE customer SET phone = 'unseen' WHERE no = 'C1'",
    )
    it.until(lambda: it.held("C1", "crm")["phone"] == "unseen", "the new copy was merged")
    it.until_state("crm", "streaming")
    it.until_resynced("crm")
    assert it.open_conflicts() == []


def test_a_killed_snapshot_into_a_history_starts_over_and_reverts_no_edit(sidecar: Make) -> None:
    many = "INSERT INTO customer SELECT 'K' || g, 'n', '1', 1 FROM generate_series(1, 8000) g"
    it = start_and_copy(sidecar(C1, MORE, many, on_lost_position="resnapshot"))
    lose(it, dropped)
    run(it.dsns["erp"], "DELETE FROM customer WHERE no = 'C2'")
    it.start()
    it.until(lambda: it.source("crm")["snapshot"]["state"] == "running", "the new copy had begun")
    it.kill()
    it.start()
    it.until(lambda: it.source("crm")["snapshot"]["state"] == "done", "the new copy was done")
    it.until_state("crm", "streaming")
    it.until_resynced("crm")
    it.until_level()
    as_in_the_database(it)
    assert it.get("/api/v1/records/customer/C1/history")["items"][0]["kind"] == "snapshot"


def test_another_server_is_copied_only_after_an_operators_confirmation(
    sidecar: Make, second_server: DemoServer
) -> None:
    it = start_and_copy(sidecar(C1, MORE, on_lost_position="resnapshot"))
    it.end()
    run(second_server.dsn(), "DROP TABLE IF EXISTS customer", "DROP PUBLICATION IF EXISTS cdc_merge")
    run(
        second_server.dsn(),
        "CREATE TABLE customer (no text PRIMARY KEY, name text, phone text, points int, note text)",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer",
        "INSERT INTO customer VALUES ('C1', 'n', 'moved', 10)",
    )
    it.dsns = {"crm": second_server.dsn(), "erp": it.dsns["erp"]}
    try:
        it.start()
        it.until_state("crm", "stopped")
        assert "another server" in it.source("crm")["problem"]
        it.posted("/api/v1/sources/crm/resync")
        it.until_state("crm", "streaming")
        it.until_resynced("crm")
        assert rows_at_source(it, "crm") == {"C1": {"name": "n", "phone": "moved", "points": 10}}
        run(second_server.dsn(), "UPDATE customer SET phone = 'on' WHERE no = 'C1'")
        it.until_level("crm")
        assert it.merged("C1")["phone"] == "on"
        slot = it.slot("crm")
        confirmed = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = '{}'"
        at = mark(second_server.dsn())
        wait_for(
            lambda: run(second_server.dsn(), confirmed.format(slot))[0][0] >= at, "the new server was confirmed to"
        )
    finally:
        it.end()
        run(
            second_server.dsn(),
            f"SELECT pg_drop_replication_slot('{it.slot('crm')}')",
            "DROP TABLE customer",
            "DROP PUBLICATION cdc_merge",
        )


def test_a_failover_to_a_server_without_our_position_is_reported_and_copied(
    new_server: Callable[..., DemoServer], sidecar: Make
) -> None:
    server = new_server()
    it = sidecar(C1, MORE, on_lost_position="resnapshot")
    run(
        server.dsn(),
        "CREATE TABLE customer (no text PRIMARY KEY, name text, phone text, points int, note text)",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer",
        C1,
    )
    server.stop()
    backup = server.data.with_name("backup")
    run_copy(server.data, backup)
    server.start()
    it.dsns = {"crm": server.dsn(), "erp": it.dsns["erp"]}
    start_and_copy(it)
    run(server.dsn(), "INSERT INTO customer VALUES ('C9', 'never there', '9', 9)")
    it.until_level()
    it.end()
    server.stop()
    run_copy(backup, server.data)
    server.start()
    switch_timeline(server)
    run(server.dsn(), *["SELECT pg_logical_emit_message(false, 'fill', repeat('x', 9000000))"] * 3)
    it.start()
    it.until_state("crm", "streaming")
    it.until_resynced("crm")
    it.until_level()
    assert it.record("C9")["deleted"] is True
    assert it.merged("C1")["phone"] == "1"
    assert "failed_over" in (it.directory / "log").read_text()


def run_copy(source: Path, target: Path) -> None:
    """Owners included: the server runs as another user than root."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
