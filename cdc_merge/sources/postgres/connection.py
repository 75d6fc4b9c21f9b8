"""Connections to a source: plain ones for queries, one in replication mode for the stream.

Rules: whatever the settings of role and database, values arrive in one text form (`PINNED`, verified after connecting, since
a pooler may strip it); no timeout of the role ends a session that waits by design; a dead network and a server that does not
answer are both noticed within a minute.
"""

from __future__ import annotations

import time
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from cdc_merge.errors import SourceRefused
from cdc_merge.sources.postgres.reader_limits import DEFAULT_READER_LIMITS, ReaderLimits
from cdc_merge.sources.postgres.sqlstates import connect_refusal, server_errors
from cdc_merge.sql_files import query

Waited = TypeVar("Waited")

_POLL_EVERY_S: Final = 0.1

PINNED: Final = {
    "datestyle": ("ISO", "ISO"),
    "intervalstyle": ("postgres", "postgres"),
    "extra_float_digits": ("3", "3"),
    "bytea_output": ("hex", "hex"),
    "timezone": ("UTC", "UTC"),
    "client_encoding": ("UTF8", "UTF8"),
    "search_path": ("pg_catalog", "pg_catalog"),
}
"""Setting: (the requested value, the prefix of the value that the server then shows)."""

OLDEST_VERSION: Final = 140000  # the first with logical messages in pgoutput; older ones have reached their end of life

_OPTIONS: Final = (
    " ".join(f"-c {name}={value}" for name, (value, _) in PINNED.items())
    + " -c row_security=off -c synchronous_commit=local -c quote_all_identifiers=off -c default_transaction_read_only=off"
)
_TCP: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}


class TimedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection with a limit: it waits for each answer, or for the next row of a COPY, at most `answer_limit_s` seconds. A
    half-open connection ends as an OperationalError, its socket closed."""

    answer_limit_s: float = DEFAULT_READER_LIMITS.answer_s

    def wait(self, gen: PQGen[Waited], interval: float = _POLL_EVERY_S, timeout: float | None = None) -> Waited:
        limit_s = timeout or self.answer_limit_s
        deadline = time.monotonic() + limit_s
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError:
            if time.monotonic() >= deadline:
                self.pgconn.finish()  # nothing that follows on this connection would be answered either
            raise


Connection: TypeAlias = TimedConnection  # a row holds what its query selects


def connect(
    source: str, dsn: str, limits: ReaderLimits = DEFAULT_READER_LIMITS, *, replication: bool = False
) -> Connection:
    """A connection with pinned settings; SourceUnavailable or SourceRefused, without the DSN in them."""
    given = _parsed(source, dsn)
    wanted: dict[str, Any] = given | {
        "application_name": f"cdc_merge/{source}",
        "options": f"{given.get('options') or ''} {_OPTIONS}".strip(),
    }
    if replication:
        wanted["replication"] = "database"
    try:
        connection = TimedConnection.connect(
            **({"connect_timeout": limits.connect_s} | _TCP | wanted),
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.RawCursor,
        )
    except psycopg.Error as error:
        raise connect_refusal(source, error) from None
    connection.answer_limit_s = limits.answer_s
    try:
        _check_session(source, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _parsed(source: str, dsn: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(dsn)
    except psycopg.Error:
        raise SourceRefused(
            f"Source {source}: its dsn is not a PostgreSQL connection string.",
            problem="configuration",
            hint="Write postgresql://user:password@host:5432/database with special characters percent-encoded.",
        ) from None


def _check_session(source: str, connection: Connection) -> None:
    if connection.info.server_version < OLDEST_VERSION:
        raise SourceRefused(
            f"Source {source}: the server is PostgreSQL {connection.info.server_version // 10000}, too old to be read.",
            problem="configuration",
            hint=f"PostgreSQL {OLDEST_VERSION // 10000} or later is needed.",
        )
    with server_errors(source):
        connection.execute(query(__package__, "timeouts"))
        shown = connection.execute(query(__package__, "pinned")).fetchone()
    assert shown is not None
    for (name, (_, expected)), value in zip(PINNED.items(), shown, strict=True):
        if not str(value).startswith(expected):
            raise SourceRefused(
                f"Source {source}: the session's {name} is {value}, not {expected} as requested.",
                problem="configuration",
                hint="Connect to the server directly, not through a pooler: it strips the session's settings.",
            )
