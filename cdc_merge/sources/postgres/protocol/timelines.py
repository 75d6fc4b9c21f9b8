"""Timelines: which timeline wrote an LSN. A place has that one, not the server's current one (semantics §2). Pure.

The server's history file (`TIMELINE_HISTORY`) has one line for each timeline before the current one:
its number, the LSN where it ended, a reason.
"""

from __future__ import annotations

from typing import NamedTuple

from cdc_merge.model import lsn_from_text


class Timelines(NamedTuple):
    """`ends` are (timeline, LSN where it ended) of the earlier timelines, oldest first."""

    current: int
    ends: tuple[tuple[int, int], ...] = ()

    def of(self, lsn: int) -> int:
        """The timeline that wrote the record ending at `lsn`."""
        for timeline, end in self.ends:
            if lsn <= end:
                return timeline
        return self.current

    def has(self, timeline: int, lsn: int) -> bool:
        """Whether a record that ends at `lsn` on `timeline` is part of this server's history."""
        return self.of(lsn) == timeline


def read_history(current: int, content: bytes) -> Timelines:
    """Read a timeline history file; other lines are skipped, like comments."""
    ends: list[tuple[int, int]] = []
    for line in content.decode(errors="replace").splitlines():
        words = line.split("\t")
        try:
            ends.append((int(words[0]), lsn_from_text(words[1])))
        except (ValueError, IndexError):
            continue
    return Timelines(current, tuple(ends))
