"""Folding a part of a history into a base changes no answer, for every merge type: save, pack, unpack, restore, go on.

Every cell is compacted as soon as it holds two writes, so that a base has forgotten all that it ever will.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.history.order import ordered
from cdc_merge.merge import checkpoint, compaction, record_state
from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.divergence_clock import DivergenceClock
from cdc_merge.merge.fold import MAX_AHEAD_US, advance, fold
from cdc_merge.merge.record_state import Record, Row
from cdc_merge.merge.types.orset import Elements
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.merge.writes import SourceState, WaitingCopy, Write
from cdc_merge.model import Change, Json
from cdc_merge.model.plan import EntityPlan, FieldPlan
from cdc_merge.stores.row_codec import decode_checkpoint, encode_checkpoint
from tests.laws.test_fold_equals_oracle import story
from tests.laws.worlds import ALPHABETS, KEY, SKEWS, STEPS, World, scripts, small_worlds
from tests.laws.worlds import entity as entity_of

MERGE_TYPES = sorted(ALPHABETS)
EVERY_KIND = sorted({*STEPS} - {"snapshot"})


@pytest.fixture(autouse=True)
def _compacted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_state, "COMPACT_AT", 1)
    monkeypatch.setattr(checkpoint, "SMALL", 0)
    monkeypatch.setattr(compaction, "MANY_INSERTS", 0)


def through_a_base(units: Units, folded: Record) -> Record:
    _, _, tree = decode_checkpoint(encode_checkpoint(1, "policy", checkpoint.dump_state(folded)))
    return checkpoint.load_state(units, tree, key=KEY, max_ahead_us=MAX_AHEAD_US)


def said(folded: Record) -> Any:
    return merged(folded), merge_conflicts(folded)


def answers(entity: EntityPlan, changes: Sequence[Change], cuts: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """After every change: what the full fold says, and what one says that went through a base at each of the cuts."""
    units = Units(entity)
    history = ordered(changes)
    whole = fold(units, ())
    going = through_a_base(units, Record(units, KEY, max_ahead_us=MAX_AHEAD_US, compacts=True))
    whole.key = KEY
    for number, change in enumerate(history):
        if number in cuts:
            going = through_a_base(units, going)
        advance(whole, change)
        advance(going, change)
        yield said(whole), said(going)


@pytest.mark.parametrize("merge_type", MERGE_TYPES)
def test_a_base_before_every_change_of_a_small_world_changes_no_answer(merge_type: str) -> None:
    for entity, changes in small_worlds(merge_type, depth=2, kinds=EVERY_KIND):
        for whole, going in answers(entity, changes, range(len(changes))):
            assert going == whole, story(changes)


@pytest.mark.parametrize("merge_type", MERGE_TYPES)
def test_a_base_anywhere_in_a_small_world_of_three_sources_changes_no_answer(merge_type: str) -> None:
    for entity, changes in small_worlds(merge_type, sources="ABC", depth=2, skews=SKEWS[:1]):
        for whole, going in answers(entity, changes, [len(changes) - 1]):
            assert going == whole, story(changes)


@pytest.mark.parametrize("merge_type", MERGE_TYPES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_bases_in_longer_stories_change_no_answer(merge_type: str, data: st.DataObject) -> None:
    entity, changes = data.draw(scripts(merge_type, 30))
    cuts = data.draw(st.sets(st.integers(0, len(changes))))
    for whole, going in answers(entity, changes, sorted(cuts)):
        assert going == whole, story(changes)


def test_a_map_that_was_made_null_is_shown_as_null_also_through_a_base() -> None:
    plan = entity_of(FieldPlan("f", "map", value_type="json"))
    world = World(plan)
    for source in plan.sources:
        world.snapshot(source, f=Json('{"a":1}'))
        world.update(source, f=None)
    units = Units(plan)
    for going in (fold(units, world.changes), through_a_base(units, fold(units, world.changes, compacts=True))):
        found = merged(going)
        assert found.values == {"f": None}
        assert [view.values for view in found.sources.values()] == [{"f": None}] * 2


# Drifts and elements are written whole, slot by slot.
DRIFT = ("taken", "replaced", "merged")
ELEMENTS = ("dots", "dropped", "form", "names", "removals", "waiting")
SAVED: Mapping[type, Sequence[str]] = {
    Write: checkpoint.WRITE_SLOTS,
    SourceState: checkpoint.SOURCE_SLOTS,
    WaitingCopy: checkpoint.WAITING_SLOTS,
    UnitState: checkpoint.UNIT_SLOTS,
    Row: checkpoint.ROW_SLOTS,
    Record: checkpoint.RECORD_SLOTS,
    DivergenceClock: DRIFT,
    Elements: ELEMENTS,
}


@pytest.mark.parametrize("kind", SAVED, ids=lambda kind: kind.__name__)
def test_every_slot_is_saved_or_made_again(kind: type) -> None:
    remade = checkpoint.REMADE.get(kind, frozenset())
    assert set(SAVED[kind]) | remade == set(kind.__slots__)  # type: ignore[attr-defined]
    assert not set(SAVED[kind]) & remade
