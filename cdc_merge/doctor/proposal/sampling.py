"""Reads one source: its tables, and a few hundred rows of each table that the role may read.

Sampling has a short time limit, and only the texts of the values are kept, in memory, for comparison.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from cdc_merge.doctor.proposal.catalog_sample import ColumnSeen, TableSeen
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query

SAMPLE_ROWS: Final = 300
SAMPLE_LIMIT_MS: Final = 3_000
MOST_TABLES: Final = 300  # a schema with more tables is not sampled; only names are compared
COMPARED_TYPES: Final = frozenset({"text", "integer", "decimal", "date"})


def sample_tables(source: str, dsn: str) -> list[TableSeen]:
    """The tables of a source. SourceUnavailable or SourceRefused when it cannot be queried."""
    connection = connect(source, dsn)
    try:
        with server_errors(source), connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query(__package__, "tables").encode()).fetchall()
        with server_errors(source):
            connection.execute("SELECT set_config('statement_timeout', $1, false)", [str(SAMPLE_LIMIT_MS)])
        return [_table(source, connection, row, sampled=len(rows) <= MOST_TABLES) for row in rows]
    finally:
        connection.close()


def _table(source: str, connection: Connection, row: dict[str, Any], *, sampled: bool) -> TableSeen:
    columns = [
        ColumnSeen(column["name"], column["type_oid"], column["type_name"], column["is_made"])
        for column in row["columns"]
    ]
    compared = [column for column in columns if column.value_type in COMPARED_TYPES]
    samples = _samples(connection, row, compared) if sampled and row["may_select"] and compared else {}
    return TableSeen(
        source=source,
        name=row["name"],
        columns=tuple(column._replace(sample=samples.get(column.name, frozenset())) for column in columns),
        primary_key=tuple(row["primary_key"]),
        unique_keys=tuple(tuple(key) for key in row["unique_keys"]),
        rows=row["rows"],
        schema=row["namespace"],
    )


def _samples(connection: Connection, row: dict[str, Any], columns: list[ColumnSeen]) -> dict[str, frozenset[str]]:
    """Column → values in their compared form. Empty when the table cannot be read in time."""
    listed = sql.SQL(", ").join(sql.SQL("left({}::text, 200)").format(sql.Identifier(c.name)) for c in columns)
    table = sql.Identifier(row["namespace"], row["plain_name"])
    statement = sql.SQL("SELECT {} FROM {} LIMIT {}").format(listed, table, SAMPLE_ROWS)
    try:
        rows = connection.execute(statement).fetchall()
    except psycopg.errors.Error as error:
        if error.sqlstate is None:
            raise
        return {}
    return {
        column.name: frozenset(str(value).strip().casefold() for value in values if value not in (None, ""))
        for column, values in zip(columns, zip(*rows, strict=True), strict=False)
    }
