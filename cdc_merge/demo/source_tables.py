"""The rows of the three systems' tables, and the LSN up to which their streams must be read."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

from cdc_merge.demo.systems import Table, entities
from cdc_merge.demo.verify import Rows
from cdc_merge.model import lsn_from_text


def rows(dsns: Mapping[str, str]) -> Rows:
    """Every mapped row: (source, entity, key) → field → value."""
    by_key: dict[tuple[str, str, str], Mapping[str, object]] = {}
    for source, dsn in dsns.items():
        with psycopg.connect(dsn) as connection:
            for entity in entities().values():
                if source in entity.tables:
                    by_key |= _rows_of_table(connection, entity.tables[source])
    return by_key


def _rows_of_table(
    connection: psycopg.Connection[tuple[object, ...]], table: Table
) -> dict[tuple[str, str, str], Mapping[str, object]]:
    columns = sql.SQL(", ").join(map(sql.Identifier, (table.key, *table.columns.values())))
    query = sql.SQL("select {} from {}").format(columns, sql.Identifier(*table.name.split(".")))
    return {
        (table.source, table.entity, str(key)): dict(zip(table.columns, values, strict=True))
        for key, *values in connection.execute(query)
    }


def ends(dsns: Mapping[str, str]) -> dict[str, int]:
    """For each system the LSN after a new transactional message: it is after every earlier commit.

    `pg_current_wal_lsn()` alone can be before a commit that is still in the buffer (contract §7), so the message is
    committed synchronously first.
    """
    return {source: _end(dsn) for source, dsn in dsns.items()}


def _end(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = on")
        connection.execute("select pg_logical_emit_message(true, 'cdc_merge.demo', 'end')")
        row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return lsn_from_text(str(row[0]))
