"""Rows in every form that a server of any version gives them: the table that the deliveries make is the database's."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from cdc_merge.model import UNCHANGED, RowChange
from cdc_merge.sources.postgres.reader_limits import ReaderLimits
from tests.system.postgres.reading import Reading, run, wal_lsn

LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 400) g)"  # 12,800 characters that do not compress
Table = dict[bytes, dict[str, bytes | None]]


def in_the_database(dsn: str, table: str, columns: Sequence[str], where: str = "true") -> Table:
    shown = ", ".join(f"{column}::text" for column in columns)
    rows = run(dsn, f"SELECT {shown} FROM {table} WHERE {where}")
    named = [dict(zip(columns, (None if cell is None else cell.encode() for cell in row), strict=True)) for row in rows]
    return {str(row[0]).encode(): cells for row, cells in zip(rows, named, strict=True)}


def read(dsn: str, table: str, columns: Sequence[str], *edits: str) -> Reading:
    """A reading of all edits, each a transaction of its own (or several in one text), made while it streams."""
    with Reading(dsn, {f"public.{table}": tuple(columns)}).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(dsn, *edits)
        reading.until_passed(wal_lsn(dsn))
        return reading


def operations(reading: Reading) -> list[str]:
    return [change.operation for change in reading.streamed]


# ---------------------------------------------------------------- replica identity, keys and long values

IDENTITIES = {
    "default": "ALTER TABLE t REPLICA IDENTITY DEFAULT",
    "index": "ALTER TABLE t REPLICA IDENTITY USING INDEX t_code",
    "full": "ALTER TABLE t REPLICA IDENTITY FULL",
}
KEYED = (
    "INSERT INTO t VALUES (1, 'c1', 'long', 0), (2, 'c2', 'short', 0)",
    f"UPDATE t SET note = {LONG} WHERE id = 1",
    "UPDATE t SET n = n + 1",  # the long value is not sent
    "UPDATE t SET id = id + 10, code = code || 'x'",  # a new key, whatever the identity is
    "BEGIN; UPDATE t SET id = 99, code = 'swap' WHERE id = 11; UPDATE t SET id = 11, code = 'c1x' WHERE id = 12; "
    "UPDATE t SET id = 12, code = 'c2x' WHERE id = 99; COMMIT",
    "UPDATE t SET note = NULL WHERE id = 11",
    "DELETE FROM t WHERE id = 11",
    "INSERT INTO t VALUES (11, 'again', '', NULL)",
)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_keys_that_change_and_swap_keep_their_rows_and_long_values(each_database: str, identity: str) -> None:
    columns = ("id", "code", "note", "n")
    run(
        each_database,
        "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, note text, n int)",
        "CREATE UNIQUE INDEX t_code ON t (code)",
        IDENTITIES[identity],
        "CREATE PUBLICATION cdc_merge FOR TABLE t",
    )
    reading = read(each_database, "t", columns, *KEYED)
    key = "code" if identity == "index" else "id"
    expected = in_the_database(each_database, "t", (key, *(name for name in columns if name != key)))
    assert reading.table(key) == expected
    unsent = [change for change in reading.streamed if UNCHANGED in (change.new or ())]
    assert bool(unsent) == (identity != "full"), "a full old row fills what was not sent"
    assert {change.old_is_full for change in reading.streamed if change.old} == {identity == "full"}


def test_without_a_replica_identity_inserts_are_read_and_the_server_refuses_updates(each_database: str) -> None:
    run(
        each_database,
        "CREATE TABLE t (id int PRIMARY KEY, name text)",
        "ALTER TABLE t REPLICA IDENTITY NOTHING",
        "CREATE PUBLICATION cdc_merge FOR TABLE t",
    )
    reading = read(each_database, "t", ("id", "name"), "INSERT INTO t VALUES (1, 'a')")
    assert reading.table() == in_the_database(each_database, "t", ("id", "name"))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        run(each_database, "UPDATE t SET name = 'b'")


# ---------------------------------------------------------------- transactions

SAVEPOINTS = (
    "BEGIN; INSERT INTO t VALUES (1, 'a'); SAVEPOINT s; INSERT INTO t VALUES (2, 'gone'); ROLLBACK TO s; "
    "INSERT INTO t VALUES (3, 'c'); SAVEPOINT u; UPDATE t SET name = 'x' WHERE id = 1; RELEASE u; COMMIT",
    "BEGIN; DELETE FROM t; ROLLBACK",
    "BEGIN; INSERT INTO t SELECT g, 'many' FROM generate_series(10, 30) g; SAVEPOINT s; DELETE FROM t WHERE id > 15; "
    "SAVEPOINT v; UPDATE t SET name = 'never'; ROLLBACK TO v; UPDATE t SET name = 'kept' WHERE id = 12; COMMIT",
    "DO $$ BEGIN INSERT INTO t VALUES (50, 'in a block'); BEGIN INSERT INTO t VALUES (1, 'double'); EXCEPTION WHEN "
    "unique_violation THEN INSERT INTO t VALUES (51, 'instead'); END; END $$",
    "BEGIN; INSERT INTO t VALUES (60, 'prepared'); PREPARE TRANSACTION 'later'",
    "INSERT INTO t VALUES (61, 'before it')",
    "COMMIT PREPARED 'later'",
    "BEGIN; INSERT INTO t VALUES (70, 'prepared'); PREPARE TRANSACTION 'never'",
    "ROLLBACK PREPARED 'never'",
)


def test_a_rollback_delivers_nothing_and_a_prepared_transaction_is_delivered_at_its_commit(each_database: str) -> None:
    run(each_database, "CREATE TABLE t (id int PRIMARY KEY, name text)", "CREATE PUBLICATION cdc_merge FOR TABLE t")
    reading = read(each_database, "t", ("id", "name"), *SAVEPOINTS)
    assert reading.table() == in_the_database(each_database, "t", ("id", "name"))
    cells = [cell for change in reading.streamed for cell in change.new or ()]
    assert not {b"gone", b"never", b"double"} & set(cells)
    ordinals = [[change.ordinal for change in each.changes] for each in reading.transactions if each.changes]
    assert all(numbers == list(range(len(numbers))) for numbers in ordinals)


def test_a_truncate_empties_its_tables_and_by_cascade_their_dependents(each_database: str) -> None:
    run(
        each_database,
        "CREATE TABLE t (id int PRIMARY KEY, name text)",
        "CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t)",
        "CREATE TABLE other (id serial PRIMARY KEY)",
        "CREATE PUBLICATION cdc_merge FOR TABLE t, child, other",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO child VALUES (1, 1)",
    )
    tables = {"public.t": ("id", "name"), "public.child": ("id", "t"), "public.other": ("id",)}
    with Reading(each_database, tables).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(
            each_database,
            "TRUNCATE t CASCADE",
            "BEGIN; INSERT INTO t VALUES (3, 'c'); TRUNCATE t, other RESTART IDENTITY CASCADE; INSERT INTO t VALUES (4, 'd'); COMMIT",
            "BEGIN; TRUNCATE t CASCADE; ROLLBACK",
        )
        reading.until_passed(wal_lsn(each_database))
    first, second = [each.changes for each in reading.transactions if each.changes]
    assert _operations(first) == {("truncate", "public.t"), ("truncate", "public.child")}
    assert [(change.operation, change.ordinal) for change in second if change.relation.table == "public.t"] == [
        ("insert", 0),
        ("truncate", 1),
        ("insert", 2),
    ]
    assert ("truncate", "public.other") in _operations(second)


def _operations(changes: Sequence[RowChange]) -> set[tuple[str, str]]:
    return {(change.operation, change.relation.table) for change in changes}


# ---------------------------------------------------------------- what the publication shows

PARTS = (
    "CREATE TABLE t (id int, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    "CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (100) TO (200)",
    "INSERT INTO t VALUES (1, 'low'), (101, 'high')",
)
MOVES = (
    "UPDATE t SET id = 150 WHERE id = 1",
    "INSERT INTO t VALUES (2, 'b'), (3, 'c')",
    "CREATE TABLE t_later PARTITION OF t FOR VALUES FROM (200) TO (300)",
    "INSERT INTO t VALUES (201, 'later')",
    "UPDATE t SET id = 250 WHERE id = 2",
    "UPDATE t_high SET name = 'by its own name' WHERE id = 101",
    "DELETE FROM t WHERE id = 3",
)


def test_partitions_published_by_their_root_are_one_table_later_ones_too(each_database: str) -> None:
    publish = "CREATE PUBLICATION cdc_merge FOR TABLE t WITH (publish_via_partition_root = true)"
    run(each_database, *PARTS, publish)
    reading = read(each_database, "t", ("id", "name"), *MOVES)
    assert reading.table() == in_the_database(each_database, "t", ("id", "name"))
    assert {change.relation.table for change in reading.streamed} == {"public.t"}


def test_partitions_published_one_by_one_are_tables_of_their_own(each_database: str) -> None:
    run(each_database, *PARTS, "CREATE PUBLICATION cdc_merge FOR TABLE t")
    tables = {f"public.{leaf}": ("id", "name") for leaf in ("t_low", "t_high")}
    with Reading(each_database, tables).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(each_database, MOVES[0], "TRUNCATE t")
        reading.until_passed(wal_lsn(each_database))
    moved, emptied = [each.changes for each in reading.transactions if each.changes]
    assert [(change.operation, change.relation.table) for change in moved] == [
        ("delete", "public.t_low"),
        ("insert", "public.t_high"),
    ]
    assert _operations(emptied) == {("truncate", "public.t_low"), ("truncate", "public.t_high")}


def test_a_row_that_enters_a_row_filter_is_inserted_and_one_that_leaves_it_is_deleted(each_database: str) -> None:
    run(
        each_database,
        "CREATE TABLE t (id int PRIMARY KEY, city text)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t VALUES (1, 'wuhan'), (2, 'beijing')",
        "CREATE PUBLICATION cdc_merge FOR TABLE t WHERE (city = 'wuhan')",
    )
    edits = (
        "UPDATE t SET city = 'beijing' WHERE id = 1",
        "UPDATE t SET city = 'wuhan' WHERE id = 2",
        "DELETE FROM t WHERE id = 1",
    )
    reading = read(each_database, "t", ("id", "city"), *edits)
    assert operations(reading) == ["delete", "insert"]
    assert reading.table() == in_the_database(each_database, "t", ("id", "city"), "city = 'wuhan'")


def test_an_edit_outside_the_column_list_changes_nothing(each_database: str) -> None:
    run(
        each_database,
        "CREATE TABLE t (id int PRIMARY KEY, shown text, hidden text)",
        "INSERT INTO t VALUES (1, 'a', 'secret')",
        "CREATE PUBLICATION cdc_merge FOR TABLE t (id, shown)",
    )
    edits = (
        "UPDATE t SET hidden = 'more secret'",
        "UPDATE t SET shown = 'b'",
        "INSERT INTO t VALUES (2, 'c', 'secret')",
    )
    reading = read(each_database, "t", ("id", "shown"), *edits)
    assert operations(reading) == ["update", "update", "insert"]
    assert reading.table() == in_the_database(each_database, "t", ("id", "shown"))
    assert {len(change.new or ()) for change in reading.streamed} == {2}


GENERATED = "CREATE TABLE t (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)"


def test_a_generated_column_is_not_sent_unless_a_server_of_18_publishes_it(each_database: str) -> None:
    run(each_database, GENERATED, "INSERT INTO t VALUES (1, 10)")
    is_18 = run(each_database, "SHOW server_version_num")[0][0] >= "180000"
    option = " WITH (publish_generated_columns = stored)" if is_18 else ""
    run(each_database, f"CREATE PUBLICATION cdc_merge FOR TABLE t{option}")
    columns = ("id", "net", "gross") if is_18 else ("id", "net")
    reading = read(each_database, "t", columns, "UPDATE t SET net = 20", "INSERT INTO t (id, net) VALUES (2, 7)")
    assert reading.table() == in_the_database(each_database, "t", columns)
    assert [column.name for column in reading.streamed[0].relation.columns] == list(columns)


def test_a_generated_column_that_is_mapped_and_never_sent_is_refused_by_name(each_database: str) -> None:
    run(each_database, GENERATED, "CREATE PUBLICATION cdc_merge FOR TABLE t")
    with Reading(each_database, {"public.t": ("id", "gross")}).start() as reading:
        refusal = reading.refusal()
    assert refusal.problem == "column_missing"
    assert "does not send gross of public.t" in refusal.sentence


# ---------------------------------------------------------------- tables that change while they are read

ALTERED: dict[str, tuple[str, ...]] = {
    "a column added": ("ALTER TABLE t ADD extra int DEFAULT 7", "INSERT INTO t VALUES (3, 'c', 9)"),
    "another column dropped": ("ALTER TABLE t DROP COLUMN spare", "INSERT INTO t (id, name) VALUES (3, 'c')"),
    "another column renamed": ("ALTER TABLE t RENAME spare TO rest", "INSERT INTO t (id, name) VALUES (3, 'c')"),
    "a wider type": ("ALTER TABLE t ALTER id TYPE bigint", "INSERT INTO t VALUES (5000000000, 'big')"),
    "a rewritten table": ("ALTER TABLE t ALTER name TYPE varchar(50)", "VACUUM FULL t", "UPDATE t SET name = 'x'"),
    "within one transaction": (
        "BEGIN; INSERT INTO t VALUES (4, 'd'); ALTER TABLE t ADD extra int; INSERT INTO t VALUES (5, 'e', NULL, 1); COMMIT",
    ),
    "rolled back": ("BEGIN; ALTER TABLE t DROP COLUMN name; ROLLBACK", "UPDATE t SET name = 'still there'"),
}


@pytest.mark.parametrize("altered", ALTERED)
def test_a_table_may_be_altered_while_it_is_read(each_database: str, altered: str) -> None:
    run(
        each_database,
        "CREATE TABLE t (id int PRIMARY KEY, name text, spare int)",
        "CREATE PUBLICATION cdc_merge FOR TABLE t",
        "INSERT INTO t VALUES (1, 'a')",
    )
    reading = read(each_database, "t", ("id", "name"), *ALTERED[altered], "UPDATE t SET name = name || '!'")
    found = {key: {name: row[name] for name in ("id", "name")} for key, row in reading.table().items()}
    assert found == in_the_database(each_database, "t", ("id", "name"))


# The stream does not show that a table was dropped, renamed, or replaced by another one of its name.
GONE = {
    "dropped and made again": "BEGIN; DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, name text); "
    "ALTER PUBLICATION cdc_merge ADD TABLE t; COMMIT",
    "renamed": "ALTER TABLE t RENAME TO t2",
    "dropped": "DROP TABLE t",
    "moved to another schema": "CREATE SCHEMA elsewhere; ALTER TABLE t SET SCHEMA elsewhere",
}


@pytest.mark.parametrize("gone", GONE)
def test_a_renamed_or_dropped_table_stops_the_source_as_table_missing(each_database: str, gone: str) -> None:
    often = ReaderLimits(health_every_s=0.3)
    run(each_database, "CREATE TABLE t (id int PRIMARY KEY, name text)", "CREATE PUBLICATION cdc_merge FOR TABLE t")
    with Reading(each_database, {"public.t": ("id", "name")}, limits=often).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(each_database, "INSERT INTO t VALUES (1, 'a')", GONE[gone])
        refusal = reading.refusal()
    assert refusal.problem in ("table_missing", "publication_changed")
    assert "public.t" in refusal.sentence
