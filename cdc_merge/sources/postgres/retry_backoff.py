"""Retry policy of one source: exponential back-off, and a limit for an unreadable stream.

Rules
- Delays double while nothing is delivered; they start again after progress or after a connection that lasted: a server that
  ends every stream at once is not polled without pause.
- An unreadable stream is read again, since a network may have damaged it; after three times at one position an operator must
  look at it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from cdc_merge.errors import CdcMergeError, ProtocolError, SourceRefused, SourceUnavailable

RETRY_FIRST_S: Final = 0.2
GOOD_CONNECTION_S: Final = 30.0  # a connection that lasted so long was a good one
UNREADABLE_LIMIT: Final = 3


def retry_delays(longest_s: float) -> Iterator[float]:
    """Seconds to wait before each next attempt: doubling, with jitter so that many readers do not come at once."""
    delay = RETRY_FIRST_S
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        delay = min(delay * 2, longest_s)


class RetryPolicy:
    """Classifies the failed attempts of one source. `source` names it in errors."""

    def __init__(self, source: str, longest_s: float) -> None:
        self._source = source
        self._longest_s = longest_s
        self._delays = retry_delays(self._longest_s)
        self._unreadable = 0

    def record_attempt(self, *, has_advanced: bool, lasted_s: float) -> None:
        """Record an attempt: whether it delivered anything, and how long it lasted."""
        if has_advanced or lasted_s >= GOOD_CONNECTION_S:
            self._delays = retry_delays(self._longest_s)
        if has_advanced:
            self._unreadable = 0

    def classified(self, error: CdcMergeError) -> CdcMergeError:
        """The error as the operator sees it: SourceRefused means that the reader does not retry."""
        if not isinstance(error, ProtocolError):
            return error
        self._unreadable += 1
        sentence = f"Source {self._source}: the stream cannot be followed: {error}"
        if self._unreadable < UNREADABLE_LIMIT:
            return SourceUnavailable(sentence, hint="The reader reads it again from the last complete transaction.")
        return SourceRefused(
            f"{sentence}, {UNREADABLE_LIMIT} times at the same position; nothing after it was read.",
            problem="stream_unreadable",
            hint="Connect to the server directly if there is a proxy or pooler in between; else keep the log and report it. "
            f"`cdc-merge source resync {self._source}` continues with a new snapshot.",
        )

    def delay_s(self) -> float:
        return next(self._delays)
