"""Rows that change their business key, and what becomes of the question about it."""

from __future__ import annotations

from collections.abc import Callable

from tests.system.scenarios.incident import Incident

Begin = Callable[..., Incident]

PHONE = {"phone": "lww"}
TWO = {"crm": {"C3": {"phone": "3"}}, "erp": {"C3": {"phone": "3"}, "C1": {"phone": "1"}}}


def test_a_row_inserted_again_under_its_left_key_closes_the_conflict(incident: Begin) -> None:
    it = incident(fields=PHONE, differing=TWO)
    it.crm.rekey("C3", "C1")
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind) == ("C3", "key_change")
    with it.late("crm"):
        it.crm.delete("C1")
        it.crm.insert("C1", phone="1")
        it.wait_until_durable("erp")
    said = it.answers()
    assert [q for q in said.open_conflicts if q.kind == "key_change"] == []


def test_a_nightly_reload_keeps_the_conflict_open(incident: Begin) -> None:
    it = incident(fields=PHONE, differing=TWO)
    it.crm.rekey("C3", "C1")
    expected = it.answers().conflict
    assert (expected.key, expected.kind, expected.by_source) == ("C3", "key_change", {"crm": "C1", "erp": "C1"})
    with it.erp.transaction() as rows:
        rows.truncate()
    with it.erp.transaction() as rows:
        rows.insert("C1", phone="1")
        rows.insert("C3", phone="3")
    assert it.answers().conflict == expected
    with it.crm.transaction() as rows:
        rows.truncate()
        rows.insert("C1", phone="3")
    assert it.answers().conflict == expected
