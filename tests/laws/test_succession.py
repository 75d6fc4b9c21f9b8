"""One source writes on alone, then others come: the short way says what the full fold says, change by change.

Cells are compacted early here, so that few changes lead to the short way; one test counts that it was really taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice, product

import pytest

from cdc_merge.history.order import ordered
from cdc_merge.merge import record as merging
from cdc_merge.merge import succession
from cdc_merge.merge.fold import advance, fold
from cdc_merge.merge.questions import questions
from cdc_merge.merge.reading import merged
from cdc_merge.merge.record import Record
from cdc_merge.model import UNKNOWN, Change, MergedRecord, Question
from cdc_merge.plan import EntityPlan, FieldPlan
from tests.laws.test_fold_equals_oracle import story
from tests.laws.worlds import ALPHABETS, SKEWS, Step, World, alphabet_steps, entity, perform

ALONE = 5
TOLD_ALONE = 8
LATER = ("edit", "insert", "marked", "unmarked", "delete", "named_copy", "decide", "truncate")
ON_THEIR_WAY_OF_THEIR_OWN = {"set", "set_remove", "append", "immutable", "map", "mv_past", "counter"}
"""Types that keep more than writes; the counter of the alphabet has a bound, which is looked at after every change."""


@pytest.fixture(autouse=True)
def compact_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "COMPACT_AT", 2)


def said(record: Record) -> tuple[MergedRecord, tuple[Question, ...]]:
    return merged(record), questions(record)


def stories(merge_type: str, *, full_old: bool) -> Iterator[tuple[EntityPlan, list[Change]]]:
    alphabet = ALPHABETS[merge_type]
    plan = alphabet.entity()
    later = alphabet_steps(alphabet, "AB", LATER)
    values = [*alphabet.values, alphabet.start]
    alone: list[Step] = [("edit", "A", alphabet.row(value)) for value in islice(cycle(values), ALONE)]
    on: list[Step] = [("edit", "A", alphabet.row(value)) for value in values]
    for begin, skew, two in product(
        ("snapshot", "insert")[: 1 + full_old], SKEWS[: 1 + full_old], product(later, repeat=2)
    ):
        world = World(plan, skew={"B": skew}, full_old=full_old)
        perform(world, [(begin, "A", alphabet.row(alphabet.start))])
        for step in (*alone, *two, *on):
            perform(world, [step])
        yield plan, world.changes


def check(plan: EntityPlan, changes: Sequence[Change]) -> None:
    history = ordered(changes)
    record = fold(plan, history[:1], compacts=True)
    record.key = history[0].key
    for change in history[1:]:
        assert advance(record, change)
    assert said(record) == said(fold(plan, history)), story(history)


@pytest.mark.parametrize("full_old", [True, False])
@pytest.mark.parametrize("merge_type", ALPHABETS)
def test_whoever_comes_after_a_source_that_wrote_alone_finds_what_the_full_fold_says(
    merge_type: str, full_old: bool
) -> None:
    for plan, changes in stories(merge_type, full_old=full_old):
        check(plan, changes)


@pytest.mark.parametrize("merge_type", sorted(set(ALPHABETS) - ON_THEIR_WAY_OF_THEIR_OWN))
def test_a_source_that_writes_alone_takes_the_short_way(merge_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def counting(*event: object) -> bool:
        taken.append(succession.succeeds(*event))  # type: ignore[arg-type]
        return taken[-1]

    monkeypatch.setattr(merging, "succeeds", counting)
    alphabet = ALPHABETS[merge_type]
    world = World(alphabet.entity())
    world.snapshot("A", **alphabet.row(alphabet.start))
    for value in islice(cycle([*alphabet.values, alphabet.start]), TOLD_ALONE):
        world.update("A", **alphabet.row(value))
    fold(world.plan, world.changes, compacts=True)
    assert len(taken) > ALONE
    assert taken == [False, False, *[True] * (len(taken) - 2)]
    taken.clear()
    fold(world.plan, world.changes)
    assert taken == [], "the full fold is the judge and takes no short way"


def test_the_parts_of_a_counter_that_one_source_counts_alone_add_up() -> None:
    plan = entity(FieldPlan("f", merge="counter", value_type="integer"))
    world = World(plan)
    world.snapshot("A", f=10)
    for number in range(11, 31):
        world.update("A", f=number)
    world.insert("B", f=5)
    world.update("A", f=40)
    check(plan, world.changes)
    assert UNKNOWN not in merged(fold(plan, world.changes, compacts=True)).values.values()
