"""A slot lost, dropped or recreated, a server restored or replaced: each is refused by name, and no gap is silent."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from tests.system.postgres.positions import SETUP, TABLES, read_once, switch_timeline
from tests.system.postgres.reading import Reading, confirmed_lsn, run, wait_for, wal_lsn


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


def test_a_dropped_slot_is_refused_as_missing(dsn: str) -> None:
    position, slot = read_once(dsn)
    wait_for(lambda: run(dsn, "SELECT 1 FROM pg_replication_slots WHERE NOT active"), "the slot was free")
    run(dsn, f"SELECT pg_drop_replication_slot('{slot}')")
    with Reading(dsn, TABLES).start(position) as reading:
        refusal = reading.refusal()
        assert refusal.problem == "slot_missing"
        assert slot in refusal.sentence
        assert "resync" in refusal.hint


def test_a_slot_created_again_is_refused_as_recreated(dsn: str) -> None:
    position, slot = read_once(dsn)
    run(dsn, "INSERT INTO customer VALUES (2, 'never seen')")
    wait_for(lambda: run(dsn, "SELECT 1 FROM pg_replication_slots WHERE NOT active"), "the slot was free")
    run(dsn, f"SELECT pg_drop_replication_slot('{slot}')")
    run(dsn, f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    with Reading(dsn, TABLES).start(position) as reading:
        assert reading.refusal().problem == "slot_recreated"
        assert reading.take() == []


def test_a_slot_advanced_by_another_client_is_refused_as_a_gap(dsn: str) -> None:
    position, slot = read_once(dsn)
    run(dsn, "INSERT INTO customer VALUES (2, 'skipped')")
    wait_for(lambda: run(dsn, "SELECT 1 FROM pg_replication_slots WHERE NOT active"), "the slot was free")
    run(dsn, f"SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")
    with Reading(dsn, TABLES).start(position) as reading:
        assert reading.refusal().problem == "slot_recreated"


def test_a_slot_recreated_while_the_reader_was_cut_off_is_recognised_by_the_running_reader(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s",
                [reading.slot],
            )
            connection.execute("SELECT pg_drop_replication_slot(%s)", [reading.slot])
            connection.execute("INSERT INTO customer VALUES (5, 'lost')")
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [reading.slot])
        assert reading.refusal().problem in ("slot_recreated", "slot_missing")


def test_a_position_of_another_server_is_refused(dsn: str, second_server: DemoServer) -> None:
    position, _ = read_once(dsn)
    with Reading(second_server.dsn(), TABLES).start(position) as reading:
        refusal = reading.refusal()
        assert refusal.problem == "other_server"
        assert position.system in refusal.sentence


def test_a_position_beyond_the_servers_wal_means_that_it_was_restored(dsn: str) -> None:
    position, _ = read_once(dsn)
    with Reading(dsn, TABLES).start(position._replace(lsn=position.lsn + (1 << 40))) as reading:
        assert reading.refusal().problem == "server_restored"


def test_a_slot_that_lost_its_wal_is_lost(new_server: Callable[..., DemoServer]) -> None:
    server = new_server(settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"})
    dsn = server.dsn()
    run(dsn, *SETUP)
    position, _ = read_once(dsn)
    for _ in range(4):
        run(dsn, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 9000000))", "SELECT pg_switch_wal()")
    run(dsn, "CHECKPOINT")
    assert run(dsn, "SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    with Reading(dsn, TABLES).start(position) as reading:
        refusal = reading.refusal()
        assert refusal.problem == "slot_lost"
        assert "wal_removed" in refusal.sentence
        assert "max_slot_wal_keep_size" in refusal.hint


def test_a_new_timeline_that_contains_the_position_is_followed(new_server: Callable[..., DemoServer]) -> None:
    server = new_server()
    run(server.dsn(), *SETUP)
    position, _ = read_once(server.dsn())
    run(server.dsn(), "INSERT INTO customer VALUES (2, 'on timeline 1')")
    switch_timeline(server)
    run(server.dsn(), "INSERT INTO customer VALUES (3, 'on timeline 2')")
    with Reading(server.dsn(), TABLES).start(position) as reading:
        reading.until_passed(wal_lsn(server.dsn()))
        found = [(each.timeline, (change.new or ())[0]) for each in reading.transactions for change in each.changes]
        assert found == [(1, b"2"), (2, b"3")]


def test_a_position_behind_the_fork_of_a_new_timeline_means_that_another_server_took_over(
    new_server: Callable[..., DemoServer],
) -> None:
    server = new_server()
    run(server.dsn(), *SETUP)
    position, _ = read_once(server.dsn())
    switch_timeline(server)
    run(server.dsn(), "INSERT INTO customer SELECT g, 'more' FROM generate_series(10, 10000) g")
    beyond_the_fork = position._replace(lsn=wal_lsn(server.dsn()))
    with Reading(server.dsn(), TABLES).start(beyond_the_fork) as reading:
        refusal = reading.refusal()
        assert refusal.problem == "failed_over"
        assert "timeline 2" in refusal.sentence


def test_a_slot_in_use_by_another_client_is_retried(dsn: str) -> None:
    position, _ = read_once(dsn)
    with Reading(dsn, TABLES).start(position) as holder:
        holder.until_streaming()
        with Reading(dsn, TABLES).start(position) as reading:
            wait_for(lambda: reading.source.status().state == "retrying", "the second reader tried again")
            assert "active" in (reading.source.status().problem or "")
            holder.source.stop()
            reading.until_streaming()


def test_a_position_of_an_unfinished_snapshot_starts_over_with_a_new_slot(dsn: str) -> None:
    position, slot = read_once(dsn)
    with Reading(dsn, TABLES).start(position._replace(snapshot="running")) as reading:
        reading.until_copied()
        assert [(change.new or ())[0] for change in reading.copied] == [b"1"]
        assert confirmed_lsn(dsn, slot) > position.lsn
