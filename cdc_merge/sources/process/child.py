"""The process that an isolated source reads in: a reader, and a pipe to the parent for everything that it delivers.

Rules
- The parent is told where a new reader would go on behind each delivery: it can replace this process at any moment.
- It sends on only while less than `window_bytes` are not taken; then the reader's own queue fills and the server waits.
- It ends when the parent says so or is gone. Signals are the parent's to answer.
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
    News,
    Packer,
    ToChild,
    large_frame,
    news_frame,
    parcel_frame,
    read_command,
    surprise_frame,
)
from cdc_merge.sources.spill import SpilledRows

STATUS_EVERY_S: Final = 0.25
UNEXPECTED: Final = 70  # the exit code of a reader that met what it does not know (EX_SOFTWARE)


class StartFrom(NamedTuple):
    """Read on behind `position`; the server may forget what ends at or before `confirmed_lsn`. The rest as in
    ports.ReadsAgain."""

    position: Position | None
    confirmed_lsn: int
    rests: bool = False
    accepts_loss: bool = False
    wanted: ChunkRequest | None = None


def forward(pipe: Connection, settings: ReaderSettings, beginning: StartFrom, window_bytes: int) -> None:
    """The process's main."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Forwarder(pipe, settings, beginning, window_bytes).run()
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent is told what and where, without values
        with suppress(OSError):
            pipe.send_bytes(surprise_frame(error_location(error)))
        sys.exit(UNEXPECTED)


def behind(delivery: SnapshotBegan | Transaction | Idle, reached: Position | None, slot: str) -> Position:
    """The position that a delivery names; what follows the stream within an unfinished copy does not end that."""
    if isinstance(delivery, SnapshotBegan):
        snapshot = "running" if delivery.lost is None else "again"
        copied = reached.copied if reached is not None and delivery.lost is None and reached.is_copying else ()
        return Position(delivery.system, delivery.timeline, delivery.lsn, snapshot, slot, copied=copied)
    lsn = delivery.end_lsn if isinstance(delivery, Transaction) else delivery.lsn
    if reached is not None and reached.is_copying:
        return reached._replace(timeline=delivery.timeline, lsn=lsn)
    told = delivery.membership if isinstance(delivery, Idle) else ""
    membership = told or (reached.membership if reached is not None else "")
    return Position(delivery.system, delivery.timeline, lsn, "done", slot, membership=membership)


class Forwarder:
    """`run` sends; a second thread listens to the parent."""

    def __init__(self, pipe: Connection, settings: ReaderSettings, beginning: StartFrom, window_bytes: int) -> None:
        self._pipe = pipe
        self._window_bytes = window_bytes
        self._sent_bytes = self._taken_bytes = 0  # each is written by one thread
        self._something = threading.Event()
        self._facts: deque[News] = deque()
        self._packer = Packer()
        self._reached = beginning.position
        self._slot = settings.slot
        self._last_status: SourceStatus | None = None
        self._failure: BaseException | None = None
        threading.excepthook = self._thread_failed
        self._source = PostgresSource(
            settings, wake=self._something.set, observe=self._note, now_us=lambda: time.time_ns() // 1000
        )
        self._source.accept_loss(accepts=beginning.accepts_loss)
        if beginning.rests:
            self._source.rest(beginning.position)
        else:
            self._source.start(beginning.position, beginning.confirmed_lsn)
        if beginning.wanted is not None:
            self._source.request_chunk(beginning.wanted)

    def run(self) -> None:
        listener = threading.Thread(target=self._handle_command, daemon=True)
        listener.start()
        status_s = 0.0
        try:
            while listener.is_alive():
                has_sent = self._send_on()
                while self._facts:
                    self._pipe.send_bytes(news_frame(self._facts.popleft()))
                if time.monotonic() >= status_s:
                    status_s = time.monotonic() + STATUS_EVERY_S
                    self._send_status()
                if not has_sent:
                    self._something.wait(STATUS_EVERY_S)
                    self._something.clear()
                if self._failure is not None:
                    raise self._failure
        except ConnectionError:
            pass  # the parent is gone
        finally:
            self._source.stop()

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """A thread of the reader ended by a mistake of ours: the process ends by it, too."""
        self._failure = failed.exc_value
        self._something.set()

    def _note(self, fact: Fact) -> None:
        assert isinstance(fact, News), "a reader tells nothing else"
        self._facts.append(fact)
        self._something.set()

    def _send_on(self) -> bool:
        """Whether there was anything, and space for it."""
        if self._sent_bytes - self._taken_bytes >= self._window_bytes:
            return False
        deliveries = self._source.take(1)
        for delivery in deliveries:
            self._reached = self._behind(delivery)
            if isinstance(delivery, Transaction) and isinstance(delivery.changes, SpilledRows):
                self._send_large(delivery, delivery.changes)
                continue
            for parcel in self._packer.pack(delivery):
                self._sent_bytes += len(parcel.body)
                self._pipe.send_bytes(parcel_frame(parcel, self._reached))
        return bool(deliveries)

    def _send_large(self, delivery: Transaction, rows: SpilledRows) -> None:
        """The parent reads the rows' file itself: they never travel."""
        size_bytes = rows.size_bytes
        self._sent_bytes += size_bytes
        self._pipe.send_bytes(large_frame(delivery, (len(rows), size_bytes), self._reached))
        reduction.send_handle(self._pipe, rows.descriptor, os.getppid())

    def _behind(self, delivery: Delivery) -> Position | None:
        """Where a new reader would go on."""
        if isinstance(delivery, SnapshotBegan | Transaction | Idle):
            return behind(delivery, self._reached, self._slot)
        if isinstance(delivery, SnapshotTable) and self._reached is not None:
            return self._reached._replace(copied=(*self._reached.copied, delivery.table))
        if isinstance(delivery, SnapshotDone) and self._reached is not None:
            return self._reached._replace(lsn=delivery.lsn, snapshot="done", copied=())
        return self._reached

    def _send_status(self) -> None:
        status = self._source.status()
        if status != self._last_status:
            self._last_status = status
            self._pipe.send_bytes(news_frame(status))

    def _handle_command(self) -> None:
        """What the parent says; ends when it says stop or is gone."""
        try:
            while True:
                word, number = read_command(self._pipe.recv_bytes())
                if word is ToChild.STOP:
                    break
                if word is ToChild.CONFIRM:
                    self._source.confirm(number)
                elif word is ToChild.READ_AGAIN:
                    self._source.request_chunk(number)
                else:
                    self._taken_bytes += number
                    self._something.set()
        except (EOFError, OSError):
            pass
        self._something.set()
