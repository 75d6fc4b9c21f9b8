"""The plain connection beside the stream: queries before it starts, then the server's clock and the slot's health.

Why a second connection: a keepalive's clock does not cover commits that are written but not yet sent; and a server that
shuts down waits for a replication client, but ends a plain session at once: its end is our signal to disconnect.
While streaming, queries do not wait: `query_…`, then `result` when the socket is readable.

Only `query_flush` and `query_heartbeat` write anything: a logical message, which costs WAL and touches no table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from psycopg import pq
from psycopg.rows import dict_row

from cdc_merge.errors import SourceUnavailable
from cdc_merge.model import lsn_from_text
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.reader_limits import DEFAULT_READER_LIMITS, ReaderLimits
from cdc_merge.sources.postgres.resume_checks import Slot
from cdc_merge.sources.postgres.sqlstates import server_errors, server_sentence
from cdc_merge.sql_files import query

_PAGE_HEADER_BYTES: Final = (24, 40)
_PAGE_BYTES: Final = 8192
_OPTIONAL: Final = ("flush", "heartbeat")  # queries that our role may not be permitted to run; nothing depends on them


class ClockReading(NamedTuple):
    """The server's clock: every commit with a time before `at_us` lies before `lsn`.

    `flushed_lsn` is the LSN up to which the server could send by then, None on a standby; `publication_oid` is None without a
    publication.
    """

    at_us: int
    lsn: int
    flushed_lsn: int | None
    publication_oid: str | None


class FlushResult(NamedTuple):
    """The result of having the server write out its WAL; `is_permitted` is False where our role may not."""

    is_permitted: bool


class HeartbeatResult(NamedTuple):
    """The result of writing a heartbeat: the server's refusal, None when it is committed."""

    refusal: str | None


class Health(NamedTuple):
    """The slot (None: it does not exist), the tables missing in the publication, and its members as a text to be compared
    (publication_members.py)."""

    slot: Slot | None
    missing: tuple[str, ...]
    membership: str = ""


MonitorResult: TypeAlias = "ClockReading | Health | FlushResult | HeartbeatResult"


class MonitorTarget(NamedTuple):
    """The names that the queries are about."""

    slot: str
    publication: str
    tables: tuple[str, ...]


class SlotMonitor:
    """One plain connection to a source, named `source` in errors."""

    def __init__(
        self, source: str, dsn: str, target: MonitorTarget, limits: ReaderLimits = DEFAULT_READER_LIMITS
    ) -> None:
        self._source = source
        self._target = target
        self.connection: Connection = connect(source, dsn, limits)
        self._pg = self.connection.pgconn
        self._read: Callable[[Sequence[bytes | None]], MonitorResult] | None = None
        self._is_optional = False
        self._refusal = ""
        self._row: list[bytes | None] = []

    @property
    def publication(self) -> str:
        return self._target.publication

    @property
    def socket(self) -> int:
        return self._pg.socket

    def rows(self, name: str, *parameters: object) -> list[dict[str, Any]]:  # columns as the query names them
        """The rows of `sql/<name>.sql`; waits for them."""
        with server_errors(self._source), self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(__package__, name).encode(), list(parameters) or None).fetchall()

    def health(self) -> Health:
        with server_errors(self._source):
            return health_of(self.connection, self._target)

    def clock(self) -> ClockReading:
        with server_errors(self._source):
            row = self.connection.execute(query(__package__, "watch").encode(), [self._target.publication]).fetchone()
        assert row is not None
        return _clock([None if value is None else str(value).encode() for value in row])

    def drop_slot(self) -> None:
        with server_errors(self._source):
            self.connection.execute("SELECT pg_drop_replication_slot($1)", [self._target.slot])

    # ---------------------------------------------------------------- queries that do not wait

    def query_clock(self) -> bool:
        """Query a ClockReading; False while the result of another query is due."""
        return self._send_query("watch", [self._target.publication], _clock)

    def query_health(self) -> bool:
        """Query Health; False as above."""
        return self._send_query("health", _parameters(self._target), lambda row: _health(self._target.slot, row))

    def query_flush(self) -> bool:
        """Have the server write out its WAL, which takes one record of some hundred bytes; False as above."""
        return self._send_query("flush", [], lambda row: FlushResult(is_permitted=bool(row)))

    def query_heartbeat(self, content: str) -> bool:
        """Have the server write and commit a heartbeat; False as above."""
        return self._send_query("heartbeat", [content], lambda row: HeartbeatResult(None if row else self._refusal))

    def _send_query(
        self, name: str, parameters: list[str], read: Callable[[Sequence[bytes | None]], MonitorResult]
    ) -> bool:
        if self._read is not None:
            return False
        with server_errors(self._source):
            self._pg.send_query_params(query(__package__, name).encode(), [value.encode() for value in parameters])
        self._read = read
        self._is_optional = name in _OPTIONAL
        return True

    def result(self) -> MonitorResult | None:
        """The result of the query, once it has arrived. SourceUnavailable when the server ended this session."""
        with server_errors(self._source):
            self._pg.consume_input()
            if self._read is None:
                return None
            # A result may be cut between two packets: get_result would wait for its rest.
            while not self._pg.is_busy():
                result = self._pg.get_result()
                if result is None:
                    break
                self._row = self._values_of(result)
            else:
                return None
        read, self._read = self._read, None
        row, self._row = self._row, []
        return read(row)

    def _values_of(self, result: pq.abc.PGresult) -> list[bytes | None]:
        if result.status != pq.ExecStatus.TUPLES_OK and self._is_optional:
            self._refusal = _refusal_of(result)
            return []
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise SourceUnavailable(f"Source {self._source}: {_refusal_of(result)}", hint="The reader retries.")
        return [result.get_value(0, column) for column in range(result.nfields)]

    def close(self) -> None:
        self.connection.close()


def _refusal_of(result: pq.abc.PGresult) -> str:
    words = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return server_sentence(state.decode() if state else None, words)


def health_of(connection: Connection, target: MonitorTarget) -> Health:
    """Query Health over any plain connection; psycopg's own errors."""
    row = connection.execute(query(__package__, "health").encode(), _parameters(target)).fetchone()
    assert row is not None
    return _health(target.slot, [str(row[0]).encode()])


def _parameters(target: MonitorTarget) -> list[str]:
    return [target.slot, target.publication, json.dumps(target.tables)]


def _clock(row: Sequence[bytes | None]) -> ClockReading:
    at_us, lsn, flushed_lsn, oid = row
    return ClockReading(
        int(at_us or b"0"),
        _end_of_record(lsn_from_text((lsn or b"0/0").decode())),
        lsn_from_text(flushed_lsn.decode()) if flushed_lsn else None,
        oid.decode() if oid else None,
    )


def _end_of_record(insert_lsn: int) -> int:
    """An insert position right after a page header is, for the stream, the end of the previous page."""
    inside = insert_lsn % _PAGE_BYTES
    return insert_lsn - inside if inside in _PAGE_HEADER_BYTES else insert_lsn


def _health(slot: str, row: Sequence[bytes | None]) -> Health:
    document = json.loads(row[0] or b"{}")
    shown = document.get("slot")
    missing = tuple(document.get("missing") or ())
    members = document.get("membership")
    membership = "" if members is None else json.dumps(members, sort_keys=True, separators=(",", ":"))
    if shown is None:
        return Health(None, missing, membership)
    lsn = shown.pop("confirmed_lsn")
    return Health(Slot(name=slot, confirmed_lsn=lsn_from_text(lsn) if lsn else 0, **shown), missing, membership)
