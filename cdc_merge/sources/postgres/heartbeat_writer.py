"""When a reader writes a heartbeat into its source, and what it does where it may not.

Rules
- Nothing is written unless it was asked for (`heartbeat:`). A message touches no table and needs no right but EXECUTE.
- A number is used again until the server said that it is committed; where a connection ended before the answer, a new run
  begins, so that a message that never was is not counted as lost.
- Where we may not write (a standby, no right) the idle keepalives go on to move the slot. It is said once, and tried
  again now and then.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from cdc_merge.model.heartbeats import Beat, beat_content

REFUSED_RETRY_S: Final = 300.0


class HeartbeatWriter:
    """`every_s` None: no heartbeats. `say` is told a sentence when writing is refused or allowed again."""

    def __init__(self, slot: str, every_s: float | None, say: Callable[[str], None]) -> None:
        self._slot = slot
        self._every_s = every_s
        self._say = say
        self._next_s = 0.0
        self._run = secrets.token_hex(4)
        self._is_waiting = False
        self.sent = 0  # in this run and those before it
        self._sequence = 0
        self.is_permitted: bool | None = None

    def begin(self) -> None:
        """A connection begins; what an earlier one was not told the end of may or may not be committed."""
        if self._is_waiting:
            self._run, self._sequence, self._is_waiting = secrets.token_hex(4), 0, False

    def due(self, now_s: float) -> bool:
        return self._every_s is not None and not self._is_waiting and now_s >= self._next_s

    def message(self, now_us: int) -> str:
        """The next message's content."""
        return beat_content(Beat(self._slot, self._run, self._sequence + 1, now_us))

    def asked(self) -> None:
        """The message is on its way."""
        self._is_waiting = True

    def answered(self, refusal: str | None, now_s: float) -> None:
        """The server wrote it, or said why not."""
        assert self._every_s is not None, "nothing is asked without an interval"
        self._is_waiting = False
        if refusal is None:
            self._sequence += 1
            self.sent += 1
            self._next_s = now_s + self._every_s
        else:
            self._next_s = now_s + max(self._every_s, REFUSED_RETRY_S)
        if refusal is not None and self.is_permitted is not False:
            self._say(f"may not write heartbeats ({refusal}): its idle keepalives must do")
        elif refusal is None and self.is_permitted is False:
            self._say("may write heartbeats again")
        self.is_permitted = refusal is None
