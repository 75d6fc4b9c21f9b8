"""COPY of one table: its rows as of the slot's consistent point, in the same text form as the stream.

Rules
- The slot is created with an exported snapshot; COPY reads through it and the stream starts at the same point: no row is
  lost in between and none arrives twice.
- The clock is read before the slot exists, so that no later commit can lie before the snapshot's stamp.
- COPY runs the same output functions under the same pinned settings as pgoutput; only its escapes are removed here.
- The publication's row filter applies to COPY as to the stream. Row-level security makes it fail, not shrink.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from psycopg import sql

from cdc_merge.model import SNAPSHOT, RawValue, Relation, RowChange
from cdc_merge.sources.postgres.catalog import PARTITIONED, Catalog, CatalogTable
from cdc_merge.sources.postgres.connection import Connection
from cdc_merge.sources.postgres.sqlstates import server_errors

CHUNK_ROWS: Final = 2_000
CHUNK_BYTES: Final = 1 << 20  # a chunk of wide rows ends earlier, so that the queue's bound means something

_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def read_copy_line(line: bytes) -> tuple[RawValue, ...]:
    """One row of COPY's text format, without its newline (Postgres docs, COPY, "Text Format")."""
    values = line.split(b"\t")
    if b"\\" not in line:
        return tuple(values)
    return tuple(_unescaped(value) if b"\\" in value else value for value in values)


def _unescaped(value: bytes) -> RawValue:
    if value == b"\\N":
        return None
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match.group(1), match.group(1)), value)


class TableCopy:
    """Reads the tables of one source through an exported snapshot, over a plain connection of its own."""

    def __init__(self, source: str, connection: Connection, publication: str, row_limit_s: float) -> None:
        self._source = source
        self._connection = connection
        connection.answer_limit_s = row_limit_s
        self._catalog = Catalog(source, connection, publication)

    def begin(self, snapshot: str, tables: Iterable[str]) -> dict[str, CatalogTable]:
        """Enter the exported snapshot; the catalog's tables as of that point."""
        with server_errors(self._source):
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
        return self._catalog.describe(tables)

    def chunks(
        self, facts: CatalogTable, relation: Relation, wait: Callable[[], None]
    ) -> Iterator[tuple[list[RowChange], int]]:
        """(rows, bytes) of one table, chunk by chunk. `wait` is called before each chunk and may block."""
        rows: list[RowChange] = []
        size = ordinal = 0
        with (
            server_errors(self._source),
            self._connection.cursor() as cursor,
            cursor.copy(_copy(facts, relation)) as copy,
        ):
            for block in copy:
                line = bytes(block)
                if not rows:
                    wait()
                values = read_copy_line(line[:-1]) if relation.columns else ()
                rows.append(RowChange(SNAPSHOT, relation, None, False, values, ordinal))  # noqa: FBT003 - a tuple's field
                ordinal += 1
                size += len(line)
                if len(rows) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                    yield rows, size
                    rows, size = [], 0
        if rows:
            yield rows, size


def _copy(facts: CatalogTable, relation: Relation) -> sql.Composed:
    """libpq hands out COPY data one whole row at a time, so a block is a line."""
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in relation.columns)
    # A table that others inherit from is published without their rows; a partitioned one consists of its partitions.
    only = sql.SQL("" if facts.kind == PARTITIONED else "ONLY ")
    table = sql.Identifier(relation.namespace, relation.name)
    # The filter is the server's own text of an expression that it checked when the publication was made.
    where = sql.SQL(" WHERE {}").format(sql.SQL(facts.row_filter)) if facts.row_filter else sql.SQL("")
    return sql.SQL("COPY (SELECT {} FROM {}{}{}) TO STDOUT").format(columns, only, table, where)
