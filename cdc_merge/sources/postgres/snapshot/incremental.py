"""Incremental snapshot: a low watermark into the log, a chunk of the table, a high watermark (DBLog, arXiv 2010.12597), while
the stream continues, without locks and without writing to any table.

Rules
- A chunk is delivered where the stream reaches its high watermark (watermark_window.py decides which rows).
- A commit is in the log before other sessions see it, with synchronous replication even for long: a chunk that did not see
  a transaction of the stream before the window is read again.
- One chunk is in memory at a time. It is read on a thread and a connection of its own: the stream never waits.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Final

from psycopg import sql

from cdc_merge.errors import CdcMergeError, SourceRefused
from cdc_merge.model import ChunkRead, Position, Transaction
from cdc_merge.model.capture_counters import WINDOW_DROPPED
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.catalog import Catalog, CatalogTable
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.snapshot.chunk import read_chunk, row_identity_columns
from cdc_merge.sources.postgres.snapshot.watermark_window import HIGH, LOW, WATERMARK_PREFIX, Chunk, Window
from cdc_merge.sources.postgres.sqlstates import VALUE_UNREADABLE, server_errors

XIDS_KEPT: Final = 20_000  # the latest transactions of the stream; a commit is rarely invisible for longer
RETRY_AFTER_S: Final = (0.05, 0.1, 0.3, 1.0, 3.0)
_STANDBY: Final = "25006"
_SEPARATOR: Final = ":"


class IncrementalSnapshot:
    """Reads the chunk of `ReaderState.request`, one request after the other. The stream's thread calls
    `observe_transaction` and `advance`."""

    def __init__(
        self, source: str, dsn: str, publication: str, shared: ReaderState, columns: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._source = source
        self._dsn = dsn
        self._publication = publication
        self._shared = shared
        self._columns = columns
        self._xids: deque[int] = deque(maxlen=XIDS_KEPT)
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._request: ChunkRequest | None = None
        self._window: Window | None = None
        self._chunk: Chunk | None = None
        self._error: Exception | None = None
        self._attempts = 0
        self._not_before_s = 0.0

    # ---------------------------------------------------------------- the stream's thread

    def observe_transaction(self, transaction: Transaction, xid: int) -> ChunkRead | None:
        """Observe every transaction, in the stream's order, before it is delivered. The chunk, when this is its high
        watermark."""
        self._xids.append(xid)
        window = self._window
        if window is None:
            return None
        if not window.is_open:
            if transaction.messages and window.is_watermark(transaction, LOW):
                window.open(frozenset(self._xids))
            return None
        if not transaction.messages or not window.is_watermark(transaction, HIGH):
            window.add_transaction(transaction)
            return None
        return self._chunk_read(window, transaction)

    def _chunk_read(self, window: Window, at: Transaction) -> ChunkRead | None:
        request, chunk = self._request, self._chunk
        assert request is not None, "a watermark without a request"
        assert chunk is not None, "a high watermark before its chunk"
        self._window = self._chunk = None
        if request != self._shared.request:
            return None
        if window.must_repeat(chunk):
            self._shared.tally.add(WINDOW_DROPPED, by=len(chunk.rows))
            self._back_off()
            return None
        self._shared.request = None
        self._attempts = 0
        place = (self._source, at.system, at.timeline, at.end_lsn, at.commit_us)
        rows = window.rows(chunk)
        self._shared.tally.add(WINDOW_DROPPED, by=window.superseded)
        return ChunkRead(*place, request.number, rows, chunk.reached, chunk.expected)

    def advance(self, position: Position, now_us: int) -> ChunkRead | None:
        """Start to read the requested chunk, once the last read has ended. A failed ChunkRead, when it cannot be read."""
        if self._thread is not None and self._thread.is_alive():
            return None
        error, self._error = self._error, None
        if error is not None:
            self._window = self._chunk = None
            if isinstance(error, CdcMergeError) and not _is_final(error):
                self._back_off()
                return None
            return self._failed_read(error, position, now_us)
        request = self._shared.request
        is_waiting_for_watermarks = self._window is not None and request == self._request
        if request is not None and not is_waiting_for_watermarks and time.monotonic() >= self._not_before_s:
            self._request, self._window, self._chunk = request, None, None
            self._thread = threading.Thread(
                target=self._run, args=(request,), name=f"chunk-{self._source}", daemon=True
            )
            self._thread.start()
        return None

    def _failed_read(self, error: Exception, position: Position, now_us: int) -> ChunkRead:
        request = self._request
        assert request is not None, "a failed read without a request"
        if request == self._shared.request:
            self._shared.request = None
        sentence = f"{error} {_hint(error)}".strip() if isinstance(error, CdcMergeError) else "the read failed"
        place = (self._source, position.system, position.timeline, position.lsn, now_us)
        return ChunkRead(*place, request.number, problem=sentence)

    def _back_off(self) -> None:
        self._not_before_s = time.monotonic() + RETRY_AFTER_S[min(self._attempts, len(RETRY_AFTER_S) - 1)]
        self._attempts += 1

    def stop(self) -> None:
        """End the read; the request stays for the next session."""
        thread, connection = self._thread, self._connection
        if connection is not None and thread is not None and thread.is_alive():
            connection.cancel_safe(timeout=1.0)
        if thread is not None:
            thread.join(1.0)
        if connection is not None:
            connection.close()

    # ---------------------------------------------------------------- the chunk's thread

    def _run(self, request: ChunkRequest) -> None:
        try:
            self._read(request)
        except Exception as error:  # noqa: BLE001 - named edge: a failed read must not end in silence, nor end the stream
            self._error = error
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        self._shared.call_reader()

    def _read(self, request: ChunkRequest) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = connect(self._source, self._dsn, self._shared.limits)
        facts = self._facts(connection, request.table)
        relation = facts.relation((*self._columns[request.table], *facts.order))
        token = _SEPARATOR.join(map(str, (os.getpid(), time.monotonic_ns(), request.number)))
        window = Window(token, request.table, row_identity_columns(facts, relation))
        self._window = window
        self._write_watermark(connection, window.watermark(LOW))
        with server_errors(self._source):
            self._chunk = read_chunk(connection, facts, relation, request)
        self._write_watermark(connection, window.watermark(HIGH))

    def _facts(self, connection: Connection, table: str) -> CatalogTable:
        facts = Catalog(self._source, connection, self._publication).describe([table]).get(table)
        if facts is None:
            sentence = f"Source {self._source}: table {table} does not exist."
            raise SourceRefused(sentence, problem="table_missing", hint="Check the configuration.")
        return facts

    def _write_watermark(self, connection: Connection, content: str) -> None:
        text = sql.SQL("SELECT pg_logical_emit_message(true, {}, $1::text)").format(WATERMARK_PREFIX)
        with server_errors(self._source):
            connection.execute(text, [content])


def _hint(error: CdcMergeError) -> str:
    if isinstance(error, SourceRefused) and error.problem == VALUE_UNREADABLE:
        return (
            "Check that the key fits its column, repair the row, then request the resync again; the stream continues."
        )
    return error.hint


def _is_final(error: CdcMergeError) -> bool:
    """Whether a retry cannot help. A standby takes no watermarks."""
    return isinstance(error, SourceRefused) or getattr(error, "sqlstate", None) == _STANDBY
