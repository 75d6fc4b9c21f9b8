"""WAL growth rate of a source, and the time until its slot is lost.

A reading is taken at each scrape. At most one is kept every few seconds and none older than the window, so memory is
bounded however often scrapers read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from cdc_merge.model import SourceStatus

WINDOW_S: Final = 900.0
EVERY_S: Final = 5.0
# A rate over a shorter time shows a burst, not the source.
SHORTEST_S: Final = 10.0


class WalRate:
    """`monotonic` returns seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._readings: dict[str, deque[tuple[float, int]]] = {}

    def seconds_left(self, status: SourceStatus) -> float | None:
        """Seconds until the slot is lost at the present rate; infinite without a limit or without growth, None while
        unknown."""
        bytes_a_second = self._bytes_a_second(status.name, status.server_lsn)
        if status.wal_status is None or status.wal_status == "lost":
            return None if status.wal_status is None else 0.0
        if status.safe_bytes is None or bytes_a_second == 0:
            return math.inf
        return None if bytes_a_second is None else max(0.0, status.safe_bytes / bytes_a_second)

    def _bytes_a_second(self, source: str, lsn: int) -> float | None:
        now_s = self._monotonic()
        readings = self._readings.setdefault(source, deque())
        if lsn and (not readings or now_s - readings[-1][0] >= EVERY_S):
            readings.append((now_s, lsn))
        while readings and now_s - readings[0][0] > WINDOW_S:
            readings.popleft()
        if not readings or now_s - readings[0][0] < SHORTEST_S:
            return None
        at_s, first = readings[0]
        return max(0, lsn - first) / (now_s - at_s)
