"""A reader in a process of its own delivers as a thread does, whichever of the two processes dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cdc_merge.model import UNCHANGED, Fact, SnapshotBegan, SourceChanged
from cdc_merge.sources.process.wire import PART_ROWS
from cdc_merge.sources.spill import SpilledRows
from tests.system.postgres.customer_table import SETUP, in_the_database, writers
from tests.system.postgres.process_reading import ProcessReading, readers
from tests.system.postgres.reading import Reading, confirmed_lsn, run, wait_for, wal_lsn

FILL = "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series({0}, {0} + 99) g"


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


def has_transactions(reading: Reading, wanted: int) -> bool:
    return len(reading.transactions) >= wanted


def test_copy_and_stream_make_the_table_as_it_is(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 3000) g")
    with ProcessReading(dsn) as reading:
        with writers(dsn) as begun:
            assert begun.wait(10)
            reading.start()
            reading.until(lambda: len(reading.transactions) > 20, "twenty transactions followed the copy")
        reading.until_passed(wal_lsn(dsn))
        assert reading.table() == in_the_database(dsn)


def test_the_pipeline_is_woken_when_something_arrives(dsn: str) -> None:
    with ProcessReading(dsn).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        reading.woken.clear()
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        while not reading.streamed:
            assert reading.woken.wait(5)
            reading.woken.clear()
            reading.take()


def test_a_confirmed_lsn_becomes_the_slots_confirmed_flush_lsn(dsn: str) -> None:
    with ProcessReading(dsn).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        reading.until(lambda: reading.streamed, "the row came")
        lsn = reading.transactions[-1].end_lsn
        reading.until(lambda: confirmed_lsn(dsn, reading.slot) >= lsn, "the row was confirmed")


def test_a_killed_reader_is_replaced_without_a_lost_or_doubled_row(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 500) g")
    with ProcessReading(dsn, window_bytes=400_000).start() as reading:
        reading.until_copied()
        with writers(dsn) as begun:
            assert begun.wait(10)
            for wanted in (20, 60):
                reading.until(partial(has_transactions, reading, wanted), "edits flowed")
                reading.kill_reader()
        reading.until_passed(wal_lsn(dsn), limit_s=60)
        assert reading.table() == in_the_database(dsn)
        assert [f.state for f in reading.facts if isinstance(f, SourceChanged)].count("retrying") >= 2


def test_a_reader_killed_in_its_initial_snapshot_begins_the_snapshot_again(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series(1, 20000) g")
    with ProcessReading(dsn, window_bytes=1, max_queued_bytes=1).start() as reading:
        reading.until(lambda: reading.copied, "the first rows of the copy came")
        assert len(reading.copied) < 20_000
        reading.kill_reader()
        reading.until_copied()
        assert sum(isinstance(each, SnapshotBegan) for each in reading.deliveries) == 2
        assert len(reading.copied) == 20_000


def test_a_restarted_reader_confirms_nothing_that_is_not_on_disk(dsn: str) -> None:
    with ProcessReading(dsn, confirming=False).start() as reading:
        reading.until_copied()
        created = confirmed_lsn(dsn, reading.slot)
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        reading.until(lambda: reading.streamed, "the row came")
        reading.kill_reader()
        run(dsn, "INSERT INTO customer VALUES (2, 'b', 0)")
        reading.until(lambda: len(reading.streamed) > 1, "the next row came")
        assert len(reading.table()) == 2
        lsn = reading.transactions[-1].end_lsn
        read_query = f"SELECT 1 FROM pg_stat_replication WHERE (write_lsn - '0/0')::bigint >= {lsn}"
        wait_for(lambda: run(dsn, read_query), "the server knew that we had received both rows")
        assert confirmed_lsn(dsn, reading.slot) == created


def test_an_unchanged_long_value_stays_a_gap(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE letter (id int PRIMARY KEY, text text, n int)",
        "ALTER TABLE letter ALTER text SET STORAGE EXTERNAL",
        "ALTER PUBLICATION cdc_merge ADD TABLE letter",
        "INSERT INTO letter VALUES (1, repeat('long ', 2000), 0)",
    )
    with ProcessReading(dsn, {"public.letter": ("id", "text", "n")}).start() as reading:
        reading.until_copied()
        run(dsn, "UPDATE letter SET n = 1")
        reading.until(lambda: reading.streamed, "the update came")
        assert reading.streamed[0].new == (b"1", UNCHANGED, b"1")


def test_a_transaction_of_many_parts_arrives_whole(dsn: str) -> None:
    with ProcessReading(dsn, window_bytes=1000).start() as reading:
        reading.until_copied()
        run(dsn, f"INSERT INTO customer SELECT g, 'n', g FROM generate_series(1, {5 * PART_ROWS + 1}) g")
        reading.until(lambda: reading.streamed, "the transaction came")
        (transaction,) = [each for each in reading.transactions if each.changes]
        assert [change.ordinal for change in transaction.changes] == list(range(5 * PART_ROWS + 1))


def test_bytes_in_flight_are_bounded_by_queue_and_window(dsn: str) -> None:
    with ProcessReading(dsn, window_bytes=20_000, max_queued_bytes=20_000).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(dsn, *(FILL.format(1 + 100 * number) for number in range(100)))
        wait_for(lambda: reading.source.status().slot_active, "the slot was in use")
        seen: list[int] = []

        def rests() -> bool:
            seen.append(reading.source.status().received_lsn)
            time.sleep(0.05)
            return len(seen) > 20 and len(set(seen[-20:])) == 1

        wait_for(rests, "the reader rested")
        reading.take(10**9)
        assert 100 <= len(reading.streamed) <= 400
        reading.until_passed(wal_lsn(dsn))
        assert len(reading.table()) == 10_000


def test_a_stop_is_quick_while_deliveries_wait_in_the_pipe(dsn: str) -> None:
    with ProcessReading(dsn, window_bytes=20_000, max_queued_bytes=20_000).start() as reading:
        reading.until_copied()
        run(dsn, *(FILL.format(1 + 100 * number) for number in range(20)))
        wait_for(lambda: reading.source.status().received_lsn, "something was received")
        begun_s = time.monotonic()
        reading.source.stop()
        assert time.monotonic() - begun_s < 5
        assert readers() == []
        assert reading.source.status().state == "stopped"
        assert reading.source.take(1) == []


def test_a_stopped_source_resumes_after_its_position(dsn: str) -> None:
    with ProcessReading(dsn).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        reading.until(lambda: reading.streamed, "the row came")
        reading.source.stop()
        run(dsn, "INSERT INTO customer VALUES (2, 'a', 0)")
        reading.start(reading.position)
        reading.until_passed(wal_lsn(dsn))
        assert sorted(reading.table()) == [b"1", b"2"]


def test_facts_of_the_reader_reach_the_parents_observer(dsn: str) -> None:
    with ProcessReading(dsn).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        states = [fact.state for fact in reading.facts if isinstance(fact, SourceChanged)]
        assert states == ["snapshot", "streaming"]


def test_a_source_that_refuses_reports_why_and_is_not_retried(dsn: str) -> None:
    with ProcessReading(dsn, publication="another").start() as reading:
        assert reading.refusal().problem == "publication_missing"
        (reader,) = readers()
        reading.source.stop()
        assert "Publication another" in (reading.source.status().problem or "")
        assert not reader.is_alive()


READ_FOR_EVER = """
import multiprocessing, sys, time
from cdc_merge.sources.process.parent import ProcessSource
from cdc_merge.sources.postgres.reader_settings import ReaderSettings

if __name__ == "__main__":
    tables = {"public.customer": ("id", "name", "points")}
    settings = ReaderSettings("crm", sys.argv[1], "cdc_orphan", "cdc_merge", "initial", tables, 16 << 20)
    source = ProcessSource(settings, lambda: None, lambda fact: None)
    source.start(None)
    while source.status().state != "streaming":
        time.sleep(0.01)
    print(multiprocessing.active_children()[0].pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_leaves_no_process_and_no_slot_in_use(
    dsn: str, tmp_path: Path, ending: signal.Signals
) -> None:
    script = tmp_path / "read_for_ever.py"
    script.write_text(READ_FOR_EVER)
    with subprocess.Popen(
        [sys.executable, script, dsn],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as parent:
        assert parent.stdout is not None
        reader = int(parent.stdout.readline())
        wait_for(lambda: run(dsn, "SELECT 1 FROM pg_replication_slots WHERE active"), "the slot was in use")
        parent.send_signal(ending)
        parent.wait(10)
        wait_for(lambda: not Path(f"/proc/{reader}").exists(), "the reader's process ended")
    wait_for(lambda: not run(dsn, "SELECT 1 FROM pg_replication_slots WHERE active"), "the slot was free")


def test_a_large_transaction_arrives_as_a_file_that_outlives_its_reader(dsn: str) -> None:
    with ProcessReading(dsn).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series(1, 60000) g")
        reading.until(lambda: reading.transactions, "it came", limit_s=60)
        changes = reading.transactions[-1].changes
        assert isinstance(changes, SpilledRows)
        assert os.fstat(changes.descriptor).st_nlink == 0
        reading.kill_reader()
        assert len(changes) == 60_000
        assert [change.ordinal for change in changes] == list(range(60_000))
        assert reading.table() == in_the_database(dsn)
        run(dsn, "UPDATE customer SET points = 1 WHERE id = 1")
        reading.until(lambda: len(reading.streamed) > 60_000, "the stream went on, and brought nothing twice")
        assert len(reading.streamed) == 60_001


SURPRISED = """
import sys, time
from cdc_merge.sources.process.parent import ProcessSource
from cdc_merge.sources.postgres.reader_settings import ReaderSettings


class Window(int):
    def __le__(self, sent):
        '''The reader looks whether it may send on.'''
        if sent:
            raise KeyError("kim_at_example")
        return super().__le__(sent)


if __name__ == "__main__":
    tables = {"public.customer": ("id", "name", "points")}
    settings = ReaderSettings("crm", sys.argv[1], "cdc_surprised", "cdc_merge", "initial", tables, 16 << 20)
    failures, times = [], []

    def observe(fact):
        if getattr(fact, "problem", None) == "reader_failed":
            times.append(time.monotonic())
            failures.append(f"{fact.state} {fact.failure} {fact.sentence} {fact.hint}")

    source = ProcessSource(settings, lambda: None, observe, Window(16 << 20))
    source.start(None)
    while len(failures) < 3:
        source.take(100)
        time.sleep(0.01)
    while "unexpected" not in (source.status().problem or ""):
        time.sleep(0.01)
    print(*failures, source.status().problem, times[1] - times[0] < times[2] - times[1], sep="\\n")
    source.stop()
"""


def test_an_unexpected_error_of_a_reader_is_reported_by_type_and_place_without_values(dsn: str, tmp_path: Path) -> None:
    script = tmp_path / "surprised.py"
    script.write_text(SURPRISED)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(
        [sys.executable, script, dsn], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    *failures, problem, grows = ended.stdout.splitlines()
    assert len(failures) == 3
    assert all(each.startswith("retrying internal Source crm: its reader ended by an unexpected ") for each in failures)
    assert all("KeyError in " in each for each in [*failures, problem])
    assert grows == "True"
    assert "kim_at_example" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


class Startled(ProcessReading):
    """Its first fact meets an observer that raises."""

    def _note(self, fact: Fact) -> None:
        super()._note(fact)
        if len(self.facts) == 1:
            raise RuntimeError("kim_at_example")


def test_a_reader_that_receives_a_malformed_message_is_replaced(dsn: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Startled(dsn).start() as reading:
        reading.until(lambda: reading.source.status().reconnects, "another reader was started")
        reading.until_streaming()
        problems = [fact for fact in reading.facts if isinstance(fact, SourceChanged) and fact.problem]
    assert [fact.problem for fact in problems] == ["reader_failed"]
    assert "RuntimeError in " in problems[0].sentence
    assert "kim_at_example" not in problems[0].sentence + capfd.readouterr().err
