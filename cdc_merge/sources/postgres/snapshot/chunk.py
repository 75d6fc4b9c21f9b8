"""One chunk of a table, read by a SELECT in the order of its own key: bounded, in the same text form as the stream.

Rules: row-level security makes the read fail, not shrink (connection.py); the publication's row filter applies; a table
without a key is read whole when it is small, and refused when it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from psycopg import sql

from cdc_merge.errors import SourceRefused
from cdc_merge.model import RawValue, Relation
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.catalog import PARTITIONED, CatalogTable
from cdc_merge.sources.postgres.connection import Connection
from cdc_merge.sources.postgres.snapshot.watermark_window import Chunk

CHUNK_ROWS: Final = 2_000
CHUNK_BYTES: Final = 4 << 20  # a chunk of wide rows ends earlier
UNKEYED_ROWS: Final = 50_000  # rows in memory of a table without a key to continue after

_FETCH_ROWS: Final = 200
_FETCH: Final = f"FETCH {_FETCH_ROWS} FROM chunk".encode()
_XID_BITS: Final = 0xFFFFFFFF


def row_identity_columns(facts: CatalogTable, relation: Relation) -> tuple[str, ...]:
    """The columns by which the stream identifies a row of the table."""
    if facts.identity in ("d", "i") and facts.identity_columns:
        return facts.identity_columns
    return facts.primary_key or tuple(column.name for column in relation.columns)


def read_chunk(connection: Connection, facts: CatalogTable, relation: Relation, request: ChunkRequest) -> Chunk:
    """Read the requested chunk in one snapshot. psycopg.Error; SourceRefused for a large table without a key."""
    statement, parameters = _select(facts, relation, request)
    limit = CHUNK_ROWS if facts.order else UNKEYED_ROWS
    rows: list[tuple[RawValue, ...]] = []
    reached: tuple[str, ...] | None = None
    size = 0
    is_full = False
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(sql.SQL("DECLARE chunk NO SCROLL CURSOR FOR ") + statement, parameters)
        hidden = _transactions_in_progress(connection)
        for row in _fetched(connection):
            rows.append(row)
            size += sum(len(value) for value in row if isinstance(value, bytes))
            is_full = len(rows) >= limit or (bool(facts.order) and size >= CHUNK_BYTES)
            if is_full and not request.keys:
                reached = _key(relation, facts.order, row) if facts.order else None
                break
    if is_full and not facts.order:
        raise _unkeyed(facts)
    return Chunk(relation, tuple(rows), hidden, reached, facts.expected_rows)


def _select(facts: CatalogTable, relation: Relation, request: ChunkRequest) -> tuple[sql.Composed, list[str]]:
    conditions: list[sql.Composable] = []
    parameters: list[str] = []
    if request.keys:
        conditions.append(_among(request.key_columns, request.keys, parameters))
    elif request.after is not None:
        conditions.append(_row(map(sql.Identifier, facts.order)) + sql.SQL(" > ") + _bound(request.after, parameters))
    if facts.row_filter:
        # The server's own text of an expression that it checked when the publication was made.
        conditions.append(sql.SQL("({})").format(sql.SQL(facts.row_filter)))
    text = sql.SQL("SELECT {} FROM {}{}").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in relation.columns),
        sql.SQL("" if facts.kind == PARTITIONED else "ONLY "),
        sql.Identifier(relation.namespace, relation.name),
    )
    if conditions:
        text += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)
    if facts.order:
        text += sql.SQL(" ORDER BY ") + sql.SQL(", ").join(map(sql.Identifier, facts.order))
    return text, parameters


def _among(columns: Sequence[str], keys: Sequence[tuple[str, ...]], parameters: list[str]) -> sql.Composed:
    rows = sql.SQL(", ").join([_bound(key, parameters) for key in keys])
    return _row(map(sql.Identifier, columns)) + sql.SQL(" IN (") + rows + sql.SQL(")")


def _bound(values: Sequence[str], parameters: list[str]) -> sql.Composed:
    """Parameters without a type: the server gives them the type of the columns that they are compared with."""
    places = []
    for value in values:
        parameters.append(value)
        places.append(sql.SQL("$" + str(len(parameters))))
    return _row(places)


def _row(parts: Iterator[sql.Composable] | Sequence[sql.Composable]) -> sql.Composed:
    listed = list(parts)
    return sql.SQL("({})" if len(listed) == 1 else "ROW({})").format(sql.SQL(", ").join(listed))


def _transactions_in_progress(connection: Connection) -> frozenset[int]:
    """The transactions that are in progress for this snapshot, by the 32 bits of a Begin message's xid."""
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert row is not None
    listed = str(row[0]).split(":")[2]
    return frozenset(int(xid) & _XID_BITS for xid in listed.split(",") if xid)


def _fetched(connection: Connection) -> Iterator[tuple[RawValue, ...]]:
    while True:
        result = connection.execute(_FETCH).pgresult
        assert result is not None
        columns = range(result.nfields)
        for row in range(result.ntuples):
            yield tuple([result.get_value(row, column) for column in columns])
        if result.ntuples < _FETCH_ROWS:
            return


def _key(relation: Relation, order: Sequence[str], row: Sequence[RawValue]) -> tuple[str, ...]:
    values = dict(zip((column.name for column in relation.columns), row, strict=True))
    key = [values[column] for column in order]
    return tuple(value.decode() for value in key if isinstance(value, bytes))


def _unkeyed(facts: CatalogTable) -> SourceRefused:
    return SourceRefused(
        f"Table {facts.table} has no primary key and more than {UNKEYED_ROWS} rows: it cannot be read in chunks.",
        problem="no_identity",
        hint="Give it a primary key, or a unique index as its replica identity.",
    )
