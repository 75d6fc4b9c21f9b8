"""Rules that look at writes: what they catch, until when it is asked, and that no order or restart makes a difference."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import detect
from cdc_merge.conflicts.rules.rulebook import Rulebook, attach_write_rules, rulebooks
from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.merge import rule_hits
from cdc_merge.merge.checkpoint import dump_state, load_state
from cdc_merge.merge.fold import advance, fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import policy_of
from cdc_merge.merge.units import Units
from cdc_merge.model import Change, Copy, DetectedConflict, Json
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, Rule
from tests.laws.worlds import ENTITY, KEY, World, entity

BIG = Rule("big-change", "customer.amount", when="abs(new - old) > 0.05 * old", severity="critical")
AMOUNT = FieldPlan("amount", value_type="decimal")


class Court:
    """An entity, its rules, and records that ask them."""

    def __init__(self, shape: EntityPlan, *rules: Rule) -> None:
        self.plan = ruled(Plan({shape.name: shape}, (), rules))
        self.units = Units(self.plan.entities[ENTITY])
        self.book: Rulebook = rulebooks(self.plan, compile_expression)[ENTITY]
        attach_write_rules({ENTITY: self.units}, {ENTITY: self.book})

    def conflicts_of(self, changes: Sequence[Change]) -> tuple[DetectedConflict, ...]:
        return self.of(fold(self.units, changes))

    def of(self, record: Record) -> tuple[DetectedConflict, ...]:
        return tuple(q for q in detect(record, self.book, 0).conflicts if q.kind == "business_rule")

    def detected_in_any_order(self, changes: Sequence[Change]) -> tuple[DetectedConflict, ...]:
        found = self.conflicts_of(changes)
        for arrived in itertools.islice(itertools.permutations(changes), 200):
            assert self.conflicts_of([*arrived, *arrived[:1]]) == found
        return found


def world(amount: Any = 100, plan: FieldPlan = AMOUNT, **more: FieldPlan) -> World:
    made = World(entity(plan, *more.values()))
    for source in "AB":
        made.snapshot(source, **{plan.name: amount})
    return made


def court(made: World, *rules: Rule) -> Court:
    return Court(made.plan, *(rules or (BIG,)))


def test_31_a_large_change_is_a_conflict_without_any_concurrency_and_a_small_one_is_not() -> None:
    made = world()
    made.update("A", amount=104)
    assert court(made).detected_in_any_order(made.changes) == ()
    made = world()
    made.update("A", actor="wang", amount=120)
    (found,) = court(made).detected_in_any_order(made.changes)
    assert (found.kind, found.field, found.rule, found.severity) == (
        "business_rule",
        "amount",
        "big-change",
        "critical",
    )
    assert (found.base, found.provisional) == (100, 120)
    (candidate,) = found.candidates
    assert (candidate.source, candidate.value, candidate.actor) == ("A", 120, "wang")
    assert candidate.place == made.changes[-1].place


def test_a_later_write_does_not_answer_what_was_caught() -> None:
    made = world()
    made.update("A", amount=120)
    made.update("A", amount=121)
    made.update("A", amount=200)
    (found,) = court(made).detected_in_any_order(made.changes)
    assert [c.value for c in found.candidates] == [120, 200]
    assert (found.base, found.provisional) == (100, 200)


def test_old_is_the_value_at_the_writers_own_source() -> None:
    made = world()
    made.update("A", amount=104)
    made.update("B", amount=106)
    (found,) = court(made).detected_in_any_order(made.changes)
    assert [(c.source, c.value) for c in found.candidates] == [("B", 106)]


def test_without_full_old_rows_old_is_the_last_known_value_at_the_source() -> None:
    made = world()
    made.full_old = False
    made.update("A", amount=120)
    (found,) = court(made).conflicts_of(made.changes)
    assert [c.value for c in found.candidates] == [120]


def test_a_copy_is_no_write() -> None:
    made = world()
    made.update("A", amount=104)
    made.update("B", Copy(), amount=200)
    assert court(made).detected_in_any_order(made.changes) == ()


@pytest.mark.parametrize("amount", [None, 0])
def test_null_and_unknown_operands_make_a_rule_silent(amount: int | None) -> None:
    made = world(amount)
    made.update("A", amount=9 if amount is None else None)
    assert court(made).detected_in_any_order(made.changes) == ()
    made = World(entity(AMOUNT))
    made.insert("A", amount=1_000)
    assert court(made).conflicts_of(made.changes) == ()


def test_what_fails_is_counted_and_catches_nothing() -> None:
    made = world(plan=FieldPlan("amount"))
    made.update("A", amount="much")
    judges = court(made)
    assert judges.conflicts_of(made.changes) == ()
    assert judges.book.tally["big-change", "error"] == 1


def test_a_decision_about_the_field_closes_it_and_a_later_hit_is_a_conflict_again() -> None:
    made = world()
    made.update("A", amount=120)
    made.decide(amount=120)
    assert court(made).conflicts_of(made.changes) == ()
    made.update("A", amount=240)
    (found,) = court(made).conflicts_of(made.changes)
    assert [c.value for c in found.candidates] == [240]


def test_a_decision_about_another_field_answers_nothing() -> None:
    made = world(name=FieldPlan("name"))
    made.update("A", amount=120)
    made.decide(name="x")
    assert len(court(made).conflicts_of(made.changes)) == 1


def test_a_delete_closes_nothing_unless_people_decided_it() -> None:
    made = world()
    made.update("A", amount=120)
    made.delete("B")
    made.delete("A")
    assert [c.value for c in court(made).detected_in_any_order(made.changes)[0].candidates] == [120]
    made.decide_delete()
    assert court(made).conflicts_of(made.changes) == ()


def test_every_rule_raises_its_own_conflict() -> None:
    falls = Rule("falls", "*.amount", when="new < old")
    made = world()
    made.update("A", amount=50)
    made.update("A", amount=49)
    found = court(made, BIG, falls).detected_in_any_order(made.changes)
    assert [(q.rule, q.severity, len(q.candidates)) for q in found] == [
        ("big-change", "critical", 1),
        ("falls", "medium", 2),
    ]


def test_a_group_is_an_object_of_its_members() -> None:
    made = World(entity(FieldPlan("name"), groups=[FieldPlan("address", members=("city", "street"))]))
    made.snapshot("A", name="n", city="x", street="s")
    made.update("A", city="y")
    rule = Rule("moves", "customer.address", when="new.city != old.city")
    (found,) = court(made, rule).conflicts_of(made.changes)
    assert (found.group, [c.value for c in found.candidates]) == ("address", [{"city": "y", "street": "s"}])
    made.update("A", street="t")
    (found,) = court(made, rule).conflicts_of(made.changes)
    assert len(found.candidates) == 1


def test_a_rule_about_one_key_of_a_map_sees_that_key_only() -> None:
    made = World(entity(FieldPlan("prefs", merge="map")))
    made.snapshot("A", prefs=Json('{"a":1,"b":1}'))
    made.update("A", prefs=Json('{"a":9,"b":9}'))
    (found,) = court(made, Rule("a-jumps", "customer.prefs.a", when="new > old + 5")).conflicts_of(made.changes)
    assert (found.field, [c.value for c in found.candidates]) == ("prefs.a", [9])
    made.decide(prefs=Json('{"a":9,"b":9}'))
    assert court(made, Rule("a-jumps", "customer.prefs.a", when="new > old + 5")).conflicts_of(made.changes) == ()


def test_a_counters_candidate_has_the_value_written_and_the_delta() -> None:
    made = world(10, FieldPlan("points", merge="counter", value_type="integer"))
    made.update("A", points=90)
    (found,) = court(made, Rule("gift", "customer.points", when="new - old >= 50")).detected_in_any_order(made.changes)
    assert [(c.value, c.delta) for c in found.candidates] == [(90, 80)]


def test_of_an_undecided_field_the_latest_writes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_hits, "KEPT", 3)
    made = world(1)
    for amount in (2, 4, 8, 16, 32):
        made.update("A", amount=amount)
    (found,) = court(made).conflicts_of(made.changes)
    assert [c.value for c in found.candidates] == [8, 16, 32]


def test_a_checkpoint_made_under_other_rules_is_not_used() -> None:
    shape = entity(AMOUNT)
    rules = ((), (BIG,), (replace(BIG, when="new > old"),), (replace(BIG, on="customer.*"),))
    assert len({policy_of(Plan({ENTITY: shape}, (), several)) for several in rules}) == len(rules)
    graver = replace(BIG, severity="low")
    assert policy_of(Plan({ENTITY: shape}, (), (graver,))) == policy_of(Plan({ENTITY: shape}, (), (BIG,)))


def test_what_was_caught_of_a_field_that_is_mapped_no_more_is_forgotten() -> None:
    made = world(name=FieldPlan("name"))
    made.update("A", amount=120)
    tree = dump_state(fold(court(made).units, made.changes))
    later = load_state(Units(entity(FieldPlan("name"))), tree, key=KEY, max_ahead_us=0)
    assert later.rule_hits == {}
    made.decide(name="x")
    assert advance(later, made.changes[-1])


# ---------------------------------------------------------------- the law


def story(seed: int) -> World:
    chance, made = random.Random(seed), world(name=FieldPlan("name"), points=FieldPlan("points", merge="counter"))
    for _ in range(16):
        source = chance.choice("AB")
        roll = chance.random()
        if roll < 0.1 and source in made.rows:
            made.delete(source)
        elif roll < 0.2:
            made.decide(amount=chance.randint(1, 300))
        else:
            copy = Copy() if chance.random() < 0.2 else None
            made.write(source, copy, amount=chance.randint(1, 300), points=chance.randint(0, 300))
    return made


@pytest.mark.parametrize("seed", range(80))
def test_checkpoints_at_any_point_give_the_same_conflicts(seed: int) -> None:
    made = story(seed)
    judges = court(made, BIG, Rule("points", "customer.*", when="new > 200"))
    expected = judges.conflicts_of(made.changes)
    arrived = random.Random(seed).sample(made.changes, len(made.changes))
    assert judges.conflicts_of([*arrived, *arrived[:3]]) == expected
    going = fold(judges.units, made.changes[:1], compacts=True)
    for change in made.changes[1:]:
        going = load_state(judges.units, dump_state(going), key=KEY, max_ahead_us=going.max_ahead_us)
        assert advance(going, change)
    assert judges.of(going) == expected


def test_the_stories_of_the_law_catch_something() -> None:
    rules = (BIG, Rule("points", "customer.*", when="new > 200"))
    assert (
        sum(len(q.candidates) for n in range(80) for q in court(story(n), *rules).conflicts_of(story(n).changes)) > 100
    )
