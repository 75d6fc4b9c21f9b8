"""Capture counters: the counts of one source, their label values, and their sum over processes. Pure.

Rules
- A count's key is (figure, label value), "" where the figure has no label. A figure is its metric's name without the prefix;
  label values are closed lists, or tables of the configuration.
- Counts only grow. They travel as a whole with a reader's status, so that a lost report loses nothing; a process that
  replaces another continues from its last report.
- Rows are counted per transaction, never one by one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, TypeAlias

from cdc_merge.model import DELETE, INSERT, TRUNCATE, UPDATE, RowChange

Counted: TypeAlias = tuple[str, str]
Counts: TypeAlias = Mapping[Counted, int]

STATUS_UPDATES: Final = "status_updates"
EVENTS: Final = "events"
EVENT_BYTES: Final = "event_bytes"
UNKNOWN_MESSAGES: Final = "unknown_messages"
TOAST_ABSENT: Final = "toast_absent_fields"
TRUNCATES: Final = "truncates"
KEY_CHANGES: Final = "key_changes"
DUPLICATES: Final = "duplicates_dropped"
GAPS: Final = "gap_detected"
SNAPSHOT_CHUNKS: Final = "snapshot_chunks"
WINDOW_DROPPED: Final = "snapshot_window_dropped_rows"
SPILLED: Final = "spill_bytes"
COMMIT_LAG: Final = "commit_lag_seconds"
COMMIT_LAG_US: Final = "commit_lag_us"  # the sum of all

TIMER, FORCED, IDLE = "timer", "forced", "idle"
STATUS_REASONS: Final = (TIMER, FORCED, IDLE)

MESSAGE: Final = "message"
EVENT_KINDS: Final = (INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE)

COMMIT_ORDER: Final = "commit_order"
GAP_KINDS: Final = (
    "slot_missing",
    "slot_lost",
    "slot_recreated",
    "server_restored",
    "failed_over",
    "publication_changed",
    "other_server",
    COMMIT_ORDER,
)
"""Causes of a gap after a position: a lost position, or a commit out of LSN order."""

OTHER_TABLE: Final = "other"

# The buckets of cdc_merge_detection_seconds, of which the commit lag is a part.
LAG_EDGES_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG_EDGES_US: Final = tuple(round(edge * 1e6) for edge in LAG_EDGES_S)
LAG_KEYS: Final = tuple((COMMIT_LAG, str(edge)) for edge in (*LAG_EDGES_S, float("inf")))
"""One key per bucket: commits whose lag is at most that many seconds, and more than the previous key's."""

_operation_of = itemgetter(0)


class Tally:
    """The counters of one source in one process. `tables` are those of the configuration; all others count as one.

    Each counter has one writer at a time; `counts` may be called from any thread.
    """

    def __init__(self, tables: Iterable[str] = ()) -> None:
        self._tables = frozenset(tables)
        self._counts: Counter[Counted] = Counter()
        # Counters of every transaction have the cheapest form that was measured.
        self._events = dict.fromkeys(EVENT_KINDS, 0)
        self._size_bytes = self._lag_us = 0
        self._lags = [0] * len(LAG_KEYS)

    def add(self, figure: str, label: str = "", by: int = 1) -> None:
        self._counts[(figure, label)] += by

    def of_table(self, figure: str, table: str, by: int = 1) -> None:
        self._counts[(figure, table if table in self._tables else OTHER_TABLE)] += by

    def rows(self, changes: Sequence[RowChange]) -> None:
        """Row changes of one transaction, or a part of them."""
        if len(changes) == 1:
            self._events[changes[0][0]] += 1
            return
        operations = list(map(_operation_of, changes))
        for operation in EVENT_KINDS:
            if operations and (count := operations.count(operation)):
                self._events[operation] += count
                if count == len(operations):
                    return

    def message(self) -> None:
        self._events[MESSAGE] += 1

    def committed(self, size_bytes: int, lag_us: int) -> None:
        """A complete transaction arrived, `lag_us` after its commit by the source's own clock."""
        self._size_bytes += size_bytes
        self._lags[bisect_left(_LAG_EDGES_US, lag_us)] += 1
        if lag_us > 0:
            self._lag_us += lag_us

    def counts(self) -> dict[Counted, int]:
        # `dict` copies in one step of the interpreter, so that no other thread's count intervenes.
        counts = dict(self._counts)
        counts.update({(EVENTS, kind): count for kind, count in self._events.items()})
        counts.update(zip(LAG_KEYS, self._lags, strict=True))
        counts[(EVENT_BYTES, "")], counts[(COMMIT_LAG_US, "")] = self._size_bytes, self._lag_us
        return counts


def sum_counts(*counts: Counts) -> dict[Counted, int]:
    """The sum of the counts of several processes, at the same time or one after another."""
    total: Counter[Counted] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
