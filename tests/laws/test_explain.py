"""An explanation in one pass over a history equals that of the full fold, for every write of every small world."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.merge.explain import explain_in_one_pass
from cdc_merge.merge.fold import MAX_AHEAD_US
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.model.plan import FieldPlan
from tests.laws.equivalence import WORLDS, check
from tests.laws.worlds import ALPHABETS, KEY, World, scripts
from tests.laws.worlds import entity as entity_of

BOTH = pytest.mark.parametrize("when", ["always", "often"])


@BOTH
@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_one_pass_explains_every_small_world_as_the_full_fold_does(merge_type: str, when: str) -> None:
    for worlds in ("rare steps", "three sources, equal clocks"):
        for entity, changes in WORLDS[worlds](merge_type):
            check(f"explained, compacting {when}", entity, changes)


@BOTH
@pytest.mark.parametrize("merge_type", ALPHABETS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_pass_explains_longer_stories_as_the_full_fold_does(
    merge_type: str, when: str, data: st.DataObject
) -> None:
    entity, changes = data.draw(scripts(merge_type, max_steps=18))
    if changes:
        check(f"explained, compacting {when}", entity, changes)


def test_of_very_many_writes_the_latest_are_named_and_the_others_counted() -> None:
    world = World(entity_of(FieldPlan("f")))
    world.insert("A", f="0")
    for number in range(1, 40):
        world.update("A", f=str(number))
    record = Record(Units(world.plan), KEY, max_ahead_us=MAX_AHEAD_US, compacts=False)
    writes = explain_in_one_pass(record, world.changes, "f").writes
    assert [len(write.saw) + write.saw_earlier for write in writes] == list(range(40))
    assert writes[-1].saw == tuple(write.stamp for write in writes[29:39])
    assert [write.outcome for write in writes] == ["lost"] * 39 + ["won"]
    assert writes[0].because == f"A had seen it and wrote again at {writes[1].stamp}."
