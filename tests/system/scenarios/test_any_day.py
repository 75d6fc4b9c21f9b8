"""Whole working days drawn by lot: whatever people do, every order of arrival and every restart says the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.scenarios.incident import Incident
from tests.system.scenarios.random_work import ENTITY, FIELDS, RandomWork


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("surrogate", [False, True], ids=["the key identifies rows", "an id does"])
def test_40_a_working_day_means_the_same_in_every_order_of_arrival(
    incident: Callable[..., Incident], seed: int, surrogate: bool
) -> None:
    held = {f"C{n}": {"phone": "a", "points": 5, "tags": ["a"], "stage": "draft"} for n in range(1, 7)}
    it = incident(
        fields=FIELDS,
        held=held,
        systems=("crm", "erp", "finance"),
        surrogate=surrogate,
        entity=ENTITY,
    )
    work = RandomWork(it, seed)
    for _ in range(2):
        for _ in range(40):
            work.act()
        kinds = {conflict.kind for conflict in it.answers().open_conflicts}
        assert kinds >= {"concurrent_update", "duplicate"}, "a day without these questions proves little"
