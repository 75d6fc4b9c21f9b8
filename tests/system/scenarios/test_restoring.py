"""A record is to be as it was: the plan says what to write where, and written by hand it does what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.people import COPY

Begin = Callable[..., Incident]

FIELDS = {"phone": "mv", "note": "lww", "points": "counter"}
HELD = {"C1": {"phone": "0", "note": "n", "points": 10}}


def plan(it: Incident, to: str, **more: object) -> dict[str, Any]:
    url = f"http://{it.plain.address}/api/v1/records/customer/C1/restore"
    answered = httpx.post(url, json={"to": to, "dry_run": True, **more})
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


def test_a_restore_plan_lists_every_difference_and_the_edits_it_reverts(incident: Begin) -> None:
    it = incident(fields=FIELDS, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.copies("C1", phone="1")
    good = it.answers()
    to = it.last_stamps("C1", "erp")[0]
    it.crm.update("C1", phone="2")
    it.erp.update("C1", note="keep me not")
    it.answers()
    planned = plan(it, to)
    assert planned["applied"] is False
    assert planned["fields"] == {"phone": {"now": "2", "then": "1"}, "note": {"now": "keep me not", "then": "n"}}
    assert planned["writes"] == [
        {"source": "crm", "action": "update", "fields": {"phone": {"held": "2", "wanted": "1"}}},
        {"source": "erp", "action": "update", "fields": {"note": {"held": "keep me not", "wanted": "n"}}},
    ]
    assert [(e["source"], sorted(e["fields"]), e["undone"]) for e in planned["later_edits"]] == [
        ("crm", ["phone"], ["phone"]),
        ("erp", ["note"], ["note"]),
    ]
    only = plan(it, to, fields=["phone"])
    assert [write["source"] for write in only["writes"]] == ["crm"]
    assert [each["undone"] for each in only["later_edits"]] == [["phone"], []]
    it.crm.update("C1", phone="1")
    it.erp.update("C1", note="n")
    said = it.answers()
    assert said.merged() == good.merged()
    assert plan(it, to)["writes"] == []


def test_the_last_clean_state_is_the_one_before_the_conflict(incident: Begin) -> None:
    it = incident(fields=FIELDS, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.copies("C1", phone="1")
    it.answers()
    it.crm.update("C1", phone="2")
    it.erp.update("C1", phone="3")
    assert it.answers().conflict.kind == "concurrent_update"
    planned = plan(it, "clean")
    assert planned["fields"] == {"phone": {"now": "3", "then": "2"}}
    assert [(w["source"], w["fields"]["phone"]) for w in planned["writes"]] == [("erp", {"held": "3", "wanted": "2"})]


def test_the_restore_of_a_deleted_record_is_planned_as_an_insert(incident: Begin) -> None:
    it = incident(fields=FIELDS, held=HELD, systems=("crm", "erp", "finance"))
    it.finance.delete("C1")
    it.answers()
    to = max(it.last_stamps("C1", "finance"))
    it.crm.delete("C1")
    it.erp.delete("C1", COPY)
    assert it.answers().is_deleted()
    planned = plan(it, it.last_stamps("C1", "crm")[0])
    assert (planned["deleted"], planned["writes"]) == ({"now": True, "then": True}, [])
    first = plan(it, to.replace("@finance", "@a"))
    assert first["deleted"] == {"now": True, "then": False}
    assert [(w["source"], w["action"]) for w in first["writes"]] == [
        ("crm", "insert"),
        ("erp", "insert"),
        ("finance", "insert"),
    ]
    assert first["writes"][0]["fields"]["points"] == {"wanted": "10"}


def test_a_restore_that_would_write_is_refused_and_nothing_is_written(incident: Begin) -> None:
    it = incident(fields=FIELDS, held=HELD)
    it.crm.update("C1", phone="1")
    said = it.answers()
    url = f"http://{it.plain.address}/api/v1/records/customer/C1/restore"
    refused = httpx.post(url, json={"to": "clean"})
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    assert httpx.post(url, json={"to": "never", "dry_run": True}).status_code == 422
    assert it.answers().records == said.records
