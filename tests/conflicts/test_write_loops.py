"""A loop is told when values go to and fro between two sources, and nothing that people or joining fields do is one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cdc_merge.conflicts.write_loops import RECORDS, TURN_WITHIN_US, TURNS, WriteLoops
from cdc_merge.model import Change, LoopDetected, Place, Stamp, Value
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan

FIELDS = {"phone": FieldPlan("phone", "mv"), "points": FieldPlan("points", "counter"), "vip": FieldPlan("vip", "flag")}
GROUPS = {"address": FieldPlan("address", members=("city", "street"))}
PLAN = Plan({"customer": EntityPlan("customer", ("crm", "erp"), {}, FIELDS, GROUPS)}, ())
Step = tuple[str, int, dict[str, Value]]


def loops_in(steps: Iterable[Step], key: str = "C1", loops: WriteLoops | None = None) -> list[LoopDetected]:
    """What is told of updates (source, µs, fields) of one record."""
    loops = loops or WriteLoops(PLAN)
    place = Place("1", 1, 1, "t", 0)
    changes = [
        Change("customer", key, Stamp(at_us, 0, source), place, "update", {f: (None, v) for f, v in fields.items()})
        for source, at_us, fields in steps
    ]
    return [loop for change in changes if (loop := loops.observe(change)) is not None]


def alternating(times: int, field: str = "phone", every_us: int = 1_000_000) -> list[Step]:
    return [(("crm", "erp")[n % 2], n * every_us, {field: f"v{n % 2}"}) for n in range(times)]


@pytest.mark.parametrize("field", ["phone", "city"])
def test_alternating_values_are_a_loop_after_ten_turns(field: str) -> None:
    first = 3 + TURNS  # the beginning, and each value once
    assert loops_in(alternating(first - 1, field)) == []
    assert loops_in(alternating(first, field)) == [LoopDetected("customer", "C1", ("erp", "crm"))]
    assert len(loops_in(alternating(first + 3 * TURNS, field))) == 4


@pytest.mark.parametrize("field", ["points", "vip"])
def test_fields_whose_values_come_back_by_themselves_are_no_loop(field: str) -> None:
    assert loops_in(alternating(100, field)) == []


def test_values_that_move_on_are_no_loop() -> None:
    assert loops_in([(("crm", "erp")[n % 2], n, {"phone": f"v{n}"}) for n in range(100)]) == []


def test_one_source_that_toggles_is_no_loop() -> None:
    assert loops_in([("crm", n, {"phone": f"v{n % 2}"}) for n in range(100)]) == []


def test_what_lies_far_apart_is_no_loop() -> None:
    assert loops_in(alternating(100, every_us=TURN_WITHIN_US)) != []
    assert loops_in(alternating(100, every_us=TURN_WITHIN_US + 1)) == []


def test_a_value_that_one_source_rewrites_is_still_a_loop() -> None:
    values = ("a", "a ", "A ")
    assert loops_in([(("crm", "erp")[n % 2], n, {"phone": values[n % 3]}) for n in range(40)]) != []


def test_a_sync_job_that_repeats_what_people_enter_is_no_loop() -> None:
    people: list[Step] = [("crm", 2 * n, {"phone": f"v{n}"}) for n in range(50)]
    job: list[Step] = [("erp", 2 * n + 1, {"phone": f"v{n}"}) for n in range(50)]
    assert loops_in(sorted([*people, *job], key=lambda step: step[1])) == []


def test_what_is_watched_is_bounded() -> None:
    loops = WriteLoops(PLAN)
    loops_in(alternating(TURNS), "C0", loops)
    for number in range(1, RECORDS + 1):
        loops_in([("crm", 1, {"phone": "x"})], f"C{number}", loops)
    assert loops_in(alternating(6), "C0", loops) == []
