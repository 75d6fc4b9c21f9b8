"""The replication stream of one connection: CopyData in, deliveries and standby status updates out, until it ends.

**The slot position is confirmed here and nowhere else**: `_send_status` sends `ReaderState.confirmed_lsn` as the flushed LSN
of a standby status update; the server stores it as the slot's confirmed_flush_lsn and may recycle older WAL.
`confirmed_lsn` is set by `PostgresSource.confirm`, which the worker calls after the store's commit.

Rules
- Nothing is queued twice: a transaction that ends at or before `ReaderState.delivered` is dropped.
- A full queue stops reading, never answering: status updates go out by the clock, or at once after a confirmation.
- Commits arrive in the order of their LSNs; a server that goes back behind an earlier commit is not followed.
- An idle mark is delivered only between transactions, when everything before it is queued. Its time is a reading of the
  server's clock before which every commit has arrived (slot_monitor.py), never a keepalive's own.
- The end of the plain session means the server's shutdown: we disconnect at once, so that it does not wait for us.
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
from cdc_merge.sources.postgres.slot_monitor import ClockReading, FlushResult, Health, HeartbeatResult, SlotMonitor
from cdc_merge.sources.postgres.snapshot.incremental import IncrementalSnapshot
from cdc_merge.sources.spill import SpilledRows

STATUS_EVERY_S: Final = 0.5  # well below any sensible wal_sender_timeout (its default is 60 s)
CLOCK_EVERY_S: Final = 0.25  # how fine idle marks are; each costs the server one trivial query
FLUSH_AFTER_US: Final = 500_000  # an open transaction's WAL is written out up to 15 s late, unless another one commits
CLOCK_MARGIN_US: Final = 10_000  # a commit takes its time stamp a moment before its record is written
SPILL_AFTER_BYTES: Final = 8 << 20  # of one transaction, as sent; in memory rows take about five times as much
MAX_READINGS: Final = 1_000  # clock readings whose LSN the stream has not reached; the oldest are dropped first


class Connections(NamedTuple):
    """The two connections of a session, and the incremental snapshot beside them."""

    monitor: SlotMonitor
    sender: WalSender
    incremental: IncrementalSnapshot | None = None


class Timer:
    """A periodic timer; due at once when it is new."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self.next_s = 0.0

    def is_due(self, now_s: float) -> bool:
        if now_s < self.next_s:
            return False
        self.next_s = now_s + self._every_s
        return True


class Stream:
    """Follows `connections.sender`, which streams already, from `ReaderState.delivered` on."""

    def __init__(
        self,
        source: str,
        shared: ReaderState,
        connections: Connections,
        assembler: Assembler,
        now_us: Callable[[], int],
    ) -> None:
        self._source = source
        self._shared = shared
        self._tally = shared.tally
        self._monitor, self._sender, self._incremental = connections
        self._assembler = assembler
        self._now_us = now_us
        assert shared.delivered is not None
        self._delivered: Position = shared.delivered
        self._start_lsn, self._committed_lsn = shared.delivered.lsn, 0
        self._open_bytes = self._spilled_bytes = 0  # of the open transaction, and of its spilled rows
        self._clock_readings: deque[ClockReading] = deque(maxlen=MAX_READINGS)
        self._passed_us = 0
        self._may_flush = True
        self._was_missing = False
        self._idle_sent = (0, 0)
        self._sent_membership = ""
        if shared.heartbeats is not None:
            shared.heartbeats.on_connect()
        self._last_received_s = self._last_query_s = time.monotonic()
        self._status_timer = Timer(STATUS_EVERY_S)
        self._clock_timer = Timer(CLOCK_EVERY_S)
        self._health_timer = Timer(shared.limits.health_every_s)

    def run(self) -> None:
        """Until the reader is stopped; SourceUnavailable when the connection ends, SourceRefused when it must not go on."""
        poll = select.poll()
        for descriptor in (self._sender.socket, self._monitor.socket, self._shared.woken):
            poll.register(descriptor, select.POLLIN)
        is_paused = False
        has_more = True  # data that arrived with the answer to START_REPLICATION is in libpq already
        while not self._shared.stopping.is_set():
            self._run_timers(time.monotonic())
            if is_paused != self._shared.queue.is_full:
                is_paused = not is_paused
                has_more = not is_paused
                self._last_received_s = time.monotonic()
                poll.modify(self._sender.socket, 0 if is_paused else select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(0 if has_more else self._next_timer_ms())}
            self._handle_ready(ready)
            self._advance_incremental()
            if is_paused and self._sender.socket in ready:
                raise SourceUnavailable(
                    f"Source {self._source}: the connection was lost.", hint="The reader reconnects."
                )
            # Bytes may wait in libpq or in TLS where poll does not see them: read until there are none.
            has_more = not is_paused and (has_more or self._sender.socket in ready) and self._receive()
        self._send_status(FORCED)

    def _advance_incremental(self) -> None:
        failed_read = self._incremental.advance(self._delivered, self._now_us()) if self._incremental else None
        if failed_read is not None:
            self._shared.deliver(failed_read)
            self._shared.wake()

    def _next_timer_ms(self) -> float:
        soonest = min(self._status_timer.next_s, self._clock_timer.next_s, self._health_timer.next_s)
        return max(0.0, (soonest - time.monotonic()) * 1000 + 1)

    def _run_timers(self, now_s: float) -> None:
        if self._status_timer.is_due(now_s):
            self._send_status(TIMER)
        if self._clock_timer.is_due(now_s) and self._monitor.query_clock():
            self._last_query_s = now_s
        if now_s >= self._health_timer.next_s and self._monitor.query_health():
            self._health_timer.is_due(now_s)
        heartbeats = self._shared.heartbeats
        if (
            heartbeats is not None
            and heartbeats.is_due(now_s)
            and self._monitor.query_heartbeat(heartbeats.message(self._now_us()))
        ):
            heartbeats.on_sent()
        if now_s - self._last_received_s > self._shared.limits.silence_s and not self._shared.queue.is_full:
            raise self._silence("sent nothing for")
        # Without clock readings there are no idle marks, and nothing else shows the loss of this connection.
        if now_s - self._last_query_s > self._shared.limits.silence_s:
            raise self._silence("did not answer on the connection beside the stream for")

    def _silence(self, what: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"Source {self._source}: the server {what} {self._shared.limits.silence_s:g} s.",
            hint="The reader reconnects; check network and server load if this persists.",
            sqlstate="08006",
        )

    def _handle_ready(self, ready: set[int]) -> None:
        if self._shared.woken in ready:
            self._shared.drain_calls()
            self._send_status(FORCED)
        if self._monitor.socket in ready:
            result = self._monitor.result()
            if isinstance(result, ClockReading):
                self._on_clock(result)
            elif isinstance(result, Health):
                self._on_health(result)
            elif isinstance(result, FlushResult):
                self._may_flush = result.is_permitted
            elif isinstance(result, HeartbeatResult) and self._shared.heartbeats is not None:
                self._shared.heartbeats.on_result(result.refusal, time.monotonic())

    def _send_status(self, reason: str) -> None:
        """Send a standby status update, which confirms the slot position. Reasons: `timer`: by the clock; `forced`: the server
        requests it, the pipeline has confirmed, or the stream ends; `idle`: it requests a keepalive with the server's LSN."""
        shared = self._shared
        if self._sender.is_streaming:
            self._tally.add(STATUS_UPDATES, reason)
        received = max(self._delivered.lsn, shared.confirmed_lsn)
        self._sender.send_status(received, shared.confirmed_lsn, self._now_us(), requests_reply=reason == IDLE)

    # ---------------------------------------------------------------- results of the plain connection

    def _on_clock(self, reading: ClockReading) -> None:
        if reading.publication_oid is None:
            raise self._publication_dropped()
        self._clock_readings.append(reading)
        self._flush_if_stuck(reading)
        self._shared.server_lsn = max(self._shared.server_lsn, reading.lsn)
        if not self._shared.queue.is_full:
            self._send_status(IDLE)

    def _flush_if_stuck(self, reading: ClockReading) -> None:
        """Have the server write out WAL that waits: it is sent only once it is on disk, and a commit may be in it."""
        oldest = self._clock_readings[0]
        is_old = reading.at_us - oldest.at_us >= FLUSH_AFTER_US
        if is_old and self._may_flush and reading.flushed_lsn is not None and oldest.lsn > reading.flushed_lsn:
            self._monitor.query_flush()

    def _on_health(self, health: Health) -> None:
        self._shared.slot = health.slot
        if health.missing and not self._was_missing:
            # A catalog that changes while it is read shows a mixed state: the next reading counts.
            self._was_missing, self._health_timer.next_s = True, 0.0
            return
        self._was_missing = bool(health.missing)
        if health.missing and not health.membership:
            raise self._publication_dropped()  # every table is missing then; the clock reading is not here yet
        if health.missing:
            raise SourceRefused(
                f"Source {self._source}: {', '.join(health.missing)} left the publication while we were reading.",
                problem="table_missing",
                hint="Add the tables to the publication again, then take a new snapshot "
                f"(`cdc-merge source resync {self._source}`), or remove them from the configuration.",
            )
        check_publication_members(
            self._source, self._monitor.publication, self._delivered.membership, health.membership
        )
        self._delivered = self._delivered._replace(membership=health.membership or self._delivered.membership)

    def _publication_dropped(self) -> SourceRefused:
        return SourceRefused(
            f"Source {self._source}: its publication was dropped while we were reading.",
            problem="publication_missing",
            hint="Create it again. Changes made without it may be missing: compare with a new snapshot "
            f"(`cdc-merge source resync {self._source}`).",
        )

    # ---------------------------------------------------------------- CopyData of the stream

    def _receive(self) -> bool:
        """Process the CopyData payloads that have arrived; whether there were any."""
        frames = self._sender.receive()
        if not frames:
            return False
        self._last_received_s = time.monotonic()
        self._shared.last_message_us = self._now_us()
        before = self._idle_sent, self._delivered
        try:
            self._process(frames)
        finally:  # deliveries queued before a frame that cannot be followed stay queued
            if (self._idle_sent, self._delivered) != before:
                self._shared.delivered = self._delivered
                self._shared.wake()
        return True

    def _process(self, frames: Sequence[memoryview]) -> None:
        feed = self._assembler.feed
        for frame in frames:
            kind = frame[0]
            if kind == XLOG_DATA:
                self._open_bytes += len(frame)
                transaction = feed(frame, XLOG_DATA_HEADER_BYTES)
                if transaction is not None:
                    self._tally.committed(self._open_bytes, sent_us(frame) - transaction.commit_us)
                    self._deliver(transaction)
            elif kind == KEEPALIVE:
                self._on_keepalive(frame)
            else:
                self._assembler.skip_frame(kind)
        if self._open_bytes - self._spilled_bytes > SPILL_AFTER_BYTES and self._assembler.is_open:
            self._assembler.spill(self._shared.spill, self._shared.limits.transaction_rows)
            self._spilled_bytes = self._open_bytes
        self._shared.open_bytes = self._open_bytes if self._assembler.is_open else 0

    def _deliver(self, transaction: Transaction) -> None:
        size, self._open_bytes, self._spilled_bytes = self._open_bytes, 0, 0
        shared = self._shared
        shared.last_commit_us, shared.last_received_us = transaction.commit_us, shared.last_message_us
        shared.server_lsn = max(shared.server_lsn, transaction.end_lsn)
        self._check_order(transaction.end_lsn)
        if transaction.end_lsn <= self._delivered.lsn:
            self._tally.add(DUPLICATES)
            return
        if isinstance(transaction.changes, SpilledRows):
            self._tally.add(SPILLED, by=transaction.changes.size_bytes)
        read = self._incremental.observe_transaction(transaction, self._assembler.xid) if self._incremental else None
        if read is not None:
            shared.deliver(read, len(read.rows))
        shared.deliver(transaction, len(transaction.changes), size)
        self._advance(transaction.end_lsn, transaction.timeline)

    def _check_order(self, end_lsn: int) -> None:
        """Refuse a late commit: a server may repeat what lies before our start, or its last commit, but nothing else."""
        is_late = end_lsn < self._committed_lsn or self._start_lsn < end_lsn <= self._delivered.lsn
        if is_late and end_lsn != self._committed_lsn:
            self._tally.add(GAPS, COMMIT_ORDER)
            raise ProtocolError(f"A commit ends at {lsn_text(end_lsn)}, before what was sent ahead of it.")
        self._committed_lsn = end_lsn

    def _advance(self, lsn: int, timeline: int) -> None:
        self._delivered = self._delivered._replace(lsn=lsn, timeline=timeline)
        self._shared.received_lsn = lsn

    def _on_keepalive(self, frame: memoryview) -> None:
        lsn, _, wants_reply = read_keepalive(frame)
        self._shared.server_lsn = max(self._shared.server_lsn, lsn)
        if not self._assembler.is_open and lsn >= self._delivered.lsn:
            self._deliver_idle(lsn)
        if wants_reply:
            self._send_status(FORCED)

    def _deliver_idle(self, lsn: int) -> None:
        """Deliver an idle mark: the server has sent everything up to `lsn`."""
        while self._clock_readings and self._clock_readings[0].lsn <= lsn:
            self._passed_us = max(self._passed_us, self._clock_readings.popleft().at_us - CLOCK_MARGIN_US)
        if (lsn, self._passed_us) == self._idle_sent or not self._passed_us:
            return
        self._idle_sent = (lsn, self._passed_us)
        timeline = self._assembler.timelines.of(lsn)
        is_sent, self._sent_membership = self._sent_membership == self._delivered.membership, self._delivered.membership
        idle = Idle(
            self._source,
            self._delivered.system,
            timeline,
            lsn,
            self._passed_us,
            "" if is_sent else self._sent_membership,
        )
        self._shared.deliver(idle)
        self._advance(lsn, timeline)
