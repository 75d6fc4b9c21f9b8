"""Folding a part of a history into a checkpoint changes no answer, for every merge type: dump, pack, unpack, load, go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cdc_merge.merge import checkpoint_slots
from cdc_merge.merge.divergence_clock import DivergenceClock
from cdc_merge.merge.fold import fold
from cdc_merge.merge.record_state import Record, Row
from cdc_merge.merge.types.orset import Elements
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.merge.writes import SourceState, WaitingCopy, Write
from cdc_merge.model import Copy, Json
from cdc_merge.model.plan import FieldPlan
from tests.laws.equivalence import AT_ONCE, WORLDS, check, names_a_replaced_write, through_a_checkpoint
from tests.laws.worlds import ALPHABETS, World, scripts
from tests.laws.worlds import entity as entity_of

MERGE_TYPES = sorted(ALPHABETS)


@pytest.mark.parametrize("merge_type", MERGE_TYPES)
def test_a_checkpoint_before_every_change_of_a_small_world_changes_no_answer(merge_type: str) -> None:
    for entity, changes in WORLDS["every step"](merge_type):
        check("checkpointed", entity, changes, range(len(changes)))


@pytest.mark.parametrize("merge_type", MERGE_TYPES)
def test_a_checkpoint_before_the_last_change_in_a_world_of_three_sources_changes_no_answer(merge_type: str) -> None:
    for entity, changes in WORLDS["three sources, equal clocks"](merge_type):
        check("checkpointed", entity, changes, [len(changes) - 1])


@pytest.mark.parametrize("merge_type", MERGE_TYPES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_checkpoints_in_longer_stories_change_no_answer(merge_type: str, data: st.DataObject) -> None:
    entity, changes = data.draw(scripts(merge_type, 30))
    assume(not names_a_replaced_write(changes))
    check("checkpointed", entity, changes, data.draw(st.sets(st.integers(0, len(changes)))))


@pytest.mark.xfail(reason="A copy that names a compacted write teaches nothing: needed before write-back (issue 16)")
def test_a_copy_that_names_a_replaced_write_teaches_it_after_compaction_too() -> None:
    world = World(entity_of(FieldPlan("f"), sources="ABC"))
    for source in "ABC":
        world.snapshot(source, f="0")
    named = world.update("C", f="1")
    for value in ("2", "3"):
        world.update("C", f=value)
    world.update("A", Copy(of=(named.place,)), f="1")
    world.update("A", f="4")
    assert names_a_replaced_write(world.changes)
    check("checkpointed", world.plan, world.changes)


def test_a_map_that_was_made_null_is_shown_as_null_also_through_a_checkpoint() -> None:
    plan = entity_of(FieldPlan("f", "map", value_type="json"))
    world = World(plan)
    for source in plan.sources:
        world.snapshot(source, f=Json('{"a":1}'))
        world.update(source, f=None)
    compacting = fold(Units(plan, AT_ONCE), world.changes, compacts=True)
    for record in (fold(plan, world.changes), through_a_checkpoint(compacting)):
        state = merged(record)
        assert state.values == {"f": None}
        assert [view.values for view in state.sources.values()] == [{"f": None}] * 2


# Divergence clocks and elements are written whole, slot by slot.
CLOCK = ("held_since", "replaced", "merged")
ELEMENTS = ("dots", "dropped", "form", "names", "removals", "waiting")
WRITTEN: Mapping[type, Sequence[str]] = {
    Write: checkpoint_slots.WRITE_SLOTS,
    SourceState: checkpoint_slots.SOURCE_SLOTS,
    WaitingCopy: checkpoint_slots.WAITING_SLOTS,
    UnitState: checkpoint_slots.UNIT_SLOTS,
    Row: checkpoint_slots.ROW_SLOTS,
    Record: checkpoint_slots.RECORD_SLOTS,
    DivergenceClock: CLOCK,
    Elements: ELEMENTS,
}


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.__name__)
def test_every_slot_is_written_or_rebuilt(kind: type) -> None:
    rebuilt = checkpoint_slots.REBUILT.get(kind, frozenset())
    assert set(WRITTEN[kind]) | rebuilt == set(kind.__slots__)  # type: ignore[attr-defined]
    assert not set(WRITTEN[kind]) & rebuilt
