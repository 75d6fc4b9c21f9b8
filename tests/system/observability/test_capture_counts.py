"""What is counted while a source is captured, seen to move on real servers; and whose labels are closed lists."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.errors import CdcMergeError, ProtocolError, SourceRefused, SourceUnavailable
from cdc_merge.model import ChunkRead, SourceChanged
from cdc_merge.model.capture_counters import (
    COMMIT_LAG,
    COMMIT_LAG_US,
    COMMIT_ORDER,
    GAP_KINDS,
    GAPS,
    LAG_KEYS,
    SNAPSHOT_CHUNKS,
    SPILLED,
    STATUS_REASONS,
    STATUS_UPDATES,
    WINDOW_DROPPED,
    Counts,
    Tally,
)
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.observers.labels import FAILURE_CLASSES, PROBLEMS
from cdc_merge.sources.postgres.failure_classes import failure_class
from cdc_merge.sources.postgres.resume_checks import LOST
from cdc_merge.sources.spill import SpillFull
from tests.support.alerting import wait_until
from tests.support.shop import Shop, metric
from tests.system.postgres.customer_table import SETUP, TABLES
from tests.system.postgres.process_reading import ProcessReading
from tests.system.postgres.reading import Reading, run, wait_for, wal_lsn

HOUR_US: Final = 3_600_000_000
ONE_SOURCE: Final = (
    "CREATE TABLE customer (id int PRIMARY KEY, no text, phone text, note text)",
    "ALTER TABLE customer ALTER note SET STORAGE EXTERNAL",
    "CREATE TABLE elsewhere (id int PRIMARY KEY)",
    "CREATE PUBLICATION cdc_merge FOR TABLE customer, elsewhere",
    "INSERT INTO customer SELECT g, 'C' || g, 'x', repeat('n', 4000) FROM generate_series(1, 9) g",
)
MAPPED: Final = {"table": "public.customer", "key": "no", "fields": {"phone": "phone", "note": "note"}}


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


@contextmanager
def sidecar(directory: Path, dsn: str) -> Iterator[str]:
    """A sidecar with one source, whose reader is a process of its own; its address."""
    shop = Shop(directory, {"crm": dsn})
    fields = {"phone": {"merge": "mv"}, "note": {"merge": "lww"}}
    shop.write(entities={"customer": {"from": {"crm": MAPPED}, "fields": fields}})
    running = Sidecar(load(shop.file, {}), environment={})
    try:
        running.start()
        yield f"http://{running.address}"
    finally:
        running.stop()


def counts(reading: Reading) -> Counts:
    return reading.source.status().counts


def test_what_is_done_to_a_table_is_counted_by_what_it_was(database: str, tmp_path: Path) -> None:
    run(database, *ONE_SOURCE)
    with sidecar(tmp_path, database) as address:

        def sample(name: str, labels: str = "") -> float:
            return metric(address, f'cdc_merge_{name}{{{labels}source="crm"}}')

        def of_table(name: str, table: str) -> float:
            return metric(address, f'cdc_merge_{name}{{source="crm",table="{table}"}}')

        wait_until(
            lambda: sample("source_up") and sample("snapshot_tables_remaining") == 0, "the initial snapshot is done"
        )
        assert sample("snapshot_chunks_total") == 1
        assert sample("snapshot_duration_seconds") > 0
        operations = ("insert", "update", "delete", "truncate", "message")
        before = [sample("events_total", f'op="{op}",') for op in operations]
        assert before[:4] == [0, 0, 0, 0]
        assert of_table("toast_absent_fields_total", "public.customer") == 0
        run(
            database,
            "INSERT INTO customer VALUES (20, 'C20', 'x', 'n')",
            "UPDATE customer SET phone = 'y' WHERE id < 4",
            "UPDATE customer SET no = 'C100' WHERE id = 5",
            "DELETE FROM customer WHERE id = 6",
            "SELECT pg_logical_emit_message(true, 'somebody', 'says')",
            "INSERT INTO elsewhere VALUES (1)",
            "TRUNCATE elsewhere",
            "TRUNCATE customer",
        )
        wait_until(lambda: of_table("truncates_total", "public.customer") == 1, "the reader reports the truncate")
        wait_until(lambda: of_table("key_changes_total", "public.customer") == 1, "the changed key is merged")
        moved = [sample("events_total", f'op="{op}",') for op in operations]
        assert moved[:4] == [2, 4, 1, 2]
        assert moved[4] > before[4]
        assert of_table("toast_absent_fields_total", "public.customer") == 4
        assert of_table("truncates_total", "other") == 1
        assert sample("event_bytes_total") > 500
        assert sample("commit_lag_seconds_count") >= 8
        assert sample("unknown_messages_total") == sample("duplicates_dropped_total") == 0


def test_a_large_transaction_is_seen_while_it_comes_and_where_its_rows_were_laid(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        assert counts(reading).get((SPILLED, ""), 0) == reading.source.status().open_bytes == 0
        many = "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series(1, 120000) g"
        writer = threading.Thread(target=run, args=(dsn, many))
        writer.start()
        most = 0

        def is_here() -> bool:
            nonlocal most
            most = max(most, reading.source.status().open_bytes)
            return any(len(each.changes) == 120_000 for each in reading.transactions)

        reading.until(is_here, "the transaction is here", 120)
        writer.join()
        assert most > 1_000_000
        assert counts(reading)[(SPILLED, "")] > 8_000_000
        assert counts(reading)[("events", "insert")] == 120_000
        assert reading.source.status().open_bytes == 0


def test_the_lag_of_a_commit_is_read_on_the_source_s_clock_alone(dsn: str) -> None:
    with Reading(dsn, TABLES, now_us=lambda: time.time_ns() // 1000 + HOUR_US).start() as reading:
        reading.until_copied()
        for number in range(5):
            run(dsn, f"INSERT INTO customer VALUES ({number}, 'x', 0)")
        reading.until_passed(wal_lsn(dsn))
        counted = counts(reading)
        assert sum(counted[key] for key in LAG_KEYS) >= 5
        assert counted[(COMMIT_LAG, "inf")] == 0
        assert counted[(COMMIT_LAG_US, "")] < 100_000_000


def test_status_goes_out_by_the_clock_when_something_is_confirmed_and_to_ask(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'x', 0)")
        reading.until(
            lambda: all(counts(reading).get((STATUS_UPDATES, reason), 0) > 1 for reason in STATUS_REASONS),
            "there were status updates of every reason",
        )


def test_counts_go_on_when_the_reader_is_killed_and_a_slot_that_is_gone_is_a_gap(dsn: str) -> None:
    with ProcessReading(dsn) as reading:
        reading.start()
        reading.until_copied()
        reading.until_streaming()
        run(dsn, *(f"INSERT INTO customer VALUES ({number}, 'x', 0)" for number in range(20)))
        reading.until(lambda: counts(reading).get(("events", "insert"), 0) == 20, "twenty rows are counted")
        before = counts(reading)
        reading.kill_reader()
        killed = [fact for fact in reading.facts if isinstance(fact, SourceChanged) and fact.failure]
        assert [fact.failure for fact in killed] == ["process"]
        assert all(counts(reading)[key] >= count for key, count in before.items())
        reading.until_streaming()
        run(dsn, "INSERT INTO customer VALUES (100, 'x', 0)")
        reading.until(lambda: counts(reading)[("events", "insert")] == 21, "the next row is counted on top")
        reading.until_passed(wal_lsn(dsn))
        position = reading.position
        reading.source.stop()
        run(dsn, f"SELECT pg_drop_replication_slot('{reading.slot}')")
        assert counts(reading).get((GAPS, "slot_missing"), 0) == 0
        reading.start(position)
        assert reading.refusal().failure == "position"
        wait_for(lambda: counts(reading).get((GAPS, "slot_missing"), 0) == 1, "the gap is counted")
        assert counts(reading)[("events", "insert")] == 21


def test_a_connection_that_the_server_ends_is_an_error_that_is_tried_again(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(
            dsn, f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{reading.slot}'"
        )

        def failed() -> list[SourceChanged]:
            return [fact for fact in reading.facts if isinstance(fact, SourceChanged) and fact.failure]

        wait_for(failed, "the failure is reported")
        assert failed()[0].state == "retrying"
        assert failed()[0].failure in ("shutdown", "connection")
        assert (GAPS, "slot_missing") not in counts(reading)


def test_a_source_that_is_not_read_for_want_of_room_says_so_until_there_is_room(dsn: str) -> None:
    with Reading(dsn, TABLES, max_queued_bytes=20_000).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        assert not reading.source.status().waits
        run(
            dsn,
            *(
                f"INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series({n}, {n} + 99) g"
                for n in (1, 101, 201)
            ),
        )
        wait_for(lambda: reading.source.status().waits, "the source waits")
        reading.until_passed(wal_lsn(dsn))
        assert not reading.source.status().waits


def test_a_first_copy_is_followed_by_its_tables_pieces_and_time(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 5000) g")
    with Reading(dsn, TABLES, max_queued_bytes=20_000) as reading:
        assert reading.source.status().copy_s == 0
        reading.start()
        wait_for(lambda: reading.source.status().waits, "the copy waits for room")
        assert reading.source.status().copy_tables_left == 1
        reading.until_copied()
        reading.until_streaming()
        status = reading.source.status()
        assert status.copy_tables_left == 0
        assert status.counts[(SNAPSHOT_CHUNKS, "")] == 3
        assert status.copy_s > 0
        assert reading.source.status().copy_s == status.copy_s, "it has ended"


def test_rows_read_again_that_the_stream_has_overtaken_are_counted(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 1000) g")
    ended = threading.Event()

    def keep_writing() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute("UPDATE customer SET points = points + 1 WHERE id <= 50")

    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            number = 0

            def is_overtaken() -> bool:
                nonlocal number
                answered = [each.number for each in reading.deliveries if isinstance(each, ChunkRead)]
                if len(answered) == number:
                    number += 1
                    reading.source.request_chunk(ChunkRequest(number, "public.customer"))  # type: ignore[attr-defined]
                # A whole piece that must be read once more counts, too: a thousand rows.
                return counts(reading).get((WINDOW_DROPPED, ""), 0) % 1000 > 0

            reading.until(is_overtaken, "a row was overtaken")
        finally:
            ended.set()
            writer.join()


# ---------------------------------------------------------------- closed lists


def test_a_table_that_is_not_configured_has_no_label_of_its_own() -> None:
    tally = Tally(["public.customer"])
    for number in range(1000):
        tally.of_table("truncates", f"public.t{number}")
    assert {label for figure, label in tally.counts() if figure == "truncates"} == {"other"}


def test_every_reason_to_lose_a_position_has_its_label() -> None:
    assert {*GAP_KINDS} == {*LOST, COMMIT_ORDER}


def raised() -> Iterator[CdcMergeError]:
    """One error of each kind that a reader may end with."""
    yield from (SourceRefused("It says no.", problem=problem) for problem in PROBLEMS)
    states = (None, "08006", "08P01", "53300", "55006", "57P01", "XX000", "40001")
    yield from (SourceUnavailable("It is away.", sqlstate=state) for state in states)
    yield from (ProtocolError("It makes no sense."), SpillFull("There is no room."), CdcMergeError("Something else."))


def test_every_failure_has_its_class_and_every_class_its_failure() -> None:
    assert {failure_class(error) for error in raised()} | {"process"} == {*FAILURE_CLASSES}
