"""A listener over stored answers, and requests byte by byte over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from cdc_merge.console.api.source_control_api import SourceControlPort
from cdc_merge.console.auth import Access
from cdc_merge.console.http_server import HttpServer
from cdc_merge.queries.port import QueryPort

Address = tuple[str, int]


@contextmanager
def served(
    queries: QueryPort, access: Access | None = None, source_control: SourceControlPort | None = None
) -> Iterator[Address]:
    """The address of a listener."""
    server = HttpServer(queries, ("127.0.0.1", 0), CollectorRegistry(), access, source_control)
    server.start()
    try:
        host, _, port = server.address.rpartition(":")
        yield host, int(port)
    finally:
        server.stop()


def head(method: str, path: str, *lines: str) -> bytes:
    """The head of a request, with its empty line."""
    named = lines if any(line.lower().startswith("host:") for line in lines) else ("Host: 127.0.0.1", *lines)
    return "\r\n".join((f"{method} {path} HTTP/1.1", *named, "", "")).encode()


class Answer:
    """One answer: status, headers in lower case, body."""

    def __init__(self, text: bytes) -> None:
        top, _, self.body = text.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def problem(self) -> dict[str, object]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, object] = json.loads(self.body)
        assert document["status"] == self.status
        return document


def answer(connection: socket.socket) -> Answer:
    """Read one answer with a Content-Length."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += _more(connection)
    length = int(Answer(text).headers.get("content-length", 0))
    while len(text.partition(b"\r\n\r\n")[2]) < length:
        text += _more(connection)
    return Answer(text)


def _more(connection: socket.socket) -> bytes:
    more = connection.recv(65_536)
    assert more, "the connection ended before the answer"
    return more


def send(address: Address, request: bytes) -> Answer:
    """Send these bytes on a connection of their own, and read one answer. No more is sent."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        return answer(connection)
