"""A captured stream in a file, and a source that replays it without the server.

Format: one line of JSON (system, timeline, what, server), then frames of `received_us` (int64), `length` (uint32), both
big endian, and the CopyData payload as received. A recording contains row values: treat it as the source's own data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from cdc_merge.errors import ProtocolError
from cdc_merge.model import Delivery, Idle, Parked, Position, SourceStatus, Transaction
from cdc_merge.sources.postgres.protocol.copy_data import KEEPALIVE, XLOG_DATA, XLOG_DATA_HEADER_BYTES, read_keepalive
from cdc_merge.sources.postgres.protocol.timelines import Timelines
from cdc_merge.sources.postgres.protocol.transactions import Assembler

_FRAME: Final = struct.Struct("!qI")
MAX_HEADER_BYTES: Final = 10_000
MAX_FRAME_BYTES: Final = 1 << 30  # a message of the Postgres protocol is never longer


class Header(NamedTuple):
    """Where a recording is from; `what` says what happens in it."""

    system: str
    timeline: int
    what: str = ""
    server: str = ""


class Frame(NamedTuple):
    received_us: int
    payload: bytes


class Recorder:
    """Writes a recording into an open binary file."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        file.write(json.dumps(header._asdict(), ensure_ascii=True).encode() + b"\n")

    def write(self, received_us: int, payload: bytes | memoryview) -> None:
        self._file.write(_FRAME.pack(received_us, len(payload)))
        self._file.write(payload)


def read_recording(file: BinaryIO) -> tuple[Header, Iterator[Frame]]:
    """The header, and the frames as they are asked for; ProtocolError when the file is no recording or is cut short."""
    line = file.readline(MAX_HEADER_BYTES)
    try:
        fields = json.loads(line)
        header = Header(str(fields["system"]), int(fields["timeline"]), str(fields["what"]), str(fields["server"]))
    except (ValueError, KeyError, TypeError):
        raise ProtocolError("The file does not begin as a recording does.", length=len(line)) from None
    return header, _frames(file)


def _frames(file: BinaryIO) -> Iterator[Frame]:
    while head := file.read(_FRAME.size):
        if len(head) < _FRAME.size:
            raise ProtocolError("The recording is cut short.", offset=file.tell(), length=file.tell())
        received_us, length = _FRAME.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise ProtocolError("The recording is damaged: a frame is too long.", offset=file.tell(), length=length)
        payload = file.read(length)
        if len(payload) < length:
            raise ProtocolError("The recording is cut short.", offset=file.tell(), length=file.tell())
        yield Frame(received_us, payload)


class RecordingSource:
    """A `ports.Source` that delivers a recording once, as fast as it is taken; `start` begins it again.

    A position skips what it has covered, as the slot of the recorded server would. What cannot be read goes to `park`.
    """

    def __init__(self, name: str, path: Path, park: Callable[[Parked], None]) -> None:
        self.name = name
        self._path = path
        self._park = park
        self._deliveries: Iterator[Delivery] = iter(())
        self._file: BinaryIO | None = None
        self._problem: str | None = None
        self._state = "stopped"
        self._received_lsn = 0
        self._last_commit_us: int | None = None

    def start(self, position: Position | None) -> None:
        self.stop()
        self._state, self._problem = "streaming", None
        self._deliveries = self._play(position.lsn if position is not None else 0)

    def take(self, limit: int) -> Sequence[Delivery]:
        taken: list[Delivery] = []
        rows = 0
        while rows < limit:
            delivery = self._next()
            if delivery is None:
                break
            taken.append(delivery)
            rows += max(1, len(delivery.changes)) if isinstance(delivery, Transaction) else 1
        return taken

    def confirm(self, lsn: int) -> None:
        """A file forgets nothing."""

    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            type="recording",
            up=self._state == "streaming",
            state=self._state,
            received_lsn=self._received_lsn,
            server_lsn=self._received_lsn,
            last_commit_us=self._last_commit_us,
            problem=self._problem,
        )

    def stop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._deliveries = iter(())
        self._state = "stopped"

    def _next(self) -> Delivery | None:
        try:
            return next(self._deliveries, None)
        except (OSError, ProtocolError) as error:
            self._problem = f"Source {self.name}: the recording cannot be read: {error}"
            self.stop()
            return None

    def _play(self, after_lsn: int) -> Iterator[Delivery]:
        self._file = self._path.open("rb")
        header, frames = read_recording(self._file)
        assembler = Assembler(self.name, header.system, Timelines(header.timeline), self._park)
        for frame in frames:
            delivery = self._delivery(frame.payload, assembler, header)
            if delivery is not None and _is_news(delivery, after_lsn):
                self._received_lsn = after_lsn = _end(delivery)
                yield delivery

    def _delivery(self, payload: bytes, assembler: Assembler, header: Header) -> Transaction | Idle | None:
        kind = payload[0] if payload else 0
        if kind == XLOG_DATA:
            transaction = assembler.feed(payload, XLOG_DATA_HEADER_BYTES)
            if transaction is not None:
                self._last_commit_us = transaction.commit_us
            return transaction
        if kind == KEEPALIVE and not assembler.is_open:
            keepalive = read_keepalive(payload)
            return Idle(self.name, header.system, header.timeline, keepalive.wal_lsn, keepalive.server_us)
        return None


def _is_news(delivery: Transaction | Idle, after_lsn: int) -> bool:
    end = _end(delivery)
    return end > after_lsn or (end == after_lsn and isinstance(delivery, Idle))


def _end(delivery: Transaction | Idle) -> int:
    return delivery.end_lsn if isinstance(delivery, Transaction) else delivery.lsn
