"""The replication connection: the only socket in COPY_BOTH mode, over `psycopg.pq`.

Rules
- Only commands before the stream, and `finish`, wait here; the reader's loop polls the socket, then calls `receive`.
- The flushed LSN of a standby status update is the one that `send_status` gets, never more.
- The reason of an ended stream is in its result, not in an exception: the result is always fetched.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import psycopg
from psycopg import pq, sql

from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable
from cdc_merge.model import lsn_from_text, lsn_text
from cdc_merge.sources.postgres.connection import connect
from cdc_merge.sources.postgres.protocol.copy_data import status_update
from cdc_merge.sources.postgres.protocol.timelines import Timelines, read_history
from cdc_merge.sources.postgres.reader_limits import DEFAULT_READER_LIMITS, ReaderLimits
from cdc_merge.sources.postgres.resume_checks import Server
from cdc_merge.sources.postgres.sqlstates import refusal, server_errors

_MAX_FRAMES: Final = 20_000  # per call of `receive`, so that status updates and stopping never wait for long
_ANSWER_STEP_S: Final = 0.2
FAILOVER_SINCE: Final = 170000
_REASON_LIMIT_S: Final = 2.0  # for the error that follows the end of a stream


class CreatedSlot(NamedTuple):
    """The result of CREATE_REPLICATION_SLOT: `lsn` is the consistent point, `snapshot` the exported snapshot's name."""

    lsn: int
    snapshot: str


class WalSender:
    """One replication connection. `source` names it in errors."""

    def __init__(self, source: str, dsn: str, limits: ReaderLimits = DEFAULT_READER_LIMITS) -> None:
        self._source = source
        self._connection = connect(source, dsn, limits, replication=True)
        self._pg = self._connection.pgconn
        self.is_streaming = False

    @property
    def socket(self) -> int:
        return self._pg.socket

    def identify(self) -> Server:
        with server_errors(self._source):
            system, timeline, lsn = self._connection.execute("IDENTIFY_SYSTEM").fetchall()[0][:3]
        return Server(str(system), self._timelines(int(timeline)), lsn_from_text(str(lsn)))

    def _timelines(self, current: int) -> Timelines:
        if current == 1:
            return Timelines(1)
        try:
            row = self._connection.execute(f"TIMELINE_HISTORY {current}".encode()).fetchone()
        except psycopg.Error as error:
            raise SourceUnavailable(
                f"Source {self._source}: the server cannot show its timeline history.",
                hint="Restore the .history file in pg_wal; the reader retries.",
                sqlstate=error.sqlstate,
            ) from None
        content = row[1] if row else b""
        return read_history(current, content if isinstance(content, bytes) else str(content).encode())

    def create_slot(
        self, slot: str, limit_s: float, stopped: Callable[[], bool], *, failover: bool = False
    ) -> CreatedSlot | None:
        """Create a slot with an exported snapshot; None when it took longer than `limit_s` (then there is no slot).
        `failover`: standbys synchronize it; SourceRefused before version 17."""
        version = self._connection.info.server_version
        if failover and version < FAILOVER_SINCE:
            raise SourceRefused(
                f"Source {self._source}: the server is PostgreSQL {version // 10000}, whose slots are not synchronized to standbys.",
                problem="configuration",
                hint="Remove `failover: true` from the configuration, or upgrade to PostgreSQL 17 or later.",
            )
        options = "(SNAPSHOT 'export')" if version >= 150000 else "EXPORT_SNAPSHOT"
        options = "(SNAPSHOT 'export', FAILOVER true)" if failover else options
        text = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput " + options).format(sql.Identifier(slot))
        result = self._command(text.as_bytes(self._connection), limit_s, stopped)
        if result is None:
            return None
        values = [(result.get_value(0, column) or b"").decode() for column in range(3)]
        return CreatedSlot(lsn_from_text(values[1]), values[2])

    def _command(self, text: bytes, limit_s: float, stopped: Callable[[], bool]) -> pq.abc.PGresult | None:
        """The result of a command that may wait for other sessions; cancelled after `limit_s` or when the reader stops."""
        deadline = time.monotonic() + limit_s
        with server_errors(self._source):
            self._pg.send_query(text)
            while not self._has_answer(min(deadline, time.monotonic() + _ANSWER_STEP_S)):
                if stopped() or time.monotonic() > deadline:
                    break
            is_cancelled = self._pg.is_busy()
            if is_cancelled:
                self._connection.cancel_safe()
            last = self._result()
            while (result := self._result()) is not None:
                last = result
        assert last is not None, "a command has a result"
        if last.status == pq.ExecStatus.TUPLES_OK:
            return last
        if is_cancelled and _sqlstate(last) == "57014":
            return None
        raise self._refusal(last)

    def _has_answer(self, deadline: float) -> bool:
        """Whether the next result has arrived by then."""
        while self._pg.is_busy():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            select.select([self._pg.socket], [], [], left_s)
            self._pg.consume_input()
        return True

    def _result(self, limit_s: float | None = None) -> pq.abc.PGresult | None:
        """The next result of a command. SourceUnavailable when it does not arrive in time."""
        limit_s = limit_s or self._connection.answer_limit_s
        if self._has_answer(time.monotonic() + limit_s):
            return self._pg.get_result()
        raise SourceUnavailable(
            f"Source {self._source}: the server did not answer within {limit_s:g} s.",
            hint="The reader reconnects; check network and server load if this persists.",
            sqlstate="08006",
        )

    def start(self, slot: str, publication: str, lsn: int) -> None:
        """Start the stream of everything whose commit ends after `lsn` (0: from the slot's confirmed_flush_lsn)."""
        # The publication is an identifier inside a literal: the server splits the list as it splits search_path.
        names = '"' + publication.replace('"', '""') + '"'
        text = sql.SQL(
            "START_REPLICATION SLOT {slot} LOGICAL {lsn} "
            "(proto_version '1', publication_names {names}, messages 'true')"
        ).format(slot=sql.Identifier(slot), lsn=sql.SQL(lsn_text(lsn)), names=sql.Literal(names))
        with server_errors(self._source):
            self._pg.send_query(text.as_bytes(self._connection))
            result = self._result()
        assert result is not None, "a command has a result"
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._refusal(result)
        self._pg.nonblocking = 1
        self.is_streaming = True

    def receive(self) -> list[memoryview]:
        """All complete CopyData payloads that have arrived; reads the socket at most once. After the last one, an error gives
        the reason of the stream's end."""
        with server_errors(self._source):
            # libpq's buffer first: the connection may be closed after it, and the server's last message would be lost.
            frames = self._buffered_frames()
            if self.is_streaming and not frames:
                self._pg.consume_input()
                frames = self._buffered_frames()
            if not (self.is_streaming or frames):
                raise self._end_of_stream()
        return frames

    def _buffered_frames(self) -> list[memoryview]:
        frames: list[memoryview] = []
        append = frames.append
        get = self._pg.get_copy_data
        while self.is_streaming and len(frames) < _MAX_FRAMES:
            size, frame = get(1)
            if size > 0:
                append(frame)
            elif size == 0:
                break
            else:
                self.is_streaming = False
        return frames

    def _end_of_stream(self) -> CdcMergeError:
        """Why the stream ended. A server that ends its half first sends the reason only after we have ended ours."""
        result = self._pg.get_result()
        if result is not None and result.status == pq.ExecStatus.COPY_IN:
            self._pg.put_copy_end()
            self._pg.flush()
            result = self._result(_REASON_LIMIT_S)
        if result is None or result.status == pq.ExecStatus.COMMAND_OK:
            return SourceUnavailable(
                f"Source {self._source}: the server ended the stream.", hint="The reader reconnects."
            )
        return self._refusal(result)

    def send_status(self, received: int, flushed: int, now_us: int, *, requests_reply: bool = False) -> None:
        if not self.is_streaming:
            return  # the server has ended the stream; `receive` raises the reason
        with server_errors(self._source):
            self._pg.put_copy_data(status_update(received, flushed, now_us, requests_reply=requests_reply))
            self._pg.flush()

    def finish(self, limit_s: float) -> None:
        """End the stream by CopyDone if the server answers within `limit_s`; the socket is closed in any case."""
        try:
            if self.is_streaming:
                self._end_copy(time.monotonic() + limit_s)
        except psycopg.Error:
            return  # a closed connection is an end, too
        finally:
            self._connection.close()

    def _end_copy(self, deadline: float) -> None:
        self._pg.put_copy_end()
        self._pg.flush()
        while time.monotonic() < deadline:
            size, _ = self._pg.get_copy_data(1)
            if size == -1:
                return
            if size == 0:
                select.select([self._pg.socket], [], [], 0.05)
                self._pg.consume_input()

    def close(self) -> None:
        self._connection.close()

    def _refusal(self, result: pq.abc.PGresult) -> CdcMergeError:
        words = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"no reason").decode(errors="replace")
        return refusal(self._source, _sqlstate(result), words)


def _sqlstate(result: pq.abc.PGresult) -> str | None:
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return state.decode() if state else None
