"""The delivery queue counts its bytes, and the time for which it was full."""

from __future__ import annotations

from cdc_merge.model import SnapshotRows
from cdc_merge.sources.delivery_queue import DeliveryQueue


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


ROWS = SnapshotRows("crm", ())


def test_what_waits_is_counted_in_bytes() -> None:
    queue = DeliveryQueue(100, lambda: None)
    queue.put(ROWS, 1, 60)
    assert (queue.size_bytes, queue.is_full) == (60, False)
    queue.take(1)
    assert queue.size_bytes == 0


def test_the_time_of_being_full_adds_up_and_shows_while_it_lasts() -> None:
    clock = Clock()
    queue = DeliveryQueue(100, lambda: None, clock)
    for _ in range(2):
        clock.now_s += 5
        queue.put(ROWS, 1, 100)
        clock.now_s += 2
    assert queue.full_seconds() == 2 + 5 + 2
    queue.take(10)
    clock.now_s += 50
    assert queue.full_seconds() == 9


def test_a_queue_that_is_emptied_is_not_full_any_more() -> None:
    clock = Clock()
    queue = DeliveryQueue(100, lambda: None, clock)
    queue.put(ROWS, 1, 1000)
    clock.now_s += 3
    queue.clear()
    clock.now_s += 3
    assert (queue.size_bytes, queue.full_seconds()) == (0, 3)
