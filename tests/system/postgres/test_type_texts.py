"""Every type and its special values, on every version, read by a role whose settings are as hostile as can be: copy and
stream give the very text that a session with plain settings gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import psycopg
import pytest
from psycopg import sql

from tests.system.postgres.reading import Reading, run

# Column type: values as SQL literals, their quotes left out.
SPECIALS: dict[str, tuple[str, ...]] = {
    "boolean": ("t", "f"),
    "smallint": ("-32768", "32767"),
    "integer": ("-2147483648", "2147483647"),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "numeric": ("NaN", "Infinity", "-Infinity", "1e-200", f"{'9' * 400}.{'9' * 400}", "0.00"),
    "numeric(10,-3)": ("123456",),
    "numeric(5,7)": ("0.0012345",),
    "real": ("NaN", "Infinity", "-0", "1e-45", "3.4028235e38", "0.1"),
    "double precision": ("NaN", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.30000000000000004"),
    "money": ("12.34", "-92233720368547758.08"),
    "text": ("", "\\N", "tab\tnewline\nreturn\r", "王 \U0001f600 é", "\\x41 ' \" {} ,", "NULL"),
    "varchar(9)": ("ab  ", ""),
    "char(5)": ("ab", ""),
    '"char"': ("c", ""),
    "name": ("n",),
    "bytea": ("\\x", "\\x00ff5c0a0927", "\\x4142"),
    "date": ("infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "2024-02-29"),
    "timestamp": ("infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "2024-03-05 06:07:08.5"),
    "timestamp(3)": ("2024-03-05 06:07:08.123456",),
    "timestamptz": ("-infinity", "0044-03-15 10:00:00+00 BC", "2024-03-31 02:30:00+01", "1900-01-01 00:00:00+00"),
    "time": ("24:00:00", "00:00:00.000001"),
    "timetz": ("01:02:03+05:30", "23:59:59.999999-15:59"),
    "interval": ("1 year -2 days 3:04:05.06", "-1 mon", "178000000 years", "0", "-00:00:00.5"),
    "uuid": ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",),
    "json": ('{"b":1, "a":"\\n", "a":null}', "[1e400, -0]"),
    "jsonb": ('{"b": 1.00, "a": "\\u738b", "aa": 1e400}', "null", '"x"'),
    "jsonpath": ("$.a[*] ? (@ > 1)",),
    "xml": ("<a>b &amp; c</a>",),
    "inet": ("10.0.0.1/8", "::1/64", "::ffff:1.2.3.4"),
    "cidr": ("10.0.0.0/8", "2001:db8::/32"),
    "macaddr": ("08:00:2B:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "bit(3)": ("101",),
    "bit varying": ("", "10101"),
    "point": ("(1.5,-2)", "(NaN,Infinity)", "(0.1,0.30000000000000004)"),
    "line": ("{1,-1,0}",),
    "lseg": ("[(0,0),(1,0.1)]",),
    "box": ("(1,1),(0,0)",),
    "path": ("[(0,0),(1,1)]", "((0,0),(1,1))"),
    "polygon": ("((0,0),(1,1),(1,0))",),
    "circle": ("<(0,0),0.1>",),
    "int4range": ("[1,5)", "empty", "(,)"),
    "int8range": ("[1,)",),
    "numrange": ("[1.0,2.50)", "[NaN,NaN]"),
    "daterange": ("[2024-01-01,infinity)",),
    "tsrange": ("[2024-01-01 00:00,2024-01-02 00:00)",),
    "tstzrange": ("[2024-01-01 00:00+08,)",),
    "int4multirange": ("{[1,3),[5,7)}", "{}"),
    "int8multirange": ("{(,5)}",),
    "nummultirange": ("{[1.0,2.0],[3,)}",),
    "datemultirange": ("{[2024-01-01,2024-02-01),[2024-03-01,)}",),
    "tsmultirange": ("{[2024-01-01 00:00,2024-01-02 00:00)}",),
    "tstzmultirange": ("{[2024-01-01 00:00+08,2024-01-02 00:00+08)}",),
    "tsvector": ("a:1 b:2A 'c d':3",),
    "tsquery": ("a & !b | 'c d'",),
    "pg_lsn": ("16/B374D848",),
    "txid_snapshot": ("10:20:10,14",),
    "pg_snapshot": ("10:20:10,14",),
    "xid8": ("18446744073709551615",),
    "oid": ("4294967295",),
    "regclass": ("pg_catalog.pg_class", "public.plain"),
    "regtype": ("integer", "public.mood"),
    "regproc": ("pg_catalog.now",),
    "refcursor": ("cursor name",),
    "int[]": ("[0:1]={1,2}", "{{1,2},{3,NULL}}", "{}", "[-2:-1][5:6]={{1,2},{3,4}}"),
    "text[]": ('{"NULL",NULL,"","a,b","q\\"\\\\"," "}',),
    "numeric[]": ("{NaN,Infinity,1.0}",),
    "float8[]": ("{0.1,0.30000000000000004,NaN}",),
    "timestamptz[]": ('{"2024-01-01 00:00+08",infinity}',),
    "bytea[]": ('{"\\\\x00ff"}',),
    "interval[]": ('{"1 day 02:00"}',),
    "jsonb[]": ('{"{\\"b\\": 1, \\"a\\": 2}"}',),
    "int4range[]": ('{"[1,5)",empty}',),
    "box[]": ("{(1,1),(0,0);(2,2),(1,1)}",),
    "mood": ("ca''lm", "sad, very"),
    "mood[]": ('{"sad, very",NULL}',),
    "price": ("1.50", "NaN"),
    "price[]": ("{1.50,2}",),
    "moods": ('{"sad, very"}',),
    "span": ("[2024-01-01 00:00+08,2024-01-02 00:00+08]",),
    "span_multirange": ("{[2024-01-01 00:00+08,2024-01-02 00:00+08]}",),
    "place": ('(中,"a,b ""q""",2024-01-01,0.30000000000000004,"{1,2}")', "(,,,,)"),
    "place[]": ('{"(中,,,,)"}',),
    "hstore": ('"b"=>"1", "a"=>NULL, "c d"=>"\\"q\\""', ""),
    "citext": ("MiXed", ""),
    "ltree_like": ("a.b",),
}

OWN_TYPES = (
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION citext",
    "CREATE TABLE plain (id int)",
    "CREATE TYPE mood AS ENUM ('ca''lm', 'sad, very')",
    "CREATE DOMAIN price AS numeric CHECK (VALUE IS NULL OR VALUE > 0)",
    "CREATE DOMAIN moods AS mood[]",
    "CREATE DOMAIN ltree_like AS text COLLATE \"C\" CHECK (VALUE ~ '^[a-z.]*$')",
    "CREATE TYPE span AS RANGE (subtype = timestamptz)",
    "CREATE TYPE place AS (city text, street text, since date, area float8, codes int[])",
)

HOSTILE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "timezone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "on",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "xmlbinary": "hex",
    "xmloption": "document",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
    "lc_time": "C.UTF-8",
    "search_path": "traps, pg_catalog",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "row_security": "on",
    "statement_timeout": "1500ms",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "synchronous_commit": "off",
    "default_tablespace": "",
    "enable_indexscan": "off",
    "jit": "off",
}
TRAPS = (
    "CREATE SCHEMA traps",
    # A query without pg_catalog in its names reaches these.
    "CREATE FUNCTION traps.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'caught' $$",
    "CREATE FUNCTION traps.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS $$ SELECT true $$",
    "CREATE TABLE traps.pg_publication (oid oid, pubname name)",
    "GRANT ALL ON SCHEMA traps TO PUBLIC",
)
PLAIN = (
    "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex -c timezone=UTC "
    "-c search_path=pg_catalog"
)
COLUMNS = {kind: f"c{number}" for number, kind in enumerate(SPECIALS)}


@pytest.fixture
def odd(each_database: str) -> Iterator[str]:
    """A connection string of a role with hostile settings, for a database with a table of every type."""
    dsn = each_database
    declared = ", ".join(f"{column} {kind}" for kind, column in COLUMNS.items())
    run(dsn, *OWN_TYPES, f"CREATE TABLE hard (id int PRIMARY KEY, {declared})")
    run(dsn, "ALTER TABLE hard REPLICA IDENTITY FULL", "CREATE PUBLICATION cdc_merge FOR TABLE hard", *TRAPS)
    run(dsn, "DROP ROLE IF EXISTS odd", "CREATE ROLE odd LOGIN REPLICATION", "GRANT SELECT ON hard TO odd")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, value in HOSTILE.items():
            change = sql.SQL("ALTER ROLE odd SET {} TO {}").format(sql.Identifier(name), _setting(name, value))
            connection.execute(change)
        written = {kind: values for kind, values in SPECIALS.items() if kind != "xml" or _knows_xml(connection)}
        for row in zip_longest(*(written.get(kind, ()) for kind in SPECIALS)):
            cells = [
                sql.SQL("NULL") if cell is None else sql.SQL("'{}'").format(sql.SQL(_escaped(cell))) for cell in row
            ]
            number = sql.SQL("(SELECT count(*) FROM hard)")
            connection.execute(sql.SQL("INSERT INTO hard SELECT {}").format(sql.SQL(", ").join([number, *cells])))
    yield dsn.replace("user=postgres", "user=odd")
    run(dsn, "DROP OWNED BY odd", "DROP ROLE odd")


def _knows_xml(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """The wheel of 18 was built without libxml: it has the type and no value of it."""
    try:
        connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def _setting(name: str, value: str) -> sql.Composable:
    """A list of names is written as one."""
    parts = [part.strip() for part in value.split(",")]
    return sql.SQL(", ").join(map(sql.Identifier, parts)) if name == "search_path" else sql.Literal(value)


def _escaped(cell: str) -> str:
    return cell if "''" in cell else cell.replace("'", "''")


def as_plain_sessions_see_it(dsn: str) -> list[tuple[bytes | None, ...]]:
    """Every cell by its type's own output function."""
    shown = ", ".join(
        f"CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END" for column in COLUMNS.values()
    )
    with psycopg.connect(dsn, options=PLAIN) as connection:
        rows = connection.execute(f"SELECT id::text, {shown} FROM public.hard ORDER BY id".encode()).fetchall()
    return [tuple(None if cell is None else cell.encode() for cell in row) for row in rows]


def test_copy_and_stream_give_the_text_of_a_session_with_plain_settings(odd: str) -> None:
    dsn = odd.replace("user=odd", "user=postgres")
    with Reading(odd, {"public.hard": ("id", *COLUMNS.values())}).start() as reading:
        reading.until_copied()
        expected = as_plain_sessions_see_it(dsn)
        assert len(expected) == max(map(len, SPECIALS.values()))
        _compare([change.new or () for change in reading.copied], expected)
        run(dsn, "UPDATE hard SET id = id + 100")
        reading.until(lambda: reading.streamed, "the update came")
        _compare([change.old or () for change in reading.streamed], expected)
        _compare(
            [(b"%d" % number, *(change.new or ())[1:]) for number, change in enumerate(reading.streamed)], expected
        )


def _compare(found: list[tuple[object, ...]], expected: list[tuple[bytes | None, ...]]) -> None:
    kinds = ["id", *COLUMNS]
    differing = {
        kind: (mine, theirs)
        for ours, rows in zip(sorted(found, key=lambda row: int(row[0])), expected, strict=True)  # type: ignore[call-overload]  # bytes
        for kind, mine, theirs in zip(kinds, ours, rows, strict=True)
        if mine != theirs
    }
    assert differing == {}
