"""Timers over stamp time."""

from __future__ import annotations

from cdc_merge.model import RecordKey
from cdc_merge.worker.deadlines import Deadlines

A, B, C = (RecordKey("customer", key) for key in "ABC")


def test_a_timer_has_passed_when_the_watermark_is_later_than_it() -> None:
    timers = Deadlines()
    timers.move({A: 10, B: 20})
    assert (timers.passed(10, 5), timers.is_due(10)) == ([], False)
    assert (timers.passed(11, 5), timers.is_due(11)) == ([A], True)
    assert timers.passed(99, 5) == [A, B]
    assert timers.passed(99, 1) == [A]


def test_a_timer_stays_until_it_is_moved_or_removed() -> None:
    timers = Deadlines()
    timers.move({A: 10})
    assert timers.passed(99, 5) == timers.passed(99, 5) == [A]
    timers.move({A: 100, B: 30})
    assert timers.passed(99, 5) == [B]
    timers.move({B: None})
    assert (timers.passed(99, 5), len(timers), timers.get(A), timers.get(B)) == ([], 1, 100, None)


def test_a_timer_that_moves_back_and_forth_is_told_once() -> None:
    timers = Deadlines()
    for due_us in (10, 20, 10, 20, 10):
        timers.move({C: due_us})
    assert timers.passed(99, 5) == [C]
