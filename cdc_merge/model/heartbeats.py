"""Heartbeats: logical messages that our own reader writes into its source, numbered, and what their return says. Pure.

A message that a later one of the same run has overtaken never comes: it is lost, and so may be what was committed beside
it. A run is one reader's life; how many messages of a run before the first that we see were lost, nobody can say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from cdc_merge.model import Message

HEARTBEAT_PREFIX: Final = "cdc_merge.heartbeat"


class Heartbeat(NamedTuple):
    """One message. `sent_us` is our own clock at its sending; `slot` says whose it is: others may read the same server."""

    slot: str
    run: str
    sequence: int
    sent_us: int


def heartbeat_content(beat: Heartbeat) -> str:
    return json.dumps(beat._asdict(), separators=(",", ":"))


def heartbeats_in(messages: Iterable[Message], slot: str) -> Iterator[Heartbeat]:
    """The heartbeats of this slot's readers; a message that cannot be read is none."""
    for message in messages:
        if message.prefix == HEARTBEAT_PREFIX:
            beat = _read(message.content)
            if beat is not None and beat.slot == slot:
                yield beat


def _read(content: bytes) -> Heartbeat | None:
    try:
        told = json.loads(content)
        return Heartbeat(str(told["slot"]), str(told["run"]), int(told["sequence"]), int(told["sent_us"]))
    except (ValueError, KeyError, TypeError):
        return None


class HeartbeatGaps:
    """Counts the losses of one source: the numbers that were passed over."""

    def __init__(self) -> None:
        self._run = ""
        self._sequence = 0

    def lost_before(self, beat: Heartbeat) -> int:
        """How many messages between the last one and this one never came."""
        is_first = not self._run
        before = self._sequence if beat.run == self._run else 0
        self._run, self._sequence = beat.run, beat.sequence
        return 0 if is_first else max(0, beat.sequence - before - 1)
