"""The plain connection beside the stream: questions before it starts, then the server's clock and the slot's health.

Why a second connection: in the stream a keepalive's clock says nothing about commits that are written but not yet sent,
and a server that shuts down waits for a replication client, but ends a plain session at once: its end is our sign to
leave. While streaming, questions are asked without waiting: `ask_…`, then `answer` when the socket is readable.

Only `ask_flush` and `ask_heartbeat` write anything: a logical message, which costs WAL and touches no table.
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
from cdc_merge.sources.postgres.resume_checks import Slot
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query

_PAGE_HEADER_BYTES: Final = (24, 40)
_PAGE_BYTES: Final = 8192
_WRITING: Final = ("flush", "heartbeat")  # what our role may not be permitted to ask, and nothing depends on


class ClockReading(NamedTuple):
    """Every commit stamped before `at_us` lies before `lsn`.

    `flushed_lsn` is how far the server could send by then, None on a standby; without a publication its oid is None.
    """

    at_us: int
    lsn: int
    flushed_lsn: int | None
    publication_oid: str | None


class Flushed(NamedTuple):
    """The server was asked to write out its WAL; `is_permitted` is False where our role may not."""

    is_permitted: bool


class Beaten(NamedTuple):
    """A heartbeat was written, or why not: the server's words."""

    refusal: str | None


class Health(NamedTuple):
    """The slot, None when it does not exist, the tables that the publication does not have, and what it sends of the
    others (membership.py)."""

    slot: Slot | None
    missing: tuple[str, ...]
    membership: str = ""


Answer: TypeAlias = "ClockReading | Health | Flushed | Beaten"


class Watched(NamedTuple):
    """What is asked about: names that go into the questions."""

    slot: str
    publication: str
    tables: tuple[str, ...]


class SlotMonitor:
    """One plain connection to a source, named `source` in errors."""

    def __init__(self, source: str, dsn: str, watched: Watched) -> None:
        self._source = source
        self._watched = watched
        self.connection: Connection = connect(source, dsn)
        self._pg = self.connection.pgconn
        self._read: Callable[[Sequence[bytes | None]], Answer] | None = None
        self._may_refuse = False
        self._refusal = ""
        self._row_so_far: list[bytes | None] = []

    @property
    def publication(self) -> str:
        return self._watched.publication

    @property
    def socket(self) -> int:
        return self._pg.socket

    def rows(self, name: str, *parameters: object) -> list[dict[str, Any]]:  # columns as the query names them
        """The answer to `sql/<name>.sql`; waits for it."""
        with server_errors(self._source), self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(__package__, name).encode(), list(parameters) or None).fetchall()

    def health(self) -> Health:
        with server_errors(self._source):
            return health_of(self.connection, self._watched)

    def clock(self) -> ClockReading:
        with server_errors(self._source):
            row = self.connection.execute(query(__package__, "watch").encode(), [self._watched.publication]).fetchone()
        assert row is not None
        return _clock([None if value is None else str(value).encode() for value in row])

    def drop_slot(self) -> None:
        with server_errors(self._source):
            self.connection.execute("SELECT pg_drop_replication_slot($1)", [self._watched.slot])

    # ---------------------------------------------------------------- without waiting

    def ask_clock(self) -> bool:
        """Ask for a ClockReading; False while the last question is not answered."""
        return self._ask("watch", [self._watched.publication], _clock)

    def ask_health(self) -> bool:
        """Ask for Health; False while the last question is not answered."""
        return self._ask("health", self._health_parameters(), lambda row: _health(self._watched.slot, row))

    def ask_flush(self) -> bool:
        """Have the WAL written out, which writes one record of some hundred bytes; False as above."""
        return self._ask("flush", [], _flushed)

    def ask_heartbeat(self, content: str) -> bool:
        """Have a heartbeat written and committed; False as above."""
        return self._ask("heartbeat", [content], lambda row: Beaten(None if row else self._refusal))

    def _health_parameters(self) -> list[str]:
        return _parameters(self._watched)

    def _ask(self, name: str, parameters: list[str], read: Callable[[Sequence[bytes | None]], Answer]) -> bool:
        if self._read is not None:
            return False
        with server_errors(self._source):
            self._pg.send_query_params(query(__package__, name).encode(), [value.encode() for value in parameters])
        self._read = read
        self._may_refuse = name in _WRITING
        return True

    def answer(self) -> Answer | None:
        """The answer to what was asked, once it has come. SourceUnavailable when the server ended this session."""
        with server_errors(self._source):
            self._pg.consume_input()
            if self._read is None:
                return None
            # An answer may be cut between two packets: asking for a result that has not come would wait for it.
            while not self._pg.is_busy():
                result = self._pg.get_result()
                if result is None:
                    break
                self._row_so_far = self._row(result)
            else:
                return None
        read, self._read = self._read, None
        row, self._row_so_far = self._row_so_far, []
        return read(row)

    def _row(self, result: pq.abc.PGresult) -> list[bytes | None]:
        if result.status != pq.ExecStatus.TUPLES_OK and self._may_refuse:
            self._refusal = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
            return []
        if result.status != pq.ExecStatus.TUPLES_OK:
            words = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
            raise SourceUnavailable(f"Source {self._source}: the server says: {words}", hint="It is tried again.")
        return [result.get_value(0, column) for column in range(result.nfields)]

    def close(self) -> None:
        self.connection.close()


def health_of(connection: Connection, watched: Watched) -> Health:
    """The answer over any plain connection; psycopg's own errors."""
    row = connection.execute(query(__package__, "health").encode(), _parameters(watched)).fetchone()
    assert row is not None
    return _health(watched.slot, [str(row[0]).encode()])


def _parameters(watched: Watched) -> list[str]:
    return [watched.slot, watched.publication, json.dumps(watched.tables)]


def _clock(row: Sequence[bytes | None]) -> ClockReading:
    at_us, lsn, flushed_lsn, oid = row
    return ClockReading(
        int(at_us or b"0"),
        _end_of_record(lsn_from_text((lsn or b"0/0").decode())),
        lsn_from_text(flushed_lsn.decode()) if flushed_lsn else None,
        oid.decode() if oid else None,
    )


def _flushed(row: Sequence[bytes | None]) -> Flushed:
    return Flushed(is_permitted=bool(row))


def _end_of_record(insert_lsn: int) -> int:
    """An insert position behind a page header is, for the stream, the end of the page before."""
    inside = insert_lsn % _PAGE_BYTES
    return insert_lsn - inside if inside in _PAGE_HEADER_BYTES else insert_lsn


def _health(slot: str, row: Sequence[bytes | None]) -> Health:
    document = json.loads(row[0] or b"{}")
    shown = document.get("slot")
    missing = tuple(document.get("missing") or ())
    told = document.get("membership")
    membership = "" if told is None else json.dumps(told, sort_keys=True, separators=(",", ":"))
    if shown is None:
        return Health(None, missing, membership)
    lsn = shown.pop("confirmed_lsn")
    return Health(Slot(name=slot, confirmed_lsn=lsn_from_text(lsn) if lsn else 0, **shown), missing, membership)
