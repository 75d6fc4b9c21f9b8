"""The oracle itself, judged by the scenarios: expectations are derived by hand, one test per row."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from cdc_merge.model import Copy, Json, Stamp
from cdc_merge.model.clock import cut, tick
from cdc_merge.model.plan import EntityPlan, FieldPlan
from tests.laws.oracle import Answer, answer
from tests.laws.worlds import MARKED, SECOND, START_US, World, entity

PHONE = FieldPlan("phone")


def held(plan: EntityPlan, **values: Any) -> World:
    """A world whose sources all hold the record since their first snapshot."""
    world = World(plan)
    for source in plan.sources:
        world.snapshot(source, **{name: value for name, value in values.items() if name in plan.mapped[source]})
    return world


def phones(*sources: str, **more: Any) -> World:
    return held(entity(PHONE, sources=sources or ("A", "B"), **more), phone="0")


def say(world: World) -> Answer:
    return answer(world.plan, world.changes)


def conflicts_of(said: Answer) -> set[tuple[str | None, str, frozenset[tuple[str, Any]]]]:
    return {(q.field or q.group, q.kind, q.candidates) for q in said.conflicts}


def only(said: Answer) -> Any:
    assert len(said.conflicts) == 1, said.conflicts
    return next(iter(said.conflicts))


def pairs(*candidates: tuple[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(candidates)


def update(source: str, **fields: Any) -> tuple[str, Any]:
    return source, frozenset(fields.items())


def test_01_concurrent_edits_ask_one_question_with_base_and_the_later_as_provisional() -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="2")
    question = only(say(world))
    assert (question.field, question.kind) == ("phone", "concurrent_update")
    assert question.candidates == pairs(("A", "1"), ("B", "2"))
    assert (question.base, question.provisional) == ("0", "2")
    assert {str(answer(world.plan, order)) for order in permutations(world.changes)} == {str(say(world))}


def test_02_equal_edits_agree_and_the_next_edit_wins_alone() -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="1")
    assert not say(world).conflicts
    world.update("A", phone="3")
    assert say(world).merged == {"phone": "3"}
    assert not say(world).conflicts


@pytest.mark.parametrize("copy", [MARKED, None])
def test_03_04_an_edit_after_a_copy_has_seen_it(copy: Copy | None) -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", copy, phone="1")
    world.update("B", phone="2")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "2"}


def test_04_an_unmarked_copy_stamped_before_its_origin_is_agreement_too() -> None:
    world = World(entity(PHONE), skew={"B": -2 * SECOND})
    world.snapshot("A", phone="0")
    world.snapshot("B", phone="0")
    world.update("A", phone="1")
    world.update("B", phone="1")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "1"}


def test_04_a_slow_unmarked_job_needs_agreement_with_the_past() -> None:
    for agreement, questions in (("on", 1), ("past", 0)):
        world = held(entity(FieldPlan("phone", agreement=agreement)), phone="0")
        world.update("A", phone="1")
        world.update("A", phone="2")
        world.update("B", phone="1")
        assert len(say(world).conflicts) == questions
    assert say(world).merged == {"phone": "2"}
    world.update("B", phone="5")
    assert only(say(world)).candidates == pairs(("A", "2"), ("B", "5"))


@pytest.mark.parametrize("copy", [MARKED, None])
def test_05_a_sync_job_that_copies_one_over_the_other_closes_the_question(copy: Copy | None) -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.update("B", copy, phone="1")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "1"}
    world.update("A", phone="3")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "3"}


def test_05_the_same_with_a_third_source_that_still_holds_the_old_value() -> None:
    world = phones("A", "B", "C")
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.update("B", MARKED, phone="1")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "1"}


@pytest.mark.parametrize("sources", ["AB", "ABC"])
def test_05a_crossed_copies_are_still_one_question_until_they_agree(sources: str) -> None:
    world = phones(*sources)
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.update("B", MARKED, phone="1")
    world.update("A", MARKED, phone="2")
    assert only(say(world)).candidates == pairs(("A", "1"), ("B", "2"))
    world.update("A", phone="1")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "1"}


def test_06_two_decrements_of_ten_are_eight_also_after_eight_is_copied_back() -> None:
    world = held(entity(FieldPlan("points", merge="counter")), points=10)
    world.update("A", points=9)
    world.update("B", points=9)
    assert say(world).merged == {"points": 8}
    world.update("A", MARKED, points=8)
    world.update("B", MARKED, points=8)
    assert say(world).merged == {"points": 8}
    assert not say(world).conflicts


def test_07_a_broken_bound_is_a_question_and_invents_nothing() -> None:
    world = held(entity(FieldPlan("points", merge="counter", options={"min": 0})), points=1)
    world.update("A", points=0)
    world.update("B", points=0)
    assert say(world).merged == {"points": -1}
    assert only(say(world)).kind == "bound"


def test_08_deltas_are_exact() -> None:
    from decimal import Decimal

    world = held(entity(FieldPlan("points", merge="counter")), points=Decimal(0))
    for step in range(1, 11):
        for source in "AB":
            world.update(source, points=Decimal(step) / 10)
    assert say(world).merged == {"points": Decimal("2.0")}


def test_09_a_set_of_a_counter_concurrent_with_a_delta_is_a_conflict() -> None:
    world = World(entity(FieldPlan("points", merge="counter")))
    world.snapshot("A", points=0)
    world.snapshot("B", points=None)
    world.update("A", points=5)
    world.update("B", points=3)
    question = only(say(world))
    assert (question.kind, question.provisional) == ("concurrent_update", 8)


def tagged(*sources: str, **options: Any) -> World:
    return held(entity(FieldPlan("tags", merge="set", options=options), sources=sources), tags=("a",))


def test_10_sets_merge_element_by_element() -> None:
    world = tagged("A", "B", "C")
    world.update("A", tags=("a", "b"))
    world.update("B", tags=())
    world.update("C", tags=("a", "b"))
    assert say(world).merged == {"tags": frozenset({"b"})}


def test_11_a_removed_element_does_not_resurrect_from_copies() -> None:
    world = tagged("A", "B", "C")
    world.update("A", tags=("a", "x"))
    world.update("B", MARKED, tags=("a", "x"))
    world.update("C", MARKED, tags=("a", "x"))
    world.update("A", tags=("a",))
    assert say(world).merged == {"tags": frozenset({"a"})}


@pytest.mark.parametrize(("wins", "left"), [("add", {"a"}), ("remove", set())])
def test_12_remove_and_add_again_against_a_concurrent_removal(wins: str, left: set[str]) -> None:
    world = tagged("A", "B", wins=wins)
    world.update("A", tags=())
    world.update("A", tags=("a",))
    world.update("B", tags=())
    assert say(world).merged == {"tags": frozenset(left)}


def test_13_a_map_merges_key_by_key() -> None:
    plan = entity(FieldPlan("profile", merge="map"))
    world = held(plan, profile=Json('{"city":"c","zip":"z"}'))
    world.update("A", profile=Json('{"city":"c1","zip":"z"}'))
    world.update("B", profile=Json('{"city":"c","zip":"z2"}'))
    assert say(world).merged == {"profile.city": "c1", "profile.zip": "z2"}
    assert not say(world).conflicts
    world.update("B", profile=Json('{"city":"c3","zip":"z2"}'))
    assert conflicts_of(say(world)) == {("profile.city", "concurrent_update", pairs(("A", "c1"), ("B", "c3")))}


def test_14_the_later_stage_wins_and_stages_without_a_bound_ask() -> None:
    chain = FieldPlan("stage", merge="lattice", options={"order": ["draft", "confirmed", "shipped"]})
    world = held(entity(chain), stage="draft")
    world.update("A", stage="shipped")
    world.update("B", stage="confirmed")
    assert say(world).merged == {"stage": "shipped"}
    assert not say(world).conflicts
    graph = {"draft": ["confirmed", "cancelled"], "confirmed": ["shipped"]}
    world = held(entity(FieldPlan("stage", merge="lattice", options={"order": graph})), stage="draft")
    world.update("A", stage="cancelled")
    world.update("B", stage="shipped")
    assert only(say(world)).kind == "concurrent_update"


def test_15_a_group_is_one_value() -> None:
    address = FieldPlan("address", members=("city", "street"))
    world = held(entity(groups=[address]), city="c", street="s")
    world.update("A", street="s1")
    world.update("B", city="c2")
    question = only(say(world))
    assert (question.group, question.candidates) == ("address", pairs(("A", ("c", "s1")), ("B", ("c2", "s"))))
    assert say(world).merged == {"city": "c2", "street": "s"}


def test_17_delete_against_update_is_a_conflict_and_a_later_edit_reopens_a_decided_delete() -> None:
    world = phones()
    world.delete("A")
    world.update("B", phone="2")
    assert conflicts_of(say(world)) == {(None, "update_delete", pairs(("A", None), update("B", phone="2")))}
    assert say(world).merged == {"phone": "2"}
    world.decide_delete()
    assert say(world).deleted
    assert not say(world).conflicts
    world.update("B", phone="3")
    assert conflicts_of(say(world)) == {(None, "update_delete", pairs(("cdc_merge", None), update("B", phone="3")))}


def test_17_the_update_may_be_older_than_the_delete() -> None:
    world = phones()
    world.update("B", phone="2")
    world.delete("A")
    assert conflicts_of(say(world)) == {(None, "update_delete", pairs(("A", None), update("B", phone="2")))}


def test_18_a_copied_delete_does_not_hide_a_third_sources_edit() -> None:
    world = phones("A", "B", "C")
    world.delete("A")
    world.delete("B", MARKED)
    assert say(world).deleted
    world.update("C", phone="2")
    assert conflicts_of(say(world)) == {(None, "update_delete", pairs(("A", None), update("C", phone="2")))}


def test_19_after_a_reinsert_older_values_do_not_come_back() -> None:
    world = held(entity(PHONE, FieldPlan("name")), phone="0", name="n")
    world.update("B", phone="5")
    world.update("A", MARKED, phone="5")
    world.delete("A")
    world.insert("A", phone="9", name=None)
    assert say(world).merged == {"phone": "9", "name": None}
    assert not say(world).conflicts


def test_23_concurrent_rekeys_of_one_record_ask_under_the_old_key() -> None:
    world = phones()
    world.delete("A", moved_to="1")
    world.delete("B", moved_to="2")
    assert conflicts_of(say(world)) == {(None, "key_change", pairs(("A", "1"), ("B", "2")))}


def test_26_inserts_of_one_key_ask_only_about_what_differs() -> None:
    world = World(entity(FieldPlan("name"), FieldPlan("tax")))
    world.insert("A", name="a", tax="7")
    world.insert("B", name="b", tax="7")
    assert conflicts_of(say(world)) == {("name", "concurrent_insert", pairs(("A", "a"), ("B", "b")))}


def test_28_a_difference_at_the_first_snapshot_is_labelled_and_closed_by_a_copied_edit() -> None:
    world = World(entity(PHONE))
    world.snapshot("A", phone="1")
    world.snapshot("B", phone="2")
    question = only(say(world))
    assert (question.kind, question.labels, question.provisional) == ("divergence", frozenset({"baseline"}), "1")
    world.update("A", phone="3")
    world.update("B", MARKED, phone="3")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "3"}


def test_29b_people_are_not_overruled_in_silence() -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.decide(phone="3")
    assert not say(world).conflicts
    world.update("B", phone="4")
    world.update("A", phone="2")
    world.update("B", phone="2")
    assert only(say(world)).candidates == pairs(("cdc_merge", "3"), ("A", "2"), ("B", "2"))


def test_29c_a_local_delete_leaves_the_record_to_the_others() -> None:
    world = phones(deletes="local")
    world.delete("A")
    world.update("B", phone="2")
    assert not say(world).deleted
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "2"}


@pytest.mark.parametrize("order", list(permutations(range(5))))
def test_32a_the_answer_does_not_depend_on_who_is_late(order: tuple[int, ...]) -> None:
    world = phones("A", "B", "C")
    for source, number in zip("ABC", "123", strict=True):
        world.update(source, phone=number)
    edits = world.changes[3:]
    late = [*world.changes[:3], *(edits[i % 3] for i in order)]
    assert answer(world.plan, late) == say(world)
    assert only(say(world)).candidates == pairs(("A", "1"), ("B", "2"), ("C", "3"))
    assert say(world).merged == {"phone": "3"}


def test_32b_a_nightly_reload_with_unchanged_rows_changes_nothing() -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="2")
    question = only(say(world))
    world.truncate("A")
    assert only(say(world)) == question
    world.insert("A", phone="1")
    assert only(say(world)) == question
    world.update("B", phone="1")
    assert not say(world).conflicts


def test_32c_a_sync_job_that_undoes_a_lone_edit_leaves_a_trace() -> None:
    world = phones()
    world.update("B", phone="5")
    assert say(world).merged == {"phone": "5"}
    world.update("B", MARKED, phone="0")
    assert say(world).merged == {"phone": "0"}
    assert say(world).lost_updates == {("phone", "B", "5")}
    assert not say(world).conflicts


def test_33_an_edit_that_had_not_seen_the_decision_is_a_new_conflict() -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.decide(phone="1")
    assert not say(world).conflicts
    world.update("B", phone="4")
    question = only(say(world))
    assert (question.kind, question.candidates) == ("concurrent_update", pairs(("cdc_merge", "1"), ("B", "4")))


def test_33_the_source_that_holds_the_decided_value_has_seen_it() -> None:
    world = phones()
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.decide(phone="1")
    world.update("A", phone="4")
    assert not say(world).conflicts
    assert say(world).merged == {"phone": "4"}


def test_34_equal_commit_times_have_one_winner() -> None:
    world = World(entity(FieldPlan("phone", merge="lww"), sources="ABC"))
    for source, number in zip("ABC", "123", strict=True):
        world.now_us = START_US
        world.insert(source, phone=number)
    assert {str(answer(world.plan, order).merged) for order in permutations(world.changes)} == {"{'phone': '3'}"}


def test_35_a_fast_clock_is_cut_and_does_not_win_for_ever() -> None:
    believed = cut(START_US + 3600 * SECOND, START_US, 5 * SECOND)
    fast = tick(Stamp(0, 0, "B"), believed)
    assert fast < tick(Stamp(0, 0, "A"), START_US + 6 * SECOND)


def test_36_the_order_of_a_source_is_kept_whatever_its_commit_times_say() -> None:
    world = phones()
    world.update("A", phone="1")
    world.now_us = 1_000_000_000 * SECOND
    world.update("A", phone="2")
    assert say(world).merged == {"phone": "2"}
    world.now_us = START_US
    world.update("B", MARKED, phone="2")
    world.update("B", phone="3")
    assert not say(world).conflicts
