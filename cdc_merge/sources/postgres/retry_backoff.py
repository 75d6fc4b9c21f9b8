"""When a source is tried again, and when trying again has shown that it does not help.

Rules
- Pauses grow while nothing is reached, and begin anew when the stream moved on or lived for a while: a server that ends
  every stream at once is not asked without pause.
- What cannot be read is read again, since a network may have damaged it; three times at one place, and a person must look.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from cdc_merge.errors import CdcMergeError, ProtocolError, SourceRefused, SourceUnavailable

RETRY_FIRST_S: Final = 0.2
RETRY_LONGEST_S: Final = 5.0
LIVED_S: Final = 30.0  # a connection that held for so long was a good one
UNREADABLE_LIMIT: Final = 3


def retry_delays() -> Iterator[float]:
    """Seconds to wait before each next attempt: doubling, with jitter so that many readers do not come at once."""
    delay = RETRY_FIRST_S
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        delay = min(delay * 2, RETRY_LONGEST_S)


class RetryPolicy:
    """What one source's failed attempts come to. `source` names it in errors."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._delays = retry_delays()
        self._unreadable = 0

    def ended(self, *, has_moved: bool, lived_s: float) -> None:
        """An attempt ended that had delivered something or not, after so many seconds."""
        if has_moved or lived_s >= LIVED_S:
            self._delays = retry_delays()
        if has_moved:
            self._unreadable = 0

    def judged(self, error: CdcMergeError) -> CdcMergeError:
        """The error as the operator is told it: SourceRefused means that it is not tried again."""
        if not isinstance(error, ProtocolError):
            return error
        self._unreadable += 1
        said = f"Source {self._source}: the stream cannot be followed: {error}"
        if self._unreadable < UNREADABLE_LIMIT:
            return SourceUnavailable(said, hint="It is read again from the last whole transaction.")
        return SourceRefused(
            f"{said}, {UNREADABLE_LIMIT} times at the same place; nothing behind it was read.",
            problem="stream_unreadable",
            hint="Connect to the server itself if a proxy or pooler stands in between; else keep the log and report it. "
            f"`cdc-merge source resync {self._source}` goes on with a new first copy.",
        )

    def pause_s(self) -> float:
        return next(self._delays)
