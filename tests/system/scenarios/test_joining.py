"""Types that join concurrent work by themselves: counters, sets, maps, lattices; and groups, which never do."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.system.scenarios.incident import Incident

Begin = Callable[..., Incident]

ALL_THREE = ("crm", "erp", "finance")


def test_06_two_decrements_of_ten_make_eight_also_after_eight_is_copied_back(incident: Begin) -> None:
    it = incident(fields={"points": "counter"}, held={"C1": {"points": 10}})
    it.crm.add("C1", points=-1)
    it.erp.add("C1", points=-1)
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"points": "8"}
    it.crm.copies("C1", points=8)
    it.erp.copies("C1", points=8)
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"points": "8"}


def test_07_a_counter_below_its_bound_is_a_conflict_and_its_value_is_not_clamped(incident: Begin) -> None:
    it = incident(fields={"points": {"merge": "counter", "min": 0}}, held={"C1": {"points": 1}})
    it.crm.add("C1", points=-1)
    it.erp.add("C1", points=-1)
    said = it.answers()
    assert (said.conflict.kind, said.conflict.provisional) == ("bound", "-1")
    assert said.merged() == {"points": "-1"}


def test_08_money_is_counted_exactly(incident: Begin) -> None:
    it = incident(fields={"balance": "counter"}, held={"C1": {"balance": 1000}, "C2": {"balance": 1000}})
    it.crm.add("C1", balance=-1000)
    it.erp.add("C1", balance=-1000)
    for _ in range(10):
        it.crm.add("C2", balance=Decimal("0.1"))
        it.erp.add("C2", balance=Decimal("0.1"))
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged("C1") == {"balance": "-1000"}
    assert said.merged("C2") == {"balance": "1002.0"}


def test_09_a_first_number_where_there_was_none_is_a_set_and_conflicts_with_a_delta(incident: Begin) -> None:
    differing = {"crm": {"C1": {"points": 0}}, "erp": {"C1": {"points": None}}}
    it = incident(fields={"points": "counter"}, differing=differing)
    it.crm.add("C1", points=5)
    it.erp.update("C1", points=3)
    said = it.answers()
    assert (said.conflict.kind, said.conflict.provisional) == ("concurrent_update", "8")


def test_10_tags_merge_one_by_one(incident: Begin) -> None:
    it = incident(fields={"tags": "set"}, held={"C1": {"tags": ["a"]}}, systems=ALL_THREE)
    it.crm.update("C1", tags=["a", "b"])
    it.erp.update("C1", tags=[])
    it.finance.update("C1", tags=["a", "b"])
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"tags": ["b"]}


def test_11_copies_do_not_bring_back_a_removed_tag(incident: Begin) -> None:
    it = incident(fields={"tags": "set"}, held={"C1": {"tags": ["a"]}}, systems=ALL_THREE)
    it.crm.update("C1", tags=["a", "x"])
    it.erp.copies("C1", tags=["a", "x"])
    it.finance.copies("C1", tags=["a", "x"])
    it.crm.update("C1", tags=["a"])
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"tags": ["a"]}


@pytest.mark.parametrize(("wins", "left"), [("add", ["x"]), ("remove", [])])
def test_12_a_tag_removed_and_added_again_against_a_removal_elsewhere(
    incident: Begin, wins: str, left: list[str]
) -> None:
    it = incident(fields={"tags": {"merge": "set", "wins": wins}}, held={"C1": {"tags": ["x"]}})
    it.crm.update("C1", tags=[])
    it.crm.update("C1", tags=["x"])
    it.erp.update("C1", tags=[])
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"tags": left}


def test_13_a_profile_merges_key_by_key_and_conflicts_only_at_the_key_that_both_changed(incident: Begin) -> None:
    held = {"C1": {"profile": {"city": "a", "zip": "1"}}, "C2": {"profile": {"city": "a"}}}
    it = incident(fields={"profile": "map"}, held=held)
    it.crm.update("C1", profile={"city": "b", "zip": "1"})
    it.erp.update("C1", profile={"city": "a", "zip": "2"})
    it.crm.update("C2", profile={"city": "b"})
    it.erp.update("C2", profile={"city": "c"})
    said = it.answers()
    assert said.merged("C1") == {"profile": {"city": "b", "zip": "2"}}
    assert (said.conflict.key, said.conflict.field, said.conflict.kind) == ("C2", "profile.city", "concurrent_update")
    assert said.conflict.by_source == {"crm": "b", "erp": "c"}


def test_14_the_further_stage_wins_and_incomparable_stages_are_a_conflict(incident: Begin) -> None:
    chain = {"merge": "lattice", "order": ["draft", "confirmed", "shipped"]}
    graph = {"merge": "lattice", "order": {"draft": ["confirmed", "cancelled"], "confirmed": ["shipped"]}}
    it = incident(fields={"stage": chain, "state": graph}, held={"C1": {"stage": "draft", "state": "draft"}})
    it.crm.update("C1", stage="shipped", state="cancelled")
    it.erp.update("C1", stage="confirmed", state="shipped")
    said = it.answers()
    assert said.merged() == {"stage": "shipped", "state": "shipped"}
    assert (said.conflict.field, said.conflict.by_source) == ("state", {"crm": "cancelled", "erp": "shipped"})


def test_15_an_address_is_never_put_together_from_two_systems(incident: Begin) -> None:
    it = incident(
        fields={"city": "mv", "street": "mv"},
        held={"C1": {"city": "c", "street": "s"}},
        entity={"groups": {"address": {"fields": ["city", "street"], "merge": "mv"}}},
    )
    it.crm.update("C1", street="s1")
    it.erp.update("C1", city="c2")
    said = it.answers()
    assert (said.conflict.kind, said.conflict.field) == ("concurrent_update", "address")
    assert said.conflict.by_source == {"crm": {"city": "c", "street": "s1"}, "erp": {"city": "c2", "street": "s"}}
    assert said.merged() == {"city": "c2", "street": "s"}
