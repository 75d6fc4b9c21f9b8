"""A source in a process of its own: the reader answers its server whatever the merging process is busy with.

Rules
- The child runs the very reader (`PostgresSource`) and speaks to the parent over one pipe; the parent keeps no state of the stream
  but what it has received. A child that dies is started again after the last delivery that arrived whole.
- What lies between the two is bounded: the child sends on only while less than `window_bytes` are unacknowledged.
- The child ends when the pipe closes, so it never outlives the parent.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Final

from cdc_merge.model import (
    Delivery,
    Fact,
    Idle,
    Position,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    SourceChanged,
    SourceStatus,
    Transaction,
)
from cdc_merge.ports import Observer
from cdc_merge.sources.parcels import Packer, Unpacker
from cdc_merge.sources.postgres import PostgresSource

WINDOW_BYTES: Final = 16 << 20
STATUS_EVERY_S: Final = 0.25
STOP_LIMIT_S: Final = 10.0
RESTART_AFTER_S: Final = 1.0

_PARCEL, _END, _STATUS, _FACT = b"p", b"e", b"s", b"f"


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What the child needs to make its reader. Travels over a pipe, never on a command line."""

    name: str
    dsn: str
    slot: str
    publication: str
    snapshot: str
    tables: Mapping[str, Sequence[str]]
    max_queued_bytes: int


class IsolatedSource:
    """A `ports.Source` whose reader is another process."""

    def __init__(
        self, settings: ReaderSettings, wake: Callable[[], None], observe: Observer, window_bytes: int = WINDOW_BYTES
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._wake = wake
        self._observe = observe
        self._window_bytes = window_bytes
        self._child: _Child | None = None
        self._status = SourceStatus(settings.name, "postgres", state="stopped", slot=settings.slot)
        self._restarts = 0

    def start(self, position: Position | None) -> None:
        self.stop()
        self._status = replace(self._status, state="connecting", up=False, problem=None)
        self._child = _Child(self, position)

    def take(self, limit: int) -> Sequence[Delivery]:
        child = self._child
        return [] if child is None else child.take(limit)

    def confirm(self, lsn: int) -> None:
        if self._child is not None:
            self._child.send(("confirm", lsn))

    def status(self) -> SourceStatus:
        return replace(self._status, reconnects=self._status.reconnects + self._restarts)

    def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.stop()
            if self._status.problem is None:
                self._status = replace(self._status, state="stopped", up=False)

    # ---------------------------------------------------------------- told by the child's listener

    @property
    def settings(self) -> ReaderSettings:
        return self._settings

    @property
    def window_bytes(self) -> int:
        return self._window_bytes

    def arrived(self) -> None:
        self._wake()

    def learned(self, status: SourceStatus) -> None:
        self._status = status

    def told(self, fact: Fact) -> None:
        self._observe(fact)

    def died(self, child: _Child) -> None:
        """The child ended unasked: begin again behind the last delivery that arrived whole."""
        if child is not self._child:
            return
        sentence = f"Source {self.name}: its reader process ended; it is started again."
        self._status = replace(self._status, state="retrying", up=False)
        self._observe(SourceChanged(self.name, "retrying", sentence, None, "Look into the log for what ended it."))
        time.sleep(RESTART_AFTER_S)
        if child is self._child:
            self._restarts += 1
            self._child = _Child(self, child.delivered, child.waiting)


class _Child:
    """One reader process, the pipe to it, and what has arrived from it and waits to be taken."""

    def __init__(self, source: IsolatedSource, position: Position | None, waiting: deque[Any] | None = None) -> None:
        self._source = source
        self.delivered = position
        self.waiting: deque[tuple[tuple[bytes, ...], int, Unpacker]] = waiting or deque()
        self._unpacker = Unpacker()
        self._sending = threading.Lock()
        self._is_stopping = False
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, source.settings, position, source.window_bytes)
        self._process = context.Process(target=read_for_parent, args=arguments, name=f"reader-{source.name}", daemon=True)
        self._process.start()
        theirs.close()
        threading.Thread(target=self._listen, name=f"listen-{source.name}", daemon=True).start()

    def take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        rows = 0
        received = 0
        while self.waiting and rows < limit:
            parcels, size, unpacker = self.waiting.popleft()
            received += size
            for parcel in parcels:
                delivery = unpacker.unpack(parcel)
                if delivery is not None:
                    taken.append(delivery)
                    rows += _rows(delivery)
        if received:
            self.send(("taken", received))
        return taken

    def send(self, word: tuple[str, int]) -> None:
        try:
            with self._sending:
                self._pipe.send(word)
        except OSError:
            return  # the child has ended; the listener notices

    def stop(self) -> None:
        self._is_stopping = True
        self.send(("stop", 0))
        self._process.join(STOP_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self.waiting.clear()

    # ---------------------------------------------------------------- the listener's thread

    def _listen(self) -> None:
        parcels: list[bytes] = []
        try:
            while True:
                frame = self._pipe.recv_bytes()
                kind, body = frame[:1], frame[1:]
                if kind == _PARCEL:
                    parcels.append(body)
                elif kind == _END:
                    self._complete(parcels, body)
                    parcels = []
                else:
                    self._tell(kind, body)
        except (EOFError, OSError):
            self._process.join(STOP_LIMIT_S)
        if not self._is_stopping:
            self._source.died(self)

    def _complete(self, parcels: list[bytes], body: bytes) -> None:
        reached: Position | None = pickle.loads(body)  # noqa: S301 - from our own child
        self.waiting.append((tuple(parcels), sum(map(len, parcels)), self._unpacker))
        if reached is not None:
            self.delivered = reached
        self._source.arrived()

    def _tell(self, kind: bytes, body: bytes) -> None:
        told = pickle.loads(body)  # noqa: S301 - from our own child
        if kind == _STATUS:
            self._source.learned(told)
        else:
            self._source.told(told)


def _rows(delivery: Delivery) -> int:
    return max(1, len(delivery.changes)) if isinstance(delivery, Transaction | SnapshotRows) else 1


# -------------------------------------------------------------------- the child


def read_for_parent(pipe: Connection, settings: ReaderSettings, position: Position | None, window_bytes: int) -> None:
    """The child's main: read, and send on what arrives, until told to stop or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Forwarder(pipe, settings, position, window_bytes).run()


class _Forwarder:
    def __init__(self, pipe: Connection, settings: ReaderSettings, position: Position | None, window_bytes: int) -> None:
        self._pipe = pipe
        self._window_bytes = window_bytes
        self._sent_bytes = self._taken_bytes = 0  # each written by one thread
        self._something = threading.Event()
        self._facts: deque[Fact] = deque()
        self._packer = Packer()
        self._reached = position
        self._slot = settings.slot
        self._last_status: SourceStatus | None = None
        self._source = PostgresSource(
            name=settings.name,
            dsn=settings.dsn,
            slot=settings.slot,
            publication=settings.publication,
            snapshot=settings.snapshot,
            tables=settings.tables,
            wake=self._something.set,
            observe=self._note,
            now_us=lambda: time.time_ns() // 1000,
            max_queued_bytes=settings.max_queued_bytes,
        )
        self._source.start(position)

    def run(self) -> None:
        listener = threading.Thread(target=self._obey, daemon=True)
        listener.start()
        last_status_s = 0.0
        try:
            while listener.is_alive():
                sent = self._sent_bytes - self._taken_bytes < self._window_bytes and self._send_on()
                while self._facts:
                    self._pipe.send_bytes(_FACT + pickle.dumps(self._facts.popleft()))
                now_s = time.monotonic()
                if now_s - last_status_s > STATUS_EVERY_S:
                    last_status_s = now_s
                    self._send_status()
                if not sent:
                    self._something.wait(STATUS_EVERY_S)
                    self._something.clear()
        except OSError:
            pass  # the parent is gone
        finally:
            self._source.stop()

    def _note(self, fact: Fact) -> None:
        self._facts.append(fact)
        self._something.set()

    def _send_on(self) -> bool:
        deliveries = self._source.take(1)
        for delivery in deliveries:
            for parcel in self._packer.pack(delivery):
                self._sent_bytes += len(parcel)
                self._pipe.send_bytes(_PARCEL + parcel)
            self._pipe.send_bytes(_END + pickle.dumps(self._position_after(delivery)))
        return bool(deliveries)

    def _position_after(self, delivery: Delivery) -> Position | None:
        """Where a new reader would go on behind this delivery; the parent's own idea of it when this process dies."""
        if isinstance(delivery, Transaction):
            self._reached = Position(delivery.system, delivery.timeline, delivery.end_lsn, "done", self._slot)
        elif isinstance(delivery, Idle):
            self._reached = Position(delivery.system, delivery.timeline, delivery.lsn, "done", self._slot)
        elif isinstance(delivery, SnapshotBegan):
            self._reached = Position(delivery.system, delivery.timeline, delivery.lsn, "running", self._slot)
        elif isinstance(delivery, SnapshotDone) and self._reached is not None:
            self._reached = self._reached._replace(lsn=delivery.lsn, snapshot="done")
        return self._reached

    def _send_status(self) -> None:
        status = self._source.status()
        if status != self._last_status:
            self._last_status = status
            self._pipe.send_bytes(_STATUS + pickle.dumps(status))

    def _obey(self) -> None:
        """Words of the parent; ends when it says stop or is gone."""
        try:
            while True:
                word, number = self._pipe.recv()
                if word == "stop":
                    break
                if word == "confirm":
                    self._source.confirm(number)
                else:
                    self._taken_bytes += number
                    self._something.set()
        except (EOFError, OSError):
            pass
        self._something.set()
