"""People and jobs at work in one business system: each act is one committed transaction of one real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Table:
    """Where a system keeps its customers: every system has its own names. `columns` maps field → column."""

    schema: str
    name: str
    key: str
    columns: Mapping[str, str]

    @property
    def identifier(self) -> sql.Composable:
        return sql.Identifier(self.schema, self.name)


class Rows:
    """The statements of one open transaction, in the words of the incident."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table

    def insert(self, key: str, **fields: object) -> None:
        columns = [self._table.key, *(self._table.columns[field] for field in fields)]
        text = "insert into {} ({}) values ({})"
        names = sql.SQL(",").join(map(sql.Identifier, columns))
        places = sql.SQL(",").join([sql.Placeholder()] * len(columns))
        self._connection.execute(
            sql.SQL(text).format(self._table.identifier, names, places), [key, *map(_adapted, fields.values())]
        )

    def update(self, key: str, **fields: object) -> None:
        columns = [sql.SQL("{} = %s").format(sql.Identifier(self._table.columns[field])) for field in fields]
        self._change("set " + "{}", key, [sql.SQL(",").join(columns)], [*map(_adapted, fields.values())])

    def add(self, key: str, **fields: object) -> None:
        """Count up or down, as applications do: `set points = points + …`."""
        names = [sql.Identifier(self._table.columns[field]) for field in fields]
        columns = [sql.SQL("{0} = {0} + %s").format(name) for name in names]
        self._change("set " + "{}", key, [sql.SQL(",").join(columns)], list(fields.values()))

    def rekey(self, old: str, new: str) -> None:
        self._change("set {} = %s", old, [sql.Identifier(self._table.key)], [new])

    def delete(self, key: str) -> None:
        text = sql.SQL("delete from {} where {} = %s").format(self._table.identifier, sql.Identifier(self._table.key))
        assert self._connection.execute(text, [key]).rowcount == 1, f"nothing to delete under {key}"

    def truncate(self) -> None:
        self._connection.execute(sql.SQL("truncate {}").format(self._table.identifier))

    def _change(self, what: str, key: str, parts: list[sql.Composable], values: list[object]) -> None:
        text = sql.SQL("update {} " + what + " where {} = %s")
        statement = text.format(self._table.identifier, *parts, sql.Identifier(self._table.key))
        assert self._connection.execute(statement, [*values, key]).rowcount == 1, f"nothing to change under {key}"


def _adapted(value: object) -> object:
    return Jsonb(value) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Mark:
    """What a transaction says of itself.

    `copy` marks it as a copy, of source `of` if given; `origin` applies it under that replication origin, with the
    commit time `at`.
    """

    copy: bool = False
    of: str | None = None
    actor: str | None = None
    origin: str | None = None
    at: datetime | None = None


PLAIN = Mark()
COPY = Mark(copy=True)


class System:
    """One business system. `stepped` is called after every commit."""

    def __init__(self, name: str, connection: Connection, table: Table, stepped: Callable[[], None]) -> None:
        self.name = name
        self.connection = connection
        self.table = table
        self._stepped = stepped

    @contextmanager
    def transaction(self, mark: Mark = PLAIN) -> Iterator[Rows]:
        with self._under(mark.origin), self.connection.transaction():
            self._say(mark)
            yield Rows(self.connection, self.table)
        self._stepped()

    def insert(self, key: str, mark: Mark = PLAIN, **fields: object) -> None:
        with self.transaction(mark) as rows:
            rows.insert(key, **fields)

    def update(self, key: str, mark: Mark = PLAIN, **fields: object) -> None:
        with self.transaction(mark) as rows:
            rows.update(key, **fields)

    def copies(self, key: str, **fields: object) -> None:
        """A marked sync job repeats another system's values here."""
        self.update(key, COPY, **fields)

    def add(self, key: str, **fields: object) -> None:
        with self.transaction() as rows:
            rows.add(key, **fields)

    def delete(self, key: str, mark: Mark = PLAIN) -> None:
        with self.transaction(mark) as rows:
            rows.delete(key)

    def rekey(self, old: str, new: str) -> None:
        with self.transaction() as rows:
            rows.rekey(old, new)

    def clock(self) -> datetime:
        row = self.connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    def sentinel(self) -> str:
        """Two transactional messages after all work; the LSN of the second lies behind the commit of the first."""
        lsn = ""
        for _ in range(2):
            with self.connection.transaction():
                self.connection.execute("set local synchronous_commit = on")
                row = self.connection.execute(
                    "select pg_logical_emit_message(true, 'tests.quiet', '')::text"
                ).fetchone()
                assert row is not None
                lsn = row[0]
        return lsn

    def _say(self, mark: Mark) -> None:
        if mark.copy:
            content = f'{{"from": "{mark.of}"}}' if mark.of else ""
            self.connection.execute("select pg_logical_emit_message(true, 'cdc_merge.copy', %s)", [content])
        if mark.actor:
            self.connection.execute("select pg_logical_emit_message(true, 'cdc_merge.actor', %s)", [mark.actor])
        if mark.at:
            self.connection.execute("select pg_replication_origin_xact_setup('0/1', %s)", [mark.at])

    @contextmanager
    def _under(self, origin: str | None) -> Iterator[None]:
        if origin is None:
            yield
            return
        known = self.connection.execute("select 1 from pg_replication_origin where roname = %s", [origin]).fetchone()
        if known is None:
            self.connection.execute("select pg_replication_origin_create(%s)", [origin])
        self.connection.execute("select pg_replication_origin_session_setup(%s)", [origin])
        try:
            yield
        finally:
            self.connection.execute("select pg_replication_origin_session_reset()")
