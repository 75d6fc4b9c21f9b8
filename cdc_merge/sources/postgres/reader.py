"""Step 1, a Postgres source: a thread that reads one replication slot; the pipeline takes its deliveries and confirms them.

The way of a change from here: `session.py` (one attempt: checks, snapshot or resume) → `stream.py` (the loop over the
connections; it confirms the slot position) → `protocol/transactions.py` (pgoutput messages to transactions) →
`delivery_queue.py` → `process/child.py` → `process/wire.py` → `process/parent.py` → worker.

Rules
- An unreachable source is retried, soon and then every few seconds; one that refuses is stopped until `start` is called
  again, with place and next step in `status().problem`.
- The server's slot is confirmed up to what the pipeline has confirmed, and no further.
- The timeline of a place comes from the server's history file: it is the one that wrote the LSN, not the current one.
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
from cdc_merge.sources.postgres.slot_monitor import MonitorTarget, SlotMonitor

STOP_LIMIT_S: Final = 15.0  # a connection attempt in progress may take its ten seconds


class PostgresSource:
    """A `ports.Source` over one replication slot.

    `wake` is called from the reader's thread after a delivery or a change of state. `now_us` is our own clock.
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
        self._shared: ReaderState | None = None
        self._thread: threading.Thread | None = None
        self._state = "stopped"
        self._problem: str | None = None
        self._accepts_loss = False
        self._tally = Tally(settings.tables)
        self._snapshot_began_s: float | None = None
        self._snapshot_s = 0.0

    # ---------------------------------------------------------------- the port

    def start(self, position: Position | None, confirmed_lsn: int | None = None) -> None:
        """Start, or restart, after `position`; None: nothing of this source is on disk.

        `confirmed_lsn`: how far the source is on disk, where `position` was only received.
        """
        self.stop()
        shared = self._new_state()
        shared.delivered, shared.tally = position, self._tally
        if position is not None and not position.is_copying:
            shared.received_lsn = position.lsn
            shared.confirmed_lsn = position.lsn if confirmed_lsn is None else confirmed_lsn
        self._shared = shared
        shared.accepts_loss = shared.resync_requested = self._accepts_loss
        retry_s = self._settings.limits.heartbeat_retry_s
        shared.heartbeats = HeartbeatWriter(self._settings.slot, self._settings.heartbeat_s, self._report, retry_s)
        self._state, self._problem = "connecting", None
        self._start_thread(shared, self._run)

    def pause(self, position: Position | None) -> None:
        self.stop()
        shared = self._new_state()
        if position is not None and not position.is_copying:
            shared.received_lsn = shared.confirmed_lsn = position.lsn
        self._shared = shared
        self._state, self._problem = "paused", None
        self._start_thread(shared, self._run_paused)

    def _new_state(self) -> ReaderState:
        settings = self._settings
        return ReaderState(settings.max_queued_bytes, self._wake, settings.directory, settings.limits)

    def _start_thread(self, shared: ReaderState, work: Callable[[ReaderState], None]) -> None:
        self._thread = threading.Thread(target=work, args=(shared,), name=f"source-{self.name}", daemon=True)
        self._thread.start()

    def request_chunk(self, request: ChunkRequest) -> None:
        shared = self._shared
        if shared is not None:
            shared.request = request
            shared.call_reader()

    def accept_loss(self, *, accepts: bool) -> None:
        self._accepts_loss = accepts

    def take(self, limit: int) -> Sequence[Delivery]:
        return self._shared.queue.take(limit) if self._shared else []

    def confirm(self, lsn: int) -> None:
        shared = self._shared
        # An LSN that was not received from this slot belongs to an earlier slot.
        if shared is not None and shared.confirmed_lsn < lsn <= shared.received_lsn:
            shared.confirmed_lsn = lsn
            shared.call_reader()

    def status(self) -> SourceStatus:
        status = SourceStatus(
            name=self.name,
            type="postgres",
            up=self._state in ("snapshot", "streaming"),
            state=self._state,
            slot=self._settings.slot,
            problem=self._problem,
            counts=self._tally.counts(),
            copy_s=self._snapshot_duration_s(),
        )
        shared = self._shared
        if shared is None:
            return status
        return replace(
            status if shared.slot is None else _with_slot(status, shared.slot, is_streaming=shared.is_streaming),
            received_lsn=shared.received_lsn,
            server_lsn=shared.server_lsn,
            last_commit_us=shared.last_commit_us,
            last_message_us=shared.last_message_us,
            last_received_us=shared.last_received_us,
            reconnects=max(0, shared.streams_begun - 1),
            confirmed_lsn=shared.confirmed_lsn,
            queued_bytes=shared.queue.size_bytes,
            queue_limit_bytes=shared.queue.max_bytes,
            waited_s=shared.queue.full_seconds(),
            heartbeats_sent=shared.heartbeats.sent if shared.heartbeats else 0,
            heartbeats_permitted=shared.heartbeats.is_permitted if shared.heartbeats else None,
            open_bytes=shared.open_bytes,
            waits=shared.queue.is_full,
            copy_tables_left=self._tables_left(shared.delivered),
        )

    def _tables_left(self, position: Position | None) -> int:
        if position is not None:
            return len(self._settings.tables) - len(position.copied) if position.is_copying else 0
        return len(self._settings.tables) if self._settings.snapshot == "initial" else 0

    def _snapshot_duration_s(self) -> float:
        began_s = self._snapshot_began_s
        return self._snapshot_s if began_s is None else time.monotonic() - began_s

    def _set_state(self, state: str) -> None:
        """Enter a state. The duration of a snapshot is the duration of its state."""
        self._snapshot_s = self._snapshot_duration_s()
        self._snapshot_began_s = time.monotonic() if state == "snapshot" else None
        self._state = state

    def stop(self) -> None:
        """End the reader. Queued deliveries that were not taken are dropped; the server repeats them after the next start."""
        shared, thread = self._shared, self._thread
        if shared is None or thread is None:
            return
        shared.stopping.set()
        shared.call_reader()
        shared.queue.clear()
        thread.join(STOP_LIMIT_S)
        shared.queue.clear()
        if not thread.is_alive():
            shared.close()
        self._thread = None
        self._set_state("stopped" if self._problem is None else self._state)

    # ---------------------------------------------------------------- the reader's thread

    def _run(self, shared: ReaderState) -> None:
        session = Session(self._settings, shared, SessionCallbacks(self._observe, self._report_state), self._now_us)
        retry = RetryPolicy(self.name, self._settings.limits.retry_longest_s)
        while not shared.stopping.is_set():
            before, begun_s = shared.delivered, time.monotonic()
            error = self._run_session(session)
            if error is None:
                return
            retry.record_attempt(has_advanced=shared.delivered != before, lasted_s=time.monotonic() - begun_s)
            failure, error = failure_class(error), retry.classified(error)
            if isinstance(error, SourceRefused):
                if error.problem in LOST and before is not None:  # without a position nothing was missed
                    self._tally.add(GAPS, error.problem)
                if shared.lost is None and session.may_resnapshot(error):
                    shared.lost = error.problem
                    self._report_failure("retrying", error, failure)
                    continue
                self._report_failure("stopped", error, failure)
                return
            self._report_failure("retrying", error, failure)
            shared.stopping.wait(retry.delay_s())

    def _run_paused(self, shared: ReaderState) -> None:
        """Check the slot at intervals, over a connection of its own: it continues to retain WAL."""
        self._report_state("paused", "is paused: its stream is not read, its slot retains WAL")
        target = MonitorTarget(self._settings.slot, self._settings.publication, tuple(self._settings.tables))
        while not shared.stopping.is_set():
            try:
                self._check_slot(shared, target)
                self._problem = None
            except CdcMergeError as error:
                self._problem = f"{error} {error.hint}".strip()
            self._wake()
            shared.stopping.wait(self._settings.limits.health_every_s)

    def _check_slot(self, shared: ReaderState, target: MonitorTarget) -> None:
        monitor = SlotMonitor(self.name, self._settings.dsn, target, self._settings.limits)
        try:
            shared.slot = monitor.health().slot
            shared.server_lsn = monitor.clock().lsn
            shared.last_message_us = self._now_us()
        finally:
            monitor.close()

    def _run_session(self, session: Session) -> CdcMergeError | None:
        """Why the session ended; None when the reader was stopped."""
        try:
            session.run()
        except CdcMergeError as error:
            return error
        except Exception as error:  # noqa: BLE001 - named edge, the source loop: a mistake of ours must not end in silence
            return SourceRefused(
                f"Source {self.name}: the reader ended by {error_location(error)}.",
                problem="reader_failed",
                hint="This is a bug of cdc-merge: report it with the log.",
            )
        return None

    def _report_state(self, state: str, sentence: str) -> None:
        self._set_state(state)
        self._problem = None
        self._observe(SourceChanged(self.name, state, f"Source {self.name} {sentence}."))
        self._wake()

    def _report(self, sentence: str) -> None:
        self._observe(SourceChanged(self.name, self._state, f"Source {self.name} {sentence}."))

    def _report_failure(self, state: str, error: CdcMergeError, failure: str) -> None:
        self._set_state(state)
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
