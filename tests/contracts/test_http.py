"""The HTTP contract over a real listener: paths, shapes, errors, access, start and stop."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from cdc_merge.console.auth import Access, access_from_text, is_loopback
from cdc_merge.console.http_server import HttpServer
from cdc_merge.errors import AddressUnavailable, ConfigError, StoreUnavailable
from cdc_merge.model import Json, MergedRecord, RecordKey, Stamp
from cdc_merge.model.plan import Rule
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.source_documents import SourceReport
from tests.contracts.memory_reading import T0, MemoryReading, customer, phone_conflict, with_records

LOOPBACK = ("127.0.0.1", 0)
TOKENS = access_from_text("s3cret ops\nlook wall  # the wall screen\n\nnew joe", {"admin": ["ops"], "viewer": ["wall"]})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def listening(reading: QueryPort, access: Access | None = None) -> Iterator[httpx.Client]:
    server = HttpServer(reading, LOOPBACK, CollectorRegistry(), access)
    server.start()
    try:
        # Who may only read, unless a test says otherwise; without configured access, no token at all.
        headers = bearer("look") if access is not None else None
        with httpx.Client(base_url=server.url, timeout=10, headers=headers) as client:
            yield client
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[MemoryReading, httpx.Client]]:
    reading = with_records("C001")
    with listening(reading, TOKENS) as client:
        yield reading, client


@pytest.fixture
def reading(shared: tuple[MemoryReading, httpx.Client]) -> MemoryReading:
    """The served reading, as `with_records("C001")` makes it."""
    shared[0].__dict__.update(with_records("C001").__dict__)
    return shared[0]


@pytest.fixture
def client(shared: tuple[MemoryReading, httpx.Client], reading: MemoryReading) -> httpx.Client:
    return shared[1]


def assert_problem(response: httpx.Response, status: int) -> dict[str, object]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = response.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    assert document["detail"]
    return document


# ---------------------------------------------------------------- what is read


def test_a_list_of_conflicts_is_items_and_a_cursor(client: httpx.Client) -> None:
    document = client.get("/api/v1/conflicts").json()
    assert document["next_cursor"] is None
    assert [item["id"] for item in document["items"]] == ["c1"]


def test_filters_that_are_left_blank_filter_nothing(client: httpx.Client) -> None:
    answer = client.get("/api/v1/conflicts?status=&entity=&field=&kind=&severity=&source=&cursor=&limit=")
    assert [item["id"] for item in answer.json()["items"]] == ["c1"]


@pytest.mark.parametrize(
    ("name", "matching", "other"),
    [
        ("status", "open", "closed"),
        ("entity", "customer", "order"),
        ("field", "phone", "name"),
        ("kind", "concurrent_update", "update_delete"),
        ("severity", "high", "low"),
        ("source", "erp", "finance"),
        ("key", "C001", "C002"),
    ],
)
def test_each_filter_reaches_the_question(client: httpx.Client, name: str, matching: str, other: str) -> None:
    assert len(client.get("/api/v1/conflicts", params={name: matching}).json()["items"]) == 1
    assert client.get("/api/v1/conflicts", params={name: other}).json()["items"] == []


def test_pages_follow_each_other_without_gap_or_repeat(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_conflicts = [phone_conflict(f"c{number}") for number in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/api/v1/conflicts", params={"limit": 2, "cursor": cursor}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["c0", "c1", "c2", "c3", "c4"]


def test_a_conflict_has_every_key_of_the_contract(client: httpx.Client) -> None:
    document = client.get("/api/v1/conflicts/c1").json()
    assert document == {
        "id": "c1",
        "entity": "customer",
        "key": "C001",
        "field": "phone",
        "group": None,
        "kind": "concurrent_update",
        "severity": "high",
        "labels": [],
        "status": "open",
        "revision": 2,
        "resolution": None,
        "raised_at": "2026-09-21T14:13:20.000000Z",
        "announced_at": "2026-09-21T14:13:22.000000Z",
        "closed_at": None,
        "rule": None,
        "policy": "sha256:ab",
        "base": "1",
        "provisional": "3",
        "suggestion": None,
        "candidates": [
            {
                "source": "crm",
                "value": "2",
                "stamp": "1790000000000001.0@crm",
                "committed_at": "2026-09-21T14:13:20.000001Z",
                "actor": "wang",
                "place": {
                    "system": "7300000000000000001",
                    "timeline": 1,
                    "lsn": "0/16B3748",
                    "table": "public.customer",
                    "ordinal": 0,
                },
                "seen": ["1790000000000000.0@erp"],
            },
            {
                "source": "erp",
                "value": "3",
                "stamp": "1790000000000002.0@erp",
                "committed_at": "2026-09-21T14:13:20.000002Z",
                "actor": None,
                "place": {
                    "system": "7300000000000000001",
                    "timeline": 1,
                    "lsn": "0/16B3750",
                    "table": "public.customer",
                    "ordinal": 0,
                },
                "seen": [],
            },
        ],
    }


def test_a_record_shows_merged_views_and_what_is_not_closed(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_conflicts.append(phone_conflict("old", status="closed"))
    reading.all_conflicts.append(phone_conflict("young", status="settling"))
    document = client.get("/api/v1/records/customer/C001").json()
    assert document["merged"] == {"phone": "3", "points": 8, "balance": "1000"}
    assert document["as_of"] is None
    assert document["deleted"] is False
    assert document["sources"]["crm"] == {
        "presence": "present",
        "values": {"phone": "2"},
        "last_stamp": "1790000000000001.0@crm",
    }
    assert [conflict["id"] for conflict in document["conflicts"]] == ["c1", "young"]


def test_a_list_of_records_holds_whole_records(client: httpx.Client, reading: MemoryReading) -> None:
    document = client.get("/api/v1/records/customer?limit=1").json()
    assert document["items"] == [client.get("/api/v1/records/customer/C001").json()]
    assert document["next_cursor"] is None


def test_a_record_as_of_a_stamp_is_queried_at_that_stamp(client: httpx.Client, reading: MemoryReading) -> None:
    text = f"{T0}.7@crm"
    document = client.get("/api/v1/records/customer/C001", params={"as_of": text}).json()
    assert reading.moments == [Stamp(T0, 7, "crm")]
    assert document["as_of"] == text


@pytest.mark.parametrize(
    "text", ["2026-09-21T14:13:20Z", "2026-09-21T22:13:20%2B08:00", "2026-09-21T22:13:20+08:00", "2026-09-21T14:13:20"]
)
def test_a_time_means_the_end_of_its_microsecond(client: httpx.Client, reading: MemoryReading, text: str) -> None:
    document = client.get(f"/api/v1/records/customer/C001?as_of={text}").json()
    (moment,) = reading.moments
    assert moment is not None
    assert Stamp(T0, 10**9, "zzz") < moment < Stamp(T0 + 1, 0, "")
    assert document["as_of"] == "2026-09-21T14:13:20.000000Z"


def test_conflicts_of_a_past_record_are_those_that_stood_then(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_conflicts = [
        phone_conflict("closed_later", status="closed"),
        phone_conflict("raised_later", raised_us=T0 + 5_000_000),
    ]
    document = client.get(f"/api/v1/records/customer/C001?as_of={T0 + 1_000_000}.0@crm").json()
    assert [conflict["id"] for conflict in document["conflicts"]] == ["closed_later"]


def test_the_history_is_a_list_with_unknown_left_out(client: httpx.Client) -> None:
    document = client.get("/api/v1/records/customer/C001/history").json()
    assert document["next_cursor"] is None
    assert [item["fields"]["phone"] for item in document["items"]] == [{"before": "1", "after": "2"}, {"after": "3"}]


def test_a_history_comes_in_pages_that_go_on_behind_a_cursor(client: httpx.Client) -> None:
    path = "/api/v1/records/customer/C001/history"
    first = client.get(path, params={"limit": 1}).json()
    rest = client.get(path, params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [*first["items"], *rest["items"]] == client.get(path).json()["items"]
    assert (len(first["items"]), rest["next_cursor"]) == (1, None)
    assert client.get(path, params={"limit": 0}).status_code == 422


def test_a_restore_is_planned_for_every_reader_and_never_carried_out(client: httpx.Client) -> None:
    path = "/api/v1/records/customer/C001/restore"
    planned = client.post(path, json={"to": "clean", "dry_run": True}).json()
    assert planned["fields"] == {"phone": {"now": "3", "then": "2"}}
    assert planned["applied"] is False
    assert client.post(path, json={"to": "clean"}).status_code == 403
    assert client.post(path, json={"to": "someday", "dry_run": True}).status_code == 422
    none = client.post("/api/v1/records/customer/none/restore", json={"to": "clean", "dry_run": True})
    assert none.status_code == 404


def test_an_explanation_says_every_write_and_why(client: httpx.Client) -> None:
    document = client.get("/api/v1/records/customer/C001/explain?field=phone").json()
    assert {"entity", "key", "field", "merge", "rule", "value", "frontier", "writes"} == document.keys()
    assert document["writes"][0]["because"] == "erp had not seen it."
    assert "before" not in document["writes"][1]


def test_sources_have_every_key_of_the_contract(client: httpx.Client) -> None:
    (source,) = client.get("/api/v1/sources").json()["items"]
    assert source["durable_lsn"] == "0/16B3700"
    assert source["lag_bytes"] == 0x48
    assert source["snapshot"] == {"state": "done", "rows": 0, "expected": 0}
    assert source["slot"]["name"] == "cdc_merge_crm"
    assert {
        "name",
        "type",
        "up",
        "paused",
        "received_lsn",
        "lag_seconds",
        "last_commit_at",
        "watermark",
        "problem",
    } <= (source.keys())


def test_rules_are_listed_in_order(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_rules = [Rule("b", "*.remark", auto=(("crm", "erp"), "latest")), Rule("a", "customer.phone")]
    items = client.get("/api/v1/rules").json()["items"]
    assert [item["name"] for item in items] == ["b", "a"]
    assert items[0]["decide"]["auto"] == [["crm", "erp"], "latest"]


# ---------------------------------------------------------------- keys in the path

AWKWARD_KEYS = [
    "C001",
    "a/b",
    "a%2Fb,c",
    "2024%2F1,7",
    "50%",
    "%25",
    "%2F",
    "a b",
    "a+b",
    "a?b=c#d",
    "客户,001",
    "x/history",
    "x/explain",
    "history",
    "",
    "//",
    ";:@&=$,'\"<>\\",
    "..%2F..",
]


def path_of(key: str, suffix: str = "") -> str:
    return f"/api/v1/records/customer/{quote(key, safe='')}{suffix}"


@pytest.mark.parametrize("key", AWKWARD_KEYS)
@pytest.mark.parametrize("suffix", ["", "/history", "/explain?field=phone"])
def test_every_key_resolves_from_its_url_quoted_text(
    client: httpx.Client, reading: MemoryReading, key: str, suffix: str
) -> None:
    reading.all_records = {RecordKey("customer", each): customer(each) for each in AWKWARD_KEYS}
    document = client.get(path_of(key, suffix)).json()
    assert document["items" if suffix == "/history" else "key"] == (
        [dict(item) for item in document["items"]] if suffix == "/history" else key
    )


@settings(max_examples=60, deadline=None)
@given(key=st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: key not in (".", "..")))
def test_any_text_is_a_valid_key(shared: tuple[MemoryReading, httpx.Client], key: str) -> None:
    reading, client = shared
    reading.all_records = {RecordKey("customer", key): customer(key)}
    assert client.get(path_of(key)).json()["key"] == key


def test_a_composite_key_put_into_the_path_as_it_is_is_understood(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_records = {RecordKey("customer", "2024%2F1,7"): customer("2024%2F1,7")}
    assert client.get("/api/v1/records/customer/2024%2F1,7").json()["key"] == "2024%2F1,7"


def test_the_strict_reading_of_a_path_goes_first(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_records = {RecordKey("customer", key): customer(key) for key in ("50%25", "50%")}
    assert client.get("/api/v1/records/customer/50%25").json()["key"] == "50%"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api/v1/nothing",
        "/api/v1/conflicts/none",
        "/api/v1/records/customer/none",
        "/api/v1/records/customer/none/history",
        "/api/v1/records/customer/none/explain?field=phone",
        "/api/v1/records/customer/C001/explain?field=nothing",
        "/api/v1/records/nothing",
        "/api/v1/conflicts/",
    ],
)
def test_what_does_not_exist_is_a_problem_404(client: httpx.Client, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/conflicts?limit=0",
        "/api/v1/conflicts?limit=1001",
        "/api/v1/conflicts?limit=many",
        "/api/v1/conflicts?status=sleeping",
        "/api/v1/conflicts?severity=bad",
        "/api/v1/records/customer?limit=-1",
        "/api/v1/records/customer/C001?as_of=yesterday",
        "/api/v1/records/customer/C001?as_of=1.x@crm",
        "/api/v1/records/customer/C001/explain",
        "/api/v1/records/customer/C001/explain?field=",
    ],
)
def test_what_cannot_be_understood_is_a_problem_422(client: httpx.Client, path: str) -> None:
    assert_problem(client.get(path), 422)


def test_a_problem_does_not_repeat_what_was_sent(client: httpx.Client) -> None:
    assert "13800138000" not in client.get("/api/v1/conflicts?limit=13800138000").text
    assert "13800138000" not in client.get("/api/v1/records/customer/13800138000").text


@pytest.mark.parametrize("path", ["/api/v1/conflicts", "/metrics", "/-/ready", "/api/v1/records/customer/C001"])
def test_a_method_that_a_path_has_not_is_a_problem_405(client: httpx.Client, path: str) -> None:
    response = client.delete(path, headers=bearer("s3cret"))
    assert_problem(response, 405)
    assert "GET" in response.headers["allow"]


def test_an_internal_error_is_a_problem_500_without_values(client: httpx.Client, reading: MemoryReading) -> None:
    reading.broken = RuntimeError("phone 13800138000")
    document = assert_problem(client.get("/api/v1/sources"), 500)
    assert "RuntimeError" in str(document["detail"])
    assert "13800138000" not in str(document)


def test_a_mistake_of_ours_is_logged_without_values_and_the_connection_goes_on(
    client: httpx.Client, reading: MemoryReading, caplog: pytest.LogCaptureFixture
) -> None:
    reading.broken = RuntimeError("phone 13800138000")
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    connection.request("GET", "/api/v1/sources", headers=bearer("look"))
    connection.getresponse().read()
    connection.request("GET", "/-/healthy")
    assert connection.getresponse().read() == b'{"healthy": true}'
    connection.close()
    assert {record.__dict__.get("event") for record in caplog.records} == {"request_failed"}
    assert "memory_reading.py" in caplog.text
    assert "13800138000" not in caplog.text


def test_a_store_that_is_away_is_a_problem_503_with_its_hint(client: httpx.Client, reading: MemoryReading) -> None:
    reading.broken = StoreUnavailable("The store is locked.", hint="Wait.")
    assert assert_problem(client.get("/api/v1/sources"), 503)["hint"] == "Wait."


# ---------------------------------------------------------------- operations


def test_healthy_answers_also_while_nothing_is_ready(client: httpx.Client, reading: MemoryReading) -> None:
    reading.readiness = (False, "crm has not streamed yet.")
    assert client.get("/-/healthy").status_code == 200


def test_healthy_is_not_said_once_nothing_is_merged_any_more(client: httpx.Client, reading: MemoryReading) -> None:
    reading.why_nothing_is_merged = "Nothing is merged any more: the disk is full."
    assert assert_problem(client.get("/-/healthy"), 503)["detail"] == reading.why_nothing_is_merged


def test_ready_says_what_is_waited_for_until_it_is_ready(client: httpx.Client, reading: MemoryReading) -> None:
    reading.readiness = (False, "crm has not streamed yet.")
    assert assert_problem(client.get("/-/ready"), 503)["detail"] == "crm has not streamed yet."
    reading.readiness = (True, "Every source streams.")
    assert client.get("/-/ready").json() == {"ready": True, "reason": "Every source streams."}


def test_metrics_are_what_the_registry_holds() -> None:
    registry = CollectorRegistry()
    Counter("cdc_merge_things", "Things.", registry=registry).inc(3)
    server = HttpServer(with_records(), LOOPBACK, registry)
    server.start()
    try:
        response = httpx.get(f"{server.url}/metrics")
        openmetrics = httpx.get(
            f"{server.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
    finally:
        server.stop()
    assert "cdc_merge_things_total 3.0" in response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert openmetrics.text.endswith("# EOF\n")


def test_openapi_names_every_path_of_the_contract(client: httpx.Client) -> None:
    paths = client.get("/api/openapi.json").json()["paths"].keys()
    assert {
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/-/reload",
        "/api/v1/conflicts",
        "/api/v1/conflicts/{conflict_id}",
        "/api/v1/records/{entity}",
        "/api/v1/records/{entity}/{key}",
        "/api/v1/records/{entity}/{key}/history",
        "/api/v1/records/{entity}/{key}/explain",
        "/api/v1/sources",
        "/api/v1/rules",
    } <= paths


def test_the_page_escapes_values_and_loads_nothing(client: httpx.Client, reading: MemoryReading) -> None:
    reading.all_conflicts = [phone_conflict(key="<script>alert(1)</script>")]
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "<script" not in response.text
    assert "&lt;script&gt;" in response.text
    assert "src=" not in response.text
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "未解决的冲突 (1)" in response.text


# ---------------------------------------------------------------- access


def test_a_change_without_a_token_is_refused_also_from_loopback(client: httpx.Client, reading: MemoryReading) -> None:
    answer = httpx.post(client.base_url.join("/-/reload"))
    assert "access.tokens_file" in str(assert_problem(answer, 403)["hint"])
    assert reading.reloads == 0


def test_a_change_is_refused_when_no_tokens_are_configured_at_all() -> None:
    reading = with_records()
    with listening(reading) as client:
        assert "access.tokens_file" in str(assert_problem(client.post("/-/reload"), 403)["hint"])
    assert reading.reloads == 0


@pytest.mark.parametrize("token", ["look", "new"])
def test_a_token_whose_owner_has_no_role_but_viewer_may_not_reload(
    client: httpx.Client, reading: MemoryReading, token: str
) -> None:
    assert_problem(client.post("/-/reload", headers=bearer(token)), 403)
    assert reading.reloads == 0


def test_a_name_is_its_own_role_while_no_roles_are_configured() -> None:
    reading = with_records()
    with listening(reading, access_from_text("s3cret admin\nlook viewer", {})) as client:
        assert_problem(client.post("/-/reload", headers=bearer("look")), 403)
        assert client.post("/-/reload", headers=bearer("s3cret")).status_code == 200


def test_an_unknown_token_is_refused_even_where_none_is_needed(client: httpx.Client) -> None:
    response = client.get("/api/v1/sources", headers=bearer("guessed"))
    assert_problem(response, 401)
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert_problem(client.post("/-/reload", headers=bearer("guessed")), 401)


def test_a_role_may_reload(client: httpx.Client, reading: MemoryReading) -> None:
    assert client.post("/-/reload", headers=bearer("s3cret")).json() == {"reloaded": True}
    assert reading.reloads == 1


def test_a_reload_with_a_bad_file_says_every_problem(client: httpx.Client, reading: MemoryReading) -> None:
    reading.reload_error = ConfigError("The old configuration stays.", problems=("line 3: x", "line 9: y"))
    document = assert_problem(client.post("/-/reload", headers=bearer("s3cret")), 422)
    assert document["errors"] == [{"detail": "line 3: x"}, {"detail": "line 9: y"}]


def as_if_from(address: str) -> dict[str, str]:
    """A proxy on this machine forwards the client's address."""
    return {"X-Forwarded-For": address}


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_probes_need_no_token(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers=as_if_from("192.0.2.7")).status_code == 200


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_recognised_in_each_of_its_forms(address: str, is_here: bool) -> None:
    assert is_loopback(address) is is_here


def test_a_tokens_file_names_its_bad_lines_and_never_their_text() -> None:
    with pytest.raises(ConfigError) as caught:
        access_from_text("good admin\nhunter2\n\nhunter3 admin oops\n", {})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["line 2", "line 4"]
    assert "hunter" not in f"{caught.value} {caught.value.problems} {caught.value.hint}"


# ---------------------------------------------------------------- start and stop


def test_the_bound_address_can_be_read_when_the_port_is_free_to_choose() -> None:
    server = HttpServer(with_records(), LOOPBACK, CollectorRegistry())
    server.start()
    try:
        host, _, port = server.address.rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
        assert httpx.get(f"{server.url}/-/healthy").status_code == 200
    finally:
        server.stop()


def test_an_address_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(LOOPBACK) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{port}") as caught:
            HttpServer(with_records(), ("127.0.0.1", port), CollectorRegistry()).start()
    assert caught.value.hint


def test_an_address_of_another_machine_is_an_error_that_names_it() -> None:
    with pytest.raises(AddressUnavailable, match=r"192\.0\.2\.1:0"):
        HttpServer(with_records(), ("192.0.2.1", 0), CollectorRegistry()).start()


def test_a_stopped_server_can_be_followed_by_another_on_its_port() -> None:
    first = HttpServer(with_records(), LOOPBACK, CollectorRegistry())
    first.start()
    httpx.get(f"{first.url}/-/healthy")
    first.stop()
    first.stop()
    second = HttpServer(with_records(), ("127.0.0.1", int(first.address.rpartition(":")[2])), CollectorRegistry())
    second.start()
    try:
        assert httpx.get(f"{second.url}/-/healthy").status_code == 200
    finally:
        second.stop()


class Stuck(MemoryReading):
    """Answers the query for sources only when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def sources(self) -> Sequence[SourceReport]:
        self.reached.set()
        self.let_go.wait(30)
        return []


def test_stopping_is_over_within_a_second_while_an_answer_is_under_way_and_a_connection_idles() -> None:
    reading = Stuck()
    server = HttpServer(reading, LOOPBACK, CollectorRegistry())
    server.start()
    host, _, port = server.address.rpartition(":")
    idle = http.client.HTTPConnection(host, int(port))
    idle.request("GET", "/-/healthy")
    idle.getresponse().read()
    busy = http.client.HTTPConnection(host, int(port))
    busy.request("GET", "/api/v1/sources")
    try:
        assert reading.reached.wait(10)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1.5, "the limit is one second, and a busy machine gets half a second more"
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)), timeout=5)
    finally:
        reading.let_go.set()
        idle.close()
        busy.close()


def test_one_slow_answer_does_not_hold_the_others() -> None:
    reading = Stuck()
    server = HttpServer(reading, LOOPBACK, CollectorRegistry())
    server.start()
    slow = threading.Thread(target=lambda: httpx.get(f"{server.url}/api/v1/sources", timeout=30))
    slow.start()
    try:
        assert reading.reached.wait(10)
        assert httpx.get(f"{server.url}/api/v1/rules", timeout=10).status_code == 200
    finally:
        reading.let_go.set()
        slow.join(10)
        server.stop()


def test_signal_handlers_stay_unchanged() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with listening(with_records()) as client:
        client.get("/-/healthy")
        assert {number: signal.getsignal(number) for number in before} == before
    assert {number: signal.getsignal(number) for number in before} == before


def test_text_that_is_not_valid_unicode_alone_is_still_an_answer(client: httpx.Client, reading: MemoryReading) -> None:
    half = MergedRecord("customer", "C001", False, {"j": Json('"\\ud83d"')}, {})
    reading.all_records = {RecordKey("customer", "C001"): half}
    assert json.loads(client.get("/api/v1/records/customer/C001").content)["merged"]["j"] == "\ud83d"
