"""Deadlines over stamp time."""

from __future__ import annotations

from cdc_merge.model import RecordKey
from cdc_merge.worker.deadlines import Deadlines

A, B, C = (RecordKey("customer", key) for key in "ABC")


def test_a_deadline_has_passed_when_the_watermark_is_later_than_it() -> None:
    deadlines = Deadlines()
    deadlines.update({A: 10, B: 20})
    assert (deadlines.passed(10, 5), deadlines.is_due(10)) == ([], False)
    assert (deadlines.passed(11, 5), deadlines.is_due(11)) == ([A], True)
    assert deadlines.passed(99, 5) == [A, B]
    assert deadlines.passed(99, 1) == [A]


def test_a_deadline_stays_until_it_is_moved_or_removed() -> None:
    deadlines = Deadlines()
    deadlines.update({A: 10})
    assert deadlines.passed(99, 5) == deadlines.passed(99, 5) == [A]
    deadlines.update({A: 100, B: 30})
    assert deadlines.passed(99, 5) == [B]
    deadlines.update({B: None})
    assert (deadlines.passed(99, 5), len(deadlines), deadlines.get(A), deadlines.get(B)) == ([], 1, 100, None)


def test_a_deadline_that_moves_back_and_forth_is_returned_once() -> None:
    deadlines = Deadlines()
    for due_us in (10, 20, 10, 20, 10):
        deadlines.update({C: due_us})
    assert deadlines.passed(99, 5) == [C]
