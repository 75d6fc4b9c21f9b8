"""Who edits what, not knowing of whom: what is a question, and what is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.people import COPY, PLAIN, Mark

Begin = Callable[..., Incident]

PHONE = {"phone": "mv"}
HELD = {"C1": {"phone": "0"}}
ALL_THREE = ("crm", "erp", "finance")


def test_01_two_phones_for_one_customer_are_one_conflict(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="2")
    said = it.answers()
    assert said.conflict.kind == "concurrent_update"
    assert said.conflict.by_source == {"crm": "1", "erp": "2"}
    assert (said.conflict.base, said.conflict.provisional) == ("0", "2")
    assert said.merged() == {"phone": "2"}


def test_02_the_same_phone_typed_twice_is_agreement_and_the_next_edit_wins_alone(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="1")
    assert it.answers().open_conflicts == ()
    it.crm.update("C1", phone="3")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "3"}


JOBS = {"marked": COPY, "marked with its source": Mark(copy=True, of="crm"), "plain": PLAIN}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_03_and_04_an_edit_after_a_copy_has_seen_the_copied_write(incident: Begin, job: Mark) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", job, phone="1")
    assert it.answers().open_conflicts == ()
    it.erp.update("C1", phone="2")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "2"}


@pytest.mark.parametrize("job", [COPY, PLAIN], ids=["marked", "plain"])
def test_05_a_job_that_copies_one_value_over_the_other_closes_the_conflict_as_copied(
    incident: Begin, job: Mark
) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="2")
    assert it.answers().conflict.by_source == {"crm": "1", "erp": "2"}
    it.erp.update("C1", job, phone="1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.resolutions() == [("concurrent_update", "phone", "converged", ("overwrote",))]
    assert said.merged() == {"phone": "1"}
    assert [each["fields"]["phone"]["after"] for each in it.history("C1") if each["kind"] == "write"][:2] == ["1", "2"]
    it.crm.update("C1", phone="3")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "3"}


def test_05a_crossed_copies_are_one_conflict_until_the_systems_agree(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="2")
    it.erp.copies("C1", phone="1")
    it.crm.copies("C1", phone="2")
    assert it.answers().conflict.by_source == {"crm": "1", "erp": "2"}
    it.crm.update("C1", phone="1")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "1"}


def test_26_one_new_customer_entered_twice_conflicts_only_where_values_differ(incident: Begin) -> None:
    it = incident(fields={"name": "mv", "tax_no": "mv"})
    it.crm.insert("C1", name="Huang", tax_no="7")
    it.erp.insert("C1", name="Huang Ltd", tax_no="7")
    said = it.answers()
    assert (said.conflict.kind, said.conflict.field) == ("concurrent_insert", "name")
    assert said.conflict.by_source == {"crm": "Huang", "erp": "Huang Ltd"}
    assert said.merged() == {"name": "Huang Ltd", "tax_no": "7"}


def test_28_a_difference_older_than_the_snapshot_is_labelled_and_ends_with_a_copied_edit(incident: Begin) -> None:
    it = incident(fields=PHONE, differing={"crm": {"C1": {"phone": "1"}}, "erp": {"C1": {"phone": "2"}}})
    said = it.answers()
    assert (said.conflict.kind, said.conflict.labels) == ("divergence", ("baseline",))
    assert said.conflict.by_source == {"crm": "1", "erp": "2"}
    assert said.merged() == {"phone": "1"}
    it.crm.update("C1", phone="3")
    it.erp.copies("C1", phone="3")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "3"}


def test_32a_the_latest_of_three_edits_is_provisional_also_when_its_reader_is_late(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD, systems=ALL_THREE)
    with it.late("finance"):
        it.crm.update("C1", phone="1")
        it.erp.update("C1", phone="2")
        it.finance.update("C1", phone="3")
        it.wait_until_durable("crm", "erp")
    said = it.answers()
    assert said.conflict.by_source == {"crm": "1", "erp": "2", "finance": "3"}
    assert said.merged() == {"phone": "3"}


def test_32c_a_full_sync_job_that_undoes_a_lone_edit_leaves_a_lost_update(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.erp.update("C1", phone="5")
    assert it.answers().merged() == {"phone": "5"}
    it.erp.copies("C1", phone="0")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "0"}
    assert said.resolutions() == [("concurrent_update", "phone", "converged", ("overwrote",))]
