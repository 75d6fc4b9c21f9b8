"""Rules that raise questions: who may write, what must hold; which rule a conflict meets; any order of arrival."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import detect
from cdc_merge.conflicts.rules.rulebook import rulebooks
from cdc_merge.conflicts.rules.selection import matches, ruled
from cdc_merge.merge.divergence_clock import REMEMBERED
from cdc_merge.merge.explain import explain
from cdc_merge.merge.fold import fold
from cdc_merge.merge.views import merged
from cdc_merge.model import Change, Copy, DetectedConflict, Json
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, Rule
from tests.laws.worlds import ENTITY, SECOND, World, entity

LIMIT = Check("limit", "record.used <= record.limit", "critical")


def plan_of(shape: EntityPlan, *rules: Rule) -> Plan:
    return ruled(Plan({shape.name: shape}, (), rules))


def conflicts_of(plan: Plan, changes: Sequence[Change], watermark_us: int = 0) -> tuple[DetectedConflict, ...]:
    shape = plan.entities[ENTITY]
    return detect(fold(shape, changes), rulebooks(plan, compile_expression)[ENTITY], watermark_us).conflicts


def detected_in_any_order(plan: Plan, changes: Sequence[Change], watermark_us: int = 0) -> tuple[DetectedConflict, ...]:
    found = conflicts_of(plan, changes, watermark_us)
    assert len(changes) <= 6
    for arrived in itertools.permutations(changes):
        assert conflicts_of(plan, [*arrived, *arrived[:1]], watermark_us) == found
    return found


@pytest.mark.parametrize(
    ("on", "unit", "named"),
    [
        ("customer.phone", "phone", True),
        ("customer.phone", "name", False),
        ("customer.*", "phone", True),
        ("*.phone", "phone", True),
        ("*.*", "phone", True),
        ("order.phone", "phone", False),
        ("customer.prefs", "prefs.city", True),
        ("customer.prefs.city", "prefs.city", True),
        ("customer.prefs.city", "prefs.zip", False),
        ("customer.pref", "prefs", False),
        ("customer", "phone", False),
        ("customer", None, True),
        ("customer.*", None, False),
        ("*", None, True),
    ],
)
def test_a_rule_names_fields_or_the_whole_record(on: str, unit: str | None, named: bool) -> None:
    assert matches(on, "customer", unit) is named


def test_the_first_rule_in_the_file_says_how_grave_a_conflict_is() -> None:
    shape = entity(FieldPlan("phone"), FieldPlan("name", severity="low"), groups=[FieldPlan("g", members=("a", "b"))])
    rules = (
        Rule("drift", "customer.phone", severity="low", tolerance_us=1),
        Rule("phone", "*.phone", severity="critical"),
        Rule("group", "customer.g", auto=("latest",)),
        Rule("rest", "customer.*", severity="high"),
    )
    ruled = plan_of(shape, *rules).entities[ENTITY]
    assert {name: field.severity for name, field in ruled.fields.items()} == {"phone": "critical", "name": "high"}
    assert (ruled.groups["g"].severity, ruled.groups["g"].auto) == ("medium", ("latest",))


def test_a_rule_about_the_entity_says_how_grave_what_concerns_the_whole_record_is() -> None:
    world = World(entity(FieldPlan("phone")))
    world.snapshot("A", phone="0")
    world.snapshot("B", phone="0")
    world.delete("A")
    world.update("B", phone="1")
    (detected,) = conflicts_of(plan_of(world.plan, Rule("gone", "customer", severity="critical")), world.changes)
    assert (detected.kind, detected.severity) == ("update_delete", "critical")


# ---------------------------------------------------------------- invariant


def credit(used: int | None, limit: int | None) -> World:
    world = World(replace(entity(FieldPlan("used"), FieldPlan("limit")), checks=(LIMIT,)))
    world.snapshot("A", used=used, limit=limit)
    world.snapshot("B", used=used, limit=limit)
    return world


def test_a_merged_row_that_no_system_wrote_and_that_violates_a_check_is_a_conflict() -> None:
    world = credit(800, 1000)
    world.update("A", used=950)
    world.update("B", limit=900)
    (detected,) = detected_in_any_order(plan_of(world.plan), world.changes)
    assert (detected.kind, detected.field, detected.group, detected.rule) == ("invariant", None, None, "limit")
    assert (detected.severity, detected.provisional) == ("critical", None)
    assert [(c.source, c.value) for c in detected.candidates] == [("A", {"used": 950}), ("B", {"limit": 900})]


def test_a_mended_record_breaks_no_check() -> None:
    world = credit(800, 1000)
    world.update("A", used=950)
    world.update("B", limit=900)
    world.update("B", limit=1200)
    assert detected_in_any_order(plan_of(world.plan), world.changes) == ()


@pytest.mark.parametrize(("used", "limit"), [(None, 5), (5, None)])
def test_a_check_holds_while_an_operand_is_null(used: int | None, limit: int | None) -> None:
    world = credit(used, limit)
    world.update("A", used=None if used is None else 9)
    assert conflicts_of(plan_of(world.plan), world.changes) == ()


def test_a_first_snapshot_breaks_no_check() -> None:
    assert conflicts_of(plan_of(credit(9, 5).plan), credit(9, 5).changes) == ()


def test_a_check_over_a_group_and_a_map_names_their_writes() -> None:
    shape = entity(FieldPlan("prefs", merge="map"), groups=[FieldPlan("address", members=("city", "street"))])
    check = Check("home", "record.city != 'x' || record.prefs.n < 5")
    world = World(replace(shape, checks=(check,)))
    world.snapshot("A", city="c", street="s", prefs=Json('{"n":1}'))
    world.snapshot("B", city="c", street="s", prefs=Json('{"n":1}'))
    world.update("A", city="x")
    world.update("B", prefs=Json('{"n":7}'))
    (detected,) = detected_in_any_order(plan_of(world.plan), world.changes)
    values = [c.value for c in detected.candidates]
    assert values == [{"city": "x", "street": "s"}, {"prefs.n": 7}]


# ---------------------------------------------------------------- unauthorized


def guarded(**writers: tuple[str, ...]) -> World:
    world = World(entity(FieldPlan("level", severity="low", **writers), FieldPlan("name")))  # type: ignore[arg-type]
    world.snapshot("A", level="1", name="n")
    world.snapshot("B", level="1", name="n")
    return world


def test_a_source_that_may_not_write_a_field_is_named_with_its_write() -> None:
    world = guarded(writer_sources=("A",))
    world.update("B", actor="wang", level="2", name="m")
    plan = plan_of(world.plan, Rule("guard", "customer.level", severity="critical"))
    (detected,) = detected_in_any_order(plan, world.changes)
    assert (detected.kind, detected.field, detected.severity) == ("unauthorized", "level", "critical")
    assert (detected.base, detected.provisional, detected.rule) == ("1", "2", None)
    (caught,) = detected.candidates
    assert (caught.source, caught.value, caught.actor, caught.place) == ("B", "2", "wang", world.changes[-1].place)


def test_only_the_forbidden_write_is_a_candidate_beside_a_rightful_one() -> None:
    world = guarded(writer_sources=("A",))
    world.update("A", level="3")
    world.update("B", level="2")
    concurrent, caught = detected_in_any_order(plan_of(world.plan), world.changes)
    assert [c.source for c in concurrent.candidates] == ["A", "B"]
    assert [c.source for c in caught.candidates] == ["B"]


@pytest.mark.parametrize(("actor", "may"), [("manager", True), ("etl", False), (None, False)])
def test_where_actors_are_listed_no_other_may_write_not_even_an_unknown_one(actor: str | None, may: bool) -> None:
    world = guarded(writer_actors=("manager",))
    world.update("A", actor=actor, level="2")
    assert (conflicts_of(plan_of(world.plan), world.changes) == ()) is may


def test_a_forbidden_write_is_open_until_a_permitted_writer_replaces_it() -> None:
    world = guarded(writer_sources=("A",))
    world.update("B", level="2")
    world.update("A", level="2")
    world.update("A", level="5")
    assert detected_in_any_order(plan_of(world.plan), world.changes) == ()


def test_a_copy_and_a_decision_need_no_right() -> None:
    world = guarded(writer_sources=("A",))
    world.update("A", level="2")
    world.update("B", copy=Copy(), level="2")
    world.decide(level="4")
    assert detected_in_any_order(plan_of(world.plan), world.changes) == ()


def test_a_guarded_map_guards_its_keys() -> None:
    world = World(entity(FieldPlan("prefs", merge="map", writer_sources=("A",))))
    world.snapshot("A", prefs=Json('{"city":"c"}'))
    world.snapshot("B", prefs=Json('{"city":"c"}'))
    world.update("B", prefs=Json('{"city":"d"}'))
    (detected,) = detected_in_any_order(plan_of(world.plan), world.changes)
    assert (detected.kind, detected.field) == ("unauthorized", "prefs.city")


# ---------------------------------------------------------------- divergence

TOLERANCE = 10 * SECOND
DRIFT = Rule("drift", "customer.phone", severity="low", tolerance_us=TOLERANCE)
NEVER = 10**18


def drifting(plan: FieldPlan | None = None, sources: str = "AB", start: object = "0") -> World:
    world = World(entity(plan or FieldPlan("phone", severity="high"), sources=sources))
    for source in sources:
        world.snapshot(source, phone=start)
    return world


def diverged(world: World, watermark_us: int) -> tuple[DetectedConflict, ...]:
    return tuple(q for q in detected_in_any_order(plan_of(world.plan, DRIFT), world.changes, watermark_us) if q.rule)


def values_at_sources(detected: DetectedConflict) -> dict[str, object]:
    return {c.source: c.value for c in detected.candidates}


def test_a_source_may_keep_an_old_value_until_the_tolerance_has_passed_in_stamp_time() -> None:
    world = drifting()
    edit = world.update("A", phone="1")
    assert diverged(world, edit.stamp.wall_us + TOLERANCE) == ()
    (detected,) = diverged(world, edit.stamp.wall_us + TOLERANCE + 1)
    assert (detected.kind, detected.field, detected.rule, detected.severity) == ("divergence", "phone", "drift", "low")
    assert (values_at_sources(detected), detected.provisional, detected.labels) == ({"A": "1", "B": "0"}, "1", ())


@pytest.mark.parametrize("copy", [Copy(), None], ids=["marked", "unmarked"])
def test_a_source_that_catches_up_raises_no_divergence(copy: Copy | None) -> None:
    world = drifting()
    world.update("A", phone="1")
    world.update("B", copy=copy, phone="1")
    assert diverged(world, NEVER) == ()


def test_who_keeps_editing_does_not_move_the_beginning_of_the_others_delay() -> None:
    world = drifting()
    first = world.update("A", phone="1")
    world.wait(8)
    world.update("A", phone="2")
    (detected,) = diverged(world, first.stamp.wall_us + TOLERANCE + 1)
    assert values_at_sources(detected) == {"A": "2", "B": "0"}


def test_a_source_that_takes_an_old_value_late_has_the_tolerance_from_then_on() -> None:
    world = drifting()
    world.update("A", phone="1")
    world.update("A", phone="2")
    world.wait(60)
    taken = world.update("B", copy=Copy(), phone="1")
    assert diverged(world, taken.stamp.wall_us + TOLERANCE) == ()
    assert len(diverged(world, taken.stamp.wall_us + TOLERANCE + 1)) == 1


def test_a_value_that_changed_and_returned_is_no_divergence() -> None:
    world = drifting()
    world.update("A", phone="1")
    world.update("A", phone="0")
    assert diverged(world, NEVER) == ()


def test_a_losing_value_without_a_replacement_counts_only_while_neither_changes() -> None:
    world = drifting(FieldPlan("phone", merge="lww"))
    lost = world.update("B", phone="5")
    world.update("A", phone="6")
    world.wait(8)
    moved = world.update("A", phone="7")
    assert diverged(world, lost.stamp.wall_us + TOLERANCE + 2 * SECOND) == ()
    (detected,) = diverged(world, moved.stamp.wall_us + TOLERANCE + 1)
    assert values_at_sources(detected) == {"A": "7", "B": "5"}


def test_counters_that_both_went_down_differ_from_what_is_merged() -> None:
    world = drifting(FieldPlan("phone", merge="counter"), start=10)
    world.update("A", phone=9)
    world.update("B", phone=9)
    (detected,) = diverged(world, NEVER)
    assert (values_at_sources(detected), detected.provisional) == ({"A": 9, "B": 9}, 8)


def test_no_divergence_is_raised_beside_concurrent_writes_or_a_baseline() -> None:
    world = drifting()
    world.update("A", phone="1")
    world.update("B", phone="2")
    assert diverged(world, NEVER) == ()
    world = drifting()
    world.rows.clear()
    world.changes.clear()
    world.snapshot("A", phone="1")
    world.snapshot("B", phone="2")
    assert diverged(world, NEVER) == ()
    assert [q.labels for q in conflicts_of(plan_of(world.plan, DRIFT), world.changes, NEVER)] == [("baseline",)]


def test_a_null_of_the_first_snapshot_differs_only_from_a_null_that_was_replaced() -> None:
    world = World(entity(FieldPlan("phone")))
    world.snapshot("A", phone="1")
    world.snapshot("B", phone=None)
    assert diverged(world, NEVER) == ()
    world = drifting(start=None)
    world.update("A", phone="1")
    assert [values_at_sources(q) for q in diverged(world, NEVER)] == [{"A": "1", "B": None}]


def test_a_source_with_an_unknown_value_raises_no_divergence() -> None:
    world = World(entity(FieldPlan("phone"), FieldPlan("name")))
    world.rows["B"] = {"phone": "1", "name": "n"}  # read by nobody before
    world.insert("A", phone="2", name="n")
    world.update("B", name="m")
    assert diverged(world, NEVER) == ()


def test_a_source_without_the_row_has_no_value() -> None:
    world = drifting(sources="ABC")
    world.update("A", phone="1")
    world.update("B", phone="1")
    world.delete("C")
    assert diverged(world, NEVER) == ()


def test_a_group_is_timed_as_a_whole() -> None:
    world = World(entity(groups=[FieldPlan("phone", members=("area", "number"))]))
    for source in "AB":
        world.snapshot(source, area="1", number="2")
    world.update("A", number="3")
    (detected,) = diverged(world, NEVER)
    assert (detected.group, values_at_sources(detected)["B"]) == ("phone", {"area": "1", "number": "2"})


def test_the_next_due_time_is_part_of_the_detection() -> None:
    world = drifting()
    edit = world.update("A", phone="1")
    plan = plan_of(world.plan, DRIFT)
    books = rulebooks(plan, compile_expression)
    record = fold(plan.entities[ENTITY], world.changes)
    ends_us = edit.stamp.wall_us + TOLERANCE
    for watermark_us, found, due_us in ((0, 0, ends_us), (ends_us, 0, ends_us), (ends_us + 1, 1, None)):
        answers = detect(record, books[ENTITY], watermark_us)
        assert (len(answers.conflicts), answers.due_us) == (found, due_us)


def test_memory_of_replaced_values_is_bounded_and_keeps_values_that_a_source_holds() -> None:
    world = drifting()
    first = world.update("A", phone="1")
    for number in range(2, 400):
        world.update("A", phone=str(number))
    plan = plan_of(world.plan, DRIFT)
    record = fold(plan.entities[ENTITY], world.changes)
    assert len(record.divergence_clocks["phone"].replaced) <= REMEMBERED
    since = record.divergence_clocks["phone"].since("B", alone=False)
    assert since == first.stamp


# ---------------------------------------------------------------- auto


def concurrent(plan: FieldPlan | None = None, start: object = "0", **values: object) -> World:
    """Every source of `values` writes its own, one after the other, having seen no other's."""
    world = drifting(plan, sources="".join(values), start=start)
    for source, value in values.items():
        world.update(source, phone=value)
    return world


def outcome(world: World, *auto: str | tuple[str, ...]) -> tuple[object, bool]:
    """The merged value in every order of arrival, and whether the question is answered by itself."""
    plan = plan_of(world.plan, Rule("auto", "customer.phone", auto=auto))
    (detected,) = detected_in_any_order(plan, world.changes)
    shape = plan.entities[ENTITY]
    value = merged(fold(shape, world.changes)).values.get("phone")
    assert detected.provisional == value
    answers = detect(fold(shape, world.changes), rulebooks(plan, compile_expression)[ENTITY], 0)
    return value, bool(answers.auto_resolved)


@pytest.mark.parametrize(
    ("auto", "value"),
    [
        (("latest",), "3"),
        (("earliest",), "2"),
        (("max",), "3"),
        (("min",), "1"),
        (("provisional",), "3"),
        ((("D", "A"),), "1"),
        ((("D", "B"), "latest"), "2"),
    ],
)
def test_a_rule_answers_from_the_frontier(auto: tuple[str | tuple[str, ...], ...], value: str) -> None:
    world = drifting(sources="BAC")
    for source, written in (("B", "2"), ("A", "1"), ("C", "3")):
        world.update(source, phone=written)
    assert outcome(world, *auto) == (value, True)


def test_the_outcome_changes_with_the_frontier() -> None:
    world = concurrent(A="1", B="2")
    assert outcome(world, "earliest") == ("1", True)
    world.update("A", phone="4")
    assert outcome(world, "earliest") == ("2", True)


def test_a_chain_continues_where_a_step_has_no_answer_and_raises_a_conflict_where_none_has() -> None:
    world = concurrent(A="1", B="2")
    assert outcome(world, ("C",), "earliest") == ("1", True)
    assert outcome(world, ("C",)) == ("2", False)
    mixed = concurrent(FieldPlan("phone"), start=None, A=Json("[1]"), B=Json("[2]"))
    assert outcome(mixed, "max") == (Json("[2]"), False)


def test_numbers_of_any_kind_have_a_greatest() -> None:
    assert outcome(concurrent(start=0, A=Decimal("2.5"), B=2), "max") == (Decimal("2.5"), True)


@pytest.mark.parametrize("merge", ["counter", "immutable"])
def test_counters_and_immutable_fields_take_no_answer_but_the_provisional_one(merge: str) -> None:
    world = World(entity(FieldPlan("phone", merge=merge)))
    world.insert("A", phone=1)
    world.insert("B", phone=2)
    value, is_answered = outcome(world, "latest", "max")
    assert not is_answered
    assert outcome(world, "provisional") == (value, True)


def test_where_people_decided_no_rule_answers() -> None:
    world = concurrent(A="1", B="2")
    world.decide(phone="3")
    world.update("A", phone="4")
    assert outcome(world, "earliest") == ("4", False)


def test_a_rule_of_a_map_answers_for_its_keys() -> None:
    world = World(entity(FieldPlan("phone", merge="map")))
    for source in "AB":
        world.snapshot(source, phone=Json('{"home":"0"}'))
    world.update("A", phone=Json('{"home":"1"}'))
    world.update("B", phone=Json('{"home":"2"}'))
    plan = plan_of(world.plan, Rule("auto", "*.phone", auto=("earliest",)))
    record = fold(plan.entities[ENTITY], world.changes)
    answers = detect(record, rulebooks(plan, compile_expression)[ENTITY], 0)
    assert merged(record).values == {"phone": '{"home":"1"}'}
    assert answers.auto_resolved == {("phone.home", "concurrent", None)}


def test_an_explanation_says_which_write_the_rule_chose() -> None:
    world = concurrent(A="1", B="2")
    plan = plan_of(world.plan, Rule("auto", "customer.phone", auto=("earliest",)))
    ruled = explain(fold(plan.entities[ENTITY], world.changes), "phone")
    assert [(each.source, each.outcome) for each in ruled.writes] == [("A", "won"), ("B", "lost")]
    assert ruled.value == "1"
    assert str(ruled.writes[0].stamp) in ruled.writes[1].because


def test_expressions_are_counted_by_what_they_gave() -> None:
    world = credit(800, 1000)
    world.update("A", used=1200)
    failing = Check("ratio", "record.used / 0 > 1")
    plan = plan_of(replace(world.plan, checks=(LIMIT, failing)))
    books = rulebooks(plan, compile_expression)
    detect(fold(plan.entities[ENTITY], world.changes), books[ENTITY], 0)
    detect(fold(plan.entities[ENTITY], credit(None, 5).changes), books[ENTITY], 0)
    assert books[ENTITY].tally == {
        ("limit", "false"): 1,
        ("limit", "unknown"): 1,
        ("ratio", "error"): 1,
        ("ratio", "unknown"): 1,
    }


@pytest.mark.parametrize(
    ("rules", "checks", "silent"),
    [
        ((), (), True),
        ((Rule("grave", "customer.phone", severity="high"),), (), True),
        ((), (Check("c", "has(record.phone)"),), False),
        ((DRIFT,), (), False),
        ((Rule("auto", "*.phone", auto=("latest",)),), (), False),
        ((Rule("whole", "customer", severity="high"),), (), False),
    ],
)
def test_an_entity_that_no_rule_speaks_of_costs_nothing_more(
    rules: tuple[Rule, ...], checks: tuple[Check, ...], silent: bool
) -> None:
    plan = plan_of(replace(entity(FieldPlan("phone")), checks=checks), *rules)
    assert rulebooks(plan, compile_expression)[ENTITY].has_no_rules is silent
