"""The law suite can fail: each plausible mistake in a merge type is caught by the very law that judges the real one.

That the law holds for the real type in every world, the law itself says (test_fold_equals_oracle.py); here only in the
world that gave the mistake away.

And it judges all of them: a merge type without small worlds, or without a mistake that they catch, fails here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Final

import pytest

from cdc_merge.merge.types import TYPES
from cdc_merge.model import Change
from cdc_merge.model.plan import EntityPlan
from tests.laws import test_fold_equals_oracle as laws
from tests.laws.mistakes import MISTAKES, Mistake
from tests.laws.worlds import ALPHABETS, small_worlds

# A map is no cell and a group no type: they are merged by TYPES, one value at a time.
EVERY_TYPE: Final = {*TYPES, "map", "group"}

LAWS: Final[Mapping[str, Callable[[str], None]]] = {
    "oracle": laws.test_the_merge_equals_the_oracle_in_every_small_world_of_three_sources,
    "deeper": laws.test_the_merge_equals_the_oracle_in_every_small_world_of_two_sources,
    "order": laws.test_order_and_repetition_of_arrival_change_nothing,
}


def merge_of(alphabet: str) -> str:
    plan = ALPHABETS[alphabet].plan
    return "group" if plan.members else plan.merge


World = tuple[EntityPlan, list[Change]]


class Watched:
    """The small worlds of a law, which remember the last that was judged."""

    def __init__(self) -> None:
        self.last: list[World] = []

    def __call__(self, *shape: Any, **more: Any) -> Iterator[World]:
        for world in small_worlds(*shape, **more):
            self.last = [world]
            yield world


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.alphabet}: {mistake.sentence}")
def test_the_law_fails_for_the_mistake_in_a_world_in_which_it_holds_for_the_real_type(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    monkeypatch.setattr(laws, "small_worlds", watched)
    with monkeypatch.context() as mistaken:
        owner, name, wrong = mistake.swap
        if isinstance(owner, MutableMapping):
            mistaken.setitem(owner, name, wrong)
        else:
            mistaken.setattr(owner, name, wrong)
        with pytest.raises(AssertionError):
            LAWS[mistake.law](mistake.alphabet)
    assert watched.last
    monkeypatch.setattr(laws, "small_worlds", lambda *_, **__: watched.last)
    LAWS[mistake.law](mistake.alphabet)


def test_every_merge_type_has_small_worlds_of_its_own() -> None:
    assert {merge_of(alphabet) for alphabet in ALPHABETS} == EVERY_TYPE


def test_of_every_merge_type_a_mistake_is_caught() -> None:
    assert {merge_of(mistake.alphabet) for mistake in MISTAKES} == EVERY_TYPE


@pytest.mark.parametrize("wins", ["add", "remove"])
def test_both_kinds_of_sets_are_mistaken(wins: str) -> None:
    told = [ALPHABETS[mistake.alphabet].plan for mistake in MISTAKES]
    assert any(plan.merge == "set" and plan.options.get("wins", "add") == wins for plan in told)
