"""The law suite can fail: each plausible mistake in a merge type is caught by the very law that judges the real one.

That the law holds for the real type in every world, the law itself says (test_fold_equals_oracle.py); here only in the
world that showed the mistake.

And it judges all of them: a merge type without small worlds, or without a mistake that they catch, fails here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Final, NamedTuple

import pytest

from cdc_merge.merge.types import TYPES
from tests.laws.equivalence import WORLDS, Case, check
from tests.laws.mistakes import MISTAKES, Mistake
from tests.laws.worlds import ALPHABETS

# A map has no state and a group no type: they are merged by TYPES, one value at a time.
EVERY_TYPE: Final = {*TYPES, "map", "group"}


class Law(NamedTuple):
    """An implementation and the worlds in which it answers like the full fold."""

    implementation: str
    worlds: Callable[[str], Iterator[Case]]

    def holds(self, worlds: Iterable[Case]) -> None:
        for entity, changes in worlds:
            check(self.implementation, entity, changes)


LAWS: Final[Mapping[str, Law]] = {
    "oracle": Law("oracle", WORLDS["three sources"]),
    "deeper": Law("oracle", WORLDS["two sources, three steps"]),
    "order": Law("shuffled", WORLDS["two sources, two steps"]),
}


def merge_of(alphabet: str) -> str:
    plan = ALPHABETS[alphabet].plan
    return "group" if plan.members else plan.merge


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.alphabet}: {mistake.sentence}")
def test_the_law_fails_for_the_mistake_in_a_world_in_which_it_holds_for_the_real_type(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch
) -> None:
    law, judged = LAWS[mistake.law], list[Case]()

    def watched() -> Iterator[Case]:
        for world in law.worlds(mistake.alphabet):
            judged.append(world)
            yield world

    with monkeypatch.context() as mistaken:
        owner, name, wrong = mistake.swap
        if isinstance(owner, MutableMapping):
            mistaken.setitem(owner, name, wrong)
        else:
            mistaken.setattr(owner, name, wrong)
        with pytest.raises(AssertionError):
            law.holds(watched())
    assert judged
    law.holds(judged[-1:])


def test_every_merge_type_has_small_worlds_of_its_own() -> None:
    assert {merge_of(alphabet) for alphabet in ALPHABETS} == EVERY_TYPE


def test_of_every_merge_type_a_mistake_is_caught() -> None:
    assert {merge_of(mistake.alphabet) for mistake in MISTAKES} == EVERY_TYPE


@pytest.mark.parametrize("wins", ["add", "remove"])
def test_both_kinds_of_sets_are_mistaken(wins: str) -> None:
    plans = [ALPHABETS[mistake.alphabet].plan for mistake in MISTAKES]
    assert any(plan.merge == "set" and plan.options.get("wins", "add") == wins for plan in plans)
