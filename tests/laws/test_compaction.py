"""Compaction changes no answer: unit states compacted after every write answer like the full fold, change by change."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.fold import fold
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.merge.writes import CompactionLimits
from cdc_merge.model import UNKNOWN, Change
from cdc_merge.model.plan import FieldPlan
from tests.laws.equivalence import ALWAYS, OFTEN, WORLDS, check
from tests.laws.worlds import ALPHABETS, World, scripts
from tests.laws.worlds import entity as entity_of

# After every write, and after every few: what survives one compaction is met by the next.
BOTH = pytest.mark.parametrize("when", ["always", "often"])
BOTH_LIMITS = pytest.mark.parametrize("limits", [ALWAYS, OFTEN], ids=["always", "often"])


@BOTH
@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_a_compacting_fold_answers_like_the_full_fold_in_every_small_world(merge_type: str, when: str) -> None:
    for worlds in ("rare steps", "three sources, equal clocks"):
        for entity, changes in WORLDS[worlds](merge_type):
            check(f"compacting {when}", entity, changes)


@BOTH
@pytest.mark.parametrize("merge_type", ALPHABETS)
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_compacting_fold_answers_like_the_full_fold_in_longer_stories(
    merge_type: str, when: str, data: st.DataObject
) -> None:
    entity, changes = data.draw(scripts(merge_type, max_steps=25))
    if changes:
        check(f"compacting {when}", entity, changes)
        check(f"advancing, compacting {when}", entity, changes, [data.draw(st.integers(0, len(changes)))])


@pytest.mark.parametrize("worlds", ["one writer, complete old rows", "one writer, no old rows"])
@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_changes_after_a_long_time_with_one_writer_give_what_the_full_fold_gives(merge_type: str, worlds: str) -> None:
    for entity, changes in WORLDS[worlds](merge_type):
        check("advancing, compacting often", entity, changes, [1])


@BOTH_LIMITS
def test_the_deltas_of_a_counter_with_one_writer_add_up(limits: CompactionLimits) -> None:
    world = World(entity_of(FieldPlan("f", "counter", value_type="integer")))
    world.snapshot("A", f=10)
    for number in range(11, 31):
        world.update("A", f=number)
    world.insert("B", f=5)
    world.update("A", f=40)
    check("advancing, compacting " + ("always" if limits == ALWAYS else "often"), world.plan, world.changes, [1])
    compacting = fold(Units(world.plan, limits), world.changes, compacts=True)
    assert UNKNOWN not in merged(compacting).values.values()


@BOTH_LIMITS
def test_an_unknown_delta_stays_a_conflict_however_often_its_unit_is_compacted(limits: CompactionLimits) -> None:
    world = World(entity_of(FieldPlan("f", "counter"), FieldPlan("g")), full_old=False)
    world.rows["A"] = {"f": 1, "g": "0"}
    for number in range(2, 5):
        world.changes.append(_with_unknown_base(world, number))
    compacting = fold(Units(world.plan, limits), world.changes, compacts=True)
    conflicts = [c for c in merge_conflicts(compacting) if c.kind == "unknown_base"]
    assert conflicts == [c for c in merge_conflicts(fold(world.plan, world.changes)) if c.kind == "unknown_base"]


@BOTH
def test_deltas_that_add_up_to_nothing_still_stand_beside_a_null_that_had_not_seen_them(when: str) -> None:
    world = World(entity_of(FieldPlan("f", "counter")))
    world.snapshot("A", f=1)
    world.snapshot("B", f=1)
    world.update("A", f=3)
    world.update("A", f=1)
    world.update("A", f=None)
    world.update("B", f=None)
    assert merged(fold(world.plan, world.changes)).values == {"f": 0}
    check(f"compacting {when}", world.plan, world.changes)


def _with_unknown_base(world: World, number: int) -> Change:
    """An update from an unknown value, of a field that was unchanged TOAST until then."""
    change = world.update("A", f=number)
    world.changes.pop()
    return change._replace(fields={"f": (UNKNOWN, number)})
