"""A consistent copy of a source's tables through an exported snapshot, several tables at a time.

Rules
- Every worker is a connection of its own in the same snapshot: whatever their number, the rows are of one moment.
- The snapshot lives as long as the session that exported it, which stays idle until the last worker is done.
- The first worker that fails ends the others; what was delivered then is void, or told again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cdc_merge.errors import SourceRefused
from cdc_merge.model import SnapshotBegan, SnapshotDone, SnapshotRows, SnapshotTable
from cdc_merge.model.capture_counters import SNAPSHOT_CHUNKS
from cdc_merge.sources.postgres.catalog import TableFacts
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.snapshot.copy_table import TableCopy

SPACE_WAIT_S: Final = 0.2


class Stopped(Exception):  # noqa: N818 - not an error: the reader was asked to stop
    """The reader was asked to stop in the middle of something."""


class InitialSnapshot:
    """One copy. `connection_settings` are source, dsn and publication; `tables` maps table → the columns needed of it."""

    def __init__(
        self,
        connection_settings: tuple[str, str, str],
        tables: Mapping[str, tuple[str, ...]],
        exchange: ReaderState,
        now_us: Callable[[], int],
    ) -> None:
        self._source, self._dsn, self._publication = connection_settings
        self._tables = tables
        self._exchange = exchange
        self._now_us = now_us
        self._has_failed = threading.Event()
        self._finishing = threading.Lock()
        self._waiting: deque[TableFacts] = deque()

    def run(self, snapshot: str, began: SnapshotBegan, workers: int) -> None:
        """Deliver all of it, from SnapshotBegan to SnapshotDone. SourceUnavailable, SourceRefused, Stopped."""
        facts = self._facts(snapshot)
        expected = {table: known.expected_rows for table, known in facts.items()}
        self._exchange.deliver(began._replace(expected_rows=expected))
        # The largest first: else it is the one that is waited for in the end.
        self._waiting.extend(sorted(facts.values(), key=lambda known: -known.expected_rows))
        count = max(1, min(workers, len(facts)))
        with ThreadPoolExecutor(count, thread_name_prefix=f"copy-{self._source}") as pool:
            begun = [pool.submit(self._work, snapshot) for _ in range(count)]
        errors = [error for error in (each.exception() for each in begun) if error is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])
        self._exchange.deliver(SnapshotDone(self._source, began.lsn))
        self._exchange.wake()

    def _facts(self, snapshot: str) -> Mapping[str, TableFacts]:
        with connect(self._source, self._dsn) as connection:
            facts = self._reading(connection).begin(snapshot, self._tables)
        for table in self._tables:
            if table not in facts:
                raise SourceRefused(
                    f"Source {self._source}: table {table} does not exist.",
                    problem="table_missing",
                    hint="It was dropped just now; check the configuration.",
                )
        return facts

    def _reading(self, connection: Connection) -> TableCopy:
        return TableCopy(self._source, connection, self._publication)

    def _work(self, snapshot: str) -> None:
        try:
            with connect(self._source, self._dsn) as connection:
                reading = self._reading(connection)
                reading.begin(snapshot, ())
                while (table := self._next()) is not None:
                    self._copy(reading, table)
        except BaseException:
            self._has_failed.set()
            raise

    def _next(self) -> TableFacts | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _copy(self, reading: TableCopy, table: TableFacts) -> None:
        relation = table.relation(self._tables[table.table])
        for rows, size in reading.chunks(table, relation, self._wait_for_space):
            self._exchange.deliver(SnapshotRows(self._source, tuple(rows)), len(rows), size)
            self._exchange.last_message_us = self._now_us()
            with self._finishing:
                self._exchange.tally.add(SNAPSHOT_CHUNKS)
            self._exchange.wake()
        with self._finishing:
            self._exchange.deliver(SnapshotTable(self._source, table.table))
            begun = self._exchange.delivered
            assert begun is not None, "a copy begins at a position"
            self._exchange.delivered = begun._replace(copied=(*begun.copied, table.table))

    def _wait_for_space(self) -> None:
        while not self._exchange.queue.wait_for_space(SPACE_WAIT_S):
            self._leave_if_over()
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        if self._exchange.stopping.is_set() or self._has_failed.is_set():
            raise Stopped
