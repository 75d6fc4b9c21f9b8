"""A real server behind a network that fails in every way: no row is lost or doubled, and the failure is reported.

Limits that are a minute in production are a second or two here.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import Transaction
from cdc_merge.sources.postgres.reader_limits import ReaderLimits
from cdc_merge.sources.postgres.retry_backoff import retry_delays
from tests.system.faults.proxy import HEALTHY, Fault, Proxy, socket_of
from tests.system.postgres.customer_table import SETUP, TABLES, in_the_database
from tests.system.postgres.reading import Reading, retries, run, wait_for, wal_lsn

QUICK_S = 1.5
# Silence is noticed soon.
IMPATIENT = ReaderLimits(connect_s=2, answer_s=QUICK_S, row_s=QUICK_S, silence_s=QUICK_S)
EDITS = (
    "INSERT INTO customer SELECT g, repeat('x', g % 50), 0 FROM generate_series({0}, {0} + 9) g",
    "UPDATE customer SET points = points + 1 WHERE id > {0} - 5",
    "DELETE FROM customer WHERE id = {0}",
)


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 200) g")
    return database


@pytest.fixture
def proxy(postgres_server: DemoServer) -> Iterator[Proxy]:
    with Proxy(socket_of(postgres_server)) as between:
        yield between


def work(dsn: str, rounds: int, first: int = 1000) -> None:
    run(dsn, *(edit.format(first + 10 * number) for number in range(rounds) for edit in EDITS))


@contextmanager
def editor(dsn: str) -> Iterator[threading.Event]:
    """An editor that writes some hundred times a second; the event is set when the first edits are committed."""
    ended, begun = threading.Event(), threading.Event()

    def edit() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for number in itertools.count(100_000):
                connection.execute("INSERT INTO customer VALUES (%s, 'new', 0)", [number])
                connection.execute("UPDATE customer SET points = points + 1 WHERE id IN (%s, 7)", [number])
                connection.execute("DELETE FROM customer WHERE id = %s", [number - 20])
                begun.set()
                if ended.wait(0.005):
                    return

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield begun
    finally:
        ended.set()
        thread.join(30)


def agrees(reading: Reading, dsn: str) -> None:
    """The reader has come to the present, and its table is the database's."""
    lsn = wal_lsn(dsn)

    def has_come() -> bool:
        at = reading.position
        return at is not None and at.snapshot != "running" and at.lsn >= lsn

    reading.until(has_come, "the reader came to the present", limit_s=60)
    assert reading.table() == in_the_database(dsn)


# ---------------------------------------------------------------- each fault


def strike(proxy: Proxy, fault: str) -> None:
    STRIKES[fault](proxy)


def _refuse(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()


STRIKES: Mapping[str, Callable[[Proxy], None]] = {
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.cut(resets=True),
    "stream_cut": lambda proxy: proxy.cut(only="stream"),
    "plain_cut": lambda proxy: proxy.cut(only="plain"),
    "half_open": lambda proxy: proxy.vanish(),
    "stream_half_open": lambda proxy: proxy.vanish(only="stream"),
    "plain_half_open": lambda proxy: proxy.vanish(only="plain"),
    "stall": lambda proxy: proxy.set(Fault(stalls=True)),
    "stream_stall": lambda proxy: proxy.set(Fault(stalls=True, only="stream")),
    "plain_stall": lambda proxy: proxy.set(Fault(stalls=True, only="plain")),
    "refuse": _refuse,
}
MENDS: Mapping[str, Callable[[Proxy], None]] = {
    "stall": lambda proxy: proxy.set(HEALTHY),
    "stream_stall": lambda proxy: proxy.set(HEALTHY),
    "plain_stall": lambda proxy: proxy.set(HEALTHY),
    "refuse": lambda proxy: proxy.listen_again(),
}
SAID: Mapping[str, str] = {
    "cut": "closed the connection",
    "reset": "cannot be reached",
    "stream_cut": "closed the connection",
    "plain_cut": "closed the connection",
    "half_open": "sent nothing|did not answer",
    "stream_half_open": "sent nothing",
    "plain_half_open": "did not answer",
    "stall": "sent nothing|did not answer",
    "stream_stall": "sent nothing",
    "plain_stall": "did not answer",
    "refuse": "closed the connection",
}


@pytest.mark.parametrize("fault", STRIKES)
def test_a_network_fault_is_reported_and_costs_no_row(dsn: str, proxy: Proxy, fault: str) -> None:
    with Reading(proxy.dsn(dsn), TABLES, limits=IMPATIENT).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        with editor(dsn) as begun:
            assert begun.wait(10)
            reading.until(lambda: len(reading.transactions) > 5, "edits flowed")
            strike(proxy, fault)
            reading.until(lambda: retries(reading), "the fault was noticed", limit_s=3 * QUICK_S + 2)
            if fault in MENDS:
                MENDS[fault](proxy)
            reading.until(lambda: reading.source.status().reconnects == 1, "the reader came back")
        agrees(reading, dsn)
        assert_said(retries(reading)[0].sentence, SAID[fault])
        assert reading.source.status().problem is None


def assert_said(sentence: str, words: str) -> None:
    assert sentence.startswith("Source crm: ")
    assert any(word in sentence for word in words.split("|")), sentence


@pytest.mark.parametrize(
    "fault", [Fault(latency_s=0.02, chunk_bytes=2048), Fault(bytes_per_s=100_000, chunk_bytes=1000)]
)
def test_a_slow_network_causes_no_retry(dsn: str, proxy: Proxy, fault: Fault) -> None:
    proxy.set(fault)
    with Reading(proxy.dsn(dsn), TABLES, limits=IMPATIENT).start() as reading:
        reading.until_copied()
        work(dsn, 10)
        agrees(reading, dsn)
        assert retries(reading) == []


def test_a_stream_that_arrives_byte_by_byte_is_read_correctly(dsn: str, proxy: Proxy) -> None:
    with Reading(proxy.dsn(dsn), TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        proxy.set(Fault(chunk_bytes=1))
        work(dsn, 1)
        agrees(reading, dsn)
        assert retries(reading) == []


STALLS = [("plain", 300), ("plain", 1500), ("plain", 40_000), ("stream", 300), ("stream", 900)]


@pytest.mark.parametrize(("only", "stall_after"), STALLS)
def test_a_server_that_falls_silent_before_the_stream_is_given_up_within_the_limit(
    dsn: str, proxy: Proxy, only: str, stall_after: int
) -> None:
    """At login, among the catalog queries, in the initial snapshot, at the start of the stream."""
    run(dsn, "INSERT INTO customer SELECT g, repeat('x', 300), 0 FROM generate_series(1000, 1400) g")
    proxy.set(Fault(chunk_bytes=200, stall_after=stall_after, only=only))
    with Reading(proxy.dsn(dsn), TABLES, limits=IMPATIENT).start() as reading:
        reading.until(lambda: retries(reading), "the silence was noticed", limit_s=4 * QUICK_S + 2)
        proxy.set(HEALTHY)
        agrees(reading, dsn)


def test_a_stall_shorter_than_the_limit_causes_no_retry(dsn: str, proxy: Proxy) -> None:
    with Reading(proxy.dsn(dsn), TABLES, limits=IMPATIENT).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        for _ in range(3):
            proxy.set(Fault(stalls=True))
            begun_s = time.monotonic()
            reading.until(lambda: time.monotonic() - begun_s > QUICK_S / 4, "a moment passed")  # noqa: B023
            proxy.set(HEALTHY)
            work(dsn, 1, first=1000 + 1000 * len(reading.transactions))
            agrees(reading, dsn)
        assert retries(reading) == []


# ---------------------------------------------------------------- cut after N bytes


def undisturbed(dsn: str) -> Reading:
    return Reading(dsn, TABLES, slot=f"plain_{dsn.partition('dbname=')[2].partition(' ')[0]}")


def behind(transactions: Sequence[Transaction], lsn: int) -> list[Transaction]:
    return [each for each in transactions if each.end_lsn > lsn and each.changes]


# All over a stream's connection: its log-in and questions (about 1 kB), then rows, at uneven places.
CUT_OFFS = tuple(round(30 + number**2.6) for number in range(42))


def test_a_stream_cut_after_any_number_of_bytes_delivers_what_an_undisturbed_one_delivers(
    dsn: str, proxy: Proxy
) -> None:
    disturbed = Reading(proxy.dsn(dsn), TABLES, slot="cut", limits=ReaderLimits(retry_longest_s=0.05))
    with undisturbed(dsn).start() as plain, disturbed.start() as reading:
        for each in (plain, reading):
            each.until_copied()
            each.until_streaming()
        began = max(each.deliveries[0][3] for each in (plain, reading))  # type: ignore[misc]  # SnapshotBegan's lsn
        proxy.set_next(*(Fault(cut_after=at, resets=bool(number % 2)) for number, at in enumerate(CUT_OFFS)))
        proxy.cut(only="stream")
        with editor(dsn):
            reading.until(lambda: len(retries(reading)) > len(CUT_OFFS), "every connection was cut off", limit_s=60)
        for each in (plain, reading):
            agrees(each, dsn)
        assert behind(reading.transactions, began) == behind(plain.transactions, began)
        assert len(behind(reading.transactions, began)) > 50


@pytest.mark.parametrize("only", ["plain", "stream"])
def test_a_snapshot_cut_after_any_number_of_bytes_ends_as_the_table(dsn: str, proxy: Proxy, only: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, repeat('x', 300), 0 FROM generate_series(1000, 1400) g")
    for cut_after in (100, 700, 1500, 3000, 9000, 40_000, 100_000):
        proxy.set(Fault(cut_after=cut_after, only=only))
        with Reading(proxy.dsn(dsn), TABLES, slot=f"copy_{only}").start() as reading:
            reading.until(lambda: retries(reading) or reading.copied, "it was cut off or copied")
            work(dsn, 1, first=10_000 + cut_after * 10)
            proxy.set(HEALTHY)
            agrees(reading, dsn)
        assert len(run(dsn, "SELECT 1 FROM pg_replication_slots WHERE database = current_database()")) == 1


# ---------------------------------------------------------------- how it tries again


def test_a_refused_connection_is_retried_with_growing_pauses_and_jitter(dsn: str, proxy: Proxy) -> None:
    with Reading(proxy.dsn(dsn), TABLES).start() as reading:
        reading.until_copied()
        times: list[float] = []
        proxy.refuse()
        proxy.cut()
        seen = 0

        def tried(times_wanted: int) -> bool:
            nonlocal seen
            if len(retries(reading)) > seen:
                seen = len(retries(reading))
                times.append(time.monotonic())
            return seen >= times_wanted

        wait_for(lambda: tried(5), "it was tried five times")
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses[-1] > 3 * pauses[0]
        proxy.listen_again()
        reading.until_streaming()
        agrees(reading, dsn)


def test_the_retry_pauses_of_two_readers_differ() -> None:
    ours, theirs = (list(itertools.islice(retry_delays(5.0), 20)) for _ in range(2))
    assert all(mine != other for mine, other in zip(ours, theirs, strict=True))
    assert max(ours + theirs) <= 5.0


def test_a_server_that_ends_every_stream_at_once_is_retried_with_pauses(dsn: str, proxy: Proxy) -> None:
    """It streams, and a moment later it is gone: that is no progress, so the pauses grow."""
    with Reading(proxy.dsn(dsn), TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        stop = threading.Event()

        def cut_every_stream() -> None:
            while not stop.wait(0.01):
                if reading.source.status().state == "streaming":
                    proxy.cut(only="stream")

        thread = threading.Thread(target=cut_every_stream)
        thread.start()
        begun_s, before = time.monotonic(), len(retries(reading))
        wait_for(lambda: time.monotonic() - begun_s > 4, "four seconds passed", limit_s=10)
        in_four_seconds = len(retries(reading)) - before
        wait_for(lambda: len(retries(reading)) - before >= 2, "it was retried", limit_s=30)
        stop.set()
        thread.join()
        assert in_four_seconds <= 7


# ---------------------------------------------------------------- while we are busy


def test_the_server_gets_its_status_while_deliveries_wait_and_the_network_is_slow(
    new_server: Callable[..., DemoServer],
) -> None:
    server = new_server(settings={"wal_sender_timeout": "1s"})
    run(server.dsn(), *SETUP)
    with Proxy(socket_of(server)) as proxy:
        proxy.set(Fault(latency_s=0.05))
        with Reading(proxy.dsn(server.dsn()), TABLES, max_queued_bytes=100_000).start() as reading:
            reading.until_copied()
            reading.until_streaming()
            fill = "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series({0}, {0} + 999) g"
            run(server.dsn(), *(fill.format(1 + 1000 * number) for number in range(3)))
            begun_s = time.monotonic()
            alive = "SELECT count(*) FROM pg_stat_replication WHERE reply_time > now() - interval '2 s'"
            wait_for(
                lambda: time.monotonic() - begun_s > 3 and run(server.dsn(), alive) == [(1,)],
                "the sender heard of us for three seconds",
            )
            assert retries(reading) == []
            proxy.set(HEALTHY)
            agrees(reading, server.dsn())
            assert retries(reading) == []


def test_a_server_that_vanishes_while_the_queue_is_full_is_noticed(dsn: str, proxy: Proxy) -> None:
    with Reading(proxy.dsn(dsn), TABLES, max_queued_bytes=1000, limits=IMPATIENT).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(dsn, "INSERT INTO customer SELECT g, repeat('x', 200), 0 FROM generate_series(1000, 1100) g")
        wait_for(lambda: reading.source.status().received_lsn > 0, "something arrived")
        proxy.vanish()
        wait_for(lambda: retries(reading), "the loss was noticed", limit_s=3 * QUICK_S + 2)
        agrees(reading, dsn)


@pytest.mark.parametrize("after", [0, 1])
def test_a_stop_is_quick_whatever_the_network_does(dsn: str, proxy: Proxy, after: int) -> None:
    """In the middle of connecting (0), and in the stream (1)."""
    if after == 0:
        proxy.set(Fault(stalls=True))
    with Reading(proxy.dsn(dsn), TABLES, limits=IMPATIENT).start() as reading:
        if after:
            reading.until_copied()
            reading.until_streaming()
            proxy.set(Fault(stalls=True))
        else:
            wait_for(lambda: proxy.accepted, "a connection was tried")
        begun_s = time.monotonic()
        reading.source.stop()
        assert time.monotonic() - begun_s < 2 * QUICK_S
