"""The stream of one connection: frames in, deliveries out, status back, until it ends or we are asked to stop.

Rules
- What was queued once is never queued again: everything that ends at or before `Exchange.delivered` is dropped.
- A full queue stops reading, never answering: status goes out by the clock, or at once when something was confirmed.
- Commits come in the order of their LSNs; a server that goes back behind what it said is not followed.
- An idle mark is delivered only between transactions, when all that came before it is queued. Its time is a reading of
  the server's clock from before which every commit has come (watch.py), never a keepalive's own.
- The plain session's end is the server's shutdown: we leave at once, so that it does not wait for us.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cdc_merge.errors import ProtocolError, SourceRefused, SourceUnavailable
from cdc_merge.model import Idle, Position, Transaction, lsn_text
from cdc_merge.model.capture_counters import (
    COMMIT_ORDER,
    DUPLICATES,
    FORCED,
    GAPS,
    IDLE,
    SPILLED,
    STATUS_UPDATES,
    TIMER,
)
from cdc_merge.sources.postgres.protocol.copy_data import (
    KEEPALIVE,
    XLOG_DATA,
    XLOG_DATA_HEADER_BYTES,
    read_keepalive,
    sent_us,
)
from cdc_merge.sources.postgres.protocol.transactions import Assembler
from cdc_merge.sources.postgres.publication_members import check_publication_members
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.slot_monitor import Beaten, ClockReading, Flushed, Health, SlotMonitor
from cdc_merge.sources.postgres.snapshot.incremental import IncrementalSnapshot
from cdc_merge.sources.spill import SpilledRows

STATUS_EVERY_S: Final = 0.5  # well below any sensible wal_sender_timeout (its default is 60 s)
CLOCK_EVERY_S: Final = 0.25  # how fine idle marks are; each costs the server one trivial query
HEALTH_EVERY_S: Final = 5.0
SILENCE_LIMIT_S: Final = 60.0  # we ask for an answer four times a second: a server silent for so long is gone
FLUSH_AFTER_US: Final = 500_000  # an open transaction's WAL is written out up to 15 s late, unless somebody commits
CLOCK_MARGIN_US: Final = 10_000  # a commit takes its time a moment before it is written
LAY_ASIDE_BYTES: Final = (
    8 << 20
)  # of one transaction, as the server sends it; in memory rows take about five times as much
MAX_READINGS: Final = 1_000  # clock readings whose LSN the stream has not reached; older ones say less and go first


class Connections(NamedTuple):
    """The two connections of a session, and what reads tables again beside them."""

    watch: SlotMonitor
    sender: WalSender
    rereading: IncrementalSnapshot | None = None


class Timer:
    """Says when something is due again."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self.next_s = 0.0

    def is_due(self, now_s: float) -> bool:
        if now_s < self.next_s:
            return False
        self.next_s = now_s + self._every_s
        return True


class Stream:
    """Follows `lines.sender`, which streams already, from `Exchange.delivered` on."""

    def __init__(
        self, source: str, exchange: ReaderState, lines: Connections, assembler: Assembler, now_us: Callable[[], int]
    ) -> None:
        self._source = source
        self._exchange = exchange
        self._tally = exchange.tally
        self._watch, self._sender, self._rereading = lines
        self._assembler = assembler
        self._now_us = now_us
        assert exchange.delivered is not None
        self._delivered: Position = exchange.delivered
        self._begun_lsn, self._committed_lsn = exchange.delivered.lsn, 0
        self._size = self._aside = 0  # bytes of the open transaction, and of its rows that are not in memory
        self._readings: deque[ClockReading] = deque(maxlen=MAX_READINGS)
        self._at_us = 0
        self._may_flush = True
        self._was_missing = False
        self._idle_sent = (0, 0)
        self._told = ""
        if exchange.heart is not None:
            exchange.heart.begin()
        self._heard_s = self._asked_s = time.monotonic()
        self._status = Timer(STATUS_EVERY_S)
        self._clock = Timer(CLOCK_EVERY_S)
        self._health = Timer(HEALTH_EVERY_S)

    def run(self) -> None:
        """Until asked to stop; SourceUnavailable when the connection ends, SourceRefused when it must not go on."""
        poll = select.poll()
        for descriptor in (self._sender.socket, self._watch.socket, self._exchange.woken):
            poll.register(descriptor, select.POLLIN)
        is_paused = False
        has_more = True  # what came with the answer to START_REPLICATION is in libpq already
        while not self._exchange.stopping.is_set():
            self._run_timers(time.monotonic())
            if is_paused != self._exchange.queue.is_full:
                is_paused = not is_paused
                has_more = not is_paused
                self._heard_s = time.monotonic()
                poll.modify(self._sender.socket, 0 if is_paused else select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(0 if has_more else self._wait_ms())}
            self._answer_calls(ready)
            self._tend()
            if is_paused and self._sender.socket in ready:
                raise SourceUnavailable(f"Source {self._source}: the connection was lost.", hint="It is tried again.")
            # Bytes may wait in libpq or in TLS where poll does not see them: read until nothing comes.
            has_more = not is_paused and (has_more or self._sender.socket in ready) and self._receive()
        self._send_status(FORCED)

    def _tend(self) -> None:
        refused = self._rereading.tend(self._delivered, self._now_us()) if self._rereading else None
        if refused is not None:
            self._exchange.deliver(refused)
            self._exchange.wake()

    def _wait_ms(self) -> float:
        soonest = min(self._status.next_s, self._clock.next_s, self._health.next_s)
        return max(0.0, (soonest - time.monotonic()) * 1000 + 1)

    def _run_timers(self, now_s: float) -> None:
        if self._status.is_due(now_s):
            self._send_status(TIMER)
        if self._clock.is_due(now_s) and self._watch.ask_clock():
            self._asked_s = now_s
        if now_s >= self._health.next_s and self._watch.ask_health():
            self._health.is_due(now_s)
        heart = self._exchange.heart
        if heart is not None and heart.due(now_s) and self._watch.ask_heartbeat(heart.message(self._now_us())):
            heart.asked()
        if now_s - self._heard_s > SILENCE_LIMIT_S and not self._exchange.queue.is_full:
            raise self._silent("sent nothing for")
        # Without answers there are no idle marks, and nothing else would tell.
        if now_s - self._asked_s > SILENCE_LIMIT_S:
            raise self._silent("did not answer on the connection beside the stream for")

    def _silent(self, what: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"Source {self._source}: the server {what} {SILENCE_LIMIT_S:g} s.",
            hint="The connection is made anew; look at network and server load if it stays.",
            sqlstate="08006",
        )

    def _answer_calls(self, ready: set[int]) -> None:
        if self._exchange.woken in ready:
            self._exchange.drain_calls()
            self._send_status(FORCED)
        if self._watch.socket in ready:
            answer = self._watch.answer()
            if isinstance(answer, ClockReading):
                self._learn_clock(answer)
            elif isinstance(answer, Health):
                self._learn_health(answer)
            elif isinstance(answer, Flushed):
                self._may_flush = answer.is_permitted
            elif isinstance(answer, Beaten) and self._exchange.heart is not None:
                self._exchange.heart.answered(answer.refusal, time.monotonic())

    def _send_status(self, reason: str) -> None:
        """`timer`: by the clock; `forced`: the server asked, or ours has confirmed something or ends; `idle`: with it the
        server is asked how far it is."""
        exchange = self._exchange
        if self._sender.is_streaming:
            self._tally.add(STATUS_UPDATES, reason)
        received = max(self._delivered.lsn, exchange.confirmed_lsn)
        self._sender.send_status(received, exchange.confirmed_lsn, self._now_us(), asks_reply=reason == IDLE)

    # ---------------------------------------------------------------- what the plain connection says

    def _learn_clock(self, reading: ClockReading) -> None:
        if reading.publication_oid is None:
            raise self._publication_dropped()
        self._readings.append(reading)
        self._flush_if_stuck(reading)
        self._exchange.server_lsn = max(self._exchange.server_lsn, reading.lsn)
        if not self._exchange.queue.is_full:
            self._send_status(IDLE)

    def _flush_if_stuck(self, reading: ClockReading) -> None:
        """WAL that is not on disk is not sent, and only its end tells whether a commit is in it: have it written."""
        oldest = self._readings[0]
        is_old = reading.at_us - oldest.at_us >= FLUSH_AFTER_US
        if is_old and self._may_flush and reading.flushed_lsn is not None and oldest.lsn > reading.flushed_lsn:
            self._watch.ask_flush()

    def _learn_health(self, health: Health) -> None:
        self._exchange.slot = health.slot
        if health.missing and not self._was_missing:
            # A catalog that changes while it is read says neither before nor after: what it says the next moment counts.
            self._was_missing, self._health.next_s = True, 0.0
            return
        self._was_missing = bool(health.missing)
        if health.missing and not health.membership:
            raise self._publication_dropped()  # before the clock's answer told it: every table is missing then
        if health.missing:
            raise SourceRefused(
                f"Source {self._source}: {', '.join(health.missing)} left the publication while we were reading.",
                problem="table_missing",
                hint="Add what is missing to the publication again, then take a new first copy "
                f"(`cdc-merge source resync {self._source}`), or take it out of the configuration.",
            )
        check_publication_members(self._source, self._watch.publication, self._delivered.membership, health.membership)
        self._delivered = self._delivered._replace(membership=health.membership or self._delivered.membership)

    def _publication_dropped(self) -> SourceRefused:
        return SourceRefused(
            f"Source {self._source}: its publication was dropped while we were reading.",
            problem="publication_missing",
            hint="Create it again. Changes made without it may be missing: compare with a new first copy "
            f"(`cdc-merge source resync {self._source}`).",
        )

    # ---------------------------------------------------------------- what the stream says

    def _receive(self) -> bool:
        """Take what has arrived; whether there was anything."""
        frames = self._sender.receive()
        if not frames:
            return False
        self._heard_s = time.monotonic()
        self._exchange.last_message_us = self._now_us()
        before = self._idle_sent, self._delivered
        try:
            self._take(frames)
        finally:  # what was queued before a frame that cannot be followed is queued all the same
            if (self._idle_sent, self._delivered) != before:
                self._exchange.delivered = self._delivered
                self._exchange.wake()
        return True

    def _take(self, frames: Sequence[memoryview]) -> None:
        feed = self._assembler.feed
        for frame in frames:
            kind = frame[0]
            if kind == XLOG_DATA:
                self._size += len(frame)
                transaction = feed(frame, XLOG_DATA_HEADER_BYTES)
                if transaction is not None:
                    self._tally.committed(self._size, sent_us(frame) - transaction.commit_us)
                    self._deliver(transaction)
            elif kind == KEEPALIVE:
                self._keepalive(frame)
            else:
                self._assembler.pass_over(kind)
        if self._size - self._aside > LAY_ASIDE_BYTES and self._assembler.is_open:
            self._assembler.spill(self._exchange.spill)
            self._aside = self._size
        self._exchange.open_bytes = self._size if self._assembler.is_open else 0

    def _deliver(self, transaction: Transaction) -> None:
        size, self._size, self._aside = self._size, 0, 0
        exchange = self._exchange
        exchange.last_commit_us, exchange.last_received_us = transaction.commit_us, exchange.last_message_us
        exchange.server_lsn = max(exchange.server_lsn, transaction.end_lsn)
        self._check_order(transaction.end_lsn)
        if transaction.end_lsn <= self._delivered.lsn:
            self._tally.add(DUPLICATES)
            return
        if isinstance(transaction.changes, SpilledRows):
            self._tally.add(SPILLED, by=transaction.changes.size_bytes)
        read = self._rereading.saw(transaction, self._assembler.xid) if self._rereading else None
        if read is not None:
            exchange.deliver(read, len(read.rows))
        exchange.deliver(transaction, len(transaction.changes), size)
        self._moved(transaction.end_lsn, transaction.timeline)

    def _check_order(self, end_lsn: int) -> None:
        """A server may repeat what lies before our beginning, or its last commit; what else comes late was never seen."""
        is_late = end_lsn < self._committed_lsn or self._begun_lsn < end_lsn <= self._delivered.lsn
        if is_late and end_lsn != self._committed_lsn:
            self._tally.add(GAPS, COMMIT_ORDER)
            raise ProtocolError(f"A commit ends at {lsn_text(end_lsn)}, before what was sent ahead of it.")
        self._committed_lsn = end_lsn

    def _moved(self, lsn: int, timeline: int) -> None:
        self._delivered = self._delivered._replace(lsn=lsn, timeline=timeline)
        self._exchange.received_lsn = lsn

    def _keepalive(self, frame: memoryview) -> None:
        lsn, _, wants_reply = read_keepalive(frame)
        self._exchange.server_lsn = max(self._exchange.server_lsn, lsn)
        if not self._assembler.is_open and lsn >= self._delivered.lsn:
            self._idle(lsn)
        if wants_reply:
            self._send_status(FORCED)

    def _idle(self, lsn: int) -> None:
        """The server has sent everything up to `lsn`."""
        while self._readings and self._readings[0].lsn <= lsn:
            self._at_us = max(self._at_us, self._readings.popleft().at_us - CLOCK_MARGIN_US)
        if (lsn, self._at_us) == self._idle_sent or not self._at_us:
            return
        self._idle_sent = (lsn, self._at_us)
        timeline = self._assembler.timelines.of(lsn)
        is_told, self._told = self._told == self._delivered.membership, self._delivered.membership
        idle = Idle(self._source, self._delivered.system, timeline, lsn, self._at_us, "" if is_told else self._told)
        self._exchange.deliver(idle)
        self._moved(lsn, timeline)
