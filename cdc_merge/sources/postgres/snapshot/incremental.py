"""Tables read again while their stream is followed: a mark into the log, a piece of the table, another mark (DBLog,
arXiv 2010.12597), without locks and without writing to any table.

Rules
- The piece is told where the stream reaches the mark behind it (windows.py says what of it).
- A commit stands in the log before others see it, with synchronous replication even for long: a piece whose reading did
  not see a transaction that the stream had told before is read again.
- One piece is held at a time. Its reading happens on a thread and a connection of its own: the stream never waits.
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
from cdc_merge.sources.postgres.catalog import Catalog, TableFacts
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.snapshot.chunk import chunk, named_by
from cdc_merge.sources.postgres.snapshot.watermark_window import HIGH, LOW, MARK_PREFIX, Chunk, Window
from cdc_merge.sources.postgres.sqlstates import server_errors

XIDS_KEPT: Final = 20_000  # transactions that the stream told last; a commit is rarely hidden for longer
AGAIN_AFTER_S: Final = (0.05, 0.1, 0.3, 1.0, 3.0)
_STANDBY: Final = "25006"
_SEPARATOR: Final = ":"


class IncrementalSnapshot:
    """Works off `Exchange.wanted`, one request after the other. `saw` and `tend` are the stream thread's to call."""

    def __init__(
        self, source: str, dsn: str, publication: str, exchange: ReaderState, columns: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._source = source
        self._dsn = dsn
        self._publication = publication
        self._exchange = exchange
        self._columns = columns
        self._xids: deque[int] = deque(maxlen=XIDS_KEPT)
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._wanted: ChunkRequest | None = None
        self._window: Window | None = None
        self._piece: Chunk | None = None
        self._error: Exception | None = None
        self._attempts = 0
        self._not_before_s = 0.0

    # ---------------------------------------------------------------- the stream's thread

    def saw(self, transaction: Transaction, xid: int) -> ChunkRead | None:
        """Every transaction, in the stream's order, before it is delivered. The piece, when this is the mark behind it."""
        self._xids.append(xid)
        window = self._window
        if window is None:
            return None
        if not window.is_open:
            if transaction.messages and window.is_mark(transaction, LOW):
                window.open(frozenset(self._xids))
            return None
        if not transaction.messages or not window.is_mark(transaction, HIGH):
            window.see(transaction)
            return None
        return self._told(window, transaction)

    def _told(self, window: Window, at: Transaction) -> ChunkRead | None:
        wanted, found = self._wanted, self._piece
        assert wanted is not None, "a mark without a request"
        assert found is not None, "a mark before its piece"
        self._window = self._piece = None
        if wanted != self._exchange.wanted:
            return None
        if window.must_read_again(found):
            self._exchange.tally.add(WINDOW_DROPPED, by=len(found.rows))
            self._wait()
            return None
        self._exchange.wanted = None
        self._attempts = 0
        place = (self._source, at.system, at.timeline, at.end_lsn, at.commit_us)
        rows = window.rows(found)
        self._exchange.tally.add(WINDOW_DROPPED, by=window.superseded)
        return ChunkRead(*place, wanted.number, rows, found.reached, found.expected)

    def tend(self, position: Position, now_us: int) -> ChunkRead | None:
        """Begin what is wanted, once the last reading is over. The refusal, when it cannot be read."""
        if self._thread is not None and self._thread.is_alive():
            return None
        error, self._error = self._error, None
        if error is not None:
            self._window = self._piece = None
            if isinstance(error, CdcMergeError) and not _is_final(error):
                self._wait()
                return None
            return self._refused(error, position, now_us)
        wanted = self._exchange.wanted
        is_waiting_for_marks = self._window is not None and wanted == self._wanted
        if wanted is not None and not is_waiting_for_marks and time.monotonic() >= self._not_before_s:
            self._wanted, self._window, self._piece = wanted, None, None
            self._thread = threading.Thread(
                target=self._work, args=(wanted,), name=f"reread-{self._source}", daemon=True
            )
            self._thread.start()
        return None

    def _refused(self, error: Exception, position: Position, now_us: int) -> ChunkRead:
        wanted = self._wanted
        assert wanted is not None, "a refusal without a request"
        if wanted == self._exchange.wanted:
            self._exchange.wanted = None
        said = f"{error} {error.hint}".strip() if isinstance(error, CdcMergeError) else "the reading failed"
        place = (self._source, position.system, position.timeline, position.lsn, now_us)
        return ChunkRead(*place, wanted.number, problem=said)

    def _wait(self) -> None:
        self._not_before_s = time.monotonic() + AGAIN_AFTER_S[min(self._attempts, len(AGAIN_AFTER_S) - 1)]
        self._attempts += 1

    def stop(self) -> None:
        """Leave; what was wanted stays wanted, for the next session."""
        thread, connection = self._thread, self._connection
        if connection is not None and thread is not None and thread.is_alive():
            connection.cancel_safe(timeout=1.0)
        if thread is not None:
            thread.join(1.0)
        if connection is not None:
            connection.close()

    # ---------------------------------------------------------------- the reading's thread

    def _work(self, wanted: ChunkRequest) -> None:
        try:
            self._read(wanted)
        except Exception as error:  # noqa: BLE001 - named edge: a reading that fails must not end in silence, nor the stream
            self._error = error
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        self._exchange.call_reader()

    def _read(self, wanted: ChunkRequest) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = connect(self._source, self._dsn)
        facts = self._facts(connection, wanted.table)
        relation = facts.relation((*self._columns[wanted.table], *facts.order))
        token = _SEPARATOR.join(map(str, (os.getpid(), time.monotonic_ns(), wanted.number)))
        window = Window(token, wanted.table, named_by(facts, relation))
        self._window = window
        self._mark(connection, window.mark(LOW))
        with server_errors(self._source):
            self._piece = chunk(connection, facts, relation, wanted)
        self._mark(connection, window.mark(HIGH))

    def _facts(self, connection: Connection, table: str) -> TableFacts:
        facts = Catalog(self._source, connection, self._publication).describe([table]).get(table)
        if facts is None:
            sentence = f"Source {self._source}: table {table} does not exist."
            raise SourceRefused(sentence, problem="table_missing", hint="Check the configuration.")
        return facts

    def _mark(self, connection: Connection, content: str) -> None:
        text = sql.SQL("SELECT pg_logical_emit_message(true, {}, $1::text)").format(MARK_PREFIX)
        with server_errors(self._source):
            connection.execute(text, [content])


def _is_final(error: CdcMergeError) -> bool:
    """Whether reading again cannot help. A standby takes no marks."""
    return isinstance(error, SourceRefused) or getattr(error, "sqlstate", None) == _STANDBY
