"""The reader's process: takes deliveries from the reader's queue and sends them over the pipe to the parent.

Rules
- Each delivery is sent with the position from which a new reader continues: the parent can replace this process at any time.
- It sends only while less than `window_bytes` are not taken; then the reader's own queue fills and the server waits.
- It ends on the parent's command or with the parent's end. Signals are handled by the parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from cdc_merge.errors import error_location
from cdc_merge.model import (
    Delivery,
    Fact,
    Idle,
    Position,
    SnapshotBegan,
    SnapshotDone,
    SnapshotTable,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.reader import PostgresSource
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.process.wire import (
    CommandKind,
    Packer,
    ReaderReport,
    crash_message,
    part_message,
    read_command,
    report_message,
    spilled_message,
)
from cdc_merge.sources.spill import SpilledRows

STATUS_EVERY_S: Final = 0.25
EXIT_UNEXPECTED: Final = 70  # the exit code of a reader that ended by a bug (EX_SOFTWARE)


class StartFrom(NamedTuple):
    """The parameters of a reader's start: read after `position`; `confirmed_lsn` is on disk. The others are those of
    `ports.IncrementalSource`: paused, a lost position accepted, a chunk requested."""

    position: Position | None
    confirmed_lsn: int
    paused: bool = False
    accepts_loss: bool = False
    request: ChunkRequest | None = None


def forward(pipe: Connection, settings: ReaderSettings, start_from: StartFrom, window_bytes: int) -> None:
    """The main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Forwarder(pipe, settings, start_from, window_bytes).run()
    except Exception as error:  # noqa: BLE001 - the edge of the process: type and place go to the parent, without values
        with suppress(OSError):
            pipe.send_bytes(crash_message(error_location(error)))
        sys.exit(EXIT_UNEXPECTED)


def position_after(delivery: Delivery, reached: Position | None, slot: str) -> Position | None:
    """The position from which a new reader continues after a delivery; `reached` is the one before it."""
    if isinstance(delivery, SnapshotBegan):
        snapshot = "running" if delivery.lost is None else "again"
        copied = reached.copied if reached is not None and delivery.lost is None and reached.is_copying else ()
        return Position(delivery.system, delivery.timeline, delivery.lsn, snapshot, slot, copied=copied)
    if isinstance(delivery, Transaction | Idle):
        lsn = delivery.end_lsn if isinstance(delivery, Transaction) else delivery.lsn
        if (
            reached is not None and reached.is_copying
        ):  # a transaction of the stream does not end an unfinished snapshot
            return reached._replace(timeline=delivery.timeline, lsn=lsn)
        announced = delivery.membership if isinstance(delivery, Idle) else ""
        membership = announced or (reached.membership if reached is not None else "")
        return Position(delivery.system, delivery.timeline, lsn, "done", slot, membership=membership)
    if isinstance(delivery, SnapshotTable) and reached is not None:
        return reached._replace(copied=(*reached.copied, delivery.table))
    if isinstance(delivery, SnapshotDone) and reached is not None:
        return reached._replace(lsn=delivery.lsn, snapshot="done", copied=())
    return reached


class Forwarder:
    """`run` sends deliveries and reports; a second thread handles the parent's commands."""

    def __init__(self, pipe: Connection, settings: ReaderSettings, start_from: StartFrom, window_bytes: int) -> None:
        self._pipe = pipe
        self._window_bytes = window_bytes
        self._sent_bytes = self._taken_bytes = 0  # each is written by one thread
        self._wake = threading.Event()
        self._reports: deque[ReaderReport] = deque()
        self._packer = Packer()
        self._reached = start_from.position
        self._slot = settings.slot
        self._last_status: SourceStatus | None = None
        self._failure: BaseException | None = None
        threading.excepthook = self._on_thread_error
        self._source = PostgresSource(
            settings, wake=self._wake.set, observe=self._queue_report, now_us=lambda: time.time_ns() // 1000
        )
        self._source.accept_loss(accepts=start_from.accepts_loss)
        if start_from.paused:
            self._source.pause(start_from.position)
        else:
            self._source.start(start_from.position, start_from.confirmed_lsn)
        if start_from.request is not None:
            self._source.request_chunk(start_from.request)

    def run(self) -> None:
        listener = threading.Thread(target=self._handle_commands, daemon=True)
        listener.start()
        status_s = 0.0
        try:
            while listener.is_alive():
                has_sent = self._send_deliveries()
                while self._reports:
                    self._pipe.send_bytes(report_message(self._reports.popleft()))
                if time.monotonic() >= status_s:
                    status_s = time.monotonic() + STATUS_EVERY_S
                    self._send_status()
                if not has_sent:
                    self._wake.wait(STATUS_EVERY_S)
                    self._wake.clear()
                if self._failure is not None:
                    raise self._failure
        except ConnectionError:
            pass  # the parent has ended
        finally:
            self._source.stop()

    def _on_thread_error(self, failed: threading.ExceptHookArgs) -> None:
        """A thread of the reader ended by a bug: the process ends by it, too."""
        self._failure = failed.exc_value
        self._wake.set()

    def _queue_report(self, fact: Fact) -> None:
        assert isinstance(fact, ReaderReport), "a reader reports nothing else"
        self._reports.append(fact)
        self._wake.set()

    def _send_deliveries(self) -> bool:
        """Send the next delivery; whether there was one, and space for it."""
        if self._sent_bytes - self._taken_bytes >= self._window_bytes:
            return False
        deliveries = self._source.take(1)
        for delivery in deliveries:
            self._reached = position_after(delivery, self._reached, self._slot)
            if isinstance(delivery, Transaction) and isinstance(delivery.changes, SpilledRows):
                self._send_spilled(delivery, delivery.changes)
                continue
            for part in self._packer.pack(delivery):
                self._sent_bytes += len(part.body)
                self._pipe.send_bytes(part_message(part, self._reached))
        return bool(deliveries)

    def _send_spilled(self, delivery: Transaction, rows: SpilledRows) -> None:
        """The parent reads the spill file itself: its rows never travel."""
        size_bytes = rows.size_bytes
        self._sent_bytes += size_bytes
        self._pipe.send_bytes(spilled_message(delivery, (len(rows), size_bytes), self._reached))
        reduction.send_handle(self._pipe, rows.descriptor, os.getppid())

    def _send_status(self) -> None:
        status = self._source.status()
        if status != self._last_status:
            self._last_status = status
            self._pipe.send_bytes(report_message(status))

    def _handle_commands(self) -> None:
        """Handle the parent's commands; ends with STOP or with the parent."""
        try:
            while True:
                kind, number = read_command(self._pipe.recv_bytes())
                if kind is CommandKind.STOP:
                    break
                if kind is CommandKind.CONFIRM:
                    self._source.confirm(number)
                elif kind is CommandKind.READ_CHUNK:
                    self._source.request_chunk(number)
                else:
                    self._taken_bytes += number
                    self._wake.set()
        except (EOFError, OSError):
            pass
        self._wake.set()
