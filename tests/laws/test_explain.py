"""An explanation in one pass over a history says what the full fold says, about every write of every small world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.history.order import ordered
from cdc_merge.merge import write_outcomes
from cdc_merge.merge.explain import explain, explain_in_one_pass
from cdc_merge.merge.fold import MAX_AHEAD_US, fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.model import Change, Explanation
from cdc_merge.model.plan import EntityPlan, FieldPlan
from tests.laws.test_fold_equals_oracle import story
from tests.laws.worlds import ALPHABETS, KEY, USUAL, World, scripts, small_worlds
from tests.laws.worlds import entity as entity_of

RARE = ("truncate", "late_copy", "named_copy", "marked_from", "decide", "decide_delete")


@pytest.fixture(params=[0, 3], ids=["always", "often"])
def compact_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cell forgets after every write, and after every few."""
    monkeypatch.setattr(write_outcomes, "COMPACT_AT", request.param)


def in_one_pass(entity: EntityPlan, changes: Sequence[Change], field: str) -> Explanation:
    record = Record(Units(entity), KEY, max_ahead_us=MAX_AHEAD_US, compacts=False)
    return explain_in_one_pass(record, ordered(changes), field)


def check(entity: EntityPlan, changes: Sequence[Change]) -> None:
    whole = fold(entity, changes)
    names = {*whole.unit_states, *entity.groups} or {*entity.fields}
    for field in sorted(names):
        if field in whole.unit_of or field in whole.units.by_name:
            assert in_one_pass(entity, changes, field) == explain(whole, field), story(changes)


def worlds(merge_type: str) -> Iterator[tuple[EntityPlan, list[Change]]]:
    yield from small_worlds(merge_type, depth=2, kinds=(*USUAL, *RARE))
    yield from small_worlds(merge_type, depth=2, sources="ABC", skews=(0,))


@pytest.mark.usefixtures("compact_at")
@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_one_pass_explains_every_small_world_as_the_full_fold_does(merge_type: str) -> None:
    for entity, changes in worlds(merge_type):
        check(entity, changes)


@pytest.mark.usefixtures("compact_at")
@pytest.mark.parametrize("merge_type", ALPHABETS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_pass_explains_longer_stories_as_the_full_fold_does(merge_type: str, data: st.DataObject) -> None:
    entity, changes = data.draw(scripts(merge_type, max_steps=18))
    write_outcomes.NAMED = 1_000
    try:
        if changes:
            check(entity, changes)
    finally:
        write_outcomes.NAMED = 10


def test_of_very_many_writes_the_latest_are_named_and_the_others_counted() -> None:
    world = World(entity_of(FieldPlan("f")))
    world.insert("A", f="0")
    for number in range(1, 40):
        world.update("A", f=str(number))
    told = in_one_pass(world.plan, world.changes, "f").writes
    assert [len(write.saw) + write.saw_earlier for write in told] == list(range(40))
    assert told[-1].saw == tuple(write.stamp for write in told[29:39])
    assert [write.outcome for write in told] == ["lost"] * 39 + ["won"]
    assert told[0].because == f"A had seen it and wrote again at {told[1].stamp}."
