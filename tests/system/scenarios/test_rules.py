"""What checks, writers and rules say of several systems' work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.merged_state import Document
from tests.system.scenarios.people import Mark
from tests.system.scenarios.sidecars import WatchingSidecar, fetched_over_http, wait_for

Begin = Callable[..., Incident]

ALL_THREE = ("crm", "erp", "finance")


def wait_until_detected(it: Incident, kind: str) -> None:
    """Both sidecars have announced a question of that kind."""
    path = f"/api/v1/conflicts?status=open&kind={kind}"
    for sidecar in (it.plain, it.killed):
        wait_for(sidecar, partial(announced, sidecar, path), f"raises a {kind}")


def announced(sidecar: WatchingSidecar, path: str) -> list[Document]:
    answered = fetched_over_http(sidecar, path)
    return answered["items"] if answered is not None else []


CREDIT = {
    "fields": {"used": "mv", "limit": "mv"},
    "types": {"used": "integer", "limit": "numeric(12,2)"},
    "held": {"C1": {"used": 800, "limit": 1000}},
    "entity": {"checks": [{"name": "limit", "expr": "record.used <= record.limit", "severity": "critical"}]},
}


def test_16_two_valid_edits_that_break_a_check_together_are_a_conflict(incident: Begin) -> None:
    it = incident(**CREDIT)
    it.crm.update("C1", used=950)
    it.erp.update("C1", limit=900)
    said = it.answers()
    assert (said.conflict.kind, said.conflict.field, said.conflict.provisional) == ("invariant", None, None)
    assert said.conflict.by_source == {"crm": {"used": 950}, "erp": {"limit": "900"}}
    (conflict,) = said.conflicts
    assert (conflict["rule"], conflict["severity"]) == ("limit", "critical")
    assert said.merged() == {"used": 950, "limit": "900"}
    it.erp.update("C1", limit=1200)
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"used": 950, "limit": "1200"}


def test_30_a_write_by_a_forbidden_writer_is_a_conflict_that_names_writer_and_write(incident: Begin) -> None:
    level = {"merge": "mv", "severity": "low", "writers": {"sources": ["crm"], "actors": ["manager"]}}
    it = incident(
        fields={"level": level},
        held={"C1": {"level": "1"}, "C2": {"level": "1"}, "C3": {"level": "1"}},
        more={"rules": [{"name": "level-guard", "on": "customer.level", "severity": "critical"}]},
    )
    it.erp.update("C1", Mark(actor="manager"), level="2")
    it.crm.update("C2", Mark(actor="wang"), level="2")
    it.crm.update("C3", Mark(actor="manager"), level="2")
    said = it.answers()
    assert [(q.key, q.kind, q.field, q.by_source) for q in said.open_conflicts] == [
        ("C1", "unauthorized", "level", {"erp": "2"}),
        ("C2", "unauthorized", "level", {"crm": "2"}),
    ]
    assert [(c["severity"], c["candidates"][0]["actor"]) for c in said.conflicts] == [
        ("critical", "manager"),
        ("critical", "wang"),
    ]
    assert all(c["candidates"][0]["place"]["table"].startswith("i") for c in said.conflicts)
    it.crm.update("C1", Mark(actor="manager"), level="3")
    found = [(q.key, q.kind) for q in it.answers().open_conflicts]
    assert found == [("C1", "concurrent_update"), ("C1", "unauthorized"), ("C2", "unauthorized")]


def test_29_a_system_that_keeps_the_old_value_for_too_long_diverges_until_it_catches_up(incident: Begin) -> None:
    it = incident(
        fields={"phone": "mv"},
        held={"C1": {"phone": "0"}, "C2": {"phone": "0"}},
        more={"rules": [{"name": "drift", "on": "customer.phone", "tolerance": "500ms", "severity": "low"}]},
    )
    it.crm.update("C1", phone="1")
    it.crm.update("C2", phone="1")
    it.erp.copies("C2", phone="1")
    wait_until_detected(it, "divergence")
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field, said.conflict.labels) == (
        "C1",
        "divergence",
        "phone",
        (),
    )
    assert said.conflict.by_source == {"crm": "1", "erp": "0"}
    assert [(c["rule"], c["severity"]) for c in said.conflicts] == [("drift", "low")]
    assert said.merged() == {"phone": "1"}
    it.erp.copies("C1", phone="1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.resolutions() == [("divergence", "phone", "converged", ())]


def test_32a_the_latest_of_three_stands_without_a_conflict_also_when_its_reader_is_late(incident: Begin) -> None:
    it = incident(
        fields={"phone": "mv", "name": "mv"},
        held={"C1": {"phone": "0", "name": "0"}},
        systems=ALL_THREE,
        more={
            "rules": [
                {"name": "latest", "on": "*.phone", "decide": {"auto": "latest"}},
                {"name": "first", "on": "customer.name", "decide": {"auto": [{"prefer": ["erp"]}, "earliest"]}},
            ]
        },
    )
    with it.late("finance"):
        it.crm.update("C1", phone="1", name="a")
        it.erp.update("C1", phone="2", name="b")
        it.finance.update("C1", phone="3", name="c")
        it.wait_until_durable("crm", "erp")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "3", "name": "b"}
    assert set(said.resolutions()) == {
        ("concurrent_update", "phone", "auto", ()),
        ("concurrent_update", "name", "auto", ()),
    }
    closed = [(c["group"] or c["field"], sorted(x["source"] for x in c["candidates"])) for c in said.closed]
    assert ("phone", ["crm", "erp", "finance"]) in closed
    it.crm.update("C1", name="d")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "3", "name": "b"}
    phones = [c for c in said.closed if c["field"] == "phone" and len(c["candidates"]) == 3]
    assert len(phones) == 1, "the same outcome is recorded once"


def test_31_a_change_by_more_than_five_percent_needs_an_approval_without_any_concurrency(incident: Begin) -> None:
    rule = {
        "name": "second-look",
        "on": "customer.amount",
        "when": "abs(new - old) > 0.05 * old",
        "severity": "critical",
    }
    it = incident(
        fields={"amount": "mv"},
        types={"amount": "numeric(12,2)"},
        held={"C1": {"amount": 100}, "C2": {"amount": 100}},
        more={"rules": [rule]},
    )
    it.crm.update("C1", amount=104)
    it.erp.update("C2", Mark(actor="wang"), amount=120)
    it.crm.copies("C2", amount=120)
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field) == ("C2", "business_rule", "amount")
    assert (said.conflict.by_source, said.conflict.base, said.conflict.provisional) == ({"erp": "120"}, "100", "120")
    (conflict,) = said.conflicts
    assert (conflict["rule"], conflict["severity"], conflict["candidates"][0]["actor"]) == (
        "second-look",
        "critical",
        "wang",
    )
    it.erp.update("C2", amount=121)
    assert it.answers().conflict.by_source == {"erp": "120"}, "a later edit is no approval"
    it.crm.delete("C2")
    it.erp.delete("C2")
    said = it.answers()
    assert (said.is_deleted("C2"), said.conflict.kind) == (True, "business_rule")
