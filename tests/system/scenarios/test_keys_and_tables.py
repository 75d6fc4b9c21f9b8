"""Keys that move apart or onto each other, tables that are emptied, columns that go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.scenarios.incident import Incident

Begin = Callable[..., Incident]

PHONE = {"phone": "mv"}


@pytest.mark.parametrize("surrogate", [False, True], ids=["the key identifies the row", "an id does"])
def test_23_a_record_moved_to_different_keys_is_a_conflict_under_the_old_key(incident: Begin, surrogate: bool) -> None:
    it = incident(fields=PHONE, held={"C3": {"phone": "0"}}, surrogate=surrogate)
    it.crm.rekey("C3", "C1")
    it.erp.rekey("C3", "C2")
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field, said.conflict.provisional) == (
        "C3",
        "key_change",
        None,
        None,
    )
    assert said.conflict.by_source == {"crm": "C1", "erp": "C2"}
    assert {key: said.merged(key) for key in ("C1", "C2")} == {"C1": {"phone": "0"}, "C2": {"phone": "0"}}
    it.erp.rekey("C2", "C1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert [(c["kind"], c["resolution"]) for c in said.closed] == [("key_change", "converged")]


def test_23_a_row_moved_onto_another_systems_record_is_a_conflict_until_that_frees_the_key(
    incident: Begin,
) -> None:
    held = {"C3": {"phone": "0"}}
    it = incident(fields=PHONE, held=held, differing={"erp": {"C1": {"phone": "9"}}})
    it.crm.rekey("C3", "C1")
    said = it.answers()
    key_changes = [q for q in said.open_conflicts if q.kind == "key_change"]
    assert [(q.key, q.by_source) for q in key_changes] == [("C3", {"crm": "C1", "erp": "C1"})]
    it.erp.delete("C1")
    it.erp.rekey("C3", "C1")
    assert it.answers().open_conflicts == ()


def test_37_ten_thousand_rows_deleted_at_once_are_one_event_and_no_conflict(incident: Begin) -> None:
    it = incident(fields=PHONE, held={f"C{n}": {"phone": str(n)} for n in range(10_000)})
    with it.crm.transaction() as rows:
        rows.truncate()
        rows.insert("C7", phone="7")
        rows.insert("D1", phone="1")
    plain, killed = it.answers_of_both()
    for said in (plain, killed):
        assert said.open_conflicts == ()
        assert said.closed == []
        present = {key for key, record in said.records.items() if record["sources"]["crm"]["presence"] == "present"}
        assert present == {"C7", "D1"}
        assert not any(said.is_deleted(key) for key in said.records)
    assert it.metric('cdc_merge_changes_total{entity="customer",operation="truncate",source="crm"}') == 1


def test_38_a_dropped_column_is_a_conflict_and_the_other_fields_continue(incident: Begin) -> None:
    it = incident(fields={"phone": "mv", "name": "mv"}, held={"C1": {"phone": "0", "name": "n"}})
    table, column = it.crm.table, it.crm.table.columns["phone"]
    it.crm.connection.execute(f"alter table {table.schema}.{table.name} drop column {column}")
    it.crm.update("C1", name="m")
    it.erp.update("C1", phone="1")
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field) == ("", "schema_drift", "phone")
    assert list(said.conflict.by_source) == ["crm"]
    assert said.merged("C1") == {"phone": "1", "name": "m"}
    it.crm.connection.execute(f"alter table {table.schema}.{table.name} add column {column} text")
    it.crm.update("C1", phone="1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert [(c["kind"], c["resolution"]) for c in said.closed] == [("schema_drift", "converged")]


def test_38_a_column_with_an_unreadable_type_is_a_conflict_and_the_other_fields_continue(
    incident: Begin,
) -> None:
    it = incident(fields={"points": "counter", "name": "mv"}, held={"C1": {"points": 5, "name": "n"}})
    table, column = it.crm.table, it.crm.table.columns["points"]
    it.crm.connection.execute(f"alter table {table.schema}.{table.name} alter column {column} type text")
    it.crm.update("C1", points="many")
    it.crm.update("C1", name="m")
    it.erp.update("C1", points=7)
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field) == ("", "schema_drift", "points")
    assert said.merged("C1") == {"points": "7", "name": "m"}
