"""A source in a process of its own: the reader answers its server whatever the merging process is busy with.

Rules
- The child (forwarder.py) runs the very reader and speaks to the parent over one pipe; the parent keeps no state of the
  stream but what it has received. A child that dies is replaced by one that goes on behind the last whole delivery.
- What arrived is not on disk: a new child confirms to its server only what the pipeline had confirmed.
- What lies between the two is bounded: the child sends on only while less than `window_bytes` are not taken.
- What a child counts goes on from what the ones before it had told.
- A large transaction's rows lie in a file that both read (spool.py); the window counts it, so there is rarely a second.
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
from multiprocessing.context import ForkServerContext
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
from cdc_merge.model.capture_counters import added
from cdc_merge.model.ports import Observer
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.failure_classes import INTERNAL, PROCESS
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.process.child import StartFrom, forward
from cdc_merge.sources.process.wire import Frame, FromChild, News, ToChild, Unpacker, command, read_frame
from cdc_merge.sources.spill import SpilledRows

WINDOW_BYTES: Final = 16 << 20  # as parcels; less than what the child's own queue holds
BUG: Final = "This is a bug of cdc-merge: report the place. The server keeps every change meanwhile."
STOP_LIMIT_S: Final = 20.0  # the reader's own limit, and the end of the process
RESTART_AFTER_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0  # between readers that meet a surprise again and again; one that lived longer begins anew
# What a reader's process imports, once for all of them: a process that did it is forked for each (no thread, no secret).
IMPORTED: Final = "cdc_merge.sources.process.child"


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
        self._child: _Child | None = None
        self._changing = threading.Lock()  # which child is ours
        self._confirmed_lsn = 0
        self._restarts = 0
        self._pause_s = RESTART_AFTER_S / 2  # the last one
        self._rests = self._accepts_loss = False
        self._wanted: ChunkRequest | None = None
        self._status = SourceStatus(settings.name, "postgres", state="stopped", slot=settings.slot)
        self._earlier = self._status  # what was told before the present child began

    # ---------------------------------------------------------------- the port

    def start(self, position: Position | None) -> None:
        self._start(position, rests=False)

    def rest(self, position: Position | None) -> None:
        self._start(position, rests=True)

    def _start(self, position: Position | None, *, rests: bool) -> None:
        self.stop()
        self._confirmed_lsn = position.lsn if position is not None and not position.is_copying else 0
        self._rests, self._wanted = rests, None
        self._status = replace(self._status, state="paused" if rests else "connecting", up=False, problem=None)
        with self._changing:
            self._begin(position, deque())

    def accept_loss(self, *, accepts: bool) -> None:
        self._accepts_loss = accepts

    def request_chunk(self, wanted: ChunkRequest) -> None:
        self._wanted = wanted
        child = self._child
        if child is not None:
            child.send(ToChild.READ_AGAIN, wanted)

    def take(self, limit: int) -> Sequence[Delivery]:
        child = self._child
        taken = [] if child is None else child.take(limit)
        wanted = self._wanted
        if any(isinstance(delivery, SnapshotBegan) for delivery in taken):
            self._confirmed_lsn = 0  # of an earlier slot, perhaps on another timeline
        if wanted is not None and any(isinstance(d, ChunkRead) and d.number == wanted.number for d in taken):
            self._wanted = None
        return taken

    def confirm(self, lsn: int) -> None:
        child = self._child
        if child is not None and lsn > self._confirmed_lsn:
            self._confirmed_lsn = lsn
            child.send(ToChild.CONFIRM, lsn)

    def status(self) -> SourceStatus:
        status, child = self._status, self._child
        return replace(
            status,
            reconnects=status.reconnects + self._restarts,
            queued_bytes=status.queued_bytes + (child.waiting_bytes if child is not None else 0),
            queue_limit_bytes=status.queue_limit_bytes + self.window_bytes,
        )

    def stop(self) -> None:
        """End the reader; what has arrived and nobody has taken is dropped and comes again after the next start."""
        with self._changing:
            child, self._child = self._child, None
        if child is None:
            return
        child.stop()
        if self._status.problem is None:
            self._status = replace(self._status, state="stopped", up=False)

    # ---------------------------------------------------------------- told by a child's listener

    def on_message(self, child: _Child, kind: FromChild, told: News | None) -> None:
        """`told` is the child's news of its kind; nothing comes with a delivery."""
        if child is not self._child:
            return
        if isinstance(told, SourceStatus):
            self._status = _since(self._earlier, told)
        elif told is not None:
            self._observe(told)
        if kind is not FromChild.FACT:
            self._wake()

    def on_exit(self, child: _Child) -> None:
        """The child ended unasked. A moment later, unless we are stopping as well, it is replaced; after a mistake of ours,
        which the next one may meet, too, the moments grow."""
        if child is self._child:
            problem = None if child.surprise is None else self._failed(child.surprise)
            self._status = replace(self._status, state="retrying", up=False, problem=problem)
        if child.stopping.wait(self._pause_after(child)):
            return
        if child.surprise is None:
            sentence = f"Source {self.name}: its reader process ended; another one goes on."
            hint = "Look into the log and the kernel's for what ended it (memory, a signal)."
            self._observe(SourceChanged(self.name, "retrying", sentence, None, hint, PROCESS))
        with self._changing:
            if child is self._child:
                self._restarts += 1
                self._begin(child.delivered, child.waiting)

    def _failed(self, what: str) -> str:
        sentence = f"Source {self.name}: its reader ended by {what}; another one tries again."
        self._observe(SourceChanged(self.name, "retrying", sentence, "reader_failed", BUG, INTERNAL))
        return f"{sentence} {BUG}"

    def _pause_after(self, child: _Child) -> float:
        if child.surprise is None:
            return RESTART_AFTER_S
        self._pause_s = RESTART_AFTER_S if child.lived_long else min(2 * self._pause_s, LONGEST_PAUSE_S)
        return self._pause_s

    def _begin(self, position: Position | None, waiting: deque[_Arrived]) -> None:
        beginning = StartFrom(position, self._confirmed_lsn, self._rests, self._accepts_loss, self._wanted)
        self._earlier = self._status
        self._child = _Child(self, beginning, waiting)
        self._child.begin()  # it may have something to tell at once


def _processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", IMPORTED])
    return context


class _Arrived(NamedTuple):
    """One delivery, not yet unpacked: that is the taker's work; a `large` one has its rows in a file."""

    parcels: deque[bytes]
    size_bytes: int
    unpacker: Unpacker
    large: Transaction | None = None


class _Child:
    """One reader process, the pipe to it, and what has arrived from it and waits to be taken.

    `waiting` goes on to the child's successor, whose window then counts what this one had sent as well.
    """

    def __init__(self, source: ProcessSource, beginning: StartFrom, waiting: deque[_Arrived]) -> None:
        self._source = source
        self.delivered = beginning.position
        self.waiting = waiting
        # Each has one writer: the listener's thread, and whoever takes.
        self._arrived_bytes, self._taken_bytes = sum(arrived.size_bytes for arrived in waiting), 0
        self.stopping = threading.Event()
        self.surprise: str | None = None  # what ended it that is a mistake of ours, here or there
        self._begun_s = time.monotonic()
        self._unpacker = Unpacker()
        self._sending = threading.Lock()
        context = _processes()
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, source.settings, beginning, source.window_bytes)
        self._process = context.Process(target=forward, args=arguments, name=f"reader-{source.name}", daemon=True)
        self._theirs = theirs
        self._listener = threading.Thread(target=self._listen, name=f"listen-{source.name}", daemon=True)

    @property
    def lived_long(self) -> bool:
        return time.monotonic() - self._begun_s > LONGEST_PAUSE_S

    @property
    def waiting_bytes(self) -> int:
        """What has arrived and was not taken."""
        return max(0, self._arrived_bytes - self._taken_bytes)

    def begin(self) -> None:
        self._process.start()
        self._theirs.close()
        self._listener.start()

    def take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        rows = size_bytes = 0
        while self.waiting and rows < limit:
            arrived = self.waiting.popleft()
            size_bytes += arrived.size_bytes
            if arrived.large is not None:
                taken.append(arrived.large)
                rows += _rows(arrived.large)
            while arrived.parcels:
                delivery = arrived.unpacker.unpack(arrived.parcels.popleft())
                if delivery is not None:
                    taken.append(delivery)
                    rows += _rows(delivery)
        self._taken_bytes += size_bytes
        if size_bytes:
            self.send(ToChild.TAKEN, size_bytes)
        return taken

    def send(self, word: ToChild, number: int | ChunkRequest = 0) -> None:
        try:
            with self._sending:
                self._pipe.send_bytes(command(word, number))
        except OSError:
            return  # the child has ended; the listener notices

    def stop(self) -> None:
        self.stopping.set()
        self.send(ToChild.STOP)
        self._process.join(STOP_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._listener.join(STOP_LIMIT_S)
        self._pipe.close()
        self.waiting.clear()

    # ---------------------------------------------------------------- the listener's thread

    def _listen(self) -> None:
        try:
            self._on_frame()
        except (EOFError, ConnectionError):
            pass  # the child has ended
        except Exception as error:  # noqa: BLE001 - the edge of the thread: what cannot be heard ends as its reader does
            self.surprise = error_location(error)
            self._process.kill()
        if not self.stopping.is_set():
            self._process.join()
            self._source.on_exit(self)

    def _on_frame(self) -> None:
        parcels: deque[bytes] = deque()
        while True:
            frame = read_frame(self._pipe.recv_bytes())
            if frame.parcel:
                parcels.append(frame.parcel)
            if frame.kind is FromChild.LAST_PARCEL:
                self._arrive(_Arrived(parcels, sum(map(len, parcels)), self._unpacker))
                self.delivered = frame.reached
                parcels = deque()
            if frame.large is not None:
                self._receive_large(frame, frame.large)
            if isinstance(frame.told, str):
                self.surprise = frame.told
            elif frame.kind is not FromChild.PARCEL:
                self._source.on_message(self, frame.kind, frame.told)

    def _arrive(self, arrived: _Arrived) -> None:
        self._arrived_bytes += arrived.size_bytes
        self.waiting.append(arrived)

    def _receive_large(self, frame: Frame, large: Transaction) -> None:
        rows, size_bytes = frame.rows
        large = large._replace(changes=SpilledRows(reduction.recv_handle(self._pipe), rows))
        self._arrive(_Arrived(deque(), size_bytes, self._unpacker, large))
        self.delivered = frame.reached


def _since(earlier: SourceStatus, told: SourceStatus) -> SourceStatus:
    """What a child tells, its counts on top of those before it."""
    return replace(
        told,
        counts=added(earlier.counts, told.counts),
        reconnects=earlier.reconnects + told.reconnects,
        waited_s=earlier.waited_s + told.waited_s,
        heartbeats_sent=earlier.heartbeats_sent + told.heartbeats_sent,
        copy_s=told.copy_s or earlier.copy_s,
    )


def _rows(delivery: Delivery) -> int:
    if isinstance(delivery, ChunkRead):
        return len(delivery.rows) + 1
    return max(1, len(delivery.changes)) if isinstance(delivery, Transaction | SnapshotRows) else 1
