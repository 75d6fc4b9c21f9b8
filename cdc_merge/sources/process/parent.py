"""A source whose reader is another process: it answers its server whatever the merging process is busy with.

Rules
- The child (child.py) runs the reader and talks to the parent over one pipe (wire.py); the parent's only state of the stream
  are the received deliveries. A child that dies is replaced by one that continues after the last complete delivery.
- A received delivery is not on disk: a new child confirms to its server only what the pipeline had confirmed.
- The window is bounded: the child sends only while less than `window_bytes` are not taken.
- The counts of a child are added to those of its predecessors.
- The rows of a large transaction are in a spill file that both read (spill.py); the window counts it, so there is rarely a
  second one.
- The child ends when the pipe closes, so it never outlives the parent.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import reduction
from typing import Final, NamedTuple

from cdc_merge.errors import error_location
from cdc_merge.model import (
    ChunkRead,
    Delivery,
    Position,
    SnapshotBegan,
    SnapshotRows,
    SourceChanged,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.capture_counters import sum_counts
from cdc_merge.model.ports import Observer
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.failure_classes import INTERNAL, PROCESS
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.process.child import StartFrom, forward
from cdc_merge.sources.process.wire import (
    CommandKind,
    MessageKind,
    PipeMessage,
    ReaderReport,
    Unpacker,
    command,
    read_message,
)
from cdc_merge.sources.spill import SpilledRows

WINDOW_BYTES: Final = 16 << 20  # of delivery parts; less than the child's own queue
BUG: Final = "This is a bug of cdc-merge: report the place. The server retains every change meanwhile."
STOP_LIMIT_S: Final = 20.0  # the reader's own limit, and the end of the process
RESTART_AFTER_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0  # between readers that crash again and again; one that ran longer resets the delay
# The module that the fork server imports once; each reader is forked from it (no thread, no secret).
PRELOADED: Final = "cdc_merge.sources.process.child"


class ProcessSource:
    """A `ports.Source` whose reader is another process."""

    def __init__(
        self, settings: ReaderSettings, wake: Callable[[], None], observe: Observer, window_bytes: int = WINDOW_BYTES
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.window_bytes = window_bytes
        self._wake = wake
        self._observe = observe
        self._child: _ReaderProcess | None = None
        self._changing = threading.Lock()  # guards `_child`
        self._confirmed_lsn = 0
        self._restarts = 0
        self._pause_s = RESTART_AFTER_S / 2  # the last one
        self._paused = self._accepts_loss = False
        self._request: ChunkRequest | None = None
        self._status = SourceStatus(settings.name, "postgres", state="stopped", slot=settings.slot)
        self._earlier = self._status  # the status before the present child started

    # ---------------------------------------------------------------- the port

    def start(self, position: Position | None) -> None:
        self._start(position, paused=False)

    def pause(self, position: Position | None) -> None:
        self._start(position, paused=True)

    def _start(self, position: Position | None, *, paused: bool) -> None:
        self.stop()
        self._confirmed_lsn = position.lsn if position is not None and not position.is_copying else 0
        self._paused, self._request = paused, None
        self._status = replace(self._status, state="paused" if paused else "connecting", up=False, problem=None)
        with self._changing:
            self._start_child(position, deque())

    def accept_loss(self, *, accepts: bool) -> None:
        self._accepts_loss = accepts

    def request_chunk(self, request: ChunkRequest) -> None:
        self._request = request
        child = self._child
        if child is not None:
            child.send(CommandKind.READ_CHUNK, request)

    def take(self, limit: int) -> Sequence[Delivery]:
        child = self._child
        taken = [] if child is None else child.take(limit)
        request = self._request
        if any(isinstance(delivery, SnapshotBegan) for delivery in taken):
            self._confirmed_lsn = 0  # of an earlier slot, perhaps on another timeline
        if request is not None and any(isinstance(d, ChunkRead) and d.number == request.number for d in taken):
            self._request = None
        return taken

    def confirm(self, lsn: int) -> None:
        child = self._child
        if child is not None and lsn > self._confirmed_lsn:
            self._confirmed_lsn = lsn
            child.send(CommandKind.CONFIRM, lsn)

    def status(self) -> SourceStatus:
        status, child = self._status, self._child
        return replace(
            status,
            reconnects=status.reconnects + self._restarts,
            queued_bytes=status.queued_bytes + (child.queued_bytes if child is not None else 0),
            queue_limit_bytes=status.queue_limit_bytes + self.window_bytes,
        )

    def stop(self) -> None:
        """End the reader. Received deliveries that were not taken are dropped; the server repeats them after the next start."""
        with self._changing:
            child, self._child = self._child, None
        if child is None:
            return
        child.stop()
        if self._status.problem is None:
            self._status = replace(self._status, state="stopped", up=False)

    # ---------------------------------------------------------------- called by a child's listener

    def on_message(self, child: _ReaderProcess, kind: MessageKind, report: ReaderReport | None) -> None:
        """Take a child's report; None with a delivery."""
        if child is not self._child:
            return
        if isinstance(report, SourceStatus):
            self._status = _with_earlier_counts(self._earlier, report)
        elif report is not None:
            self._observe(report)
        if kind is not MessageKind.FACT:
            self._wake()

    def on_exit(self, child: _ReaderProcess) -> None:
        """Replace a child that ended by itself, after a delay and unless the source is stopping. After a crash by a bug of ours,
        which the next child may repeat, the delay grows."""
        if child is self._child:
            problem = None if child.crash_location is None else self._report_crash(child.crash_location)
            self._status = replace(self._status, state="retrying", up=False, problem=problem)
        if child.stopping.wait(self._restart_delay_s(child)):
            return
        if child.crash_location is None:
            sentence = f"Source {self.name}: its reader process ended; another one continues."
            hint = "Check the log and the kernel log for the cause (memory, a signal)."
            self._observe(SourceChanged(self.name, "retrying", sentence, None, hint, PROCESS))
        with self._changing:
            if child is self._child:
                self._restarts += 1
                self._start_child(child.delivered, child.received_queue)

    def _report_crash(self, what: str) -> str:
        sentence = f"Source {self.name}: its reader ended by {what}; another one retries."
        self._observe(SourceChanged(self.name, "retrying", sentence, "reader_failed", BUG, INTERNAL))
        return f"{sentence} {BUG}"

    def _restart_delay_s(self, child: _ReaderProcess) -> float:
        if child.crash_location is None:
            return RESTART_AFTER_S
        self._pause_s = RESTART_AFTER_S if child.ran_long else min(2 * self._pause_s, LONGEST_PAUSE_S)
        return self._pause_s

    def _start_child(self, position: Position | None, received_queue: deque[_ReceivedDelivery]) -> None:
        start_from = StartFrom(position, self._confirmed_lsn, self._paused, self._accepts_loss, self._request)
        self._earlier = self._status
        self._child = _ReaderProcess(self, start_from, received_queue)
        self._child.start()  # last: its first message needs `_child`


class _ReceivedDelivery(NamedTuple):
    """One delivery, not unpacked yet: that is the work of the taking thread; a `large` one has its rows in a spill file."""

    parts: deque[bytes]
    size_bytes: int
    unpacker: Unpacker
    large: Transaction | None = None


class _ReaderProcess:
    """One reader process, the pipe to it, and the deliveries that were received and not taken.

    `received_queue` passes on to the child's successor, whose window then counts these deliveries as well.
    """

    def __init__(self, source: ProcessSource, start_from: StartFrom, received_queue: deque[_ReceivedDelivery]) -> None:
        self._source = source
        self.delivered = start_from.position
        self.received_queue = received_queue
        # Each has one writer: the listener's thread, and the taking thread.
        self._received_bytes, self._taken_bytes = sum(received.size_bytes for received in received_queue), 0
        self.stopping = threading.Event()
        self.crash_location: str | None = None  # of a bug of ours that ended it, in either process
        self._started_s = time.monotonic()
        self._unpacker = Unpacker()
        self._sending = threading.Lock()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", PRELOADED])
        self._pipe, child_end = context.Pipe()
        arguments = (child_end, source.settings, start_from, source.window_bytes)
        self._process = context.Process(target=forward, args=arguments, name=f"reader-{source.name}", daemon=True)
        self._child_end = child_end
        self._listener = threading.Thread(target=self._listen, name=f"listen-{source.name}", daemon=True)

    @property
    def ran_long(self) -> bool:
        return time.monotonic() - self._started_s > LONGEST_PAUSE_S

    @property
    def queued_bytes(self) -> int:
        """Bytes received and not taken."""
        return max(0, self._received_bytes - self._taken_bytes)

    def start(self) -> None:
        self._process.start()
        self._child_end.close()
        self._listener.start()

    def take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        rows = size_bytes = 0
        while self.received_queue and rows < limit:
            received = self.received_queue.popleft()
            size_bytes += received.size_bytes
            if received.large is not None:
                taken.append(received.large)
                rows += _rows(received.large)
            while received.parts:
                delivery = received.unpacker.unpack(received.parts.popleft())
                if delivery is not None:
                    taken.append(delivery)
                    rows += _rows(delivery)
        self._taken_bytes += size_bytes
        if size_bytes:
            self.send(CommandKind.TAKEN, size_bytes)
        return taken

    def send(self, kind: CommandKind, number: int | ChunkRequest = 0) -> None:
        try:
            with self._sending:
                self._pipe.send_bytes(command(kind, number))
        except OSError:
            return  # the child has ended; the listener notices

    def stop(self) -> None:
        self.stopping.set()
        self.send(CommandKind.STOP)
        self._process.join(STOP_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._listener.join(STOP_LIMIT_S)
        self._pipe.close()
        self.received_queue.clear()

    # ---------------------------------------------------------------- the listener's thread

    def _listen(self) -> None:
        try:
            self._receive_messages()
        except (EOFError, ConnectionError):
            pass  # the child has ended
        except Exception as error:  # noqa: BLE001 - the edge of the thread: an unreadable message ends as a crash of its reader does
            self.crash_location = error_location(error)
            self._process.kill()
        if not self.stopping.is_set():
            self._process.join()
            self._source.on_exit(self)

    def _receive_messages(self) -> None:
        parts: deque[bytes] = deque()
        while True:
            message = read_message(self._pipe.recv_bytes())
            if message.part:
                parts.append(message.part)
            if message.kind is MessageKind.LAST_PART:
                self._receive(_ReceivedDelivery(parts, sum(map(len, parts)), self._unpacker))
                self.delivered = message.reached
                parts = deque()
            if message.large is not None:
                self._receive_spilled(message, message.large)
            if isinstance(message.report, str):
                self.crash_location = message.report
            elif message.kind is not MessageKind.PART:
                self._source.on_message(self, message.kind, message.report)

    def _receive(self, received: _ReceivedDelivery) -> None:
        self._received_bytes += received.size_bytes
        self.received_queue.append(received)

    def _receive_spilled(self, message: PipeMessage, large: Transaction) -> None:
        rows, size_bytes = message.rows
        large = large._replace(changes=SpilledRows(reduction.recv_handle(self._pipe), rows))
        self._receive(_ReceivedDelivery(deque(), size_bytes, self._unpacker, large))
        self.delivered = message.reached


def _with_earlier_counts(earlier: SourceStatus, report: SourceStatus) -> SourceStatus:
    """A child's status, its counts added to those of its predecessors."""
    return replace(
        report,
        counts=sum_counts(earlier.counts, report.counts),
        reconnects=earlier.reconnects + report.reconnects,
        waited_s=earlier.waited_s + report.waited_s,
        heartbeats_sent=earlier.heartbeats_sent + report.heartbeats_sent,
        copy_s=report.copy_s or earlier.copy_s,
    )


def _rows(delivery: Delivery) -> int:
    if isinstance(delivery, ChunkRead):
        return len(delivery.rows) + 1
    return max(1, len(delivery.changes)) if isinstance(delivery, Transaction | SnapshotRows) else 1
