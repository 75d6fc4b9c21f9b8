"""Edits by simulated users and the sync job: one `Editor` per thread, with a connection to each of the three systems.

Each system marks the actor in its own way: the CRM in the row (`updated_by`), the ERP and the finance system by a
logical message `cdc_merge.actor`; the sync job is `etl` in the CRM's rows, sends `cdc_merge.copy` in the ERP, and uses
the replication origin `etl` in the finance system. Committed edits are entered in the record's `rows`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from cdc_merge.demo.systems import SOURCES, FactValue, Table, column_value
from cdc_merge.demo.truth import TrueRecord

SYNC_JOB: Final = "etl"
BRIEF: Final = 24  # characters of a value that fit into a line on a screen
LAST_EDITS: Final = 200  # the latest edits of each system for the screen; older ones are dropped

EMIT: Final[LiteralString] = "select pg_logical_emit_message(true, %s, %s)"
ORIGIN: Final[LiteralString] = "select pg_replication_origin_session_setup('etl')"
ORIGIN_TIME: Final[LiteralString] = "select pg_replication_origin_xact_setup('0/1', clock_timestamp())"

Connection = psycopg.Connection[tuple[object, ...]]
Fields = Mapping[str, FactValue]


class Edit(NamedTuple):
    """One committed edit as a sentence, for the screen."""

    source: str
    who: str
    sentence: str


class Journal:
    """The latest edits of each system and its count of committed row changes; written by every editor."""

    def __init__(self) -> None:
        self.edits: dict[str, deque[Edit]] = {source: deque(maxlen=LAST_EDITS) for source in SOURCES}
        self.rows: dict[str, int] = dict.fromkeys(SOURCES, 0)
        self._lock = threading.Lock()

    def note(self, edit: Edit, rows: int = 1) -> None:
        with self._lock:
            self.edits[edit.source].append(edit)
            self.rows[edit.source] += rows


class SyncJob:
    """The sync job's own connections. An origin belongs to one session at a time, so editors take turns."""

    def __init__(self, dsns: Mapping[str, str]) -> None:
        self.lock = threading.Lock()
        self.connections = {source: psycopg.connect(dsn, autocommit=True) for source, dsn in dsns.items()}
        self.connections["finance"].execute(ORIGIN)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


class EditTransaction:
    """One transaction at one system, by a user or the sync job, with the demo's few statements."""

    def __init__(self, connection: Connection, source: str, who: str) -> None:
        self._connection = connection
        self._source = source
        self._who = who
        self.sentences: list[str] = []
        self.applied: list[Callable[[], None]] = []

    def update(self, record: TrueRecord, fields: Fields) -> None:
        """Set fields of the record's row."""
        table = record.entity.tables[self._source]
        values = {name: value for name, value in fields.items() if name in table.columns}
        parts = [
            sql.SQL("{} = {}").format(sql.Identifier(table.columns[name]), column_value(value))
            for name, value in values.items()
        ]
        self._run("update {} set {} where {} = {}", _name(table), self._signed(parts), *_where(table, record.key))
        self._log_edit(record, values, lambda row: row.update(values))

    def add(self, record: TrueRecord, name: str, delta: FactValue) -> None:
        """Add to a counter, as an application does: column = column + delta."""
        table = record.entity.tables[self._source]
        column = sql.Identifier(table.columns[name])
        part = sql.SQL("{} = {} + {}").format(column, column, delta)
        self._run("update {} set {} where {} = {}", _name(table), self._signed([part]), *_where(table, record.key))

        def book(row: dict[str, FactValue]) -> None:
            row[name] = row[name] + delta  # type: ignore[operator]  # counters and deltas are numbers

        self._log_edit(record, {name: f"{delta:+}"}, book)

    def insert(self, record: TrueRecord, fields: Fields) -> None:
        table = record.entity.tables[self._source]
        values = {name: fields.get(name) for name in table.columns}
        columns = [table.key, *(table.columns[name] for name in values)]
        row: list[object] = [record.key, *(column_value(value) for value in values.values())]
        if self._source == "crm":
            columns.append("updated_by")
            row.append(self._who)
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        self._run("insert into {} ({}) values ({})", _name(table), names, sql.SQL(", ").join(map(sql.Literal, row)))
        self.sentences.append(f"{record.key} inserted")
        self.applied.append(lambda: record.rows.__setitem__(self._source, values))

    def delete(self, record: TrueRecord) -> None:
        table = record.entity.tables[self._source]
        self._run("delete from {} where {} = {}", _name(table), *_where(table, record.key))
        self.sentences.append(f"{record.key} deleted")
        self.applied.append(lambda: record.rows.__delitem__(self._source))

    def rename(self, table: Table, old: str, new: str) -> None:
        """Change a business key. The act updates the records' rows."""
        parts = [sql.SQL("{} = {}").format(sql.Identifier(table.key), new)]
        self._run("update {} set {} where {} = {}", _name(table), self._signed(parts), *_where(table, old))
        self.sentences.append(f"key {old} → {new}")

    def _signed(self, parts: list[sql.Composed]) -> sql.Composed:
        signature = [sql.SQL("updated_by = {}").format(self._who)] if self._source == "crm" else []
        return sql.SQL(", ").join([*parts, *signature])

    def _run(self, text: LiteralString, *parts: sql.Composable) -> None:
        self._connection.execute(sql.SQL(text).format(*parts))

    def _log_edit(self, record: TrueRecord, shown: Fields, apply: Callable[[dict[str, FactValue]], None]) -> None:
        values = ", ".join(f"{name} {brief(value)}" for name, value in shown.items())
        self.sentences.append(f"{record.key} {values}")
        self.applied.append(lambda: apply(record.rows[self._source]))


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(*table.name.split("."))


def _where(table: Table, key: str) -> tuple[sql.Identifier, sql.Literal]:
    return sql.Identifier(table.key), sql.Literal(key)


def brief(value: object) -> str:
    """A value shortened for the screen."""
    if value is None:
        return "empty"
    text = ";".join(sorted(value)) if isinstance(value, frozenset) else str(value)
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 1]}…"


class Editor:
    """Opens one thread's transactions at the three systems."""

    def __init__(self, dsns: Mapping[str, str], sync: SyncJob, journal: Journal) -> None:
        self._connections = {source: psycopg.connect(dsn, autocommit=True) for source, dsn in dsns.items()}
        self._sync = sync
        self._journal = journal

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    @contextmanager
    def user_transaction(self, source: str, who: str) -> Iterator[EditTransaction]:
        """A user's transaction, committed at the end of the block."""
        connection = self._connections[source]
        with connection.transaction():
            if source != "crm":
                connection.execute(EMIT, ("cdc_merge.actor", who))
            tx = EditTransaction(connection, source, who)
            yield tx
        self._enter(source, who, tx)

    @contextmanager
    def copy_transaction(self, source: str, *, deleting: bool = False) -> Iterator[EditTransaction]:
        """The sync job's transaction, marked as that system marks it, committed at the end of the block."""
        connection = self._sync.connections[source]
        with self._sync.lock, connection.transaction():
            _mark(connection, source, deleting=deleting)
            tx = EditTransaction(connection, source, SYNC_JOB)
            yield tx
        self._enter(source, SYNC_JOB, tx)

    def _enter(self, source: str, who: str, tx: EditTransaction) -> None:
        for apply in tx.applied:
            apply()
        self._journal.note(Edit(source, who, "; ".join(tx.sentences)), len(tx.sentences))


def _mark(connection: Connection, source: str, *, deleting: bool) -> None:
    if source == "finance":
        connection.execute(ORIGIN_TIME)
    elif source == "erp" or deleting:  # in the CRM updated_by marks the copy, but a deleted row has none
        connection.execute(EMIT, ("cdc_merge.copy", "{}"))
