"""Step 1, a Postgres source: its own thread reads the stream and answers the server, the pipeline takes and confirms.

Rules
- A source that cannot be reached is tried again, soon and then every few seconds; one that says no is left alone until
  `start` is called again, with `status().problem` saying where and what to do.
- Only what the pipeline has confirmed is confirmed to the server.
- Timeline of a place: read from the server's history file, so it is the one that wrote the LSN, not the current one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from cdc_merge.errors import CdcMergeError, SourceRefused, error_location
from cdc_merge.model import Delivery, Position, SourceChanged, SourceStatus
from cdc_merge.model.capture_counters import GAPS, Tally
from cdc_merge.model.ports import Observer
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.failure_classes import failure_class
from cdc_merge.sources.postgres.heartbeat_writer import HeartbeatWriter
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.resume_checks import LOST, Slot
from cdc_merge.sources.postgres.retry_backoff import RetryPolicy
from cdc_merge.sources.postgres.session import Session, SessionCallbacks
from cdc_merge.sources.postgres.slot_monitor import SlotMonitor, Watched
from cdc_merge.sources.postgres.stream import HEALTH_EVERY_S

STOP_LIMIT_S: Final = 15.0  # a connection attempt in progress may take its ten seconds


class PostgresSource:
    """A `ports.Source` over one replication slot.

    `wake` is called from the reader's thread when something has arrived or the state has changed. `now_us` is our own
    clock.
    """

    def __init__(
        self,
        settings: ReaderSettings,
        *,
        wake: Callable[[], None],
        observe: Observer,
        now_us: Callable[[], int],
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._wake = wake
        self._observe = observe
        self._now_us = now_us
        self._exchange: ReaderState | None = None
        self._thread: threading.Thread | None = None
        self._state = "stopped"
        self._problem: str | None = None
        self._accepts_loss = False
        self._tally = Tally(settings.tables)
        self._copy_began_s: float | None = None
        self._copy_s = 0.0

    # ---------------------------------------------------------------- the port

    def start(self, position: Position | None, confirmed_lsn: int | None = None) -> None:
        """Begin, or begin again, after `position`; None: nothing of this source is on disk.

        `confirmed_lsn`: how far it is on disk, where `position` was only received.
        """
        self.stop()
        exchange = ReaderState(self._settings.max_queued_bytes, self._wake, self._settings.directory)
        exchange.delivered, exchange.tally = position, self._tally
        if position is not None and not position.is_copying:
            exchange.received_lsn = position.lsn
            exchange.confirmed_lsn = position.lsn if confirmed_lsn is None else confirmed_lsn
        self._exchange = exchange
        exchange.accepts_loss = self._accepts_loss
        exchange.heart = HeartbeatWriter(self._settings.slot, self._settings.heartbeat_s, self._say)
        self._state, self._problem = "connecting", None
        self._begin(exchange, self._run)

    def rest(self, position: Position | None) -> None:
        self.stop()
        exchange = ReaderState(self._settings.max_queued_bytes, self._wake, self._settings.directory)
        if position is not None and not position.is_copying:
            exchange.received_lsn = exchange.confirmed_lsn = position.lsn
        self._exchange = exchange
        self._state, self._problem = "paused", None
        self._begin(exchange, self._rest)

    def _begin(self, exchange: ReaderState, work: Callable[[ReaderState], None]) -> None:
        self._thread = threading.Thread(target=work, args=(exchange,), name=f"source-{self.name}", daemon=True)
        self._thread.start()

    def request_chunk(self, wanted: ChunkRequest) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.wanted = wanted
            exchange.call_reader()

    def accept_loss(self, *, accepts: bool) -> None:
        self._accepts_loss = accepts

    def take(self, limit: int) -> Sequence[Delivery]:
        return self._exchange.queue.take(limit) if self._exchange else []

    def confirm(self, lsn: int) -> None:
        exchange = self._exchange
        # What was never received in this slot's life is a word about an earlier one.
        if exchange is not None and exchange.confirmed_lsn < lsn <= exchange.received_lsn:
            exchange.confirmed_lsn = lsn
            exchange.call_reader()

    def status(self) -> SourceStatus:
        known = SourceStatus(
            name=self.name,
            type="postgres",
            up=self._state in ("snapshot", "streaming"),
            state=self._state,
            slot=self._settings.slot,
            problem=self._problem,
            counts=self._tally.told(),
            copy_s=self._copied_s(),
        )
        exchange = self._exchange
        if exchange is None:
            return known
        return replace(
            known if exchange.slot is None else _with_slot(known, exchange.slot, is_streaming=exchange.is_streaming),
            received_lsn=exchange.received_lsn,
            server_lsn=exchange.server_lsn,
            last_commit_us=exchange.last_commit_us,
            last_message_us=exchange.last_message_us,
            last_received_us=exchange.last_received_us,
            reconnects=max(0, exchange.streams_begun - 1),
            confirmed_lsn=exchange.confirmed_lsn,
            queued_bytes=exchange.queue.size_bytes,
            queue_limit_bytes=exchange.queue.max_bytes,
            waited_s=exchange.queue.full_seconds(),
            heartbeats_sent=exchange.heart.sent if exchange.heart else 0,
            heartbeats_permitted=exchange.heart.is_permitted if exchange.heart else None,
            open_bytes=exchange.open_bytes,
            waits=exchange.queue.is_full,
            copy_tables_left=self._tables_left(exchange.delivered),
        )

    def _tables_left(self, position: Position | None) -> int:
        if position is not None:
            return len(self._settings.tables) - len(position.copied) if position.is_copying else 0
        return len(self._settings.tables) if self._settings.snapshot == "initial" else 0

    def _copied_s(self) -> float:
        began_s = self._copy_began_s
        return self._copy_s if began_s is None else time.monotonic() - began_s

    def _enter(self, state: str) -> None:
        """The time of a copy is that of its state."""
        self._copy_s = self._copied_s()
        self._copy_began_s = time.monotonic() if state == "snapshot" else None
        self._state = state

    def stop(self) -> None:
        """End the reader; what it has queued and nobody has taken is dropped and comes again after the next start."""
        exchange, thread = self._exchange, self._thread
        if exchange is None or thread is None:
            return
        exchange.stopping.set()
        exchange.call_reader()
        exchange.queue.clear()
        thread.join(STOP_LIMIT_S)
        exchange.queue.clear()
        if not thread.is_alive():
            exchange.close()
        self._thread = None
        self._enter("stopped" if self._problem is None else self._state)

    # ---------------------------------------------------------------- the reader's thread

    def _run(self, exchange: ReaderState) -> None:
        session = Session(self._settings, exchange, SessionCallbacks(self._observe, self._announce), self._now_us)
        patience = RetryPolicy(self.name)
        while not exchange.stopping.is_set():
            before, begun_s = exchange.delivered, time.monotonic()
            error = self._attempt(session)
            if error is None:
                return
            patience.ended(has_moved=exchange.delivered != before, lived_s=time.monotonic() - begun_s)
            failure, error = failure_class(error), patience.judged(error)
            if isinstance(error, SourceRefused):
                self._note_gap(error.problem, before)
                if exchange.lost is None and session.may_copy(error):
                    exchange.lost = error.problem
                    self._fail("retrying", error, failure)
                    continue
                self._fail("stopped", error, failure)
                return
            self._fail("retrying", error, failure)
            exchange.stopping.wait(patience.pause_s())

    def _note_gap(self, problem: str, position: Position | None) -> None:
        """What followed a position cannot be had; where there was none, nothing was missed."""
        if problem in LOST and position is not None:
            self._tally.add(GAPS, problem)

    def _rest(self, exchange: ReaderState) -> None:
        """Look at the slot now and then, over a connection that is made for it: it goes on to hold WAL."""
        self._announce("paused", "rests: its stream is not read, its slot keeps what comes")
        watched = Watched(self._settings.slot, self._settings.publication, tuple(self._settings.tables))
        while not exchange.stopping.is_set():
            try:
                self._look(exchange, watched)
                self._problem = None
            except CdcMergeError as error:
                self._problem = f"{error} {error.hint}".strip()
            self._wake()
            exchange.stopping.wait(HEALTH_EVERY_S)

    def _look(self, exchange: ReaderState, watched: Watched) -> None:
        watch = SlotMonitor(self.name, self._settings.dsn, watched)
        try:
            exchange.slot = watch.health().slot
            exchange.server_lsn = watch.clock().lsn
            exchange.last_message_us = self._now_us()
        finally:
            watch.close()

    def _attempt(self, session: Session) -> CdcMergeError | None:
        """None when the session ended because it was asked to."""
        try:
            session.run()
        except CdcMergeError as error:
            return error
        except Exception as error:  # noqa: BLE001 - named edge, the source loop: a mistake of ours must not end in silence
            return SourceRefused(
                f"Source {self.name}: the reader ended by {error_location(error)}.",
                problem="reader_failed",
                hint="This is a fault of cdc_merge: please report it with the log.",
            )
        return None

    def _announce(self, state: str, sentence: str) -> None:
        self._enter(state)
        self._problem = None
        self._observe(SourceChanged(self.name, state, f"Source {self.name} {sentence}."))
        self._wake()

    def _say(self, sentence: str) -> None:
        self._observe(SourceChanged(self.name, self._state, f"Source {self.name} {sentence}."))

    def _fail(self, state: str, error: CdcMergeError, failure: str) -> None:
        self._enter(state)
        problem = error.problem if isinstance(error, SourceRefused) else None
        self._problem = f"{error} {error.hint}".strip()
        self._observe(SourceChanged(self.name, state, str(error), problem, error.hint, failure))
        self._wake()


def _with_slot(status: SourceStatus, slot: Slot, *, is_streaming: bool) -> SourceStatus:
    return replace(
        status,
        slot_active=is_streaming and slot.active,
        wal_status=slot.wal_status,
        retained_bytes=slot.retained_bytes,
        safe_bytes=slot.safe_bytes,
        invalidation=slot.invalidation,
        inactive_since_us=slot.inactive_since_us,
        catalog_xmin_age=slot.catalog_xmin_age,
        server_spilled_bytes=slot.spilled_bytes,
    )
