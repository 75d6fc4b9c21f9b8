"""What checks, writers and rules say of several systems' work."""

from __future__ import annotations

from collections.abc import Callable

from tests.scenarios.incident import Incident
from tests.scenarios.people import Mark

Begin = Callable[..., Incident]

ALL_THREE = ("crm", "erp", "finance")
CREDIT = {
    "fields": {"used": "mv", "limit": "mv"},
    "types": {"used": "integer", "limit": "numeric(12,2)"},
    "held": {"C1": {"used": 800, "limit": 1000}},
    "entity": {"checks": [{"name": "limit", "expr": "record.used <= record.limit", "severity": "critical"}]},
}


def test_16_two_rightful_edits_that_break_a_check_together_are_a_question(incident: Begin) -> None:
    it = incident(**CREDIT)
    it.crm.update("C1", used=950)
    it.erp.update("C1", limit=900)
    said = it.says()
    assert (said.only.kind, said.only.field, said.only.provisional) == ("invariant", None, None)
    assert said.only.by_source == {"crm": {"used": 950}, "erp": {"limit": "900"}}
    (conflict,) = said.conflicts
    assert (conflict["rule"], conflict["severity"]) == ("limit", "critical")
    assert said.merged() == {"used": 950, "limit": "900"}
    it.erp.update("C1", limit=1200)
    said = it.says()
    assert said.questions == ()
    assert said.merged() == {"used": 950, "limit": "1200"}


def test_30_who_may_not_write_a_field_is_named_with_the_write(incident: Begin) -> None:
    level = {"merge": "mv", "severity": "low", "writers": {"sources": ["crm"], "actors": ["manager"]}}
    it = incident(
        fields={"level": level},
        held={"C1": {"level": "1"}, "C2": {"level": "1"}, "C3": {"level": "1"}},
        more={"rules": [{"name": "level-guard", "on": "customer.level", "severity": "critical"}]},
    )
    it.erp.update("C1", Mark(actor="manager"), level="2")
    it.crm.update("C2", Mark(actor="wang"), level="2")
    it.crm.update("C3", Mark(actor="manager"), level="2")
    said = it.says()
    assert [(q.key, q.kind, q.field, q.by_source) for q in said.questions] == [
        ("C1", "unauthorized", "level", {"erp": "2"}),
        ("C2", "unauthorized", "level", {"crm": "2"}),
    ]
    assert [(c["severity"], c["candidates"][0]["actor"]) for c in said.conflicts] == [
        ("critical", "manager"),
        ("critical", "wang"),
    ]
    assert all(c["candidates"][0]["place"]["table"].startswith("i") for c in said.conflicts)
    it.crm.update("C1", Mark(actor="manager"), level="3")
    found = [(q.key, q.kind) for q in it.says().questions]
    assert found == [("C1", "concurrent_update"), ("C1", "unauthorized"), ("C2", "unauthorized")]
