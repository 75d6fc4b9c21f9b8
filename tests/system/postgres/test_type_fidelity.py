"""A value read by the initial snapshot equals the same value read from the stream, whatever settings the role has.

On a real server, through the real source and the mapping; what is expected is the canonical value.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal

import psycopg
import pytest
from psycopg import sql

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    Change,
    Delivery,
    Json,
    MaybeValue,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    Stamp,
    Transaction,
    Value,
)
from cdc_merge.model.plan import Plan, TableMap
from cdc_merge.sources.postgres.reader import PostgresSource
from cdc_merge.values.postgres_text import value_type
from cdc_merge.values.type_names import BY_OID
from tests.system.postgres.reading import our_clock_us, reader_settings

LIMIT_S = 60.0

# column type, literal, canonical value, value type
VALUES: list[tuple[str, str, Value, str]] = [
    ("boolean", "true", True, "boolean"),
    ("smallint", "-32768", -32768, "integer"),
    ("bigint", "9223372036854775807", 9223372036854775807, "integer"),
    ("oid", "4294967295", 4294967295, "integer"),
    ("numeric", "1.50", Decimal("1.5"), "decimal"),
    ("numeric", "1e50", Decimal(10**50), "decimal"),
    ("numeric", "NaN", "NaN", "decimal"),
    ("numeric", "-Infinity", "-Infinity", "decimal"),
    ("numeric(30,10)", "12345678901234567890.0123456789", Decimal("12345678901234567890.0123456789"), "decimal"),
    ("real", "0.1", 0.1, "float"),
    ("double precision", "0.30000000000000004", 0.1 + 0.2, "float"),
    ("double precision", "-0", 0.0, "float"),
    ("double precision", "NaN", "NaN", "float"),
    ("double precision", "Infinity", "Infinity", "float"),
    ("text", "中文 ' \\ \t\n{}", "中文 ' \\ \t\n{}", "text"),
    ("varchar(9)", "ab  ", "ab  ", "text"),
    ("char(5)", "ab", "ab", "text"),
    ("name", "ab", "ab", "text"),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "text"),
    ("date", "2026-01-31", "2026-01-31", "date"),
    ("date", "0044-03-15 BC", "0044-03-15 BC", "date"),
    ("date", "5874897-12-31", "5874897-12-31", "date"),
    ("date", "infinity", "infinity", "date"),
    ("timestamp", "2026-01-31 08:00:00.5", "2026-01-31T08:00:00.500000", "timestamp"),
    ("timestamp(0)", "294276-12-31 23:59:59", "294276-12-31T23:59:59.000000", "timestamp"),
    ("timestamptz", "2026-01-31 08:00:00+08", "2026-01-31T00:00:00.000000Z", "timestamp"),
    ("timestamptz", "0044-03-15 10:00:00+00 BC", "0044-03-15T10:00:00.000000Z BC", "timestamp"),
    ("timestamptz", "-infinity", "-infinity", "timestamp"),
    ("time", "24:00:00", "24:00:00", "text"),
    ("timetz", "08:00:00+08", "08:00:00+08", "text"),
    ("interval", "1 year 2 mons -3 days 04:05:06.7", "1 year 2 mons -3 days +04:05:06.7", "text"),
    ("json", '{"b": 1.0, "a": [1, 2], "b": 2}', Json('{"a":[1,2],"b":2}'), "json"),
    ("jsonb", '{"b": 1.00, "a": "\\u4e2d", "n": 1e400}', Json(f'{{"a":"中","b":1,"n":1{"0" * 400}}}'), "json"),
    ("bytea", "\\x00ff41", b"\x00\xffA", "bytes"),
    ("int[]", "{{1,2},{3,NULL}}", ((1, 2), (3, None)), "array"),
    ("int[]", "[0:1]={1,2}", "[0:1]={1,2}", "array"),
    ("text[]", '{"NULL",NULL,"","a,b","q\\"\\\\"}', ("NULL", None, "", "a,b", 'q"\\'), "array"),
    ("numeric[]", "{1.0,2.50}", (Decimal(1), Decimal("2.5")), "array"),
    ("timestamptz[]", '{"2026-01-31 08:00:00+08"}', ("2026-01-31T00:00:00.000000Z",), "array"),
    ("box[]", "{(1,1),(0,0);(2,2),(1,1)}", ("(1,1),(0,0)", "(2,2),(1,1)"), "array"),
    ("bool[]", "{t,f}", (True, False), "array"),
    ("inet", "10.0.0.1/8", "10.0.0.1/8", "text"),
    ("numrange", "[1.0,2.5)", "[1.0,2.5)", "text"),
    ("int4multirange", "{[1,3),[5,7)}", "{[1,3),[5,7)}", "text"),
    ("bit(3)", "101", "101", "text"),
    ("mood", "sad", "sad", "text"),
    ("mood[]", "{sad,ok}", ("sad", "ok"), "array"),
    ("price", "1.50", Decimal("1.5"), "decimal"),
    (
        "price[]",
        "{1.50}",
        (Decimal("1.5"),),
        "array",
    ),  # the stream names the domain only, the catalog what it is made of
    ("_status", "active", "active", "text"),
    ("_status[]", "{active,closed}", ("active", "closed"), "array"),
    ('public."boolean"', "maybe", "maybe", "text"),
    ("hr.uuid", "Gold", "Gold", "text"),
    ("hr.uuid[]", "{Gold}", ("Gold",), "array"),
    ("hr.int4", "Mixed", "Mixed", "text"),
    ("hr.hstore", "a", "a", "text"),
    ("hr.text", "{1,2}", (1, 2), "array"),  # a domain over an array
    ("hr.text[]", '{"{1,2}"}', ("{1,2}",), "array"),
    ("place", '(中,"a,b")', '(中,"a,b")', "text"),
    ("hstore", '"b"=>"1", "a"=>NULL', Json('{"a":null,"b":"1"}'), "json"),
    ("citext", "MiXed", "MiXed", "text"),  # its comparison is the server's; `normalize: [casefold]` compares alike here
    ("tstzmultirange", "{}", "{}", "text"),
]
COLUMNS = [f"c{number}" for number in range(len(VALUES))]
SETTINGS = {
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "timezone": "Asia/Tokyo",
}


def prepared(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create extension hstore; create extension citext")
        connection.execute("create type mood as enum ('sad', 'ok')")
        connection.execute("create type _status as enum ('active', 'closed')")
        connection.execute("create type public.\"boolean\" as enum ('yes', 'maybe')")
        connection.execute("create schema hr; create type hr.uuid as enum ('Gold', 'Silver')")
        connection.execute("create type hr.source as enum ('Mixed'); create domain hr.int4 as hr.source")
        connection.execute("create type hr.hstore as enum ('a'); create domain hr.text as int[]")
        connection.execute("create domain price as numeric check (value >= 0)")
        connection.execute("create type place as (city text, street text)")
        columns = ", ".join(f"{column} {kind}" for column, (kind, *_) in zip(COLUMNS, VALUES, strict=True))
        connection.execute(f"create table t (id int primary key, {columns})".encode())
        connection.execute("create publication p for table t")
        name = connection.info.dbname
        for setting, value in SETTINGS.items():
            change = sql.SQL("alter database {} set {} to {}")
            connection.execute(change.format(sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)))


def insert(dsn: str, key: int) -> None:
    with psycopg.connect(dsn, options="-c datestyle=ISO -c timezone=UTC") as connection:
        literals = [sql.Literal(literal) for _, literal, *_ in VALUES]
        connection.execute(
            sql.SQL("insert into t values ({})").format(sql.SQL(", ").join([sql.Literal(key), *literals]))
        )


@pytest.fixture
def source(each_database: str) -> Iterator[tuple[PostgresSource, threading.Event]]:
    prepared(each_database)
    arrived = threading.Event()
    wanted = reader_settings(each_database, {"public.t": ("id", *COLUMNS)}, publication="p")
    reader = PostgresSource(wanted, observe=lambda _: None, wake=arrived.set, now_us=our_clock_us)
    yield reader, arrived
    reader.stop()


def taken(
    reader: PostgresSource, arrived: threading.Event, is_last: Callable[[Delivery], bool], limit_s: float = LIMIT_S
) -> list[Delivery]:
    deliveries: list[Delivery] = []
    until = time.monotonic() + limit_s
    while not any(map(is_last, deliveries)):
        left_s = until - time.monotonic()
        assert left_s > 0, f"the source said nothing more: {reader.status()}"
        arrived.wait(min(left_s, 1.0))
        arrived.clear()
        deliveries += reader.take(1000)
    return deliveries


def fields_of(change: Change) -> dict[str, MaybeValue]:
    return {field: after for field, (_, after) in change.fields.items()}


def test_initial_snapshot_and_stream_give_the_same_canonical_values(
    each_database: str, source: tuple[PostgresSource, threading.Event]
) -> None:
    reader, arrived = source
    table = TableMap("crm", "thing", "public.t", ("id",), {column: column for column in COLUMNS})
    mapper = Mapper("crm", (table,), Plan({}, (table,)))
    insert(each_database, 1)
    reader.start(None)
    copied = taken(reader, arrived, lambda delivery: isinstance(delivery, SnapshotDone))
    began = next(delivery for delivery in copied if isinstance(delivery, SnapshotBegan))
    pieces = [delivery for delivery in copied if isinstance(delivery, SnapshotRows)]
    (snapshot,) = [
        change for piece in pieces for change in mapper.map_snapshot(piece, began, Stamp(0, 0, "crm")).changes
    ]
    insert(each_database, 2)
    streamed = taken(reader, arrived, lambda delivery: isinstance(delivery, Transaction) and bool(delivery.changes))
    (tx,) = [delivery for delivery in streamed if isinstance(delivery, Transaction) and delivery.changes]
    mapped = mapper.map_transaction(tx, Stamp(0, 0, "crm"), tx.commit_us, {})
    assert mapped.parked == ()
    (inserted,) = mapped.changes
    expected = dict(zip(COLUMNS, (value for _, _, value, _ in VALUES), strict=True))
    assert fields_of(inserted) == expected
    assert fields_of(snapshot) == expected
    assert [type(value) for value in fields_of(snapshot).values()] == [type(value) for value in expected.values()]
    relation = tx.changes[0].relation
    types = {column.name: value_type(column.type_oid, column.type_name) for column in relation.columns}
    assert types == {"id": "integer"} | dict(zip(COLUMNS, (kind for *_, kind in VALUES), strict=True))


def test_the_built_in_types_are_those_of_the_server(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select oid::int8, typname::text, typarray::int8 from pg_type"
            " where typtype in ('b', 'r', 'm') and left(typname, 1) <> '_' and typnamespace = 'pg_catalog'::regnamespace"
        ).fetchall()
    server = {oid: (name, False) for oid, name, _ in rows} | {array: (name, True) for _, name, array in rows if array}
    assert BY_OID.items() <= server.items()
    scalars = {name for name, is_array in BY_OID.values() if not is_array}
    left_out = {name for _, name, array in rows if array and name not in scalars}
    assert left_out <= {"gtsvector", "aclitem", "pg_node_tree"}, "a table may have columns of these"
