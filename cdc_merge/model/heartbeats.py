"""Heartbeats: numbered logical messages that our reader writes into its source and receives in the stream. Pure.

A message that a later one of the same run overtakes never arrives: it is lost, and so may be commits around it. A run is one
reader from start to end; losses before the first message of a source cannot be counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from cdc_merge.model import Message

HEARTBEAT_PREFIX: Final = "cdc_merge.heartbeat"


class Heartbeat(NamedTuple):
    """One message. `sent_us` is our own clock; `slot` identifies its reader: others may read the same server."""

    slot: str
    run: str
    sequence: int
    sent_us: int


def heartbeat_content(beat: Heartbeat) -> str:
    return json.dumps(beat._asdict(), separators=(",", ":"))


def heartbeats_in(messages: Iterable[Message], slot: str) -> Iterator[Heartbeat]:
    """The heartbeats of this slot's readers; an unreadable message is none."""
    for message in messages:
        if message.prefix == HEARTBEAT_PREFIX:
            beat = _read(message.content)
            if beat is not None and beat.slot == slot:
                yield beat


def _read(content: bytes) -> Heartbeat | None:
    try:
        document = json.loads(content)
        run, sequence = str(document["run"]), int(document["sequence"])
        return Heartbeat(str(document["slot"]), run, sequence, int(document["sent_us"]))
    except (ValueError, KeyError, TypeError):
        return None


class HeartbeatGaps:
    """Counts the lost heartbeats of one source: the gaps in its sequence numbers."""

    def __init__(self) -> None:
        self._run = ""
        self._sequence = 0

    def lost_before(self, beat: Heartbeat) -> int:
        """The number of messages lost between the last one and this one."""
        is_first = not self._run
        before = self._sequence if beat.run == self._run else 0
        self._run, self._sequence = beat.run, beat.sequence
        return 0 if is_first else max(0, beat.sequence - before - 1)
