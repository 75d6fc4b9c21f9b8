"""Equal values are equal, whichever system wrote them; an unreadable value is refused without showing it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.errors import UnreadableValue
from cdc_merge.model import Json, Value
from cdc_merge.values.keys import encoded, key_text, value_text
from cdc_merge.values.postgres_text import order_key, reader, value_type

OIDS = {
    "bool": 16,
    "bytea": 17,
    "int8": 20,
    "text": 25,
    "json": 114,
    "float4": 700,
    "float8": 701,
    "bpchar": 1042,
    "date": 1082,
    "time": 1083,
    "timestamp": 1114,
    "timestamptz": 1184,
    "interval": 1186,
    "numeric": 1700,
    "uuid": 2950,
    "jsonb": 3802,
    "numrange": 3906,
    "int4[]": 1007,
    "text[]": 1009,
    "numeric[]": 1231,
    "box[]": 1020,
    "inet[]": 1041,
    "timestamptz[]": 1185,
    "jsonb[]": 3807,
}


def read(kind: str, text: str) -> Value:
    """A cell of a built-in type as the stream sends it (by OID), or of any type by name."""
    return reader(OIDS.get(kind, 0), kind)(text.encode())


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bool", "t", True),
        ("bool", "f", False),
        ("int8", "-9223372036854775808", -9223372036854775808),
        ("numeric", "12345678901234567890123456789012345678901234567890.10", None),
        ("numeric", "100", Decimal(100)),
        ("numeric", "1e3", Decimal(1000)),
        ("numeric", "NaN", "NaN"),
        ("numeric", "-Infinity", "-Infinity"),
        ("float8", "NaN", "NaN"),
        ("float8", "Infinity", "Infinity"),
        ("float8", "0.30000000000000004", 0.1 + 0.2),
        ("bpchar", "ab   ", "ab"),
        ("text", "ab   ", "ab   "),
        ("text", "中文", "中文"),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("date", "infinity", "infinity"),
        ("timestamp", "2026-01-01 00:00:00", "2026-01-01T00:00:00.000000"),
        ("timestamp", "2026-01-01 00:00:00.5", "2026-01-01T00:00:00.500000"),
        ("timestamp", "294276-12-31 23:59:59.999999", "294276-12-31T23:59:59.999999"),
        ("timestamp", "0044-03-15 10:00:00 BC", "0044-03-15T10:00:00.000000 BC"),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamptz", "2026-01-01 08:00:00+08", "2026-01-01T00:00:00.000000Z"),
        ("timestamptz", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z"),
        ("timestamptz", "2025-12-31 18:29:59.25-05:30:01", "2026-01-01T00:00:00.250000Z"),
        ("timestamptz", "9999-12-31 23:00:00-02", "10000-01-01T01:00:00.000000Z"),
        ("timestamptz", "0001-01-01 01:00:00+02", "0001-12-31T23:00:00.000000Z BC"),
        ("timestamptz", "0001-12-31 23:00:00-02 BC", "0001-01-01T01:00:00.000000Z"),
        ("timestamptz", "infinity", "infinity"),
        ("time", "24:00:00", "24:00:00"),
        ("interval", "1 mon -2 days", "1 mon -2 days"),
        ("bytea", "\\x00ff", b"\x00\xff"),
        ("numrange", "[1.0,2.5)", "[1.0,2.5)"),
        ("hstore", '"a"=>"1", "b\\"c"=>NULL', Json('{"a":"1","b\\"c":null}')),
        ("hstore", "", Json("{}")),
        ("mood", "happy", "happy"),
    ],
)
def test_a_raw_value_becomes_its_canonical_value(kind: str, text: str, value: Value) -> None:
    expected = Decimal(text) if value is None else value
    assert read(kind, text) == expected
    assert type(read(kind, text)) is type(expected)


def test_numerics_that_are_equal_look_the_same() -> None:
    for texts in (("1", "1.0", "1.00"), ("100", "1e2", "100.000"), ("0", "0.00", "-0", "-0.0"), ("-1.5", "-1.50")):
        values = [read("numeric", text) for text in texts]
        assert len({(value, str(value)) for value in values}) == 1
        assert "E" not in str(values[0])


def test_a_numeric_with_130000_digits_loses_none() -> None:
    text = "9" * 130_000 + "." + "1" * 16_000
    assert str(read("numeric", text)) == text


def test_a_hostile_exponent_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(UnreadableValue):
        read("numeric", "1e999999999")


def test_negative_zero_is_zero() -> None:
    assert str(read("float8", "-0")) == "0.0"


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 20))
def test_zeros_at_the_end_of_a_numeric_say_nothing(number: Decimal, zeros: int) -> None:
    text = format(number, "f")
    padded = text + "0" * zeros if "." in text else f"{text}.{'0' * zeros}"
    assert read("numeric", padded.rstrip(".")) == number
    assert str(read("numeric", padded.rstrip("."))) == str(read("numeric", text))


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"b": 1, "a": [1, 2]}', '{ "a":[1,2],"b":1.00 }'),
        ("1e2", "100"),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ('"\\u4e2d"', '"中"'),
        ("-0.0", "0"),
        ("1e5000", "10e4999"),
        ("0e99999", "0"),
    ],
)
def test_equal_json_is_one_text(one: str, other: str) -> None:
    assert read("json", one) == read("jsonb", other)
    assert isinstance(read("json", one), Json)


def test_json_numbers_are_exact() -> None:
    digits = "1" + "0" * 400
    assert read("jsonb", digits) == digits
    assert read("jsonb", "[0.1000000000000000000001]") == "[0.1000000000000000000001]"
    assert read("json", "[12345678901234567890.50]") == "[12345678901234567890.5]"


def test_a_huge_json_exponent_stays_short() -> None:
    assert read("json", "12.5e99999998") == "125E+99999997"


def test_half_a_surrogate_pair_in_json_can_still_be_stored_as_utf8() -> None:
    assert isinstance(value := read("json", '"\\ud800"'), Json)
    assert value == '"\\ud800"'
    assert value.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_canonical_json_means_what_it_was_made_from(document: object) -> None:
    value = read("json", json.dumps(document))
    assert isinstance(value, Json)
    assert json.loads(value) == document
    assert read("jsonb", value) == value


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int4[]", "{}", ()),
        ("int4[]", "{1,NULL,3}", (1, None, 3)),
        ("int4[]", "{{1,2},{3,4}}", ((1, 2), (3, 4))),
        ("text[]", '{"NULL",NULL,"",a b,"a,b","q\\"\\\\"}', ("NULL", None, "", "a b", "a,b", 'q"\\')),
        ("numeric[]", "{1.0,1.00}", (Decimal(1), Decimal(1))),
        ("int4[]", "[0:1]={1,2}", "[0:1]={1,2}"),
        ("int4[]", "[1:2]={1,2}", (1, 2)),
        ("int4[]", "[1:1][-2:-1]={{1,2}}", "[1:1][-2:-1]={{1,2}}"),
        ("text[]", '{"[0:1]={"}', ("[0:1]={",)),
        ("box[]", "{(1,1),(0,0);(2,2),(1,1)}", ("(1,1),(0,0)", "(2,2),(1,1)")),
        ("inet[]", "{10.0.0.1/8}", ("10.0.0.1/8",)),
        ("timestamptz[]", '{"2026-01-01 08:00:00+08"}', ("2026-01-01T00:00:00.000000Z",)),
        ("jsonb[]", '{"{\\"b\\": 1, \\"a\\": 2}"}', (Json('{"a":2,"b":1}'),)),
        ("_mood", "{sad,ok}", ("sad", "ok")),
        ("integer[]", "{7}", (7,)),
    ],
)
def test_an_array_becomes_a_tuple(kind: str, text: str, value: Value) -> None:
    assert read(kind, text) == value


def _array_text(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, tuple):
        return "{" + ",".join(map(_array_text, value)) + "}"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(st.lists(st.none() | st.text() | st.lists(st.none() | st.text()).map(tuple)).map(tuple))
def test_a_quoted_array_element_is_read_as_it_was_written(value: Value) -> None:
    assert read("text[]", _array_text(value)) == value


@pytest.mark.parametrize("text", ["", "{", "}", "{1", "1}", "{1}}", "{1},{2}", '{"a}', "{1 {2}", "{{1}{2}}", "x"])
def test_a_broken_array_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableValue):
        read("int4[]", text)


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bool", "secret"),
        ("int8", "secret"),
        ("numeric", "secret"),
        ("float8", "secret"),
        ("date", "secret"),
        ("timestamp", "2026-01-01 00:00:00+08"),
        ("timestamptz", "2026-01-01 00:00:00"),
        ("timestamptz", "2026-13-41 00:00:00+08"),
        ("json", '{"secret'),
        ("json", "NaN"),
        ("json", "[" * 100_000),
        ("hstore", "secret"),
        ("bytea", "secret"),
        ("int4[]", "{secret}"),
    ],
)
def test_what_cannot_be_read_names_column_type_and_length_but_never_the_value(kind: str, text: str) -> None:
    with pytest.raises(UnreadableValue) as caught:
        reader(OIDS.get(kind, 0), kind, "phone")(text.encode())
    sentence = str(caught.value)
    assert f"column phone: {len(text)} bytes" in sentence
    assert kind in sentence
    assert "secret" not in sentence
    assert caught.value.__cause__ is None
    assert caught.value.hint


def test_text_that_is_not_utf8_is_unreadable() -> None:
    with pytest.raises(UnreadableValue):
        reader(25, "")(b"\xff")


@given(st.sampled_from(sorted(OIDS)), st.binary(max_size=40))
def test_no_bytes_make_a_reader_raise_anything_else(kind: str, cell: bytes) -> None:
    try:
        value = reader(OIDS[kind], "")(cell)
    except UnreadableValue:
        return
    assert value == value
    assert hash(value) == hash(value)
    order_key(value)


# ---------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("oid", "name", "expected"),
    [
        (23, "", "integer"),
        (1700, "", "decimal"),
        (1184, "", "timestamp"),
        (1231, "", "array"),
        (869, "", "text"),
        (16999, "numeric", "decimal"),
        (16999, "hstore", "json"),
        (16999, "_hstore", "array"),
        (16999, "public.hstore", "text"),
        (16999, "public._status", "text"),
        (16999, "public._status[]", "array"),
        (16999, 'public."boolean"', "text"),
        (16999, 'public."a[]"', "text"),
        (16999, "hr.uuid", "text"),
        (16999, "pg_catalog._int4[]", "array"),
        (16999, "_mood", "array"),
        (16999, "mood", "text"),
        (0, "numeric(10,2)", "decimal"),
        (0, "timestamp(3) with time zone", "timestamp"),
        (0, "double precision", "float"),
        (0, "character varying(20)", "text"),
        (0, "integer[]", "array"),
        (0, "", "text"),
    ],
)
def test_a_type_is_known_by_oid_by_name_and_by_the_standards_name(oid: int, name: str, expected: str) -> None:
    assert value_type(oid, name) == expected


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    "ascending",
    [
        [None, "-Infinity", Decimal(-1), 0, 0.5, Decimal(2), "Infinity", "NaN"],
        ["-infinity", "0044-03-15 BC", "0001-01-01 BC", "0001-01-01", "2026-01-01", "10000-01-01", "infinity"],
        [
            "-infinity",
            "0044-03-15T00:00:00.000000Z BC",
            "0044-03-16T00:00:00.000000Z BC",
            "2026-01-01T00:00:00.000000Z",
            "2026-01-01T00:00:00.000001Z",
            "294276-12-31T23:59:59.999999Z",
            "infinity",
        ],
        [False, True],
        ["", "10", "9", "a", "b"],
        [b"", b"\x00", b"\x01"],
        [(), (None,), (1,), (1, 1), (2,)],
    ],
)
def test_values_are_ordered_by_what_they_mean(ascending: list[Value]) -> None:
    assert sorted(reversed(ascending), key=order_key) == ascending


_any_value = st.recursive(
    st.none()
    | st.text(max_size=3)
    | st.sampled_from(["NaN", "Infinity", "infinity", "-infinity", "0044-03-15 BC", "2026-01-01", "12026-01-01"])
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)


@given(_any_value, _any_value, _any_value)
def test_the_order_is_total(a: Value, b: Value, c: Value) -> None:
    one, two, three = sorted((a, b, c), key=order_key)
    assert order_key(one) <= order_key(two) <= order_key(three)
    assert order_key(one) <= order_key(three)
    assert (order_key(a) == order_key(b)) == (a == b)


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["C 001,%"], "C 001,%"),
        ([7], "7"),
        ([Decimal(7)], "7"),
        ([7.0], "7"),
        ([True], "true"),
        ([b"\x01"], "\\x01"),
        (["a,b", "c%"], "a%2Cb,c%25"),
        (["中", 1], "%E4%B8%AD,1"),
        (["", ""], ","),
        ([(1, None, "x y")], "{1,%00,x%20y}"),
    ],
)
def test_a_key_is_its_parts_as_text(parts: list[Value], text: str) -> None:
    assert key_text(parts) == text


@given(st.text().filter(lambda text: text.isprintable()))
def test_percent_encoding_is_that_of_the_standard_library(text: str) -> None:
    from urllib.parse import quote  # the core may not import it (house rule: nothing of urllib), the test may

    assert encoded(text) == quote(text, safe="")


@given(st.lists(st.text(min_size=0), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_different_composite_keys_have_different_text(one: list[Value], other: list[Value]) -> None:
    assert (key_text(one) == key_text(other)) == (one == other)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**6), max_value=10**6))
def test_equal_numbers_are_one_key(number: Decimal) -> None:
    assert value_text(number) == value_text(Decimal(f"{number:f}"))
    if number == int(number):
        assert value_text(number) == value_text(int(number))
