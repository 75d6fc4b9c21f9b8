"""Text form of a Postgres type → canonical value: equal values are equal and hash alike, whichever system wrote them.

A value that its canonical type cannot represent stays text, as Postgres writes it: `NaN`, `Infinity` and `-Infinity` of numeric and
float (a float NaN would differ from itself), infinite dates and years before Christ, arrays whose lower bounds are not
1. Enums, ranges, composites, intervals, times and every other type are text. A reader raises UnreadableValue
and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.errors import UnreadableValue
from cdc_merge.model import Value
from cdc_merge.values.arrays import array_reader
from cdc_merge.values.json_text import plain, read_hstore, read_json
from cdc_merge.values.temporal import read_date, read_timestamp, read_timestamptz
from cdc_merge.values.type_names import short_name

Reader: TypeAlias = Callable[[bytes], Value]

_SPECIAL: Final = {
    "nan": "NaN",
    "inf": "Infinity",
    "infinity": "Infinity",
    "-inf": "-Infinity",
    "-infinity": "-Infinity",
}
_ZERO: Final = Decimal(0)
# Postgres's numeric holds 131,072 digits before and 16,383 after the point; a longer one is no number but an attack.
_NUMERIC_DIGITS: Final = 131_072
_BOOLEANS: Final = {b"t": True, b"f": False, b"true": True, b"false": False}


def _read_numeric(cell: bytes) -> Value:
    text = cell.decode("ascii")
    if "." in text and "e" not in text and "E" not in text:
        text = text.rstrip("0").rstrip(".")
    number = Decimal(text)
    if not number.is_finite():
        return _SPECIAL[text.lower()]
    if "e" in text or "E" in text:
        if abs(number.adjusted()) > _NUMERIC_DIGITS:
            raise ValueError("longer than any numeric")
        number = Decimal(plain(number))
    return number or _ZERO


def _read_float(cell: bytes) -> Value:
    number = float(cell)
    if number - number != 0.0:
        return _SPECIAL[str(number)]
    return number + 0.0  # -0.0 becomes 0.0: they are equal and must look so


def _read_boolean(cell: bytes) -> Value:
    return _BOOLEANS[cell.lower()]


def _read_blank_padded(cell: bytes) -> Value:
    return cell.decode().rstrip(" ")


def _read_uuid(cell: bytes) -> Value:
    return cell.decode("ascii").lower()


def _read_bytes(cell: bytes) -> Value:
    if cell[:2] != b"\\x":
        raise ValueError("bytea_output is not hex")
    return bytes.fromhex(cell[2:].decode("ascii"))


class _Type(NamedTuple):
    value_type: str
    parse: Reader


_TEXT: Final = _Type("text", bytes.decode)
_INTEGER: Final = _Type("integer", int)
_FLOAT: Final = _Type("float", _read_float)
_JSON: Final = _Type("json", read_json)

TYPES: Final = {
    "bool": _Type("boolean", _read_boolean),
    "int2": _INTEGER,
    "int4": _INTEGER,
    "int8": _INTEGER,
    "oid": _INTEGER,
    "numeric": _Type("decimal", _read_numeric),
    "float4": _FLOAT,
    "float8": _FLOAT,
    "bpchar": _Type("text", _read_blank_padded),
    "uuid": _Type("text", _read_uuid),
    "date": _Type("date", read_date),
    "timestamp": _Type("timestamp", read_timestamp),
    "timestamptz": _Type("timestamp", read_timestamptz),
    "json": _JSON,
    "jsonb": _JSON,
    "hstore": _Type("json", read_hstore),
    "bytea": _Type("bytes", _read_bytes),
}

# Exceptions of the parsers at text of another type; ArithmeticError is Decimal's, RecursionError is by deep JSON.
_UNREADABLE: Final = (ValueError, KeyError, IndexError, ArithmeticError, RecursionError)


def value_type(type_oid: int, type_name: str) -> str:
    """text, integer, decimal, boolean, float, date, timestamp, json, array or bytes: the value type of a column."""
    name, is_array = short_name(type_oid, type_name)
    return "array" if is_array else TYPES.get(name, _TEXT).value_type


@lru_cache(maxsize=4096)  # every column of a large schema; a type costs about a kilobyte
def reader(type_oid: int, type_name: str, column: str = "") -> Reader:
    """A reader of one type's text form; it raises UnreadableValue with column, type and length, never the value."""
    name, is_array = short_name(type_oid, type_name)
    parse = TYPES.get(name, _TEXT).parse
    if is_array:
        parse = array_reader(parse, ";" if name == "box" else ",")
    of_type = f"{name or 'text'}{'[]' if is_array else ''}"
    where = f"column {column}: " if column else ""

    def read(cell: bytes) -> Value:
        try:
            return parse(cell)
        except _UNREADABLE:
            # `from None`: a parser's own message quotes the value.
            raise UnreadableValue(
                f"{where}{len(cell)} bytes are not a readable {of_type}",
                hint="Compare the column's type with the mapping; the row is parked until it changes again.",
            ) from None

    return read


# ---------------------------------------------------------------- order

_FAR_DATE: Final = re.compile(r"(\d{4,7})(-\d\d-\d\d(?:T\d\d:\d\d:\d\d\.\d{6}Z?)?)( BC)?", re.ASCII)
_NUMERIC_EDGES: Final = {"-Infinity": (2, 0), "Infinity": (2, 2), "NaN": (2, 3)}
_TEXT_EDGES: Final = {"-infinity": (3, 0), "infinity": (3, 4)}

OrderKey: TypeAlias = "tuple[object, ...]"


def order_key(value: Value) -> OrderKey:
    """A sort key, total over all canonical values: None, bytes, numbers, text, arrays, each kind in its own order.

    Numbers go by size, NaN greatest; dates and timestamps by time, also before Christ, after 9999 and infinite; all
    other text by code point.
    """
    if value is None:
        return (0,)
    if isinstance(value, str):
        return _text_order(value)
    if isinstance(value, bytes):
        return (1, value)
    if isinstance(value, tuple):
        return (4, tuple(map(order_key, value)))
    return (2, 1, value)


def _text_order(text: str) -> OrderKey:
    edge = _NUMERIC_EDGES.get(text) or _TEXT_EDGES.get(text)
    if edge is not None:
        return edge
    date = _FAR_DATE.fullmatch(text)
    if date is None:
        return (3, 2, text)
    year, rest, era = date.groups()
    if era:
        return (3, 1, -int(year), rest)
    return (3, 3, int(year), rest) if len(year) > 4 else (3, 2, text)
