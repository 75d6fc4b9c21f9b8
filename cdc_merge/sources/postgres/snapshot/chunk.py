"""A piece of a table by a plain SELECT, in the order of the table's own key: bounded, in the same text form as the stream.

Rules: row security makes the reading fail, not shrink (connecting.py); the publication's row filter applies; a table
without a key is read whole when it is small, and refused when it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from psycopg import sql

from cdc_merge.errors import SourceRefused
from cdc_merge.model import RawValue, Relation
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.postgres.catalog import PARTITIONED, TableFacts
from cdc_merge.sources.postgres.connection import Connection
from cdc_merge.sources.postgres.snapshot.watermark_window import Chunk

PIECE_ROWS: Final = 2_000
PIECE_BYTES: Final = 4 << 20  # a piece of wide rows ends earlier
UNKEYED_ROWS: Final = 50_000  # what is held of a table that has no key to go on behind

_FETCH_ROWS: Final = 200
_FETCH: Final = f"FETCH {_FETCH_ROWS} FROM piece".encode()
_XID_BITS: Final = 0xFFFFFFFF


def named_by(facts: TableFacts, relation: Relation) -> tuple[str, ...]:
    """The columns by which the stream names a row of the table."""
    if facts.identity in ("d", "i") and facts.identity_columns:
        return facts.identity_columns
    return facts.primary_key or tuple(column.name for column in relation.columns)


def chunk(connection: Connection, facts: TableFacts, relation: Relation, wanted: ChunkRequest) -> Chunk:
    """Read what is wanted, in one snapshot. psycopg.Error; SourceRefused for a large table without a key."""
    statement, parameters = _select(facts, relation, wanted)
    limit = PIECE_ROWS if facts.order else UNKEYED_ROWS
    rows: list[tuple[RawValue, ...]] = []
    reached: tuple[str, ...] | None = None
    size = 0
    is_full = False
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(sql.SQL("DECLARE piece NO SCROLL CURSOR FOR ") + statement, parameters)
        hidden = _hidden(connection)
        for row in _fetched(connection):
            rows.append(row)
            size += sum(len(cell) for cell in row if isinstance(cell, bytes))
            is_full = len(rows) >= limit or (bool(facts.order) and size >= PIECE_BYTES)
            if is_full and not wanted.keys:
                reached = _key(relation, facts.order, row) if facts.order else None
                break
    if is_full and not facts.order:
        raise _unkeyed(facts)
    return Chunk(relation, tuple(rows), hidden, reached, facts.expected_rows)


def _select(facts: TableFacts, relation: Relation, wanted: ChunkRequest) -> tuple[sql.Composed, list[str]]:
    conditions: list[sql.Composable] = []
    parameters: list[str] = []
    if wanted.keys:
        conditions.append(_among(wanted.key_columns, wanted.keys, parameters))
    elif wanted.after is not None:
        conditions.append(_row(map(sql.Identifier, facts.order)) + sql.SQL(" > ") + _bound(wanted.after, parameters))
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
    """Parameters without a type: the server reads them as the columns that they are compared with."""
    places = []
    for value in values:
        parameters.append(value)
        places.append(sql.SQL("$" + str(len(parameters))))
    return _row(places)


def _row(parts: Iterator[sql.Composable] | Sequence[sql.Composable]) -> sql.Composed:
    listed = list(parts)
    return sql.SQL("({})" if len(listed) == 1 else "ROW({})").format(sql.SQL(", ").join(listed))


def _hidden(connection: Connection) -> frozenset[int]:
    """The transactions in progress for this snapshot, by the 32 bits that the stream names them with."""
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
    cells = dict(zip((column.name for column in relation.columns), row, strict=True))
    found = [cells[column] for column in order]
    return tuple(cell.decode() for cell in found if isinstance(cell, bytes))


def _unkeyed(facts: TableFacts) -> SourceRefused:
    return SourceRefused(
        f"Table {facts.table} has no primary key and more than {UNKEYED_ROWS} rows: it cannot be read again in pieces.",
        problem="no_identity",
        hint="Give it a primary key, or a unique index as its replica identity.",
    )
