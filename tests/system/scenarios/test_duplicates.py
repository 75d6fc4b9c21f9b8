"""What no two records may share, and two rows that share a key."""

from __future__ import annotations

from collections.abc import Callable

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.merged_state import SidecarAnswers

Begin = Callable[..., Incident]

TAX = {
    "fields": {"name": "mv", "tax_no": "mv", "active": "mv"},
    "types": {"active": "boolean"},
    "entity": {
        "unique": [{"fields": ["tax_no"], "normalize": ["trim"], "when": "record.active", "severity": "high"}],
    },
}


def duplicates(said: SidecarAnswers) -> list[list[str]]:
    return [conflict["records"] for conflict in said.conflicts if conflict["kind"] == "duplicate"]


def test_27_one_tax_number_under_several_keys_is_one_conflict_that_lists_each_record_once(incident: Begin) -> None:
    it = incident(
        **TAX, held={"C3": {"name": "Huang", "tax_no": "7", "active": True}}, systems=("crm", "erp", "finance")
    )
    assert it.answers().open_conflicts == ()
    it.crm.insert("C5", name="Huang", tax_no="7 ", active=True)
    it.crm.insert("C4", name="Huang Ltd", tax_no="7", active=True)
    it.erp.insert("C1", name="H. Ltd", tax_no=" 7", active=True)
    it.erp.insert("C2", name="Closed", tax_no="7", active=False)
    it.finance.insert("C6", name="Li", tax_no=None, active=True)
    it.finance.insert("C7", name="Mo", tax_no=None, active=True)
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field, said.conflict.provisional) == (
        "C1",
        "duplicate",
        None,
        None,
    )
    (conflict,) = said.conflicts
    assert (conflict["records"], conflict["severity"]) == (["C1", "C3", "C4", "C5"], "high")
    candidates = {(each["key"], each["source"], each["value"]["tax_no"]) for each in conflict["candidates"]}
    held = {("C3", source, "7") for source in ("crm", "erp", "finance")}
    assert candidates == held | {("C1", "erp", " 7"), ("C4", "crm", "7"), ("C5", "crm", "7 ")}
    it.crm.update("C5", tax_no="8")
    it.crm.delete("C4")
    it.erp.update("C1", active=False)
    said = it.answers()
    assert said.open_conflicts == ()
    (over,) = [each for each in said.closed if each["id"] == conflict["id"]]
    assert (over["kind"], over["resolution"]) == ("duplicate", "converged")


def test_27_a_duplicate_older_than_the_snapshot_is_labelled(incident: Begin) -> None:
    it = incident(
        **TAX,
        held={"C1": {"name": "Huang", "tax_no": "7", "active": True}},
        differing={"erp": {"C2": {"name": "Huang Ltd", "tax_no": "7", "active": True}}},
    )
    said = it.answers()
    assert (duplicates(said), said.conflict.labels) == ([["C1", "C2"]], ("baseline",))
    it.erp.update("C2", tax_no="9")
    assert it.answers().open_conflicts == ()


def test_27_two_rows_under_one_key_are_reported_and_the_record_follows_the_first(incident: Begin) -> None:
    it = incident(fields={"phone": "mv", "points": "counter"}, held={"C1": {"phone": "0", "points": 5}}, surrogate=True)
    table = f"{it.crm.table.schema}.{it.crm.table.name}"
    key, phone = it.crm.table.key, it.crm.table.columns["phone"]
    it.crm.connection.execute(f"alter table {table} drop constraint {it.crm.table.name}_{key}_key")
    it.crm.insert("C1", phone="9", points=1)
    it.crm.connection.execute(f"update {table} set {phone} = '8' where {phone} = '9'")
    said = it.answers()
    assert (said.conflict.key, said.conflict.kind, said.conflict.field) == ("C1", "duplicate", None)
    (conflict,) = said.conflicts
    assert conflict["records"] == ["C1"]
    assert [each["value"]["phone"] for each in conflict["candidates"]] == ["0", "8"]
    assert len({each["place"]["lsn"] for each in conflict["candidates"]}) == 2
    assert (said.merged(), said.held("crm")) == ({"phone": "0", "points": "5"}, {"phone": "0", "points": "5"})
    it.crm.connection.execute(f"delete from {table} where {phone} = '0'")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.held("crm") == {"phone": "8", "points": "1"}
    it.crm.delete("C1")
    assert it.answers().is_deleted()
