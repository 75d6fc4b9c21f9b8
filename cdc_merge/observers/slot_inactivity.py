"""Inactive time of a slot: as its server reports it (version 17 and later), or since a scrape first saw it inactive."""

from __future__ import annotations

from collections.abc import Callable

from cdc_merge.model import SourceStatus


class SlotInactivity:
    """`monotonic` and `wall` return seconds; `wall` since 1970, as the servers' own clocks do."""

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._seen_s: dict[str, float] = {}

    def seconds(self, status: SourceStatus) -> float | None:
        """0 while a client reads the slot, None while its state is unknown."""
        if status.slot_active is not False:
            self._seen_s.pop(status.name, None)
            return None if status.slot_active is None else 0.0
        now_s = self._monotonic()
        seen_s = now_s - self._seen_s.setdefault(status.name, now_s)
        since_us = status.inactive_since_us
        return seen_s if since_us is None else max(seen_s, self._wall() - since_us / 1e6)
