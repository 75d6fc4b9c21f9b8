"""A TCP proxy in front of a real server, and the faults that networks have. Ours, for tests only.

Rules
- Bytes are passed on unread, except that the first packet distinguishes a stream's connection from a plain one.
- A fault is a value; it holds for the connections that are there and for those that come, until another one is set.
- Sleeping is done here only, because slowness is the fault.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_merge.demo.servers import DemoServer

CHUNK_BYTES: Final = 16_384
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: closing sends RST
_IN_THE_CLEAR: Final = {"sslmode": "disable", "gssencmode": "disable"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What a connection suffers. `cut_after` counts the bytes from server to client; `resets` cuts by RST, not FIN.

    `stalls`: nothing is passed on in either direction, and both sides stay connected; with `stall_after` from so many
    bytes to the client on. `only`: "stream" or "plain".
    """

    latency_s: float = 0.0
    bytes_per_s: float | None = None
    chunk_bytes: int = CHUNK_BYTES
    cut_after: int | None = None
    resets: bool = False
    stalls: bool = False
    stall_after: int | None = None
    only: str | None = None

    def concerns(self, kind: str) -> bool:
        return self.only in (None, kind)


HEALTHY: Final = Fault()


class Proxy:
    """Listens on a free port of loopback for `target`, (host, port) or a unix socket's path. A context manager."""

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._target = target
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.links: list[Link] = []
        self.accepted = 0
        self._changed = threading.Condition()
        self._fault = HEALTHY
        self._next: list[Fault] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.set(HEALTHY)
        self.cut()

    def dsn(self, dsn: str) -> str:
        """The same connection string, through the proxy."""
        given = {name: value for name, value in conninfo_to_dict(dsn).items() if value is not None}
        return make_conninfo("", **(_IN_THE_CLEAR | given | {"host": "127.0.0.1", "port": str(self.port)}))

    # ---------------------------------------------------------------- the faults

    def set(self, fault: Fault) -> None:
        """From now on, for every connection that it concerns."""
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def set_next(self, *faults: Fault) -> None:
        """One fault for each of the next stream connections; those after them are healthy."""
        with self._changed:
            self._next = list(faults)

    def cut(self, *, resets: bool = False, only: str | None = None) -> None:
        """End connections now, between whatever bytes were passed on last."""
        for link in self._concerned(only):
            link.end(resets=resets)

    def vanish(self, only: str | None = None) -> None:
        """The server's side is gone and the client does not notice: half-open."""
        for link in self._concerned(only):
            link.vanish()

    def refuse(self) -> None:
        """Stop listening: connection refused."""
        _close(self._listener, resets=False)

    def listen_again(self) -> None:
        self._listener = self._listen(self.port)

    def link(self, client: socket.socket) -> Link:
        return Link(self, client, self._target)

    def _concerned(self, only: str | None) -> list[Link]:
        with self._changed:
            return [link for link in self.links if link.is_open and only in (None, link.kind)]

    # ---------------------------------------------------------------- used by links

    def fault_of(self, kind: str) -> Fault:
        with self._changed:
            return self._fault if self._fault.concerns(kind) else HEALTHY

    def own_fault(self, kind: str) -> Fault | None:
        with self._changed:
            return self._next.pop(0) if self._next and kind == "stream" else None

    def wait_for_change(self) -> None:
        with self._changed:
            self._changed.wait(0.2)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed: that is the end
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                link = self.link(client)
                with self._changed:
                    self.links = [each for each in self.links if each.is_open] + [link]
                link.begin()


class Link:
    """One client's connection and its other half."""

    def __init__(self, proxy: Proxy, client: socket.socket, target: tuple[str, int] | Path) -> None:
        self._proxy = proxy
        self._client = client
        self._target = target
        self._server: socket.socket | None = None
        self._own: Fault | None = None
        self._sent = 0
        self._has_vanished = False
        self.kind = "plain"
        self.is_open = True

    def begin(self) -> None:
        threading.Thread(target=self._upward, daemon=True).start()

    def end(self, *, resets: bool = False) -> None:
        self.is_open = False
        if resets:
            with suppress(OSError):
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for end in (self._server, self._client):
            if end is not None:
                _close(end, resets=resets and end is self._client)

    def vanish(self) -> None:
        self._has_vanished = True
        if self._server is not None:
            _close(self._server, resets=False)

    def _upward(self) -> None:
        with suppress(OSError, ValueError):  # closed while we read
            first = self._client.recv(CHUNK_BYTES)
            self.kind = "stream" if b"\0replication\0" in first else "plain"
            self._own = self._proxy.own_fault(self.kind)
            self.serve(first)
        self.end()

    def serve(self, first: bytes) -> None:
        """Pass everything on, beginning with what the client sent first."""
        self._server = _connected(self._target)
        threading.Thread(target=self._downward, args=(self._server,), daemon=True).start()
        chunk = first
        while chunk:
            for piece in self._delayed(chunk):
                if not self._has_vanished:
                    self._server.sendall(piece)
            chunk = self._received()

    def _received(self) -> bytes:
        """What the client sends. Never a blocked read: that would keep a socket open which is to be reset."""
        while not select.select([self._client], [], [], 0.05)[0]:
            pass
        return self._client.recv(CHUNK_BYTES)

    def _downward(self, server: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(CHUNK_BYTES):
                for piece in self._delayed(chunk):
                    self._pass_down(piece)
        if not self._has_vanished:
            self.end()

    def _pass_down(self, piece: bytes) -> None:
        fault = self._fault()
        left = len(piece) if fault.cut_after is None else fault.cut_after - self._sent
        self._client.sendall(piece[:left])
        self._sent += len(piece)
        if left < len(piece):
            self.end(resets=fault.resets)

    def _delayed(self, chunk: bytes) -> Iterator[bytes]:
        """The chunk in pieces, each when it is due."""
        at = 0
        while at < len(chunk):
            fault = self._fault()
            while self._is_stalled(fault) and self.is_open and not self._has_vanished:
                self._proxy.wait_for_change()
                fault = self._fault()
            piece = chunk[at : at + fault.chunk_bytes]
            at += len(piece)
            time.sleep(fault.latency_s + (len(piece) / fault.bytes_per_s if fault.bytes_per_s else 0.0))
            yield piece

    def _is_stalled(self, fault: Fault) -> bool:
        return fault.stalls or (fault.stall_after is not None and self._sent >= fault.stall_after)

    def _fault(self) -> Fault:
        return self._own or self._proxy.fault_of(self.kind)


def _connected(target: tuple[str, int] | Path) -> socket.socket:
    if isinstance(target, tuple):
        return socket.create_connection(target)
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(target))
    return server


def _close(end: socket.socket, *, resets: bool) -> None:
    with suppress(OSError):
        if not resets:
            end.shutdown(socket.SHUT_RDWR)  # wakes its reader
    end.close()


def socket_of(server: DemoServer) -> Path:
    return server.socket_directory / f".s.PGSQL.{server.port}"
