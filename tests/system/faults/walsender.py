"""A server that says what the script says: enough of the Postgres protocol for a replication connection.

Rules
- Plain connections go through to a real server, so that catalogs and slots are real; only the stream is scripted.
- One script for each replication connection in turn, the last one again and again. A script is messages in order; behind
  the last one the connection stays open until the client leaves, unless the script ends with `HANG_UP`.
- Messages follow the protocol documentation ("Message Formats", "Streaming Replication Protocol").
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from cdc_merge.model import lsn_text
from tests.system.faults.proxy import Link, Proxy

HANG_UP: Final = b""
_TEXT_OID: Final = 25
_PINNED: Final = (b"ISO, MDY", b"postgres", b"3", b"hex", b"UTC", b"UTF8", b"pg_catalog")
_PARAMETERS: Final = {
    "server_version": "18.1",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
}


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def copied(frame: bytes) -> bytes:
    """CopyData."""
    return message(b"d", frame)


def data(payload: bytes) -> bytes:
    """XLogData around one pgoutput message."""
    return copied(b"w" + bytes(24) + payload)


def keepalive(lsn: int, *, reply: bool = False) -> bytes:
    return copied(b"k" + struct.pack("!QqB", lsn, 0, reply))


def _error_fields(severity: str, sqlstate: str, words: str) -> bytes:
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": words}
    return b"".join(name.encode() + text.encode() + b"\0" for name, text in fields.items()) + b"\0"


def error(sqlstate: str, words: str, severity: str = "FATAL") -> bytes:
    return message(b"E", _error_fields(severity, sqlstate, words))


def notice(words: str) -> bytes:
    return message(b"N", _error_fields("WARNING", "01000", words))


def parameter(name: str, value: str) -> bytes:
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


COPY_DONE: Final = message(b"c")
COMMAND_COMPLETE: Final = message(b"C", b"COPY 0\0")
READY: Final = message(b"Z", b"I")
_COPY_BOTH: Final = message(b"W", struct.pack("!bH", 0, 0))


def _rows(names: Sequence[str], *rows: Sequence[bytes]) -> bytes:
    described = b"".join(name.encode() + b"\0" + struct.pack("!IHIhih", 0, 0, _TEXT_OID, -1, -1, 0) for name in names)
    answer = message(b"T", struct.pack("!H", len(names)) + described)
    for row in rows:
        cells = b"".join(struct.pack("!I", len(cell)) + cell for cell in row)
        answer += message(b"D", struct.pack("!H", len(row)) + cells)
    return answer + message(b"C", b"SELECT\0") + READY


@dataclass(frozen=True, slots=True)
class Script:
    """What one replication connection hears. `greeting` instead of a log-in, `start` instead of the stream's beginning.

    `answers_end`: what follows when the client has ended its half of the copy.
    """

    messages: Sequence[bytes] = ()
    greeting: bytes | None = None
    identify: bytes | None = None
    start: bytes | None = None
    answers_end: bytes = COPY_DONE + COMMAND_COMPLETE + READY
    system: str = "7000000000000000001"
    timeline: int = 1
    history: bytes = b""
    wal_lsn: int = 1 << 40

    def then(self, *messages: bytes) -> Script:
        return replace(self, messages=(*self.messages, *messages))


class Status(NamedTuple):
    """A standby status update of the client."""

    received: int
    flushed: int
    requests_reply: bool


@dataclass
class Heard:
    """What the client said on one replication connection."""

    started: str = ""
    statuses: list[Status] = field(default_factory=list)


class ScriptedServer(Proxy):
    """Listens on loopback; a context manager. `connections` has what was heard on each replication connection."""

    def __init__(self, real: Path, scripts: Sequence[Script]) -> None:
        self.connections: list[Heard] = []
        self._scripts = list(scripts)
        super().__init__(real)

    def link(self, client: socket.socket) -> Link:
        return _ScriptedLink(self, client, self._target)

    def next_script(self) -> tuple[Script, Heard]:
        heard = Heard()
        self.connections.append(heard)
        return self._scripts[min(len(self.connections), len(self._scripts)) - 1], heard


class _ScriptedLink(Link):
    """A link that answers by itself where the client opens a replication connection."""

    def serve(self, first: bytes) -> None:
        if self.kind == "plain":
            super().serve(first)
            return
        server = self._proxy
        assert isinstance(server, ScriptedServer)
        script, heard = server.next_script()
        talk = _Talk(self._client, script, heard)
        with suppress(OSError, EOFError):
            talk.run()
        self.end()


class _Talk:
    """One replication connection from its log-in to its end."""

    def __init__(self, client: socket.socket, script: Script, heard: Heard) -> None:
        self._client = client
        self._script = script
        self._heard = heard

    def run(self) -> None:
        script = self._script
        if script.greeting is not None:
            self._client.sendall(script.greeting)
            return
        parameters = b"".join(parameter(name, value) for name, value in _PARAMETERS.items())
        self._client.sendall(message(b"R", bytes(4)) + parameters + message(b"K", bytes(8)) + READY)
        while not self._heard.started:
            self._answer()
        if script.start is not None:
            self._client.sendall(script.start + READY)
        else:
            self._stream()
        while True:
            self._listen()

    def _answer(self) -> None:
        kind, body = self._read()
        if kind != b"Q":
            raise EOFError
        query = body[:-1].decode()
        if query.startswith("START_REPLICATION"):
            self._heard.started = query
        elif query.startswith("IDENTIFY_SYSTEM"):
            self._client.sendall(self._script.identify + READY if self._script.identify else self._identity())
        elif query.startswith("TIMELINE_HISTORY"):
            self._client.sendall(_rows(("filename", "content"), (b"history", self._script.history)))
        elif "current_setting" in query:
            self._client.sendall(_rows([f"c{number}" for number in range(len(_PINNED))], _PINNED))
        else:
            self._client.sendall(_rows(("set_config",)))

    def _identity(self) -> bytes:
        script = self._script
        row = (script.system.encode(), str(script.timeline).encode(), lsn_text(script.wal_lsn).encode(), b"db")
        return _rows(("systemid", "timeline", "xlogpos", "dbname"), row)

    def _stream(self) -> None:
        self._client.sendall(_COPY_BOTH)
        for each in self._script.messages:
            if each == HANG_UP:
                self._client.shutdown(socket.SHUT_WR)  # closing at once would be a reset, and lose what was sent
                return
            self._client.sendall(each)

    def _listen(self) -> None:
        kind, body = self._read()
        if kind == b"X":
            raise EOFError
        if kind == b"c":
            self._client.sendall(self._script.answers_end)
        if kind == b"d" and body[:1] == b"r":
            received, flushed, _, _, requests_reply = struct.unpack("!QQQqB", body[1:])
            self._heard.statuses.append(Status(received, flushed, bool(requests_reply)))

    def _read(self) -> tuple[bytes, bytes]:
        head = self._exactly(5)
        return head[:1], self._exactly(struct.unpack("!I", head[1:])[0] - 4)

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self._client.recv(size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts
