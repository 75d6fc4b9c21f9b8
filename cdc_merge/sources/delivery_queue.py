"""The delivery queue between a reader's thread and the pipeline's thread: bounded in bytes, idle marks coalesced.

In production the taking thread is that of `process/child.py`, which sends on to the worker's process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cdc_merge.model import Delivery, Idle


class _Entry(NamedTuple):
    delivery: Delivery
    rows: int
    size_bytes: int


class DeliveryQueue:
    """`put` by one thread, `take` by another. A delivery's `size_bytes` are the bytes that the server sent for it.

    One delivery may exceed `max_bytes`: a transaction is complete or absent. `on_space` is called after a take that makes a
    full queue accept again. `monotonic` is a clock in seconds.
    """

    def __init__(
        self, max_bytes: int, on_space: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_bytes = max_bytes
        self._on_space = on_space
        self._monotonic = monotonic
        self._full_since_s: float | None = None
        self._full_s = 0.0
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        return self._bytes >= self.max_bytes

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def full_seconds(self) -> float:
        """The total time for which the queue was full and its source had to wait."""
        with self._changed:
            since_s = self._full_since_s
            return self._full_s + (0.0 if since_s is None else self._monotonic() - since_s)

    def _change_size(self, by_bytes: int) -> None:
        self._bytes += by_bytes
        now_s = self._monotonic()
        if self.is_full and self._full_since_s is None:
            self._full_since_s = now_s
        elif not self.is_full and self._full_since_s is not None:
            self._full_s += now_s - self._full_since_s
            self._full_since_s = None

    def put(self, delivery: Delivery, rows: int = 0, size_bytes: int = 0) -> None:
        """Append; an idle mark replaces an idle mark at the end. Never waits: the caller checks `is_full` first."""
        with self._changed:
            last = self._entries[-1].delivery if self._entries else None
            if isinstance(delivery, Idle) and isinstance(last, Idle):
                self._entries.pop()
                delivery = delivery._replace(membership=delivery.membership or last.membership)
            self._entries.append(_Entry(delivery, rows, size_bytes))
            self._change_size(size_bytes)

    def wait_for_space(self, limit_s: float) -> bool:
        """Whether there is space within `limit_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.is_full, limit_s)

    def take(self, limit: int) -> list[Delivery]:
        """Deliveries in order, until `limit` row changes are reached; at least one delivery if there is any."""
        taken: list[Delivery] = []
        rows = 0
        with self._changed:
            was_full = self.is_full
            while self._entries and rows < limit:
                entry = self._entries.popleft()
                taken.append(entry.delivery)
                rows += max(1, entry.rows)
                self._change_size(-entry.size_bytes)
            has_space = was_full and not self.is_full
            if has_space:
                self._changed.notify_all()
        if has_space:
            self._on_space()
        return taken

    def clear(self) -> None:
        with self._changed:
            self._entries.clear()
            self._change_size(-self._bytes)
            self._changed.notify_all()
