"""The reader on a real server: nothing lost, nothing twice, and a server that is never held up by us."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import Idle, Message, Transaction
from tests.system.postgres.customer_table import SETUP, TABLES, in_the_database, writers
from tests.system.postgres.reading import Reading, confirmed_lsn, run, wait_for, wal_lsn


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


def test_an_initial_snapshot_under_concurrent_edits_loses_and_doubles_no_row(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 5000) g")
    with Reading(dsn, TABLES) as reading:
        with writers(dsn) as begun:
            assert begun.wait(10)
            reading.start()
            reading.until(lambda: len(reading.transactions) > 20, "twenty transactions followed the copy")
        reading.until_passed(wal_lsn(dsn))
        assert len(reading.copied) >= 5000
        assert reading.table() == in_the_database(dsn)


def test_no_commit_follows_an_idle_mark_with_a_later_time(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        with writers(dsn, 3):
            reading.until(lambda: len(reading.transactions) > 300, "three hundred transactions came")
        reading.until_passed(wal_lsn(dsn))
        passed_us = idle_marks = 0
        for delivery in reading.deliveries:
            if isinstance(delivery, Idle):
                passed_us, idle_marks = max(passed_us, delivery.at_us), idle_marks + 1
            elif isinstance(delivery, Transaction):
                assert delivery.commit_us > passed_us
        assert idle_marks > 3


def test_an_idle_source_passes_the_present_within_a_second(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        begun_us = time.time_ns() // 1000
        reading.until(
            lambda: any(isinstance(each, Idle) and each.at_us > begun_us for each in reading.deliveries),
            "an idle mark passed the time at which we began to wait",
            limit_s=5,
        )


def test_an_open_transaction_does_not_hold_up_the_idle_marks(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading, psycopg.connect(dsn) as open_transaction:
        reading.until_copied()
        open_transaction.execute("INSERT INTO customer VALUES (1, 'not committed', 0)")
        begun_us = time.time_ns() // 1000
        reading.until(
            lambda: any(isinstance(each, Idle) and each.at_us > begun_us for each in reading.deliveries),
            "an idle mark passed the open transaction's edit",
            limit_s=4,
        )
        assert reading.streamed == []


def test_a_role_that_may_not_write_messages_can_be_read_all_the_same(dsn: str) -> None:
    run(dsn, "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(bool, text, text, bool) FROM PUBLIC")
    run(dsn, "DROP ROLE IF EXISTS mute", "CREATE ROLE mute LOGIN REPLICATION", "GRANT SELECT ON customer TO mute")
    with Reading(dsn.replace("user=postgres", "user=mute"), TABLES).start() as reading, psycopg.connect(dsn) as editor:
        reading.until_copied()
        log = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'mute' AND query LIKE '%cdc_merge.flush%'"
        numbers = count(1)

        def is_flushed_on_request() -> bool:
            # Again and again: the server itself writes what is old enough, and then no request is needed.
            editor.execute("INSERT INTO customer VALUES (%s, 'a', 0)", [next(numbers)])
            reading.take()
            return run(dsn, log) == [(1,)]

        wait_for(is_flushed_on_request, "the reader requested a WAL flush")
        editor.commit()
        reading.until(lambda: reading.streamed, "the row came")
        assert reading.source.status().reconnects == 0
    run(dsn, "DROP OWNED BY mute", "DROP ROLE mute")


def test_a_restart_resumes_after_its_position(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, *(f"INSERT INTO customer VALUES ({number}, 'a', 0)" for number in range(10)))
        reading.until(lambda: len(reading.streamed) >= 10, "ten rows came")
        reading.source.stop()
        run(dsn, *(f"INSERT INTO customer VALUES ({number}, 'a', 0)" for number in range(10, 20)))
        reading.start(reading.position)
        reading.until_passed(wal_lsn(dsn))
        assert sorted(int(key) for key in reading.table()) == list(range(20))


def test_a_position_ahead_of_the_slot_drops_what_the_server_repeats(dsn: str) -> None:
    with Reading(dsn, TABLES, confirming=False).start() as reading:
        reading.until_copied()
        run(dsn, *(f"INSERT INTO customer VALUES ({number}, 'a', 0)" for number in range(10)))
        reading.until(lambda: len(reading.streamed) >= 10, "ten rows came")
        half = reading.transactions[4]
        assert confirmed_lsn(dsn, reading.slot) < half.end_lsn
        reading.source.stop()
        before = len(reading.deliveries)
        assert reading.position is not None
        reading.start(reading.position._replace(lsn=half.end_lsn))
        reading.until_passed(wal_lsn(dsn))
        again = [each for each in reading.deliveries[before:] if isinstance(each, Transaction) and each.changes]
        assert [change.new for each in again for change in each.changes] == [
            (b"%d" % number, b"a", b"0") for number in range(5, 10)
        ]


def test_deliveries_not_confirmed_are_repeated_after_a_crash(dsn: str) -> None:
    with Reading(dsn, TABLES, confirming=False).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        position = reading.position
        reading.until(lambda: reading.streamed, "the row came")
    with Reading(dsn, TABLES).start(position) as again:
        again.until(lambda: again.streamed, "the row came again")
        assert again.streamed[0].new == (b"1", b"a", b"0")


@contextmanager
def edits_until_the_server_goes(dsn: str) -> Iterator[threading.Event]:
    """One connection that edits all rows again and again; the event is set after the sixtieth time."""
    flowing = threading.Event()

    def work() -> None:
        with suppress(psycopg.OperationalError), psycopg.connect(dsn, autocommit=True) as connection:
            for number in range(1_000_000):
                connection.execute("UPDATE customer SET points = points + 1")
                if number == 60:
                    flowing.set()

    thread = threading.Thread(target=work)
    thread.start()
    yield flowing
    thread.join(30)


@pytest.mark.parametrize("taking", [True, False], ids=["taking", "queue_full"])
def test_a_fast_shutdown_takes_less_than_two_seconds_and_the_stream_resumes_afterwards(
    new_server: Callable[..., DemoServer], taking: bool
) -> None:
    server = new_server()
    dsn = server.dsn()
    run(dsn, *SETUP, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 100) g")
    with Reading(dsn, TABLES, max_queued_bytes=50_000).start() as reading:
        reading.until_copied()
        with edits_until_the_server_goes(dsn) as flowing:
            wait_for(lambda: (taking and reading.take(), flowing.is_set())[1], "edits were flowing")
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < 2
        wait_for(lambda: reading.source.status().state == "retrying", "the loss was noticed")
        server.start()
        run(dsn, "DELETE FROM customer WHERE id = 100")
        reading.until_passed(wal_lsn(dsn), limit_s=30)
        assert reading.source.status().reconnects == 1
        assert reading.table() == in_the_database(dsn)


def test_a_fast_shutdown_of_an_idle_server_takes_less_than_two_seconds(new_server: Callable[..., DemoServer]) -> None:
    server = new_server()
    run(server.dsn(), *SETUP)
    with Reading(server.dsn(), TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 2


def test_a_server_crash_loses_and_doubles_no_row(new_server: Callable[..., DemoServer]) -> None:
    server = new_server()
    dsn = server.dsn()
    run(dsn, *SETUP, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 100) g")
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        for _ in range(2):
            with edits_until_the_server_goes(dsn) as flowing:
                reading.until(flowing.is_set, "edits were flowing")
                server.kill()
            server.start()
        reading.until_passed(wal_lsn(dsn), limit_s=30)
        assert reading.table() == in_the_database(dsn)


def test_a_killed_walsender_costs_a_reconnect_and_no_row(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        with writers(dsn) as begun:
            assert begun.wait(10)
            reading.until_streaming()
            run(
                dsn,
                f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{reading.slot}'",
            )
            reading.until(lambda: reading.source.status().reconnects == 1, "the reader came back")
        reading.until_passed(wal_lsn(dsn))
        assert reading.table() == in_the_database(dsn)


def test_an_idle_source_confirms_wal_that_is_not_ours(dsn: str) -> None:
    run(dsn, "CREATE TABLE unpublished (id int)")
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO unpublished SELECT generate_series(1, 10000)")
        lsn = wal_lsn(dsn)
        reading.until(lambda: confirmed_lsn(dsn, reading.slot) >= lsn, "the slot moved past WAL of other tables")


def test_nothing_is_confirmed_that_the_pipeline_did_not_confirm(dsn: str) -> None:
    with Reading(dsn, TABLES, confirming=False).start() as reading:
        reading.until_copied()
        created = confirmed_lsn(dsn, reading.slot)
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        reading.until(lambda: reading.streamed, "the row came")
        lsn = reading.streamed and reading.transactions[-1].end_lsn
        read_query = f"SELECT 1 FROM pg_stat_replication WHERE (write_lsn - '0/0')::bigint >= {lsn}"
        wait_for(lambda: run(dsn, read_query), "the server knew that we had received the row")
        assert confirmed_lsn(dsn, reading.slot) == created


def test_a_full_queue_keeps_the_connection_beyond_the_sender_timeout(new_server: Callable[..., DemoServer]) -> None:
    server = new_server(settings={"wal_sender_timeout": "2s"})
    dsn = server.dsn()
    run(dsn, *SETUP)
    with Reading(dsn, TABLES, max_queued_bytes=100_000).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        statement = "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series({0}, {0} + 999) g"
        run(dsn, *(statement.format(1 + 1000 * number) for number in range(30)))
        begun = time.monotonic()
        reply_query = "SELECT count(*) FROM pg_stat_replication WHERE reply_time > backend_start AND state IS NOT NULL"
        wait_for(
            lambda: time.monotonic() - begun > 5 and run(dsn, reply_query) == [(1,)],
            "the sender lived for five seconds",
        )
        assert reading.source.status().reconnects == 0
        reading.until_passed(wal_lsn(dsn))
        assert reading.source.status().reconnects == 0
        assert len(reading.table()) == 30_000


def test_a_queue_holds_no_more_than_its_bound_and_one_transaction(dsn: str) -> None:
    with Reading(dsn, TABLES, max_queued_bytes=20_000).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(dsn, *(f"INSERT INTO customer VALUES ({number}, repeat('x', 1000), 0)" for number in range(2000)))
        wait_for(lambda: reading.source.status().received_lsn > 0, "something was received")
        received = wait_for_rest(reading)
        assert received < 400_000, "the reader went on reading although nothing was taken"
        reading.until_passed(wal_lsn(dsn))
        assert len(reading.table()) == 2000


def wait_for_rest(reading: Reading) -> int:
    """How many bytes of names one big take finds, once the reader has stopped moving."""
    seen: list[int] = []

    def rests() -> bool:
        seen.append(reading.source.status().received_lsn)
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    wait_for(rests, "the reader rested")
    reading.take(10**9)
    return 1000 * len(reading.streamed)


def test_a_large_transaction_comes_whole(dsn: str) -> None:
    with Reading(dsn, TABLES, max_queued_bytes=1000).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer SELECT g, 'n' || g, g FROM generate_series(1, 50000) g")
        reading.until(lambda: reading.streamed, "the transaction came", limit_s=60)
        (transaction,) = [each for each in reading.transactions if each.changes]
        assert [change.ordinal for change in transaction.changes] == list(range(50_000))


def test_a_role_with_settings_of_its_own_changes_no_value(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE shapes (id int PRIMARY KEY, at timestamptz, f float8, b bytea, i interval)",
        "ALTER PUBLICATION cdc_merge ADD TABLE shapes",
        "DROP ROLE IF EXISTS odd",
        "CREATE ROLE odd SUPERUSER LOGIN REPLICATION",
        "ALTER ROLE odd SET datestyle = 'German'",
        "ALTER ROLE odd SET timezone = 'Asia/Tokyo'",
        "ALTER ROLE odd SET extra_float_digits = 0",
        "ALTER ROLE odd SET bytea_output = 'escape'",
        "ALTER ROLE odd SET intervalstyle = 'sql_standard'",
        "ALTER ROLE odd SET statement_timeout = '1s'",
        "INSERT INTO shapes VALUES (1, '2024-03-05 06:07:08+00', 0.1::float8 + 0.2, '\\x00ff', '1 day 2 hours')",
    )
    columns = {"public.shapes": ("id", "at", "f", "b", "i")}
    with Reading(dsn.replace("user=postgres", "user=odd"), columns).start() as reading:
        reading.until_copied()
        run(dsn, "UPDATE shapes SET id = 2")
        reading.until(lambda: reading.streamed, "the change came")
        expected = (b"2024-03-05 06:07:08+00", b"0.30000000000000004", b"\\x00ff", b"1 day 02:00:00")
        assert (reading.copied[0].new or ())[1:] == expected
        assert (reading.streamed[0].new or ())[1:] == expected
    run(dsn, "DROP ROLE odd")


def test_a_logical_message_names_the_actor_of_its_transaction(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(
            dsn,
            "BEGIN; SELECT pg_logical_emit_message(true, 'cdc_merge.actor', 'wang'); "
            "INSERT INTO customer VALUES (1, 'a', 0); COMMIT",
        )
        reading.until(lambda: reading.streamed, "the row came")
        assert reading.transactions[-1].messages == (Message("cdc_merge.actor", b"wang", transactional=True),)


def test_the_status_shows_slot_lag_and_last_commit(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        reading.until(lambda: reading.streamed, "the row came")
        status = reading.source.status()
        assert status.up
        assert status.last_commit_us == reading.transactions[-1].commit_us
        assert (status.slot, status.slot_active, status.wal_status) == (reading.slot, True, "reserved")
        assert status.retained_bytes is not None
        assert 0 <= status.server_lsn - status.received_lsn < 1_000_000
    assert not reading.source.status().up


def test_two_servers_of_other_versions_are_read_alike(old_server: DemoServer) -> None:
    dsn = old_server.dsn()
    run(dsn, "DROP TABLE IF EXISTS customer", "DROP PUBLICATION IF EXISTS cdc_merge", *SETUP)
    run(dsn, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 50) g")
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "UPDATE customer SET points = 1 WHERE id = 7", "DELETE FROM customer WHERE id = 8")
        reading.until_passed(wal_lsn(dsn))
        assert reading.table() == in_the_database(dsn)
    run(dsn, f"SELECT pg_drop_replication_slot('{reading.slot}')")
