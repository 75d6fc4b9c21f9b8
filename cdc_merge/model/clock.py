"""Hybrid logical clock (HLC) arithmetic (semantics §2, "Time and causality").

The current time is an argument; nothing here reads a clock.
"""

from __future__ import annotations

from cdc_merge.model import Stamp
from cdc_merge.model.fast_new import fast_new


def tick(last: Stamp, commit_us: int) -> Stamp:
    """The stamp of the change that follows `last` at the same source: never goes back, never repeats."""
    if commit_us > last.wall_us:
        return fast_new(Stamp, (commit_us, 0, last.source))
    return fast_new(Stamp, (last.wall_us, last.counter + 1, last.source))


def cut(commit_us: int, now_us: int, max_ahead_us: int) -> int:
    """A commit time, cut to at most `max_ahead_us` ahead of our own clock. Any time in the past is legal."""
    return min(commit_us, now_us + max_ahead_us)


def received(last: Stamp, seen: Stamp) -> Stamp:
    """The receiving rule of an HLC: a clock that has received `seen` is not earlier than it."""
    if (seen.wall_us, seen.counter) > (last.wall_us, last.counter):
        return Stamp(seen.wall_us, seen.counter, last.source)
    return last
