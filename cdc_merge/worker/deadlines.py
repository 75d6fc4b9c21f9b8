"""Deadlines: records whose conflicts depend on the watermark, ordered by due time.

No clock: due times are stamp times, and the caller passes the watermark. Contains only what a batch has committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, takewhile

from sortedcontainers import SortedList

from cdc_merge.model import RecordKey


class Deadlines:
    def __init__(self) -> None:
        self._due_us: dict[RecordKey, int] = {}
        self._in_order: SortedList[tuple[int, RecordKey]] = SortedList()

    def __len__(self) -> int:
        return len(self._due_us)

    def get(self, key: RecordKey) -> int | None:
        """The record's due time (µs of stamp time), None without one."""
        return self._due_us.get(key)

    def update(self, changed: Mapping[RecordKey, int | None]) -> None:
        """Set, move and (None) remove deadlines."""
        for key, due_us in changed.items():
            before_us = self._due_us.pop(key, None)
            if before_us is not None:
                self._in_order.remove((before_us, key))
            if due_us is not None:
                self._due_us[key] = due_us
                self._in_order.add((due_us, key))

    def passed(self, watermark_us: int, limit: int) -> list[RecordKey]:
        """The first records whose deadline the watermark has passed, at most `limit`. They stay until they are updated."""
        return [key for _, key in takewhile(lambda due: due[0] < watermark_us, islice(self._in_order, limit))]

    def is_due(self, watermark_us: int) -> bool:
        """Whether the watermark has passed a deadline."""
        return bool(self.passed(watermark_us, 1))
