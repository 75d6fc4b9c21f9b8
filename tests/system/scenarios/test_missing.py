"""`on_missing: report`: missing customers are reported and listed by system, and are no conflict."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.people import COPY
from tests.system.scenarios.sidecars import WatchingSidecar, document, wait_for

Begin = Callable[..., Incident]

PHONE = {"phone": "mv"}


def missing(sidecar: WatchingSidecar, query: str = "") -> list[tuple[str, str]]:
    items: list[dict[str, Any]] = document(sidecar, f"/api/v1/missing/customer{query}")["items"]
    return [(each["key"], each["source"]) for each in items]


def wait_until(it: Incident, wanted: list[tuple[str, str]]) -> None:
    for sidecar in (it.plain, it.killed):
        wait_for(sidecar, partial(_is_missing, sidecar, wanted), f"{wanted} is missing")


def _is_missing(sidecar: WatchingSidecar, wanted: list[tuple[str, str]]) -> bool:
    return missing(sidecar) == wanted


def test_a_missing_record_is_listed_until_the_system_has_it_and_is_no_conflict(incident: Begin) -> None:
    it = incident(
        fields=PHONE,
        held={"C1": {"phone": "0"}},
        differing={"crm": {"C2": {"phone": "2"}}},
        entity={"on_missing": "report", "deletes": "local"},
    )
    wait_until(it, [("C2", "erp")])
    it.erp.insert("C3", phone="3")
    it.erp.delete("C1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert missing(it.plain) == missing(it.killed) == [("C1", "erp"), ("C2", "erp"), ("C3", "crm")]
    assert missing(it.plain, "?source=crm") == [("C3", "crm")]
    assert said.records["C1"]["missing"] == ["erp"]
    assert it.metric('cdc_merge_records_missing{entity="customer",source="erp"}') == 2
    it.crm.insert("C3", COPY, phone="3")
    it.erp.insert("C1", phone="0")
    it.crm.delete("C2")
    said = it.answers()
    assert missing(it.plain) == missing(it.killed) == []
    assert said.is_deleted("C2")
    assert said.records["C1"]["missing"] == []


def test_a_missing_customer_is_not_reported_unless_configured(incident: Begin) -> None:
    it = incident(fields=PHONE, differing={"crm": {"C2": {"phone": "2"}}})
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.records["C2"]["missing"] == []
    assert missing(it.plain) == []
