"""Who may read: any program on this machine until access is configured, afterwards only the owner of a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_merge.console.auth import Access, access_from_text
from tests.contracts.memory_reading import MemoryReading, with_records
from tests.contracts.raw_http import Address, head, send, served

TOKENS = access_from_text("look wall", {"viewer": ["wall"]})
WALL = "Authorization: Bearer look"
READS = ["/", "/metrics", "/api/v1/sources", "/api/v1/conflicts", "/api/openapi.json", "/records/customer/C001", "/no"]
PLAN = b'{"to": "clean", "dry_run": true}'


@pytest.fixture(scope="module")
def reading() -> MemoryReading:
    return with_records("C001")


@pytest.fixture(scope="module")
def free(reading: MemoryReading) -> Iterator[Address]:
    """A listener without configured access."""
    with served(reading) as address:
        yield address


@pytest.fixture(scope="module")
def guarded(reading: MemoryReading) -> Iterator[Address]:
    with served(reading, TOKENS) as address:
        yield address


def plan(*lines: str) -> bytes:
    path = "/api/v1/records/customer/C001/restore"
    return head("POST", path, f"Content-Length: {len(PLAN)}", "Content-Type: application/json", *lines) + PLAN


@pytest.mark.parametrize("path", READS)
def test_with_configured_access_loopback_needs_a_token_as_well(guarded: Address, path: str) -> None:
    refused = send(guarded, head("GET", path))
    assert refused.problem()["status"] == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert send(guarded, head("OPTIONS", path)).status == 401
    assert send(guarded, head("GET", path, WALL)).status in (200, 404)


def test_with_configured_access_a_plan_needs_a_token_as_well(guarded: Address) -> None:
    assert send(guarded, plan()).status == 401
    assert send(guarded, plan(WALL)).status == 200


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
@pytest.mark.parametrize("lines", [(), ("X-Forwarded-For: 192.0.2.7",), ("Host: evil.example",)])
def test_probes_never_need_a_token(guarded: Address, path: str, lines: tuple[str, ...]) -> None:
    assert send(guarded, head("GET", path, *lines)).status == 200


def test_access_that_has_no_token_yet_is_configured_all_the_same(reading: MemoryReading) -> None:
    with served(reading, Access(is_configured=True)) as address:
        assert "access.tokens_file" in str(send(address, head("GET", "/api/v1/sources")).problem()["hint"])
    with served(reading, access_from_text("# none yet\n", {})) as address:
        assert send(address, head("GET", "/api/v1/sources")).status == 401


def test_open_metrics_are_the_only_thing_that_opens(reading: MemoryReading) -> None:
    with served(reading, Access(is_configured=True, open_metrics=True)) as address:
        assert send(address, head("GET", "/metrics", "Host: db1.example", "X-Forwarded-For: 192.0.2.7")).status == 200
        assert send(address, head("GET", "/metrics/")).status == 401
        assert send(address, head("GET", "/")).status == 401
        assert send(address, head("POST", "/metrics")).status == 403


LOCAL = ["localhost:8787", "LOCALHOST", "crm.localhost:1", "127.0.0.1", "127.9.9.9:8787", "[::1]", "[::1]:8787"]
FOREIGN = [
    "evil.example:8787",
    "localhost:80@evil.example",
    "localhost@evil.example",
    "127.0.0.1:evil.example",
    "127.0.0.1:8787:8787",
    "127.0.0.1:",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evillocalhost",
    "[::1",
    "[::1]evil.example",
    "[::1]:evil.example",
    "[127.0.0.1]",
    "::1",
    "0.0.0.0:8787",
    "192.0.2.7",
    "127.1",
    "2130706433",
    "localhost/",
    "localhost#",
    "localhost,evil.example",
    "localhost evil.example",
    "",
]


@pytest.mark.parametrize("host", LOCAL)
def test_without_configured_access_a_loopback_name_reads(free: Address, host: str) -> None:
    assert send(free, head("GET", "/api/v1/conflicts", f"Host: {host}")).status == 200
    assert send(free, plan(f"Host: {host}")).status == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_a_host_that_is_not_exactly_a_loopback_name_reads_nothing(free: Address, host: str) -> None:
    assert send(free, head("GET", "/api/v1/conflicts", f"Host: {host}")).status == 401
    assert send(free, plan(f"Host: {host}")).status == 401


def test_a_request_without_a_host_reads_nothing(free: Address) -> None:
    assert send(free, b"GET /api/v1/conflicts HTTP/1.0\r\n\r\n").status == 401


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-For:",
        "X-Forwarded-Host: localhost",
        "x-forwarded-proto: https",
        "X-Forwarded-Anything: 1",
        "Forwarded: for=127.0.0.1",
        "Via: 1.1 proxy",
        "X-Real-IP: 127.0.0.1",
    ],
)
def test_a_forwarded_request_is_not_local(free: Address, line: str) -> None:
    assert send(free, head("GET", "/api/v1/conflicts", line)).status == 401
    assert send(free, plan(line)).status == 401


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"]
)
def test_a_page_of_another_site_changes_and_plans_nothing(free: Address, guarded: Address, origin: str) -> None:
    assert send(free, plan(f"Origin: {origin}")).status == 403
    assert send(guarded, plan(WALL, f"Origin: {origin}")).status == 403
    assert send(free, plan("Origin: http://127.0.0.1")).status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head("GET", "/"), 200),
        (head("GET", "/records/customer/C001"), 200),
        (head("GET", "/api/v1/conflicts"), 200),
        (head("GET", "/api/openapi.json"), 200),
        (head("GET", "/metrics"), 200),
        (head("GET", "/-/healthy"), 200),
        (head("GET", "/", "Host: evil.example"), 401),
        (head("POST", "/-/reload"), 403),
        (head("GET", "/no"), 404),
        (head("GET", "/api/v1/conflicts?limit=0"), 422),
        (head("POST", "/api/v1/records/customer/C001/restore", "Content-Length: 3000000"), 413),
    ],
)
def test_no_answer_is_kept_or_its_type_guessed(free: Address, request_: bytes, status: int) -> None:
    answered = send(free, request_)
    assert answered.status == status
    assert answered.headers["x-content-type-options"] == "nosniff"
    assert answered.headers["cache-control"] == "no-store"


def test_an_internal_error_is_not_kept_either() -> None:
    broken = with_records()
    broken.broken = RuntimeError("a mistake")
    with served(broken) as address:
        answered = send(address, head("GET", "/api/v1/sources"))
    assert (answered.status, answered.headers["cache-control"]) == (500, "no-store")
