"""Rules are functions of history, rules and watermark: order, repetition, compaction and bases change nothing they
ask."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import Detection, detect
from cdc_merge.conflicts.rules.rulebook import Rulebook, rulebooks
from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.history.order import ordered
from cdc_merge.merge import record_state
from cdc_merge.merge.fold import MAX_AHEAD_US, advance, fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.model import Change
from cdc_merge.model.plan import Check, EntityPlan, Plan, Rule
from tests.laws.test_base import through_a_base
from tests.laws.test_fold_equals_oracle import story
from tests.laws.worlds import ENTITY, KEY, SECOND, START_US, small_worlds

KINDS = ("edit", "insert", "marked", "unmarked", "late_copy", "delete")
WATERMARKS = (START_US + 4 * SECOND, START_US + 3600 * SECOND)
ONE_VALUE = "string(record.f) != '2' && string(record.f) != '7'"
CHECKED = {"set": "!('b' in record.f)"} | dict.fromkeys(("mv", "lww", "counter", "immutable"), ONE_VALUE)
RULES = (
    Rule("drift", "customer.f", tolerance_us=2 * SECOND),
    Rule("auto", "*.f", severity="low", auto=(("B",), "earliest")),
    Rule("whole", "customer", severity="critical"),
)


def with_rules(shape: EntityPlan) -> tuple[EntityPlan, Rulebook]:
    """The entity with every rule kind on its one field; only A may write it."""
    guarded = {name: replace(field, writer_sources=("A",)) for name, field in shape.fields.items()}
    checked = replace(shape, fields=guarded, checks=(Check("fit", CHECKED[shape.fields["f"].merge]),))
    plan = ruled(Plan({ENTITY: checked}, (), RULES))
    return plan.entities[ENTITY], rulebooks(plan, compile_expression)[ENTITY]


def said(folded: Record, rulebook: Rulebook) -> list[Detection]:
    return [detect(folded, rulebook, watermark_us) for watermark_us in WATERMARKS]


def incrementally(shape: EntityPlan, changes: Sequence[Change]) -> Record:
    """One change after the other, compacted at once, through a base after each."""
    units = Units(shape)
    going = Record(units, KEY, max_ahead_us=MAX_AHEAD_US, compacts=True)
    for change in ordered(changes):
        going = through_a_base(units, going)
        assert advance(going, change)
    return going


@pytest.mark.parametrize("merge_type", ["mv", "lww", "counter", "set", "immutable"])
def test_what_rules_ask_depends_on_nothing_but_history_rules_and_watermark(
    merge_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_state, "COMPACT_AT", 1)
    dice = random.Random(1)
    kinds: set[str] = set()
    for plain, changes in small_worlds(merge_type, depth=2, kinds=KINDS, skews=(0,)):
        shape, rulebook = with_rules(plain)
        expected = said(fold(shape, changes), rulebook)
        arrived = [*changes, *dice.sample(changes, len(changes) // 2)]
        dice.shuffle(arrived)
        assert said(fold(shape, arrived), rulebook) == expected, story(changes)
        assert said(incrementally(shape, changes), rulebook) == expected, story(changes)
        kinds |= {question.kind for answers in expected for question in answers.conflicts}
    assert {"unauthorized", "divergence", "invariant"} <= kinds
