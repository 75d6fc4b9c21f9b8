"""The initial snapshot: the same bytes as the stream, the rows at the slot's consistent point, and no slot left when it fails."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import Column, SnapshotBegan, SnapshotDone, SnapshotRows
from cdc_merge.sources.postgres.snapshot.copy_table import CHUNK_BYTES, CHUNK_ROWS, read_copy_line
from tests.system.postgres.reading import Reading, run, wait_for, wal_lsn


@pytest.fixture
def dsn(database: str) -> str:
    run(
        database,
        "CREATE TABLE customer (id int PRIMARY KEY, name text)",
        "ALTER TABLE customer REPLICA IDENTITY FULL",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer",
    )
    return database


TABLES = {"public.customer": ("id", "name")}

# One row of types whose text form is hard: specials, escapes, quoting, infinities, other alphabets.
HARD_VALUES = {
    "text": "E'tab\\t newline\\n return\\r back\\\\slash \\\\N \\\\. bell\\b form\\f vertical\\v 王 \\U0001F600'",
    "varchar(9)": "''",
    "char(5)": "'ab'",
    "bool": "true",
    "int2": "-32768",
    "int8": "9223372036854775807",
    "numeric": "'NaN'",
    "numeric(30,10)": "1.1000000000",
    "float4": "'-0'",
    "float8": "0.1::float8 + 0.2",
    "date": "'infinity'",
    "timestamp": "'0044-03-15 12:00:00 BC'",
    "timestamptz": "'2024-03-05 15:07:08.000009+09'",
    "time": "'24:00:00'",
    "timetz": "'01:02:03+05:30'",
    "interval": "'1 year -2 days 3:04:05.06'",
    "bytea": "'\\x00ff5c0a09'",
    "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "json": '\'{"b":1, "a":"\\\\n", "a":null}\'',
    "jsonb": '\'{"b": 1e400, "a": "\\\\u738b"}\'',
    "text[]": "'[0:1]={\"NULL\",NULL}'",
    "int[]": "'{{1,2},{3,4}}'",
    "inet": "'::1/64'",
    "money": "'-12.34'",
    "bit(3)": "B'101'",
    "int4range": "'[1,5)'",
    "datemultirange": "'{[2024-01-01,2024-02-01),[2024-03-01,)}'",
    "point": "'(1.5,-2)'",
    "tsvector": "'a:1 b:2'",
    "name": "'n'",
    "mood": "'ca''lm'",
    "phone": "'138\\000'",
    "pair": "ROW(1, E'q\"\\\\ ,)')",
    "oid": "4294967295",
}


def test_every_type_has_the_same_bytes_in_copy_and_stream(dsn: str) -> None:
    columns = [(f"c{number}", name) for number, name in enumerate(HARD_VALUES)]
    declared = ", ".join(f"{column} {type_name}" for column, type_name in columns)
    run(
        dsn,
        "CREATE TYPE mood AS ENUM ('ca''lm')",
        "CREATE DOMAIN phone AS text",
        "CREATE TYPE pair AS (a int, b text)",
        f"CREATE TABLE hard (id int PRIMARY KEY, {declared}, nothing text)",
        "ALTER TABLE hard REPLICA IDENTITY FULL",
        "ALTER PUBLICATION cdc_merge ADD TABLE hard",
        f"INSERT INTO hard VALUES (1, {', '.join(HARD_VALUES.values())}, NULL)",
    )
    names = ("id", *(column for column, _ in columns), "nothing")
    with Reading(dsn, {"public.hard": names}).start() as reading:
        reading.until_copied()
        run(dsn, "UPDATE hard SET id = 2")
        reading.until(lambda: reading.streamed, "the row came in the stream")
        (copied,), (streamed,) = reading.copied, reading.streamed
        assert copied.relation == streamed.relation
        assert copied.new == streamed.old
        assert (copied.new or ())[-1] is None


def test_a_snapshot_is_announced_delivered_in_chunks_and_finished_before_the_stream(dsn: str) -> None:
    rows = 2 * CHUNK_ROWS + 10
    run(dsn, f"INSERT INTO customer SELECT g, 'n' || g FROM generate_series(1, {rows}) g", "ANALYZE customer")
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (0, 'later')")
        reading.until(lambda: reading.streamed, "the later row came")
        began = reading.deliveries[0]
        (done,) = [each for each in reading.deliveries if isinstance(each, SnapshotDone)]
        assert isinstance(began, SnapshotBegan)
        assert began.expected_rows == {"public.customer": rows}
        assert done.lsn == began.lsn
        pieces = [each for each in reading.deliveries if isinstance(each, SnapshotRows)]
        assert [len(piece.changes) for piece in pieces] == [CHUNK_ROWS, CHUNK_ROWS, 10]
        assert [change.ordinal for change in reading.copied] == list(range(rows))
        assert {change.operation for change in reading.copied} == {"snapshot"}
        assert all(earlier.end_lsn < later.end_lsn for earlier, later in pairwise(reading.transactions))
        assert all(each.end_lsn > done.lsn for each in reading.transactions)


def test_wide_rows_make_smaller_chunks(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, repeat(md5(g::text), 4000) FROM generate_series(1, 60) g")
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        pieces = [each for each in reading.deliveries if isinstance(each, SnapshotRows)]
        assert len(reading.copied) == 60
        assert all(len(piece.changes) * 128_000 < CHUNK_BYTES + 256_000 for piece in pieces)


def test_the_copys_clock_is_not_later_than_any_commit_behind_it(dsn: str) -> None:
    with Reading(dsn, TABLES) as reading, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO customer VALUES (0, '')")
        reading.start()
        number = 0

        def edited() -> bool:
            nonlocal number
            number += 1
            connection.execute("INSERT INTO customer VALUES (%s, '')", [number])
            return len(reading.transactions) > 5

        reading.until(edited, "edits followed the copy")
        began = reading.deliveries[0]
        assert isinstance(began, SnapshotBegan)
        assert began.at_us < min(each.commit_us for each in reading.transactions)


def test_only_mapped_columns_and_the_replica_identity_are_copied(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE wide (id int PRIMARY KEY, code text, secret text, other int)",
        "ALTER PUBLICATION cdc_merge ADD TABLE wide",
        "INSERT INTO wide VALUES (1, 'c', 'hidden', 2)",
    )
    with Reading(dsn, {"public.wide": ("code",)}).start() as reading:
        reading.until_copied()
        (row,) = reading.copied
        assert row.relation.columns == (Column("id", 23, "int4", True), Column("code", 25, "text", False))
        assert row.new == (b"1", b"c")


def test_a_row_filter_applies_to_snapshot_and_stream(dsn: str) -> None:
    run(
        dsn,
        "ALTER PUBLICATION cdc_merge SET TABLE customer WHERE (id > 10)",
        "INSERT INTO customer VALUES (5, 'out'), (15, 'in')",
    )
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (6, 'out'), (16, 'in')")
        reading.until_passed(wal_lsn(dsn))
        assert sorted(reading.table()) == [b"15", b"16"]


def test_a_column_left_out_by_the_publication_is_refused_by_name(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE listed (id int PRIMARY KEY, shown text, hidden text)",
        "ALTER PUBLICATION cdc_merge ADD TABLE listed (id, shown)",
    )
    with Reading(dsn, {"public.listed": ("id", "hidden")}).start() as reading:
        refusal = reading.refusal()
        assert refusal.problem == "column_missing"
        assert "does not send hidden of public.listed" in refusal.sentence
    with Reading(dsn, {"public.listed": ("id", "shown")}).start() as reading:
        reading.until_copied()


PARTITIONED = (
    "CREATE TABLE parts (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
    "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (200)",
    "INSERT INTO parts VALUES (1, 'low'), (101, 'high')",
    "ALTER PUBLICATION cdc_merge ADD TABLE parts",
)


def test_a_partitioned_table_is_one_table_when_published_by_its_root(dsn: str) -> None:
    run(dsn, *PARTITIONED, "ALTER PUBLICATION cdc_merge SET (publish_via_partition_root = true)")
    with Reading(dsn, {"public.parts": ("id", "name")}).start() as reading:
        reading.until_copied()
        run(dsn, "UPDATE parts SET id = 150 WHERE id = 1")
        reading.until_passed(wal_lsn(dsn))
        assert sorted(reading.table()) == [b"101", b"150"]
        assert {change.relation.table for change in reading.streamed} == {"public.parts"}


def test_a_partitioned_table_published_by_leaf_is_refused_with_a_fix(dsn: str) -> None:
    run(dsn, *PARTITIONED)
    with Reading(dsn, {"public.parts": ("id", "name")}).start() as reading:
        assert "publish_via_partition_root" in reading.refusal().hint


def test_a_table_that_others_inherit_from_is_copied_without_their_rows(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE child (extra int) INHERITS (customer)",
        "INSERT INTO customer VALUES (1, 'own')",
        "INSERT INTO child VALUES (2, 'inherited', 0)",
    )
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        assert [change.new for change in reading.copied] == [(b"1", b"own")]


def test_names_that_need_quoting_are_copied_and_streamed(dsn: str) -> None:
    run(
        dsn,
        'CREATE SCHEMA "客 户"',
        'CREATE TABLE "客 户"."Or""der" (id int PRIMARY KEY, "select" text)',
        'ALTER PUBLICATION cdc_merge ADD TABLE "客 户"."Or""der"',
        'INSERT INTO "客 户"."Or""der" VALUES (1, \'a\')',
    )
    with Reading(dsn, {'客 户.Or"der': ("id", "select")}).start() as reading:
        reading.until_copied()
        run(dsn, 'INSERT INTO "客 户"."Or""der" VALUES (2, \'b\')')
        reading.until(lambda: reading.streamed, "the row came")
        assert sorted(reading.table()) == [b"1", b"2"]


def test_a_snapshot_stopped_half_way_leaves_no_slot_and_starts_over(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
    slots = "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
    with Reading(dsn, TABLES, max_queued_bytes=1000).start() as reading:
        reading.until(lambda: reading.copied, "the first piece came")
        assert run(dsn, slots)
        reading.source.stop()
        assert run(dsn, slots) == []
        reading.start(reading.position)
        reading.until_copied()
        assert len(reading.copied) == 20_000


def test_a_server_lost_during_the_snapshot_is_copied_from_the_start(new_server: Callable[..., DemoServer]) -> None:
    server = new_server()
    dsn = server.dsn()
    run(
        dsn,
        "CREATE TABLE customer (id int PRIMARY KEY, name text)",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer",
        "INSERT INTO customer SELECT g, repeat('x', 100) FROM generate_series(1, 50000) g",
    )
    with Reading(dsn, TABLES, max_queued_bytes=1000).start() as reading:
        reading.until(lambda: reading.copied, "the first piece came")
        server.stop()
        reading.until(lambda: reading.source.status().state == "retrying", "the loss was noticed")
        server.start()
        run(dsn, "INSERT INTO customer VALUES (0, 'after the restart')")
        reading.until_copied()
        assert len([each for each in reading.deliveries if isinstance(each, SnapshotBegan)]) == 2
        assert len(reading.copied) == 50_001
        reading.until_streaming()
        assert len(run(dsn, "SELECT 1 FROM pg_replication_slots")) == 1


def test_a_snapshot_waits_while_the_queue_is_full(dsn: str) -> None:
    run(dsn, "INSERT INTO customer SELECT g, repeat('x', 100) FROM generate_series(1, 50000) g")
    with Reading(dsn, TABLES, max_queued_bytes=1000).start() as reading:
        idle = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%' AND wait_event = 'ClientWrite'"
        wait_for(lambda: run(dsn, idle), "the server waited for us to read on")
        reading.take(10**9)
        assert len(reading.copied) <= 2 * CHUNK_ROWS
        reading.until_copied()
        assert len(reading.copied) == 50_000


def test_an_empty_table_has_an_empty_copy(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        assert reading.copied == []


def encoded(cell: bytes | None) -> bytes:
    """COPY's text format as its documentation says it, byte by byte."""
    if cell is None:
        return b"\\N"
    names = {8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r", 92: b"\\\\"}
    return b"".join(names.get(byte, bytes([byte])) for byte in cell)


@given(
    st.lists(st.none() | st.binary(max_size=12) | st.sampled_from([b"\\N", b"\\", b"\t", b""]), min_size=1, max_size=6)
)
def test_a_line_of_copy_text_is_read_back_to_its_bytes(cells: list[bytes | None]) -> None:
    assert read_copy_line(b"\t".join(encoded(cell) for cell in cells)) == tuple(cells)
