"""The pages for people over a real listener: what they show, where they lead, and that a value in them is only text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from cdc_merge.console.http_server import HttpServer
from cdc_merge.console.pages import history_page
from tests.contracts.clicking import Person
from tests.contracts.memory_reading import MemoryReading, phone_changes, with_records

HOSTILE = "<script>alert(1)</script>"
KEYS = ["C001", "a/b", "50%", "%2F", "x,y%2Cz", "history", "客户 1", "?a=b#c", HOSTILE, "../.."]


class Served:
    """One listener for all tests; each has its own record, which is in conflict."""

    def __init__(self, reading: MemoryReading, address: str) -> None:
        self._reading = reading
        self._address = address

    def __call__(self, key: str = "C001") -> str:
        self._reading.__dict__.update(with_records(key).__dict__)
        return self._address


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    reading = MemoryReading()
    server = HttpServer(reading, ("127.0.0.1", 0), CollectorRegistry())
    server.start()
    yield Served(reading, server.url)
    server.stop()


@pytest.mark.parametrize("key", KEYS)
def test_from_the_list_to_the_record_to_its_history_is_a_click_each(served: Served, key: str) -> None:
    person = Person()
    record = person.click(person.follow(f"{served(key)}/?status=open&entity=customer"), f"customer {key}")
    history = person.click(record, "History")
    assert (record.title, history.title) == (f"customer {key}", f"History of customer {key}")
    assert person.clicks == 3


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda key: key not in (".", "..")))
def test_whatever_its_key_a_record_has_a_page_that_names_it(served: Served, key: str) -> None:
    person = Person()
    listed = person.follow(served(key))
    (path,) = [path for text, path in listed.links if text.startswith("customer ")]
    assert person.follow(path).title == f"customer {key}"


@pytest.mark.parametrize(
    ("path", "is_shown"),
    [
        ("", True),
        ("?status=open", True),
        ("?status=closed", False),
        ("?entity=order", False),
        ("?entity=customer&severity=high&kind=concurrent_update&field=phone&source=crm", True),
        ("?severity=critical", False),
        ("?entity=&severity=", True),
    ],
)
def test_the_list_is_filtered_by_the_query_string(served: Served, path: str, *, is_shown: bool) -> None:
    seen = Person().follow(f"{served()}/{path}")
    assert any(text == "customer C001" for text, _ in seen.links) is is_shown


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("?status=waiting", 422),
        ("records/customer/nobody", 404),
        ("records/customer/nobody/history", 404),
        ("records/none/C001", 404),
    ],
)
def test_a_missing_object_has_no_page(served: Served, path: str, status: int) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        Person().follow(f"{served()}/{path}")
    assert refused.value.response.status_code == status


def test_every_link_of_every_page_leads_somewhere(served: Served) -> None:
    person = Person()
    listed = person.follow(served())
    record = person.click(listed, "customer C001")
    history = person.click(record, "History")
    targets = {target for seen in (listed, record, history) for _, target in seen.links}
    assert len(targets) > 8
    # The reading of these tests explains one field only.
    targets = {target for target in targets if "explain?field=" not in target or target.endswith("=phone")}
    assert {target: status for target in targets if (status := httpx.get(target).status_code) != 200} == {}


def test_a_record_shows_what_each_source_says(served: Served) -> None:
    record = Person().follow(f"{served()}/records/customer/C001")
    lines = record.text.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line == "phone"]
    assert lines[at : at + 4] == ["phone", "3", "2", "3"]
    assert {"crm", "erp", "concurrent_update, phone, high, open"} <= set(lines)


def test_a_long_history_goes_on_behind_a_link(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_page, "CHANGES_SHOWN", 1)
    person = Person()
    first = person.follow(f"{served()}/records/customer/C001/history")
    second = person.click(first, "Later")
    assert len(phone_changes()) == 2
    assert "phone: 1 →" in first.text
    assert "phone: – →" in second.text
    assert not any(text.startswith("Later") for text, _ in second.links)


@pytest.mark.parametrize("path", ["", "records/customer/%3Cscript%3Ealert(1)%3C%2Fscript%3E"])
def test_a_value_is_text_on_every_page_and_nothing_is_loaded(served: Served, path: str) -> None:
    answer = httpx.get(f"{served(HOSTILE)}/{path}")
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "src=" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["", "records/customer/{}", "records/customer/{}/history"])
def test_a_value_that_turns_the_writing_direction_is_isolated(served: Served, path: str) -> None:
    turning = "\u202egpj.exe"
    address = served(turning)
    html = httpx.get(f"{address}/{path.format(quote(turning))}").text
    body = html.partition("<body>")[2]
    assert turning in body
    assert body.count(turning) == len(re.findall(rf"<bdi>[^<]*{turning}[^<]*</bdi>", body))


def test_every_value_of_a_record_is_isolated(served: Served) -> None:
    html = httpx.get(f"{served()}/records/customer/C001").text
    assert re.findall(r"<td>(?!<bdi>|<a )", html) == []
