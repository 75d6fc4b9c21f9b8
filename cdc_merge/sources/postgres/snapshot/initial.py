"""Initial snapshot: a consistent copy of a source's tables through an exported snapshot, several tables at a time.

Rules
- Every worker is a connection of its own in the same exported snapshot: whatever their number, the rows are as of one LSN.
- The exported snapshot ends with the session that exported it, which stays idle until the last worker is done.
- The first worker that fails ends the others; delivered rows are then void, or delivered again.
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
from cdc_merge.sources.postgres.catalog import CatalogTable
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.snapshot.copy_table import TableCopy

SPACE_WAIT_S: Final = 0.2


class ReaderStopped(Exception):  # noqa: N818 - not an error: the reader is stopped
    """The reader is stopped in the middle of a snapshot."""


class InitialSnapshot:
    """One snapshot. `connection_settings` are source, dsn and publication; `tables` maps table → its mapped columns."""

    def __init__(
        self,
        connection_settings: tuple[str, str, str],
        tables: Mapping[str, tuple[str, ...]],
        shared: ReaderState,
        now_us: Callable[[], int],
    ) -> None:
        self._source, self._dsn, self._publication = connection_settings
        self._tables = tables
        self._shared = shared
        self._now_us = now_us
        self._has_failed = threading.Event()
        self._finishing = threading.Lock()
        self._remaining: deque[CatalogTable] = deque()

    def run(self, snapshot: str, began: SnapshotBegan, workers: int) -> None:
        """Deliver all tables, from SnapshotBegan to SnapshotDone. SourceUnavailable, SourceRefused, ReaderStopped."""
        facts = self._facts(snapshot)
        expected = {name: table.expected_rows for name, table in facts.items()}
        self._shared.deliver(began._replace(expected_rows=expected))
        # The largest table first: else the others would wait for it in the end.
        self._remaining.extend(sorted(facts.values(), key=lambda table: -table.expected_rows))
        count = max(1, min(workers, len(facts)))
        with ThreadPoolExecutor(count, thread_name_prefix=f"copy-{self._source}") as pool:
            futures = [pool.submit(self._copy_tables, snapshot) for _ in range(count)]
        errors = [error for error in (each.exception() for each in futures) if error is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, ReaderStopped)), errors[0])
        self._shared.deliver(SnapshotDone(self._source, began.lsn))
        self._shared.wake()

    def _facts(self, snapshot: str) -> Mapping[str, CatalogTable]:
        with connect(self._source, self._dsn, self._shared.limits) as connection:
            facts = self._table_copy(connection).begin(snapshot, self._tables)
        for table in self._tables:
            if table not in facts:
                raise SourceRefused(
                    f"Source {self._source}: table {table} does not exist.",
                    problem="table_missing",
                    hint="It was dropped just now; check the configuration.",
                )
        return facts

    def _table_copy(self, connection: Connection) -> TableCopy:
        return TableCopy(self._source, connection, self._publication, self._shared.limits.row_s)

    def _copy_tables(self, snapshot: str) -> None:
        try:
            with connect(self._source, self._dsn, self._shared.limits) as connection:
                table_copy = self._table_copy(connection)
                table_copy.begin(snapshot, ())
                while (table := self._next_table()) is not None:
                    self._copy(table_copy, table)
        except BaseException:
            self._has_failed.set()
            raise

    def _next_table(self) -> CatalogTable | None:
        try:
            return self._remaining.popleft()
        except IndexError:
            return None

    def _copy(self, table_copy: TableCopy, table: CatalogTable) -> None:
        relation = table.relation(self._tables[table.table])
        for rows, size in table_copy.chunks(table, relation, self._wait_for_space):
            self._shared.deliver(SnapshotRows(self._source, tuple(rows)), len(rows), size)
            self._shared.last_message_us = self._now_us()
            with self._finishing:
                self._shared.tally.add(SNAPSHOT_CHUNKS)
            self._shared.wake()
        with self._finishing:
            self._shared.deliver(SnapshotTable(self._source, table.table))
            begun = self._shared.delivered
            assert begun is not None, "a snapshot begins at a position"
            self._shared.delivered = begun._replace(copied=(*begun.copied, table.table))

    def _wait_for_space(self) -> None:
        while not self._shared.queue.wait_for_space(SPACE_WAIT_S):
            self._raise_if_stopped()
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._shared.stopping.is_set() or self._has_failed.is_set():
            raise ReaderStopped
