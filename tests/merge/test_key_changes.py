"""Changes of the business key as questions, whatever the order in which the two records hear of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.fold import fold
from cdc_merge.merge.record_state import Record
from cdc_merge.model import DELETE, INSERT, SNAPSHOT, TRUNCATE, UNKNOWN, UPDATE, Change, Copy, Place, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan
from tests.laws.worlds import entity

PLAN = entity(FieldPlan("phone", severity="high"), sources=("A", "B"))
START_US = 1_790_000_000_000_000


class Book:
    """Changes of records, one a second."""

    def __init__(self, plan: EntityPlan = PLAN) -> None:
        self.plan = plan
        self.changes: list[Change] = []

    def add(self, source: str, key: str, row: str, phone: str | None = None, **more: object) -> None:
        second = len(self.changes)
        stamp = Stamp(START_US + second * 1_000_000, 0, source)
        fields = {} if phone is None else {"phone": (UNKNOWN, phone)}
        place = Place(f"system-{source}", 1, second + 1, "public.customer", 0)
        self.changes.append(Change("customer", key, stamp, place, row, fields, **more))  # type: ignore[arg-type]

    def rekey(self, source: str, old: str, new: str, copy: Copy | None = None) -> None:
        self.add(source, old, DELETE, moved_to=new, copy=copy)
        self.add(source, new, INSERT, "0", moved_from=old, copy=copy)

    def records(self) -> Mapping[str, Record]:
        keys = {change.key for change in self.changes}
        return {key: fold(self.plan, [change for change in self.changes if change.key == key]) for key in keys}

    def key_change_conflicts(self) -> dict[str, dict[str, object]]:
        """key → candidates of its `key_change`."""
        records = self.records()
        found = {key: merge_conflicts(record, records) for key, record in records.items()}
        pairs = [(key, question) for key, all_of in found.items() for question in all_of]
        return {key: {c.source: c.value for c in q.candidates} for key, q in pairs if q.kind == "key_change"}


def held(*keys: str, source: str = "AB", plan: EntityPlan = PLAN) -> Book:
    book = Book(plan)
    for each in source:
        for key in keys:
            book.add(each, key, SNAPSHOT, "0")
    return book


def test_two_sources_that_move_one_record_to_different_keys_conflict_under_the_old_key() -> None:
    book = held("3")
    book.rekey("A", "3", "1")
    book.rekey("B", "3", "2")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "2"}}
    (question,) = merge_conflicts(book.records()["3"])
    assert (question.field, question.severity) == (None, "high")


def test_the_same_move_in_both_sources_is_no_conflict() -> None:
    book = held("3")
    book.rekey("A", "3", "1")
    book.rekey("B", "3", "1")
    assert book.key_change_conflicts() == {}


def test_a_move_that_a_job_copies_is_no_conflict() -> None:
    book = held("3")
    book.rekey("A", "3", "1")
    book.rekey("B", "3", "1", Copy())
    assert book.key_change_conflicts() == {}


def test_a_move_onto_a_record_that_another_source_holds_is_a_conflict() -> None:
    book = held("3")
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "1"}}


def test_the_question_ends_when_the_other_source_gives_the_key_up() -> None:
    book = held("3")
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    book.add("B", "1", DELETE)
    assert book.key_change_conflicts() == {}


def test_the_question_ends_when_one_source_moves_its_row_after_the_other() -> None:
    book = held("3")
    book.rekey("A", "3", "1")
    book.rekey("B", "3", "2")
    book.rekey("B", "2", "1")
    assert book.key_change_conflicts() == {}


def test_a_record_entered_later_under_the_new_key_is_no_question_of_the_move() -> None:
    book = held("3")
    book.rekey("A", "3", "1")
    book.add("B", "1", INSERT, "9")
    assert book.key_change_conflicts() == {}


def test_a_rival_that_empties_its_table_and_enters_the_row_again_is_a_rival_still() -> None:
    book = held("3")
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    before = book.key_change_conflicts()
    for key in ("3", "1"):
        book.add("B", key, TRUNCATE)
        book.add("B", key, INSERT, "0" if key == "3" else "9")
    assert before == book.key_change_conflicts() == {"3": {"A": "1", "B": "1"}}


def test_a_row_that_moved_and_is_entered_again_after_a_truncate_has_still_come_from_there() -> None:
    book = held("3")
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    book.add("A", "1", TRUNCATE)
    book.add("A", "1", INSERT, "0")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "1"}}
    book.add("B", "1", DELETE)
    assert book.key_change_conflicts() == {}


def test_a_record_that_came_between_the_move_and_a_reload_is_no_rival() -> None:
    book = held("3")
    book.rekey("A", "3", "1")
    book.add("B", "1", INSERT, "9")
    book.add("A", "1", TRUNCATE)
    book.add("A", "1", INSERT, "0")
    assert book.key_change_conflicts() == {}


def test_a_row_that_is_read_again_has_still_come_from_there() -> None:
    book = held("3")
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    book.add("A", "1", SNAPSHOT, "0")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "1"}}


def test_a_row_that_left_the_new_key_and_is_entered_there_afresh_did_not_move() -> None:
    book = held("3")
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    book.add("A", "1", DELETE)
    book.add("A", "1", INSERT, "0")
    assert book.key_change_conflicts() == {}


def test_an_edit_that_the_move_had_not_seen_is_a_question_of_the_old_key_that_names_the_new_one() -> None:
    book = held("3")
    book.add("B", "3", UPDATE, "7")
    book.rekey("A", "3", "1")
    (question,) = merge_conflicts(book.records()["3"], book.records())
    assert question.kind == "update_delete"
    assert {c.source: c.value for c in question.candidates} == {"A": "1", "B": {"phone": "7"}}


LOCAL = entity(FieldPlan("phone"), sources=("A", "B", "C"), deletes="local")


def test_rows_that_moved_to_different_keys_are_a_conflict_where_deletes_are_local_too() -> None:
    book = held("3", plan=LOCAL)
    book.rekey("A", "3", "1")
    assert book.key_change_conflicts() == {}
    book.rekey("B", "3", "2")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "2"}}
    book.rekey("B", "2", "1")
    assert book.key_change_conflicts() == {}


def test_a_move_onto_a_record_that_another_source_holds_is_a_conflict_where_deletes_are_local_too() -> None:
    book = held("3", plan=LOCAL)
    book.add("B", "1", SNAPSHOT, "9")
    book.rekey("A", "3", "1")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "1"}}


def test_a_copied_move_and_a_new_row_under_the_key_end_the_conflict_where_deletes_are_local_too() -> None:
    book = held("3", plan=LOCAL, source="ABC")
    book.rekey("A", "3", "1")
    book.rekey("B", "3", "1", Copy())
    assert book.key_change_conflicts() == {}
    book.rekey("C", "3", "2")
    assert book.key_change_conflicts() == {"3": {"A": "1", "C": "2"}}
    book.add("A", "3", INSERT, "0")
    assert book.key_change_conflicts() == {}


@pytest.mark.parametrize("deletes", ["review", "local"])
@pytest.mark.parametrize("copy", [None, Copy()])
def test_the_conflict_ends_when_one_source_comes_to_hold_the_others_key(deletes: str, copy: Copy | None) -> None:
    book = held("3", plan=entity(FieldPlan("phone"), deletes=deletes))
    book.rekey("A", "3", "1")
    book.rekey("B", "3", "2")
    assert book.key_change_conflicts() == {"3": {"A": "1", "B": "2"}}
    book.add("A", "1", DELETE, copy=copy)
    book.add("A", "2", INSERT, "0", copy=copy)
    assert book.key_change_conflicts() == {}
