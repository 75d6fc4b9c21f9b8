"""The only replication socket: a connection in COPY_BOTH over `psycopg.pq`.

Rules
- Nothing waits here but commands before the stream and `finish`; the reader's loop polls the socket, then `receive`s.
- What the server has flushed on our word is what `send_status` is given, and never more.
- An ended stream has its reason in the result, not in an exception: it is always fetched.
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
from cdc_merge.sources.postgres.connection import ANSWER_LIMIT_S, connect
from cdc_merge.sources.postgres.protocol.copy_data import status_update
from cdc_merge.sources.postgres.protocol.timelines import Timelines, read_history
from cdc_merge.sources.postgres.resume_checks import Server
from cdc_merge.sources.postgres.sqlstates import refusal, server_errors

_MAX_FRAMES: Final = 20_000  # taken in one go, so that status replies and stopping never wait for long
_ANSWER_STEP_S: Final = 0.2
FAILOVER_SINCE: Final = 170000
_REASON_LIMIT_S: Final = 2.0  # for what a server says behind the end of its stream


class CreatedSlot(NamedTuple):
    lsn: int
    snapshot: str


class WalSender:
    """One replication connection. `source` names it in errors."""

    def __init__(self, source: str, dsn: str) -> None:
        self._source = source
        self._connection = connect(source, dsn, replication=True)
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
                hint="Restore the .history file in pg_wal; it is tried again.",
                sqlstate=error.sqlstate,
            ) from None
        content = row[1] if row else b""
        return read_history(current, content if isinstance(content, bytes) else str(content).encode())

    def create_slot(
        self, slot: str, limit_s: float, stopped: Callable[[], bool], *, failover: bool = False
    ) -> CreatedSlot | None:
        """A new slot with an exported snapshot; None when it took longer than `limit_s` (then there is no slot).
        `failover`: standbys keep it, too; SourceRefused before version 17."""
        version = self._connection.info.server_version
        if failover and version < FAILOVER_SINCE:
            raise SourceRefused(
                f"Source {self._source}: the server is PostgreSQL {version // 10000}, whose slots no standby keeps.",
                problem="configuration",
                hint="Take `failover: true` out of the configuration, or upgrade to PostgreSQL 17 or later.",
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
        """The answer to a command that may wait for others; cancelled when the time is over or we are to stop."""
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
        """Whether the next result has come by then."""
        while self._pg.is_busy():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            select.select([self._pg.socket], [], [], left_s)
            self._pg.consume_input()
        return True

    def _result(self, limit_s: float = ANSWER_LIMIT_S) -> pq.abc.PGresult | None:
        """The next result of what was asked. SourceUnavailable when it does not come in time."""
        if self._has_answer(time.monotonic() + limit_s):
            return self._pg.get_result()
        raise SourceUnavailable(
            f"Source {self._source}: the server did not answer within {limit_s:g} s.",
            hint="The connection is made anew; look at network and server load if it stays.",
            sqlstate="08006",
        )

    def start(self, slot: str, publication: str, lsn: int) -> None:
        """Begin to stream everything whose commit ends after `lsn` (0: from where the slot stands)."""
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
        """All whole CopyData payloads that have arrived; reads the socket at most once. Behind the last one, an error
        says why the stream ended."""
        with server_errors(self._source):
            # What libpq holds comes first: behind it the connection may be gone, and with it a server's last words.
            frames = self._waiting()
            if self.is_streaming and not frames:
                self._pg.consume_input()
                frames = self._waiting()
            if not (self.is_streaming or frames):
                raise self._ended()
        return frames

    def _waiting(self) -> list[memoryview]:
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

    def _ended(self) -> CdcMergeError:
        """Why the stream ended. A server that ends its half first says why only when we have ended ours."""
        result = self._pg.get_result()
        if result is not None and result.status == pq.ExecStatus.COPY_IN:
            self._pg.put_copy_end()
            self._pg.flush()
            result = self._result(_REASON_LIMIT_S)
        if result is None or result.status == pq.ExecStatus.COMMAND_OK:
            return SourceUnavailable(f"Source {self._source}: the server ended the stream.", hint="It is tried again.")
        return self._refusal(result)

    def send_status(self, received: int, durable: int, now_us: int, *, asks_reply: bool = False) -> None:
        if not self.is_streaming:
            return  # the server has ended the stream; `receive` tells why
        with server_errors(self._source):
            self._pg.put_copy_data(status_update(received, durable, now_us, asks_reply=asks_reply))
            self._pg.flush()

    def finish(self, limit_s: float) -> None:
        """End the stream in peace if the server does so within `limit_s`; the socket is closed in any case."""
        try:
            if self.is_streaming:
                self._end_copy(time.monotonic() + limit_s)
        except psycopg.Error:
            return  # the server is gone: that is the end, too
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
