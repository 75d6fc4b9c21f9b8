"""Forgetting changes nothing: cells compacted after every write say what the full fold says, change by change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.history.order import ordered
from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.fold import advance, fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.views import merged
from cdc_merge.model import UNKNOWN, Change, DetectedConflict, MergedRecord
from cdc_merge.model.plan import EntityPlan, FieldPlan
from tests.laws.test_fold_equals_oracle import story
from tests.laws.worlds import ALPHABETS, SKEWS, USUAL, World, alphabet_steps, perform, scripts, small_worlds
from tests.laws.worlds import entity as entity_of

RARE = ("truncate", "late_copy", "named_copy", "marked_from", "decide", "decide_delete")
ALONE = 5
LATER = ("edit", "insert", "marked", "unmarked", "delete", "named_copy", "decide", "truncate")


@pytest.fixture(autouse=True, params=[0, 3], ids=["always", "often"])
def compact_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction after every write, and after every few: what survives one is met by the next."""
    monkeypatch.setattr("cdc_merge.merge.record_state.COMPACT_AT", request.param)


def said(record: Record) -> tuple[MergedRecord, tuple[DetectedConflict, ...]]:
    return merged(record), merge_conflicts(record)


def check(entity: EntityPlan, changes: Sequence[Change]) -> None:
    assert said(fold(entity, changes, compacts=True)) == said(fold(entity, changes)), story(changes)


def check_advanced(entity: EntityPlan, changes: Sequence[Change], split: int) -> None:
    """A fold of the first `split` changes, advanced by the others one by one."""
    history = ordered(changes)
    record = fold(entity, history[:split], compacts=True)
    record.key = history[0].key
    for change in history[split:]:
        assert advance(record, change)
        merge_conflicts(record)
    assert said(record) == said(fold(entity, history)), story(history)


def worlds(merge_type: str) -> Iterator[tuple[EntityPlan, list[Change]]]:
    yield from small_worlds(merge_type, depth=2, kinds=(*USUAL, *RARE))
    yield from small_worlds(merge_type, depth=2, sources="ABC", skews=(0,))


@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_a_compacting_fold_says_what_the_full_fold_says_in_every_small_world(merge_type: str) -> None:
    for entity, changes in worlds(merge_type):
        check(entity, changes)


@pytest.mark.parametrize("merge_type", ALPHABETS)
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_compacting_fold_says_what_the_full_fold_says_in_longer_stories(merge_type: str, data: st.DataObject) -> None:
    entity, changes = data.draw(scripts(merge_type, max_steps=25))
    if changes:
        check(entity, changes)
        check_advanced(entity, changes, data.draw(st.integers(0, len(changes))))


def written_alone(merge_type: str, *, full_old: bool) -> Iterator[tuple[EntityPlan, list[Change]]]:
    """One source writes on alone, then two things happen, then it goes on."""
    alphabet = ALPHABETS[merge_type]
    plan, start = alphabet.entity(), alphabet.row(alphabet.start)
    values = [*alphabet.values, alphabet.start]
    edits = [("edit", "A", alphabet.row(value)) for value in islice(cycle(values), ALONE)]
    later = alphabet_steps(alphabet, "AB", LATER)
    begins, skews = (("snapshot", "insert"), SKEWS[:2]) if full_old else (("snapshot",), SKEWS[:1])
    for begin, skew, two in product(begins, skews, product(later, repeat=2)):
        world = World(plan, skew={"B": skew}, full_old=full_old)
        for step in ((begin, "A", start), *edits, *two, *edits[: len(values)]):
            perform(world, [step])
        yield plan, world.changes


@pytest.mark.parametrize("compact_at", [3], indirect=True, ids=["often"])
@pytest.mark.parametrize("full_old", [True, False])
@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_whoever_comes_after_a_source_that_wrote_alone_finds_what_the_full_fold_says(
    merge_type: str, full_old: bool
) -> None:
    for plan, changes in written_alone(merge_type, full_old=full_old):
        check_advanced(plan, changes, 1)


def test_the_parts_of_a_counter_that_one_source_counts_alone_add_up() -> None:
    world = World(entity_of(FieldPlan("f", "counter", value_type="integer")))
    world.snapshot("A", f=10)
    for number in range(11, 31):
        world.update("A", f=number)
    world.insert("B", f=5)
    world.update("A", f=40)
    check_advanced(world.plan, world.changes, 1)
    assert UNKNOWN not in merged(fold(world.plan, world.changes, compacts=True)).values.values()


def test_an_unknown_delta_stays_a_question_however_often_its_cell_is_compacted() -> None:
    world = World(entity_of(FieldPlan("f", "counter"), FieldPlan("g")), full_old=False)
    world.rows["A"] = {"f": 1, "g": "0"}
    for number in range(2, 5):
        world.changes.append(_with_unknown_base(world, number))
    asked = [q for q in merge_conflicts(fold(world.plan, world.changes, compacts=True)) if q.kind == "unknown_base"]
    assert asked == [q for q in merge_conflicts(fold(world.plan, world.changes)) if q.kind == "unknown_base"]


def test_deltas_that_add_up_to_nothing_still_stand_beside_a_null_that_had_not_seen_them() -> None:
    world = World(entity_of(FieldPlan("f", "counter")))
    world.snapshot("A", f=1)
    world.snapshot("B", f=1)
    world.update("A", f=3)
    world.update("A", f=1)
    world.update("A", f=None)
    world.update("B", f=None)
    assert merged(fold(world.plan, world.changes)).values == {"f": 0}
    check(world.plan, world.changes)


def _with_unknown_base(world: World, number: int) -> Change:
    """An update from an unknown value, of a field that was unchanged TOAST until then."""
    change = world.update("A", f=number)
    world.changes.pop()
    return change._replace(fields={"f": (UNKNOWN, number)})
