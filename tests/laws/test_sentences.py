"""Sentences of the semantics that were misread once: what the text says, checked by hand, and the oracle says the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.fold import fold
from cdc_merge.merge.views import merged
from cdc_merge.model import UNKNOWN, Copy, DetectedConflict, Json
from cdc_merge.model.plan import FieldPlan
from tests.laws.equivalence import check
from tests.laws.worlds import MARKED, SECOND, World, entity

PHONE = FieldPlan("phone")
POINTS = FieldPlan("points", merge="counter", value_type="integer")
PREFS = FieldPlan("prefs", merge="map", options={"keys": {"n": {"merge": "counter"}}}, value_type="json")
PROFILE = FieldPlan("prefs", merge="map", value_type="json")
TAGS = FieldPlan("tags", merge="set", value_type="array")

OpenConflict = set[tuple[str | None, str, frozenset[tuple[str, Any]]]]


def said(world: World) -> tuple[Mapping[str, Any], OpenConflict]:
    """The merged values and the questions; the oracle agrees."""
    check("oracle", world.plan, world.changes)
    record = fold(world.plan, world.changes)
    return merged(record).values, {_short(question) for question in merge_conflicts(record)}


def _short(question: DetectedConflict) -> tuple[str | None, str, frozenset[tuple[str, Any]]]:
    candidates = frozenset((each.source, _plain(each.value)) for each in question.candidates)
    return question.field or question.group, question.kind, candidates


def _plain(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


def held(plan: FieldPlan, *values: Any, deletes: str = "review") -> World:
    """A world whose sources A, B, C … hold these values since their first snapshot."""
    sources = "ABC"[: max(2, len(values))]
    world = World(entity(plan, sources=sources, deletes=deletes))
    for source, value in zip(sources, values, strict=False):
        world.snapshot(source, **{plan.name: value})
    return world


def test_what_returns_with_a_copy_after_a_local_delete_was_never_gone_so_its_next_edit_is_a_delta() -> None:
    world = held(POINTS, 10, 9, deletes="local")
    world.delete("A")
    world.insert("A", MARKED, points=9)
    world.update("A", points=7)
    assert said(world) == ({"points": 7}, set())


def test_the_first_snapshot_of_a_row_that_went_is_no_divergence_of_the_row_that_comes() -> None:
    world = held(PHONE, "0", "1")
    world.truncate("A")
    world.delete("B", MARKED)
    world.insert("B", phone="2")
    assert said(world) == ({"phone": "2"}, set())


def test_a_copy_of_a_map_repeats_the_keys_that_it_leaves_as_they_are() -> None:
    world = held(PREFS, Json('{"c":"x","n":1}'), Json('{"c":"y","n":1}'))
    world.update("B", prefs=Json('{"c":"y","n":4}'))
    world.update("A", prefs=Json('{"c":"x","n":4}'))
    world.update("A", Copy(from_source="B"), prefs=Json('{"c":"y","n":4}'))
    world.update("A", prefs=Json('{"c":"z","n":4}'))
    assert said(world) == ({"prefs": Json('{"c":"z","n":7}')}, set())


def test_a_re_insert_agrees_with_all_who_lack_a_key_that_no_source_has_yet() -> None:
    world = held(PREFS, Json('{"n":1}'), Json('{"n":1}'))
    world.delete("A")
    world.insert("A", prefs=Json('{"n":1}'))
    world.update("B", prefs=Json('{"n":1,"z":true}'))
    values, asked = said(world)
    assert values["prefs"] == Json('{"n":1,"z":true}')
    assert not [question for question in asked if question[0] == "prefs.z"]


def test_what_a_decision_took_out_of_a_set_where_removing_wins_comes_back_only_by_who_has_seen_it() -> None:
    world = held(FieldPlan("tags", merge="set", options={"wins": "remove"}, value_type="array"), ("a",), ())
    world.decide(tags=())
    world.update("B", tags=("a", "b"))
    assert said(world)[0] == {"tags": ("b",)}


def test_an_insert_after_a_delete_that_wins_has_seen_what_that_delete_overruled() -> None:
    wins_remove = FieldPlan("tags", merge="set", options={"wins": "remove"}, value_type="array")
    world = held(wins_remove, ("a",), ("a",), deletes="delete_wins")
    world.update("A", tags=())
    world.delete("B")
    world.insert("B", tags=("a", "b"))
    assert said(world)[0] == {"tags": ("a", "b")}


def test_a_copy_that_names_its_source_waits_for_elements_of_a_set_like_any_other() -> None:
    world = World(entity(TAGS), skew={"B": 5 * SECOND // 2})
    world.insert("A", Copy(from_source="B"), tags=("a", "b"))
    world.update("A", tags=())
    world.insert("B", tags=("a", "b"))
    assert said(world)[0] == {"tags": ()}


def test_crossed_copies_of_a_first_snapshot_and_a_first_insert_are_still_a_question() -> None:
    world = held(PHONE, "0")
    world.insert("B", phone="1")
    world.update("A", MARKED, phone="1")
    world.update("A", MARKED, phone="0")
    assert said(world)[1] == {("phone", "concurrent_insert", frozenset({("A", "0"), ("B", "1")}))}


def test_a_late_copy_of_a_seen_write_leaves_a_first_snapshot_that_an_insert_has_met() -> None:
    world = held(FieldPlan("phone", agreement="past"), "0")
    world.insert("B", phone="1")
    world.update("B", phone="2")
    world.update("A", phone="1")
    assert said(world)[1] == {("phone", "concurrent_insert", frozenset({("A", "0"), ("B", "2")}))}


def test_a_late_copy_of_an_overwritten_write_puts_it_back() -> None:
    world = World(entity(FieldPlan("phone", agreement="past")))
    world.insert("A", phone="1")
    world.update("A", MARKED, phone="0")
    world.insert("B", phone="1")
    assert said(world)[0] == {"phone": "1"}


def test_a_late_copy_may_be_of_a_decision_that_another_source_held() -> None:
    world = held(FieldPlan("phone", agreement="past"), "0", "1")
    world.decide(phone="1")
    world.update("B", phone="2")
    world.update("A", phone="1")
    assert said(world) == ({"phone": "2"}, set())


def test_a_value_that_came_by_a_copy_of_nothing_known_is_no_write_to_be_late_for() -> None:
    world = held(FieldPlan("phone", agreement="past"), "0", "0")
    world.update("A", MARKED, phone="5")
    world.update("A", phone="1")
    world.wait(10)
    world.update("B", phone="5")
    assert said(world)[1] == {("phone", "concurrent_update", frozenset({("A", "1"), ("B", "5")}))}


def test_a_null_map_that_an_update_sends_again_is_no_write_and_holds_no_key_as_absent() -> None:
    world = held(PROFILE, None, None)
    world.update("A", prefs=Json('{"city":"x"}'))
    world.full_old = False
    world.update("B")
    assert world.changes[-1].fields
    assert said(world) == ({"prefs": Json('{"city":"x"}')}, set())


def test_a_null_map_of_a_re_insert_clears_every_key() -> None:
    world = held(PROFILE, Json('{"zip":"a"}'), Json('{"zip":"a"}'))
    world.delete("A")
    world.update("B", prefs=Json('{"zip":"b"}'))
    world.insert("A", prefs=None)
    assert said(world)[1] == {("prefs.zip", "concurrent_update", frozenset({("A", UNKNOWN), ("B", "b")}))}


def test_sources_that_lack_a_key_agree_and_have_seen_each_others_inserts() -> None:
    world = World(entity(PROFILE))
    world.insert("A", prefs=Json("{}"))
    world.insert("B", prefs=Json('{"seat":"a"}'))
    world.update("A", prefs=Json('{"zip":"1"}'))
    world.update("B", prefs=Json('{"seat":"a","zip":"2"}'))
    assert said(world)[1] == {("prefs.zip", "concurrent_update", frozenset({("A", "1"), ("B", "2")}))}


def test_a_count_from_a_base_that_no_source_sent_is_an_unknown_delta() -> None:
    world = World(entity(POINTS), full_old=False)
    world.rows = {"A": {"points": 5}, "B": {"points": 20}}
    world.update("A", points=6)
    assert ("points", "unknown_base", frozenset({("A", 6)})) in said(world)[1]


def test_an_update_that_says_nothing_is_not_the_first_edit_of_a_row_that_a_copy_brought_back() -> None:
    world = World(entity(PHONE, sources="ABC"))
    for source in "ABC":
        world.snapshot(source, phone="0")
    world.delete("A")
    world.delete("B", MARKED)
    world.insert("B", MARKED, phone="0")
    world.update("B")
    world.update("C", phone="1")
    assert {kind for _, kind, _ in said(world)[1]} == {"update_delete"}


def test_a_map_that_was_null_comes_to_lack_a_key_without_writing_that_it_does() -> None:
    world = held(PROFILE, None, None)
    world.update("A", prefs=Json('{"zip":"1"}'))
    world.update("B", prefs=Json('{"city":"x"}'))
    assert said(world) == ({"prefs": Json('{"city":"x","zip":"1"}')}, set())


def test_types_that_join_keep_what_a_copied_delete_had_not_seen() -> None:
    world = held(FieldPlan("level", merge="max"), 5, 5, 5)
    world.update("A", level=9)
    world.delete("B")
    world.delete("A", MARKED)
    world.update("C", level=7)
    assert said(world)[0] == {"level": 9}


def test_a_delete_that_its_copy_waited_for_overwrites_what_the_copy_took_away() -> None:
    world = World(entity(PHONE, sources="ABC"))
    for source in "ABC":
        world.snapshot(source, phone="0")
    world.update("A", phone="1")
    world.update("C", phone="2")
    world.delete("A", MARKED)
    world.delete("B")
    assert {kind for _, kind, _ in said(world)[1]} == {"update_delete"}
    assert said(world)[0] == {"phone": "2"}


def test_an_edit_on_a_copy_goes_back_to_the_insert_that_the_copy_waited_for() -> None:
    world = World(entity(PHONE, sources="ABC"), skew={"B": 5 * SECOND // 2})
    world.snapshot("A", phone="0")
    world.insert("C", MARKED, phone="1")
    world.update("C", phone="2")
    world.insert("B", phone="1")
    assert said(world)[1] == {("phone", "concurrent_insert", frozenset({("A", "0"), ("C", "2")}))}


def test_a_copy_that_names_its_source_repeats_every_write_of_its_value_too() -> None:
    world = held(PHONE, "0", "0", "0")
    world.update("A", phone="1")
    world.update("C", Copy(from_source="B"), phone="1")
    world.update("C", phone="2")
    assert said(world) == ({"phone": "2"}, set())


def test_a_question_that_copies_cross_leaves_no_trace() -> None:
    world = held(PHONE, "0", "0", "0")
    world.update("A", phone="1")
    world.update("B", phone="2")
    world.update("B", MARKED, phone="1")
    world.update("A", MARKED, phone="2")
    record = fold(world.plan, world.changes)
    assert [write.value for write in record.unit_states["phone"].lost_updates] == []
    assert said(world)[1] == {("phone", "concurrent_update", frozenset({("A", "1"), ("B", "2")}))}


def test_what_a_copy_lists_and_leaves_alone_did_not_come_from_its_source() -> None:
    world = World(entity(PHONE, FieldPlan("name")))
    for source in "AB":
        world.snapshot(source, phone="0", name="n")
    world.update("A", phone="1")
    world.full_old = False
    world.update("B", Copy(from_source="A"), name="m")
    world.update("B", phone="2")
    assert said(world)[1] == {("phone", "concurrent_update", frozenset({("A", "1"), ("B", "2")}))}


def test_a_marked_insert_of_what_all_others_hold_is_the_consensus_value() -> None:
    world = held(PHONE, "0", "0", "0")
    world.update("A", phone="1")
    world.delete("C", MARKED)
    world.delete("A", MARKED)
    world.insert("C", MARKED, phone="0")
    assert said(world)[0] == {"phone": "0"}


def test_an_edit_has_seen_every_first_snapshot_that_equals_what_it_was_made_on() -> None:
    world = World(entity(FieldPlan("phone", agreement="off"), sources="ABC"))
    world.snapshot("A", phone="0")
    world.update("A", phone="2")
    world.snapshot("B", phone="0")
    world.insert("C", phone="0")
    assert said(world)[1] == {("phone", "concurrent_insert", frozenset({("A", "2"), ("C", "0")}))}


def test_a_first_snapshot_brings_new_elements_into_a_set_that_others_wrote() -> None:
    world = World(entity(TAGS))
    world.insert("A", tags=("a",))
    world.snapshot("B", tags=("b",))
    assert said(world)[0] == {"tags": ("a", "b")}


def test_a_first_snapshot_brings_back_nothing_that_was_taken_out_of_a_set() -> None:
    world = World(entity(TAGS))
    world.snapshot("A", tags=("a", "b"))
    world.update("A", tags=("a",))
    world.snapshot("B", tags=("a", "b"))
    assert said(world)[0] == {"tags": ("a",)}
