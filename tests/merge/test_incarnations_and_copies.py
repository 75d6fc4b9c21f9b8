"""What an independent implementation of the semantics answered otherwise, on real servers too: rows that go and come again, and
copies of what a source holds, has held, or never had. The values are derived by hand; the oracle says the same."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_merge.model import Copy
from cdc_merge.model.plan import FieldPlan
from tests.laws.test_sentences import PHONE, POINTS, TAGS, held, said
from tests.laws.worlds import MARKED, World, entity

LOG = FieldPlan("log", merge="append")
NUMBER = FieldPlan("no", merge="immutable")
NAME = FieldPlan("name")


def with_name(plan: FieldPlan, *values: Any, deletes: str = "review") -> World:
    """Sources that hold these values since their first snapshot, and a field `name` beside."""
    sources = "ABC"[: len(values)]
    world = World(entity(plan, NAME, sources=sources, deletes=deletes))
    for source, value in zip(sources, values, strict=True):
        world.snapshot(source, **{plan.name: value, "name": "n"})
    return world


# ---------------------------------------------------------------- a held value vanishes


def test_what_a_source_holds_after_a_new_life_and_an_overwritten_delete_is_the_value() -> None:
    world = held(PHONE, "0", "0")
    world.delete("A")
    world.insert("A", phone="2")
    world.delete("B")
    world.delete("A", MARKED)
    world.insert("B", MARKED, phone="0")
    assert said(world) == ({"phone": "0"}, set())


def test_a_marked_insert_of_what_its_source_held_before_it_went_puts_back_an_overwritten_write() -> None:
    world = World(entity(PHONE, sources="ABC"))
    world.snapshot("A", phone="o")
    world.snapshot("B", phone="o")
    world.update("B", phone="2")
    world.insert("C", MARKED, phone="2")
    world.delete("C")
    world.update("B", MARKED, phone="o")
    world.insert("C", MARKED, phone="2")
    assert said(world) == ({"phone": "2"}, set())


def test_what_another_source_holds_is_the_value_when_the_new_life_has_ended_too() -> None:
    world = with_name(PHONE, "0", "0")
    world.delete("B")
    world.insert("B", phone="3", name="n")
    world.update("B", MARKED, phone="0")
    world.delete("B")
    world.update("A", name="m")
    values, conflicts = said(world)
    assert values == {"phone": "0", "name": "m"}
    assert {kind for _, kind, _ in conflicts} == {"update_delete"}


# ---------------------------------------------------------------- a copy of what is held teaches


@pytest.mark.parametrize("options", [{}, {"wins": "remove"}])
def test_a_copy_of_the_elements_that_its_source_has_added_itself_has_seen_the_other_additions(
    options: dict[str, str],
) -> None:
    tags = FieldPlan("tags", merge="set", options=options, value_type="array")
    world = with_name(tags, ("a",), ("a",))
    world.full_old = False
    world.update("A", tags=("a", "b"))
    world.update("B", tags=("a", "b"))
    world.update("A", MARKED, name="m")
    world.update("A", tags=("a",))
    assert said(world) == ({"tags": ("a",), "name": "m"}, set())


# ---------------------------------------------------------------- equal rewrites are one


def test_a_part_on_a_copied_rewrite_has_seen_an_equal_rewrite() -> None:
    world = World(entity(LOG, sources="ABC"))
    world.insert("B", log="L")
    world.insert("A", MARKED, log="L")
    world.insert("C", log="L")
    world.update("A", log="Lu")
    assert said(world) == ({"log": "Lu"}, set())


# ---------------------------------------------------------------- what deltas and parts add to


def test_the_base_of_a_counter_stays_when_all_who_held_it_are_gone() -> None:
    world = World(entity(POINTS, PHONE, sources="ABC", mapped={"C": ["phone"]}))
    for source in "AB":
        world.snapshot(source, points=10, phone="0")
    world.snapshot("C", phone="0")
    world.update("A", points=11)
    world.update("C", phone="1")
    world.delete("A")
    world.delete("B", MARKED)
    values, conflicts = said(world)
    assert values == {"points": 11, "phone": "1"}
    assert {kind for _, kind, _ in conflicts} == {"update_delete"}


@pytest.mark.parametrize(("plan", "mine", "theirs"), [(LOG, "L", "Lw"), (POINTS, 10, 12), (TAGS, ("a",), ("b",))])
def test_until_the_first_write_the_value_is_what_is_held_now(plan: FieldPlan, mine: Any, theirs: Any) -> None:
    world = held(plan, mine, theirs)
    world.update("A", MARKED, **{plan.name: theirs})
    assert said(world) == ({plan.name: theirs}, set())


# ---------------------------------------------------------------- questions


def test_a_new_life_elsewhere_leaves_a_baseline_question_open() -> None:
    world = held(PHONE, "1", "2", "0")
    world.delete("C")
    world.insert("C", phone="0")
    values, conflicts = said(world)
    assert values == {"phone": "0"}
    assert conflicts == {("phone", "divergence", frozenset({("A", "1"), ("B", "2")}))}


def test_a_new_life_binds_an_immutable_to_the_first_value_that_its_delete_had_not_seen() -> None:
    world = held(NUMBER, "N1", "N1")
    world.delete("A")
    world.update("B", no="N3")
    world.update("B", no="N2")
    world.insert("A", no="N3")
    values, conflicts = said(world)
    assert values == {"no": "N3"}
    assert conflicts == {("no", "concurrent_update", frozenset({("A", "N3"), ("B", "N2")}))}


# ---------------------------------------------------------------- local deletes


def test_what_a_locally_deleted_row_had_does_not_count_as_held() -> None:
    world = held(PHONE, "0", "0", deletes="local")
    world.full_old = False
    world.update("A", phone="1")
    world.delete("A")
    assert said(world) == ({"phone": "1"}, set())
    world.update("B", MARKED)
    assert said(world) == ({"phone": "0"}, set())


def test_after_a_truncate_the_last_values_count_as_held_until_the_row_returns() -> None:
    world = held(PHONE, "0", "0", "0")
    world.full_old = False
    world.update("A", phone="1")
    world.truncate("A")
    world.update("B", MARKED)
    assert said(world) == ({"phone": "1"}, set())


def test_a_row_that_returns_after_a_local_delete_agrees_and_brings_its_overruled_write_back() -> None:
    world = held(PHONE, "0", "0", "0", deletes="local")
    world.full_old = False
    world.update("A", phone="1")
    world.delete("A")
    world.update("B", MARKED)
    assert said(world)[0] == {"phone": "0"}
    world.insert("A", phone="1")
    assert said(world) == ({"phone": "1"}, set())
    world.update("B", phone="1")
    world.update("A", phone="2")
    assert said(world) == ({"phone": "2"}, set())


def test_a_row_that_returns_after_a_local_delete_with_another_value_is_an_update() -> None:
    world = held(POINTS, 10, 10, deletes="local")
    world.delete("A")
    world.update("B", points=11)
    world.insert("A", points=8)
    assert said(world) == ({"points": 9}, set())


# ---------------------------------------------------------------- deletes and frontiers


def test_a_delete_takes_nothing_out_of_a_counter() -> None:
    world = with_name(POINTS, 10, 10, 10)
    world.update("A", points=12)
    world.update("B", points=9)
    world.update("C", name="m")
    world.delete("A")
    values, conflicts = said(world)
    assert values == {"points": 11, "name": "m"}
    assert {kind for _, kind, _ in conflicts} == {"update_delete"}


def test_a_field_of_which_a_delete_has_seen_everything_has_its_conflict_as_before() -> None:
    world = with_name(PHONE, "0", "0", "0")
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.update("C", MARKED, phone="1")
    world.update("C", MARKED, phone="2")
    world.update("A", name="m")
    world.delete("C")
    kinds = {(name, kind) for name, kind, _ in said(world)[1]}
    assert kinds == {(None, "update_delete"), ("phone", "concurrent_update")}


# ---------------------------------------------------------------- brought back by a copy


@pytest.mark.parametrize(("plan", "was", "now"), [(POINTS, 10, 11), (LOG, "L", "Lx")])
def test_the_first_edit_of_a_row_that_a_copy_brought_back_is_a_delta_or_a_part(
    plan: FieldPlan, was: Any, now: Any
) -> None:
    world = held(plan, was, was)
    world.delete("A")
    world.insert("A", MARKED, **{plan.name: was})
    world.update("A", **{plan.name: now})
    assert said(world) == ({plan.name: now}, set())


# ---------------------------------------------------------------- the rest of what reads otherwise now


def test_the_value_that_an_immutable_is_bound_to_is_a_candidate_although_its_writer_was_seen() -> None:
    world = held(NUMBER, "N1", "N1")
    world.update("B", no="N2")
    assert said(world) == ({"no": "N1"}, {("no", "concurrent_update", frozenset({("A", "N1"), ("B", "N2")}))})


def test_what_is_no_write_binds_no_immutable() -> None:
    world = World(entity(NUMBER), full_old=False)
    world.snapshot("A", no=None)
    world.update("A", MARKED, no="2")
    world.update("A")
    world.update("A", no="1")
    assert said(world) == ({"no": "1"}, set())


def test_a_copy_that_names_a_source_which_holds_something_else_learns_nothing_of_it() -> None:
    world = held(PHONE, "0", "0", "0")
    world.update("A", phone="1")
    world.update("B", Copy(from_source="A"), phone="2")
    world.update("B", phone="3")
    assert said(world)[1] == {("phone", "concurrent_update", frozenset({("A", "1"), ("B", "3")}))}


def test_a_counter_counts_on_from_what_is_held_when_the_first_delta_comes() -> None:
    world = held(POINTS, 10, 12)
    world.update("A", MARKED, points=12)
    world.update("B", points=13)
    assert said(world) == ({"points": 13}, set())


def test_the_first_to_hold_a_value_after_a_new_life_without_the_field_is_built_on() -> None:
    world = World(entity(TAGS, NAME, sources="ABC", mapped={"C": ["name"]}))
    for source in "AB":
        world.snapshot(source, tags=("a",), name="n")
    world.delete("A")
    world.insert("C", name="n")
    assert said(world)[0] == {"tags": ("a",), "name": "n"}
    world.update("B", tags=("a", "b"))
    assert said(world)[0] == {"tags": ("a", "b"), "name": "n"}


def test_a_decision_ranks_first_under_priority() -> None:
    world = held(FieldPlan("phone", merge="priority", options={"order": ("A", "B")}), "0", "0")
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.decide(phone="3")
    world.update("A", phone="4")
    values, conflicts = said(world)
    assert values == {"phone": "3"}
    assert {kind for _, kind, _ in conflicts} == {"concurrent_update"}
