"""Which records stamp time alone will say something new about, and when: a heap over what the store keeps.

Rules: no clock; whoever owns the timers says how far stamp time has come. What is here was committed with a batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from cdc_merge.model import RecordKey


class Deadlines:
    def __init__(self) -> None:
        self._due: dict[RecordKey, int] = {}
        self._heap: list[tuple[int, RecordKey]] = []

    def __len__(self) -> int:
        return len(self._due)

    def get(self, key: RecordKey) -> int | None:
        """The stamp time (µs) that the record waits for, None when it waits for none."""
        return self._due.get(key)

    def move(self, moved: Mapping[RecordKey, int | None]) -> None:
        """Set, move and (None) remove timers."""
        for key, due_us in moved.items():
            if due_us is None:
                self._due.pop(key, None)
            elif self._due.get(key) != due_us:
                self._due[key] = due_us
                heapq.heappush(self._heap, (due_us, key))

    def passed(self, watermark_us: int, limit: int) -> list[RecordKey]:
        """RecordCache whose time the watermark has passed, at most `limit`. They stay until they are moved."""
        found: dict[RecordKey, int] = {}
        while self._heap and self._heap[0][0] < watermark_us and len(found) < limit:
            due_us, key = heapq.heappop(self._heap)
            if self._due.get(key) == due_us:
                found[key] = due_us
        for key, due_us in found.items():
            heapq.heappush(self._heap, (due_us, key))
        return list(found)

    def is_due(self, watermark_us: int) -> bool:
        """Whether the watermark has passed a timer."""
        return bool(self.passed(watermark_us, 1))
