"""Heartbeat writer: when a reader writes a heartbeat into its source.

Rules
- Nothing is written unless it is configured (`heartbeat:`). A message touches no table and needs no privilege but EXECUTE.
- A sequence number is reused until the server has committed it; when a connection ends before the result, a new run begins,
  so that an uncommitted message is not counted as lost.
- Where we may not write (a standby, no privilege), keepalives still advance the slot. This is reported once, and the write is
  retried at long intervals.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from cdc_merge.model.heartbeats import Heartbeat, heartbeat_content


class HeartbeatWriter:
    """`every_s` None: no heartbeats. `report` gets a sentence when writing is refused, or permitted again."""

    def __init__(self, slot: str, every_s: float | None, report: Callable[[str], None], refused_retry_s: float) -> None:
        self._slot = slot
        self._refused_retry_s = refused_retry_s
        self._every_s = every_s
        self._report = report
        self._next_s = 0.0
        self._run = secrets.token_hex(4)
        self._is_waiting = False
        self.sent = 0  # in this run and those before it
        self._sequence = 0
        self.is_permitted: bool | None = None

    def on_connect(self) -> None:
        """Start a new run if the result of an earlier connection's message is unknown."""
        if self._is_waiting:
            self._run, self._sequence, self._is_waiting = secrets.token_hex(4), 0, False

    def is_due(self, now_s: float) -> bool:
        return self._every_s is not None and not self._is_waiting and now_s >= self._next_s

    def message(self, now_us: int) -> str:
        """The content of the next message."""
        return heartbeat_content(Heartbeat(self._slot, self._run, self._sequence + 1, now_us))

    def on_sent(self) -> None:
        """The message was sent; its result is due."""
        self._is_waiting = True

    def on_result(self, refusal: str | None, now_s: float) -> None:
        """The server committed the message, or refused it."""
        assert self._every_s is not None, "nothing is written without an interval"
        self._is_waiting = False
        if refusal is None:
            self._sequence += 1
            self.sent += 1
            self._next_s = now_s + self._every_s
        else:
            self._next_s = now_s + max(self._every_s, self._refused_retry_s)
        if refusal is not None and self.is_permitted is not False:
            self._report(f"may not write heartbeats ({refusal}): keepalives alone advance its slot")
        elif refusal is None and self.is_permitted is False:
            self._report("may write heartbeats again")
        self.is_permitted = refusal is None
