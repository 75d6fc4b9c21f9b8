"""The catalog of a live source: its tables and their problems, for `check-config` and for the reader's start.

Rules: read-only; every problem is reported, not only the first; an object that the role may not see is no problem by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from psycopg.rows import dict_row

from cdc_merge.model import Column, Relation
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query

PARTITIONED: Final = "p"
_TABLE_KINDS: Final = ("r", PARTITIONED)
_PUBLISHED_OPERATIONS: Final = ("insert", "update", "delete", "truncate")
_GENERATED_PUBLISHED: Final = 180000  # from version 18 on a publication can list generated columns

CatalogRow: TypeAlias = dict[str, Any]  # a catalog row by column name; turned into types in this module


class CatalogProblem(NamedTuple):
    """One problem for an operator to fix. `problem` is its stable name (errors.SourceRefused)."""

    place: str
    sentence: str
    hint: str
    problem: str = "configuration"


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """One table in pg_class. `columns` maps name → (type oid, type name), a domain under its base type's name.

    `identity` is relreplident (d, i, f, n); `identity_columns` are the columns of the replica identity: all for f, none when
    it is unusable. `published_columns` are the columns that the publication sends; `row_filter` is its WHERE, if any.
    """

    table: str
    oid: int
    namespace: str
    name: str
    kind: str
    columns: Mapping[str, tuple[int, str]]
    identity: str
    identity_columns: tuple[str, ...]
    primary_key: tuple[str, ...]
    published: bool
    published_columns: frozenset[str]
    row_filter: str | None
    may_select: bool
    unreadable_columns: frozenset[str]
    expected_rows: int

    @property
    def order(self) -> tuple[str, ...]:
        """The columns of a unique key, in whose order the table is read chunk by chunk; none without such a key."""
        return self.primary_key or (self.identity_columns if self.identity == "i" else ())

    def relation(self, wanted: Iterable[str]) -> Relation:
        """The table as a Relation message would show it, with the wanted columns and those of the replica identity."""
        needed = {*wanted, *(self.primary_key if self.identity == "f" else self.identity_columns)}
        columns = tuple(
            Column(name, oid, type_name, name in self.identity_columns)
            for name, (oid, type_name) in self.columns.items()
            if name in needed
        )
        return Relation(self.oid, self.namespace, self.name, self.identity, columns)


class Catalog:
    """Catalog queries to one source over an open plain connection; `source` names it in errors."""

    def __init__(self, source: str, connection: Connection, publication: str) -> None:
        self._source = source
        self._connection = connection
        self._publication = publication

    def describe(self, tables: Iterable[str]) -> dict[str, CatalogTable]:
        """Those of the tables (`schema.table`) that exist."""
        names = list(tables)
        rows = self._rows("tables", names)
        columns = self._rows("columns", [row["oid"] for row in rows])
        members = {row["table_name"]: row for row in self._rows("members", self._publication, names)}
        version = self._connection.info.server_version
        return {
            row["table_name"]: _facts(
                row,
                [column for column in columns if column["table_oid"] == row["oid"]],
                members.get(row["table_name"]),
                generated_too=version >= _GENERATED_PUBLISHED,
            )
            for row in rows
        }

    def problems(self, tables: Mapping[str, Iterable[str]]) -> list[CatalogProblem]:
        """Every problem that keeps this source from being read; `tables` maps table → mapped columns."""
        server = self._rows("server")[0]
        publication = next(iter(self._rows("publication", self._publication)), None)
        problems = [problem for applies, problem in _SERVER_CHECKS if applies(server)]
        problems += _publication_problems(self._publication, publication)
        facts = self.describe(tables)
        for table, columns in tables.items():
            if table in facts:
                problems += _table_problems(self._publication, publication, facts[table], columns)
            else:
                problems.append(_no_table(table))
        return problems

    def _rows(self, name: str, *parameters: object) -> list[CatalogRow]:
        with server_errors(self._source), self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(__package__, name).encode(), list(parameters) or None).fetchall()


def describe(dsn: str, tables: Iterable[str], *, publication: str = "", source: str = "") -> dict[str, CatalogTable]:
    """The CatalogTable of each table that exists. SourceUnavailable or SourceRefused when the source cannot be queried."""
    with _connected(source, dsn) as connection:
        return Catalog(source, connection, publication).describe(tables)


def preflight(
    dsn: str, publication: str, tables: Mapping[str, Iterable[str]], *, source: str = ""
) -> list[CatalogProblem]:
    """Every problem that keeps the source from being read. SourceUnavailable or SourceRefused when it cannot be queried."""
    with _connected(source, dsn) as connection:
        return Catalog(source, connection, publication).problems(tables)


@contextmanager
def _connected(source: str, dsn: str) -> Any:
    connection = connect(source, dsn)
    try:
        yield connection
    finally:
        connection.close()


# ---------------------------------------------------------------- reading the rows


def _facts(
    row: CatalogRow, columns: list[CatalogRow], member: CatalogRow | None, *, generated_too: bool
) -> CatalogTable:
    by_number = {column["number"]: column["name"] for column in columns}
    identity = row["identity"]
    numbers = by_number if identity == "f" else row["identity_numbers"]
    listed = frozenset(member["columns"]) if member else frozenset()
    sendable = {column["name"] for column in columns if generated_too or not column["is_generated"]}
    return CatalogTable(
        table=row["table_name"],
        oid=row["oid"],
        namespace=row["namespace"],
        name=row["name"],
        kind=row["kind"],
        columns={column["name"]: (column["type_oid"], column["type_name"]) for column in columns},
        identity=identity,
        identity_columns=tuple(by_number[number] for number in numbers if number in by_number),
        primary_key=tuple(by_number[number] for number in row["key_numbers"] if number in by_number),
        published=member is not None,
        published_columns=frozenset(sendable & listed if listed else sendable) if member else frozenset(),
        row_filter=member["row_filter"] if member else None,
        may_select=row["may_select"],
        unreadable_columns=frozenset(column["name"] for column in columns if not column["may_select"]),
        expected_rows=row["expected_rows"],
    )


# ---------------------------------------------------------------- checking them


def _is_wal_too_low(server: CatalogRow) -> bool:
    switches_itself = server["version"] >= 190000 and server["wal_level"] == "replica"
    return server["wal_level"] != "logical" and not switches_itself


_SERVER_CHECKS: Final[tuple[tuple[Callable[[CatalogRow], bool], CatalogProblem], ...]] = (
    (
        _is_wal_too_low,
        CatalogProblem(
            "wal_level",
            "The server's wal_level is too low: changes can only be read with logical.",
            "ALTER SYSTEM SET wal_level = logical; then restart the server.",
            "wal_level",
        ),
    ),
    (
        lambda server: server["standby"] and server["version"] < 160000,
        CatalogProblem(
            "server",
            "The server is a standby, and this version supports logical decoding only on a primary.",
            "Point the DSN at the primary.",
        ),
    ),
    (
        lambda server: server["encoding"] == "SQL_ASCII",
        CatalogProblem(
            "server_encoding",
            "The database's encoding is SQL_ASCII: its text cannot be read without guessing.",
            "Recreate the database with encoding UTF8.",
        ),
    ),
    (
        lambda server: not server["may_replicate"],
        CatalogProblem(
            "role",
            "The role may not read changes: it has no REPLICATION attribute.",
            "ALTER ROLE … REPLICATION (on RDS: GRANT rds_replication TO …).",
            "not_permitted",
        ),
    ),
)


def _publication_problems(name: str, publication: CatalogRow | None) -> list[CatalogProblem]:
    place = f"publication {name}"
    if publication is None:
        return [
            CatalogProblem(
                place,
                f"Publication {name} does not exist.",
                "Create it as the tables' owner; `cdc-merge source grants` prints the SQL.",
                "publication_missing",
            )
        ]
    hidden = [operation for operation in _PUBLISHED_OPERATIONS if not publication[f"pub{operation}"]]
    if not hidden:
        return []
    return [
        CatalogProblem(
            place,
            f"Publication {name} does not publish {', '.join(hidden)}: such changes would be missed.",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');",
            "unpublished_operations",
        )
    ]


def _no_table(table: str) -> CatalogProblem:
    return CatalogProblem(
        table, f"Table {table} does not exist.", "Check the name; write it as schema.table.", "table_missing"
    )


def _table_problems(
    publication: str, published: CatalogRow | None, facts: CatalogTable, columns: Iterable[str]
) -> list[CatalogProblem]:
    if facts.kind not in _TABLE_KINDS:
        return [
            CatalogProblem(
                facts.table, f"{facts.table} is no table.", "Only tables have changes to read.", "table_missing"
            )
        ]
    wanted = list(columns)
    problems = [*_column_problems(publication, facts, wanted), *_privilege_problems(facts, wanted)]
    if published is not None and not facts.published:
        problems.insert(0, _unpublished_table(publication, published, facts))
    if not facts.identity_columns and (published is None or published["pubupdate"] or published["pubdelete"]):
        sentence = (
            f"Table {facts.table} has no usable replica identity: its own updates and deletes fail once published."
        )
        hint = f"Give it a primary key that is not deferrable, or ALTER TABLE {facts.table} REPLICA IDENTITY FULL."
        problems.append(CatalogProblem(facts.table, sentence, hint, "no_identity"))
    return problems


def _column_problems(publication: str, facts: CatalogTable, wanted: list[str]) -> Iterator[CatalogProblem]:
    missing = [column for column in wanted if column not in facts.columns]
    if missing:
        sentence = f"Table {facts.table} has no column {', '.join(missing)}."
        yield CatalogProblem(facts.table, sentence, f"Its columns are {', '.join(facts.columns)}.", "column_missing")
    unsent = [column for column in wanted if column in facts.columns and column not in facts.published_columns]
    if facts.published and unsent:
        sentence = f"Publication {publication} does not send {', '.join(unsent)} of {facts.table}."
        hint = "Add them to the publication's column list; a generated column is published from version 18 on only."
        yield CatalogProblem(facts.table, sentence, hint, "column_missing")


def _privilege_problems(facts: CatalogTable, wanted: list[str]) -> Iterator[CatalogProblem]:
    read = {*wanted, *facts.identity_columns} & facts.columns.keys()
    if read & facts.unreadable_columns or not facts.may_select:
        sentence = f"The role may not select from {facts.table}, which the initial snapshot needs."
        yield CatalogProblem(facts.table, sentence, f"GRANT SELECT ON {facts.table} TO the role.", "not_selectable")


def _unpublished_table(publication: str, published: CatalogRow, facts: CatalogTable) -> CatalogProblem:
    hint = f"ALTER PUBLICATION {publication} ADD TABLE {facts.table};"
    if facts.kind == PARTITIONED and not published["pubviaroot"]:
        hint = (
            f"ALTER PUBLICATION {publication} SET (publish_via_partition_root = true); it then shows the root's name."
        )
    return CatalogProblem(
        facts.table, f"Table {facts.table} is not in publication {publication}.", hint, "table_missing"
    )
