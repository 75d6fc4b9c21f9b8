"""The stream's loop against a scripted server: sequences that a real one sends rarely or only by chance.

The script is our own end of two sockets; the loop, the queue and the assembler are the real ones.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from cdc_merge.errors import SourceRefused, SourceUnavailable
from cdc_merge.model import Delivery, Idle, Position, Transaction
from cdc_merge.sources.postgres.protocol.timelines import Timelines
from cdc_merge.sources.postgres.protocol.transactions import Assembler
from cdc_merge.sources.postgres.reader_limits import ReaderLimits
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.resume_checks import Slot
from cdc_merge.sources.postgres.slot_monitor import ClockReading, Health, SlotMonitor
from cdc_merge.sources.postgres.stream import Connections, Stream
from tests.recordings import payloads as wire

NOW_US = 1_790_000_000_000_000


def data(payload: bytes) -> bytes:
    return b"w" + bytes(24) + payload


def keepalive(lsn: int, *, reply: bool = False) -> bytes:
    return b"k" + struct.pack("!QqB", lsn, wire.pg_us(NOW_US), reply)


def transaction(end_lsn: int) -> list[bytes]:
    return [data(wire.begin(end_lsn - 10)), data(wire.commit(end_lsn - 10, end_lsn))]


class ScriptedSender:
    """Hands out one batch of frames a call; when none is left, it does what the script ends with."""

    def __init__(self, batches: list[list[bytes]], end: Callable[[], None]) -> None:
        self._batches = iter(batches)
        self._end = end
        self.is_streaming = True
        self._ours, self._theirs = socket.socketpair()
        self._theirs.send(b"readable for ever")
        self.statuses: list[tuple[int, int, bool]] = []

    @property
    def socket(self) -> int:
        return self._ours.fileno()

    def receive(self) -> list[memoryview]:
        batch = next(self._batches, None)
        if batch is None:
            self._end()
            return []
        return [memoryview(frame) for frame in batch]

    def send_status(self, received: int, flushed: int, now_us: int, *, requests_reply: bool = False) -> None:
        self.statuses.append((received, flushed, requests_reply))

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class ScriptedMonitor:
    """Answers what it was given, one after the other, and then no more."""

    publication = "cdc_merge"

    def __init__(self, *answers: ClockReading | Health) -> None:
        self._answers = answers
        self._ours, self._theirs = socket.socketpair()
        if answers:
            self._theirs.send(b"!")
        self.flushes = 0

    @property
    def socket(self) -> int:
        return self._ours.fileno()

    def query_clock(self) -> bool:
        return True

    def query_health(self) -> bool:
        return True

    def query_flush(self) -> bool:
        self.flushes += 1
        return True

    def result(self) -> ClockReading | Health | None:
        self._ours.recv(10)
        if not self._answers:
            return None
        answer, *rest = self._answers
        self._answers = tuple(rest)
        if rest:
            self._theirs.send(b"!")
        return answer

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class World:
    """A stream from position 1000 with nothing on disk beyond it."""

    def __init__(self, batches: list[list[bytes]], *answers: ClockReading | Health) -> None:
        self.shared = ReaderState(1 << 20, lambda: None)
        self.shared.delivered = Position("77", 1, 1000, "done", "s")
        self.shared.confirmed_lsn = 1000
        self.sender = ScriptedSender(batches, self.shared.stopping.set)
        self.monitor = ScriptedMonitor(*answers)
        connections = Connections(cast(SlotMonitor, self.monitor), cast(WalSender, self.sender))
        assembler = Assembler("crm", "77", Timelines(1), lambda parked: None)
        self.stream = Stream("crm", self.shared, connections, assembler, lambda: NOW_US)

    def run(self) -> list[Delivery]:
        self.stream.run()
        return self.shared.queue.take(1000)

    def close(self) -> None:
        self.sender.close()
        self.monitor.close()
        self.shared.close()


@pytest.fixture
def worlds() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(batches: list[list[bytes]], *answers: ClockReading | Health) -> World:
        made.append(World(batches, *answers))
        return made[-1]

    yield make
    for world in made:
        world.close()


CLOCK = ClockReading(NOW_US, 1500, 1500, "1")
MARKED_US = NOW_US - 10_000


def ends(deliveries: list[Delivery]) -> list[tuple[str, int]]:
    return [
        (type(each).__name__, each.end_lsn if isinstance(each, Transaction) else cast(Idle, each).lsn)
        for each in deliveries
    ]


def test_a_transaction_that_the_server_repeats_is_delivered_once(worlds: Callable[..., World]) -> None:
    world = worlds([transaction(900), transaction(1000), transaction(1100), transaction(1100), transaction(1200)])
    assert ends(world.run()) == [("Transaction", 1100), ("Transaction", 1200)]
    assert world.shared.delivered == Position("77", 1, 1200, "done", "s")
    assert world.shared.tally.counts()[("duplicates_dropped", "")] == 3


def test_a_keepalive_inside_a_transaction_is_no_progress(worlds: Callable[..., World]) -> None:
    begin, commit = transaction(2000)
    world = worlds([[keepalive(1500)], [begin, keepalive(1990)], [commit]], CLOCK)
    assert ends(world.run()) == [("Idle", 1500), ("Transaction", 2000)]


def test_a_keepalive_behind_what_was_delivered_is_no_news(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1400)], transaction(2000), [keepalive(1990)]], CLOCK)
    assert ends(world.run())[-1] == ("Transaction", 2000)


def test_an_idle_mark_has_the_clock_of_a_reading_that_the_stream_has_passed(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1499)], [keepalive(1500)]], CLOCK)
    assert world.run() == [Idle("crm", "77", 1, 1500, MARKED_US)]


def test_idle_marks_in_a_row_become_the_last_one(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1500 + step)] for step in range(5)], CLOCK)
    assert world.run() == [Idle("crm", "77", 1, 1504, MARKED_US)]


def test_a_keepalive_that_wants_a_reply_gets_one_at_once(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1500, reply=True)], [keepalive(1501)]])
    world.run()
    idle_reported = worlds([[keepalive(1500)], [keepalive(1501)]])
    idle_reported.run()
    assert len(world.sender.statuses) == len(idle_reported.sender.statuses) + 1


def test_a_status_never_confirms_more_than_the_pipeline_did(worlds: Callable[..., World]) -> None:
    world = worlds([transaction(1100), [keepalive(1500, reply=True)]], CLOCK)
    world.run()
    assert {flushed for _, flushed, _ in world.sender.statuses} == {1000}


def test_a_confirmation_is_sent_without_waiting_for_the_clock(worlds: Callable[..., World]) -> None:
    world = worlds([transaction(1100), [keepalive(1100)], [keepalive(1100)]])
    world.shared.confirmed_lsn = 1050
    world.shared.call_reader()
    world.run()
    assert len(world.sender.statuses) == 3, "one by the clock at the beginning, one for the call, one at the end"


def test_wal_that_stays_unwritten_is_flushed(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1500)]], ClockReading(NOW_US, 1600, 1500, "1"))
    world.stream._clock_readings.append(ClockReading(NOW_US - 600_000, 1590, 1500, "1"))
    world.run()
    assert world.monitor.flushes == 1


def test_a_dropped_publication_ends_the_stream_by_name(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1500)]] * 3, ClockReading(NOW_US, 1500, 1500, None))
    with pytest.raises(SourceRefused) as refused:
        world.run()
    assert refused.value.problem == "publication_missing"


SLOT = Slot("s", "pgoutput", True, True, "reserved", None, 0, 1000, None)
GONE = Health(SLOT, ("public.customer",), "{}")  # of a publication that is there
NO_PUBLICATION = Health(SLOT, ("public.customer",))


def test_a_table_that_left_the_publication_ends_the_stream_by_name_when_two_readings_of_the_catalog_show_it(
    worlds: Callable[..., World],
) -> None:
    world = worlds([[keepalive(1500)]] * 4, GONE, GONE)
    with pytest.raises(SourceRefused, match=r"public\.customer left the publication"):
        world.run()
    assert world.shared.slot == SLOT


def test_tables_of_a_dropped_publication_are_not_called_missing(worlds: Callable[..., World]) -> None:
    with pytest.raises(SourceRefused) as refused:
        worlds([[keepalive(1500)]] * 4, NO_PUBLICATION, NO_PUBLICATION).run()
    assert refused.value.problem == "publication_missing"


def test_a_table_that_the_catalog_misses_for_a_moment_is_still_read(worlds: Callable[..., World]) -> None:
    there = Health(SLOT, ())
    worlds([[keepalive(1500)]] * 6, GONE, there, GONE, there).run()


def test_a_silent_server_is_given_up(worlds: Callable[..., World]) -> None:
    world = worlds([[keepalive(1500)]])
    world.shared.limits = ReaderLimits(silence_s=-1.0)
    with pytest.raises(SourceUnavailable, match="sent nothing"):
        world.run()
