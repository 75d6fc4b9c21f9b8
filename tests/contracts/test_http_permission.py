"""Permission is decided from the head of a request; a body is read only with permission, and only up to its limit."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cdc_merge.console.auth import access_from_text
from cdc_merge.console.body_limit import MAX_BODY_BYTES
from cdc_merge.model.source_commands import NO_ORDERS, SourceOrders
from tests.contracts.memory_reading import MemoryReading, with_records
from tests.contracts.raw_http import Address, answer, head, send, served

TOKENS = access_from_text("s3cret ops\nlook wall", {"admin": ["ops"], "viewer": ["wall"]})
OPS, WALL, GUESSED = (f"Authorization: Bearer {token}" for token in ("s3cret", "look", "guessed"))
JSON = "Content-Type: application/json"
RESTORE = "/api/v1/records/customer/C001/restore"
RESYNC = "/api/v1/sources/crm/resync"
CHANGES = ["/-/reload", "/api/v1/sources/crm/pause", "/api/v1/sources/crm/resume", RESYNC]


class Commands:
    """Source commands that reached the port."""

    def __init__(self) -> None:
        self.scopes: list[tuple[str | None, str | None]] = []

    def pause(self, source: str) -> SourceOrders:
        return NO_ORDERS

    def resume(self, source: str) -> SourceOrders:
        return NO_ORDERS

    def resync(self, source: str, table: str | None, key: str | None) -> SourceOrders:
        self.scopes.append((table, key))
        return NO_ORDERS


@pytest.fixture
def reading() -> MemoryReading:
    return with_records("C001")


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def address(reading: MemoryReading, commands: Commands) -> Iterator[Address]:
    with served(reading, TOKENS, commands) as address:
        yield address


@pytest.mark.parametrize("path", [*CHANGES, "/nothing", "/api/v1/conflicts"])
@pytest.mark.parametrize(("caller", "status"), [(None, 403), (WALL, 403), (GUESSED, 401)])
def test_a_change_without_permission_is_answered_before_its_body_is_sent(
    address: Address, path: str, caller: str | None, status: int
) -> None:
    lines = [JSON, "Content-Length: 300000000", *([caller] if caller else [])]
    assert send(address, head("POST", path, *lines)).problem()["status"] == status


@pytest.mark.parametrize("framing", ["Content-Length: 300000000", "Transfer-Encoding: chunked"])
def test_a_plan_without_permission_to_read_is_answered_before_its_body_is_sent(address: Address, framing: str) -> None:
    request = head("POST", RESTORE, JSON, framing, "X-Forwarded-For: 192.0.2.7")
    assert send(address, request).problem()["status"] == 401


@pytest.mark.parametrize("path", [RESYNC, RESTORE])
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"tables": 1}', b"\xff\xfe"])
def test_a_body_that_cannot_be_understood_is_an_error_only_for_a_caller_with_permission(
    address: Address, path: str, body: bytes
) -> None:
    length = f"Content-Length: {len(body)}"
    assert send(address, head("POST", path, JSON, length, GUESSED) + body).status == 401
    answered = send(address, head("POST", path, JSON, length, OPS) + body)
    assert answered.status in ((200,) if (path, body) == (RESYNC, b"") else (400, 422))


def test_a_large_body_is_refused_by_its_announced_length(address: Address) -> None:
    request = head("POST", RESYNC, JSON, OPS, f"Content-Length: {MAX_BODY_BYTES + 1}")
    assert str(MAX_BODY_BYTES) in str(send(address, request).problem()["detail"])


def test_a_large_body_in_chunks_is_refused_when_it_passes_the_limit(address: Address, commands: Commands) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head("POST", RESYNC, JSON, OPS, "Transfer-Encoding: chunked"))
        for _ in range(MAX_BODY_BYTES // 0x10000 + 1):
            connection.sendall(chunk)
        assert answer(connection).problem()["status"] == 413
    assert commands.scopes == []


def test_a_body_of_the_greatest_size_is_read_whole_also_in_chunks(address: Address, commands: Commands) -> None:
    body = b'{"table": "public.customer"}'.ljust(MAX_BODY_BYTES)
    assert send(address, head("POST", RESYNC, JSON, OPS, f"Content-Length: {len(body)}") + body).status == 200
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (*(body[at : at + 0x10000] for at in range(0, len(body), 0x10000)), b"")
    )
    assert send(address, head("POST", RESYNC, JSON, OPS, "Transfer-Encoding: chunked") + chunked).status == 200
    assert commands.scopes == [("public.customer", None)] * 2


def test_deep_nesting_is_an_error_of_the_request(address: Address) -> None:
    body = b"[" * 500_000
    assert send(address, head("POST", RESYNC, JSON, OPS, f"Content-Length: {len(body)}") + body).status in (400, 422)


def test_a_client_that_leaves_within_its_body_changes_nothing(
    address: Address, commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head("POST", RESYNC, JSON, OPS, "Content-Length: 100") + b'{"table"')
    assert send(address, head("GET", "/-/healthy")).status == 200
    assert (commands.scopes, caplog.records) == ([], [])
