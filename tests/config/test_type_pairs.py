# ruff: noqa: E501 - a pair is one line of a table
"""Every pair of types: equal where Postgres says so, refused, or equal in one notation with the way to it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from cdc_merge.config import load
from cdc_merge.config.catalog_checks import catalog_problems, catalog_warnings
from cdc_merge.config.type_pairs import EQUAL, NEVER, NOTATION, REFUSED, column_type, compare, compare_keys
from cdc_merge.values.postgres_text import reader
from cdc_merge.values.type_names import BY_OID

# one type, another, verdict, normalize
PAIRS = [
    ("text", "varchar(20)", EQUAL, ""), ("text", "bpchar", EQUAL, ""), ("text", "name", EQUAL, ""), ("text", 'public."status"', EQUAL, ""),
    ('a."status"', 'b."status"', EQUAL, ""), ("int4", "int8", EQUAL, ""), ("int4", "numeric(10,2)", EQUAL, ""), ("float4", "float8", EQUAL, ""),
    ("json", "jsonb", EQUAL, ""), ("bytea", "bytea", EQUAL, ""), ("date", "date", EQUAL, ""), ("uuid", "uuid", EQUAL, ""), ("numeric[]", "int4[]", EQUAL, ""),
    ("int4range", "int8range", EQUAL, ""), ("tstzrange", "tstzrange", EQUAL, ""), ("inet", "inet", EQUAL, ""), ("timetz", "timetz", EQUAL, ""),
    ("timestamp", "timestamp", EQUAL, ""), ("timestamptz", "timestamptz", EQUAL, ""), ("text[]", "varchar[]", EQUAL, ""), ("bit", "varbit", EQUAL, ""),
    ("timestamp", "timestamptz", NEVER, ""), ("timestamp[]", "timestamptz[]", NEVER, ""), ("date", "timestamp", REFUSED, ""), ("time", "timetz", REFUSED, ""),
    ("tsrange", "tstzrange", REFUSED, ""), ("daterange", "tsrange", REFUSED, ""), ("int4range", "numrange", REFUSED, ""), ("interval", "time", REFUSED, ""),
    ("text", "int4", REFUSED, ""), ("text[]", "int4[]", REFUSED, ""), ("text", "text[]", REFUSED, ""), ("numeric", "float8", REFUSED, ""), ("uuid", "int8", REFUSED, ""),
    ("uuid", "inet", REFUSED, ""), ("bool", "int4", REFUSED, ""), ("json", "text", REFUSED, ""), ("macaddr", "macaddr8", REFUSED, ""),
    ("interval", "interval", NOTATION, ""), ("interval[]", "interval[]", NOTATION, ""), ("numrange", "numrange", NOTATION, ""), ("nummultirange", "nummultirange", NOTATION, ""),
    ("interval", "text", NOTATION, ""), ("inet", "cidr", NOTATION, ""), ("inet", "text", NOTATION, ""), ("hstore", "jsonb", NOTATION, ""), ("money", "text", NOTATION, ""),
    ("uuid", "text", NOTATION, "casefold"), ("public.citext", "app.citext", NOTATION, "casefold"), ("public.citext", "text", NOTATION, "casefold"),
    ("public.citext[]", "text[]", NOTATION, "casefold"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "kind", "normalize"), PAIRS)
def test_a_pair_of_types_has_one_verdict_in_either_order(one: str, other: str, kind: str, normalize: str) -> None:
    types = column_type(0, one), column_type(0, other)
    verdict = compare(*types)
    assert (verdict.kind, verdict.normalize) == (kind, normalize)
    assert bool(verdict.reason) is (kind != EQUAL)
    assert compare(*reversed(types)).kind == kind


def test_a_key_is_compared_by_its_text() -> None:
    assert compare_keys(column_type(0, "int4"), column_type(0, "text")).kind == NOTATION
    assert compare_keys(column_type(0, "int4"), column_type(0, "numeric")).kind == EQUAL
    assert compare_keys(column_type(0, "timestamp"), column_type(0, "timestamptz")).kind == NEVER


# Two texts that Postgres reads as equal values of the type.
SAME_VALUES = {
    "numeric": ("1.50", "1.5"), "float8": ("1e2", "100"), "bpchar": ("a ", "a"), "jsonb": ('{"a": 1.0, "b": 2}', '{"b":2,"a":1}'), "uuid": ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "interval": ("24:00:00", "1 day"), "numrange": ("[1.0,2.0)", "[1,2)"), "int4range": ("[1,2]", "[1,3)"), "daterange": ("[2026-01-01,2026-01-02]", "[2026-01-01,2026-01-03)"),
    "timestamptz": ("2026-01-31 08:00+00", "2026-01-31 09:00+01"), "timestamp": ("2026-01-31 08:00", "2026-01-31T08:00:00.0"), "bool": ("yes", "t"), "inet": ("10.0.0.1/32", "10.0.0.1"),
    "numeric[]": ("{1.0,2}", "{1,2.00}"), "int4[]": ("{1, 2}", "{1,2}"), "macaddr": ("08-00-2b-01-02-03", "08:00:2b:01:02:03"), "time": ("8:00", "08:00:00"), "bytea": ("\\x41", "A"),
    "nummultirange": ("{[1.0,2.0)}", "{[1,2)}"), "tstzrange": ("[2026-01-31 08:00+00,)", "[2026-01-31 09:00+01,)"), "varbit": ("101", "101"), "money": ("1", "1.00"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_VALUES)
def test_what_the_table_calls_equal_is_equal_where_postgres_says_so(name: str, database: str) -> None:
    with psycopg.connect(database, options="-c timezone=UTC") as connection:
        query = f"SELECT a = b, a::text, b::text FROM (SELECT %s::{name} AS a, %s::{name} AS b) v".encode()
        row = connection.execute(query, SAME_VALUES[name]).fetchone()
    assert row is not None
    equal_there, *texts = row
    assert equal_there
    read = reader(0, name)
    equal_here = read(texts[0].encode()) == read(texts[1].encode())
    assert equal_here is (compare(column_type(0, name), column_type(0, name)).kind == EQUAL)


def test_every_built_in_type_has_a_verdict_with_itself() -> None:
    for oid in BY_OID:
        kind = column_type(oid, "")
        assert compare(kind, kind).kind in (EQUAL, NOTATION)


FILE = """
sources: { crm: { type: postgres, dsn: a }, erp: { type: postgres, dsn: b } }
entities:
  customer:
    from:
      crm: { table: t, key: no, fields: { mail: mail } }
      erp: { table: t, key: no, fields: { mail: mail } }
    fields: { mail: FIELD }
"""


def test_a_warning_names_the_field_and_ends_with_its_normalize(tmp_path: Path) -> None:
    columns = {(source, "public.t"): {"no": (0, "text"), "mail": (0, "public.citext")} for source in ("crm", "erp")}
    for field, warned in (("{ merge: mv }", True), ("{ merge: mv, normalize: [casefold] }", False)):
        (tmp_path / "x.yaml").write_text(FILE.replace("FIELD", field))
        settings = load(tmp_path / "x.yaml", {"HOME": "/h"})
        assert catalog_problems(settings, columns, frozenset({"crm", "erp"})) == []
        warnings = catalog_warnings(settings, columns)
        assert [(w.sentence.startswith("the field mail is citext"), w.suggestion) for w in warnings] == (
            [(True, "add normalize: [casefold]")] if warned else []
        )


def test_fields_and_keys_of_two_kinds_of_timestamp_are_warned_about(tmp_path: Path) -> None:
    columns = {("crm", "public.t"): {"no": (0, "timestamp"), "mail": (0, "timestamp")}}
    columns["erp", "public.t"] = {"no": (0, "timestamptz"), "mail": (0, "timestamptz")}
    (tmp_path / "x.yaml").write_text(FILE.replace("FIELD", "{ merge: mv }"))
    settings = load(tmp_path / "x.yaml", {"HOME": "/h"})
    assert catalog_problems(settings, columns, frozenset({"crm", "erp"})) == []
    warnings = catalog_warnings(settings, columns)
    assert [w.path for w in warnings] == [
        ("entities", "customer", "fields", "mail"),
        ("entities", "customer", "from", "erp", "key"),
    ]
    assert all("names no moment" in w.sentence for w in warnings)
