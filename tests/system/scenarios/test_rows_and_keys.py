"""Rows come, go and change their keys; transactions touch one row many times; long texts do not travel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.people import COPY

Begin = Callable[..., Incident]

PHONE = {"phone": "mv"}
HELD = {"C1": {"phone": "0"}}
LONG = "".join(chr(0x4E00 + n % 997) for n in range(3000))
STORED_OUTSIDE = {"note": "text storage external"}


def test_17_a_delete_against_an_unseen_edit_is_a_conflict_and_the_record_stays_readable(incident: Begin) -> None:
    it = incident(fields=PHONE, held={"C1": {"phone": "0"}, "C2": {"phone": "0"}})
    it.crm.delete("C1")
    it.erp.update("C1", phone="2")
    it.erp.update("C2", phone="2")
    it.crm.delete("C2")
    said = it.answers()
    assert [(q.key, q.kind, q.field, q.provisional) for q in said.open_conflicts] == [
        ("C1", "update_delete", None, None),
        ("C2", "update_delete", None, None),
    ]
    assert all(q.by_source == {"crm": None, "erp": {"phone": "2"}} for q in said.open_conflicts)
    for key in ("C1", "C2"):
        assert not said.is_deleted(key)
        assert said.merged(key) == {"phone": "2"}


def test_17_a_key_change_against_an_unseen_edit_is_a_conflict_under_the_old_key_and_names_the_new_one(
    incident: Begin,
) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.rekey("C1", "C9")
    it.erp.update("C1", phone="2")
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind) == ("C1", "update_delete")
    assert said.conflict.by_source == {"crm": "C9", "erp": {"phone": "2"}}
    assert said.merged("C9") == {"phone": "0"}


def test_18_a_copied_delete_does_not_hide_a_third_systems_edit(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD, systems=("crm", "erp", "finance"))
    it.crm.delete("C1")
    it.erp.delete("C1", COPY)
    assert it.answers().is_deleted()
    it.finance.update("C1", phone="2")
    said = it.answers()
    assert said.conflict.kind == "update_delete"
    assert said.conflict.by_source == {"crm": None, "finance": {"phone": "2"}}


@pytest.mark.parametrize("together", [True, False], ids=["in one transaction", "in two"])
def test_19_a_row_inserted_again_does_not_bring_back_older_values(incident: Begin, together: bool) -> None:
    it = incident(fields={"phone": "mv", "name": "mv"}, held={"C1": {"phone": "0", "name": "n"}})
    it.erp.update("C1", phone="5")
    it.crm.copies("C1", phone="5")
    if together:
        with it.crm.transaction() as rows:
            rows.delete("C1")
            rows.insert("C1", phone="9")
    else:
        it.crm.delete("C1")
        it.crm.insert("C1", phone="9")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "9", "name": None}


def test_20_a_row_whose_key_moves_twice_in_its_first_transaction_is_one_record(incident: Begin) -> None:
    it = incident(fields={"points": "mv"})
    with it.crm.transaction() as rows:
        rows.insert("C1", points="5")
        rows.rekey("C1", "C2")
        rows.rekey("C2", "C3")
    said = it.answers()
    assert said.open_conflicts == ()
    assert {key: said.merged(key) for key in said.records} == {"C3": {"points": "5"}}
    assert said.resolutions() == []


def test_21_a_field_set_twice_in_one_transaction_is_one_write_of_the_second_value(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD)
    with it.crm.transaction() as rows:
        rows.update("C1", phone="1")
        rows.update("C1", phone="2")
    with it.erp.transaction() as rows:
        rows.update("C1", phone="3")
        rows.update("C1", phone="4")
    said = it.answers()
    assert said.conflict.by_source == {"crm": "2", "erp": "4"}
    writes = [each["fields"]["phone"] for each in it.history("C1") if each["kind"] == "write"]
    assert [each["after"] for each in writes] == ["2", "4"]


@pytest.mark.parametrize("surrogate", [False, True], ids=["the key identifies the row", "an id does"])
def test_22_two_keys_swapped_in_one_transaction_leave_both_records_right(incident: Begin, surrogate: bool) -> None:
    it = incident(fields=PHONE, held={"C1": {"phone": "1"}, "C2": {"phone": "2"}}, surrogate=surrogate)
    with it.crm.transaction() as rows:
        rows.rekey("C1", "C0")
        rows.rekey("C2", "C1")
        rows.rekey("C0", "C2")
    said = it.answers()
    assert said.open_conflicts == ()
    assert {key: said.merged(key) for key in said.records} == {"C1": {"phone": "2"}, "C2": {"phone": "1"}}
    assert said.held("erp", "C1") == {"phone": "1"}


def test_24_a_long_text_that_did_not_change_stays_and_is_not_written(incident: Begin) -> None:
    it = incident(fields={"phone": "mv", "note": "mv"}, held={"C1": {"phone": "0", "note": LONG}}, types=STORED_OUTSIDE)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "1", "note": LONG}
    assert all("note" not in each["fields"] for each in it.history("C1") if each["kind"] == "write")


@pytest.mark.parametrize("surrogate", [False, True], ids=["the key identifies the row", "an id does"])
def test_25_a_row_that_moves_to_a_new_key_keeps_its_long_text(incident: Begin, surrogate: bool) -> None:
    held = {"C1": {"phone": "0", "note": LONG}}
    it = incident(fields={"phone": "mv", "note": "mv"}, held=held, types=STORED_OUTSIDE, surrogate=surrogate)
    it.erp.rekey("C1", "C9")
    it.crm.rekey("C1", "C9")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged("C9") == {"phone": "0", "note": LONG}
    assert said.held("erp", "C9")["note"] == LONG
    assert said.is_deleted("C1")


def test_29a_a_delete_and_a_key_change_by_row_id_resolve_their_records(incident: Begin) -> None:
    it = incident(fields=PHONE, held={"C1": {"phone": "1"}, "C2": {"phone": "2"}}, surrogate=True)
    it.crm.delete("C1")
    it.erp.rekey("C2", "C9")
    said = it.answers()
    assert said.open_conflicts == ()
    assert {key for key in said.records if said.is_deleted(key)} == {"C1", "C2"}
    assert said.merged("C9") == {"phone": "2"}


def test_29c_a_local_delete_leaves_the_record_to_the_others(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD, entity={"deletes": "local"})
    it.crm.delete("C1")
    it.erp.update("C1", phone="2")
    said = it.answers()
    assert said.open_conflicts == ()
    assert not said.is_deleted()
    assert said.merged() == {"phone": "2"}


@pytest.mark.parametrize("together", [True, False], ids=["in one transaction", "in two"])
def test_32b_a_nightly_reload_of_unchanged_rows_leaves_an_open_conflict_unchanged(
    incident: Begin, together: bool
) -> None:
    it = incident(fields=PHONE, held={"C1": {"phone": "0"}, "C2": {"phone": "9"}})
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="2")
    first = it.answers()
    if together:
        with it.crm.transaction() as rows:
            rows.truncate()
            rows.insert("C1", phone="1")
            rows.insert("C2", phone="9")
    else:
        with it.crm.transaction() as rows:
            rows.truncate()
        with it.crm.transaction() as rows:
            rows.insert("C1", phone="1")
            rows.insert("C2", phone="9")
    said = it.answers()
    assert said.conflict == first.conflict
    assert [c["id"] for c in said.conflicts] == [c["id"] for c in first.conflicts]
    assert said.closed == []
    assert said.merged("C2") == {"phone": "9"}
    assert not said.is_deleted("C2")


def test_37_emptying_a_table_ends_that_systems_rows_without_a_conflict(incident: Begin) -> None:
    it = incident(fields=PHONE, held={f"C{n}": {"phone": str(n)} for n in range(30)})
    it.erp.update("C7", phone="x")
    with it.crm.transaction() as rows:
        rows.truncate()
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.closed == []
    presences = {record["sources"]["crm"]["presence"] for record in said.records.values()}
    assert presences == {"deleted"}
    assert not any(said.is_deleted(key) for key in said.records)
    assert it.metric('cdc_merge_changes_total{entity="customer",operation="truncate",source="crm"}') == 1
