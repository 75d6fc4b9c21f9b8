"""The time and size limits of one reader: arguments with defaults, so that a test passes its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cdc_merge.sources.postgres.protocol.transactions import MAX_TRANSACTION_ROWS


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """`…_s` are seconds.

    `connect_s`: libpq's connect_timeout, unless the DSN has one. `answer_s`: a query; queries of a catalog take milliseconds,
    so a server silent for so long is gone or stuck. `row_s`: the next row of a copy; a row filter may have to pass over a large
    table before it finds one. `silence_s`: the stream, which requests a reply four times a second. `health_every_s`: interval of
    the slot's health query. `retry_longest_s`: the longest pause between two attempts. `heartbeat_retry_s`: pause after a
    refused heartbeat. `transaction_rows`: rows of one open transaction, in memory or spilled.
    """

    connect_s: int = 10
    answer_s: float = 60.0
    row_s: float = 900.0
    silence_s: float = 60.0
    health_every_s: float = 5.0
    retry_longest_s: float = 5.0
    heartbeat_retry_s: float = 300.0
    transaction_rows: int = MAX_TRANSACTION_ROWS


DEFAULT_READER_LIMITS: Final = ReaderLimits()
