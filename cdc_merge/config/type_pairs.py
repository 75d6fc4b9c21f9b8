"""Which columns of two systems can be compared: one table of type pairs, for fields and for keys. Pure.

A pair is equal where Postgres's own `=` says so; refused where Postgres has no `=` for it; never equal (the two kinds of
timestamp), which is a warning, since a field that only one system writes can live with it; or equal only in one
notation, which is a warning with the way to it (`normalize:` where that suffices). Interval and numrange are such a pair
with themselves: `24:00:00` = `1 day`, `[1.0,2.0)` = `[1,2)`, and both arrive as text, as they were written.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cdc_merge.values.postgres_text import value_type
from cdc_merge.values.type_names import short_name

EQUAL: Final = "equal"
REFUSED: Final = "refused"
NEVER: Final = "never"
NOTATION: Final = "notation"

NUMBERS: Final = frozenset({"integer", "decimal"})


class ColumnType(NamedTuple):
    """The type of one column: its value type, and Postgres's short name for it or for an array's elements."""

    value_type: str
    name: str
    is_array: bool

    @property
    def declared(self) -> str:
        return f"{self.name}[]" if self.is_array else self.name


class PairVerdict(NamedTuple):
    """Whether two columns can be compared. `normalize` is what makes them comparable, or ""; `hint` is another way."""

    kind: str
    reason: str = ""
    normalize: str = ""
    hint: str = ""


SAME: Final = PairVerdict(EQUAL)
CASES: Final = PairVerdict(NOTATION, "citext ignores case, and the text is compared as written", "casefold")
HEXADECIMAL: Final = PairVerdict(NOTATION, "uuid is lower case, and the text is compared as written", "casefold")
ZONES: Final = PairVerdict(
    NEVER,
    "a timestamp without a time zone names no moment, so no value of it equals one with a time zone",
    hint="give both columns one type: ALTER TABLE … ALTER COLUMN … TYPE timestamptz USING … AT TIME ZONE 'UTC'",
)
MAPPED_APART: Final = "give both columns one type, or map the field in one source only"
INTERVAL: Final = PairVerdict(
    NOTATION, "Postgres calls 24:00:00 and 1 day equal, and intervals are compared as written"
)
BOUNDS: Final = PairVerdict(NOTATION, "Postgres calls [1.0,2.0) and [1,2) equal, and ranges are compared as written")
NETWORKS: Final = PairVerdict(NOTATION, "cidr shows the length of its mask where inet leaves it out")
STRINGS: Final = PairVerdict(NOTATION, "hstore holds texts only: its 1 is the text 1, and JSON's 1 is a number")

_RANGES: Final = ("int4", "int8", "num", "ts", "tstz", "date")
TYPED_TEXTS: Final = frozenset(
    ("uuid", "interval", "time", "timetz", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "money", "pg_lsn")
    + ("point", "lseg", "path", "box", "polygon", "line", "circle", "tsvector", "tsquery")
    + tuple(f"{name}{kind}" for name in _RANGES for kind in ("range", "multirange"))
)
"""Types that arrive as text in a notation of their own; every other text type holds what people wrote."""

PAIRS: Final = {
    frozenset(pair.split()): verdict
    for pair, verdict in {
        "timestamp timestamptz": ZONES,
        "interval": INTERVAL,
        "numrange": BOUNDS,
        "nummultirange": BOUNDS,
        "inet cidr": NETWORKS,
        "bit varbit": SAME,
        "int4range int8range": SAME,
        "int4multirange int8multirange": SAME,
        "citext": CASES,
        "hstore json": STRINGS,
        "hstore jsonb": STRINGS,
    }.items()
}
"""Pairs by name (one name: with itself) that the rules below would judge otherwise."""


def column_type(type_oid: int, type_name: str) -> ColumnType:
    name, is_array = short_name(type_oid, type_name)
    # An extension's type has the name of its schema, which differs between systems.
    for own in ("citext", "hstore"):
        if name.rpartition(".")[2].strip('"') == own:
            name = own
    return ColumnType(value_type(type_oid, type_name), name, is_array)


def compare(one: ColumnType, other: ColumnType) -> PairVerdict:
    """The verdict about two columns of a field or a key, in either order."""
    if one.is_array != other.is_array:
        return _refused(one, other)
    kinds = {element_type(one), element_type(other)}
    if len(kinds) > 1 and not kinds <= NUMBERS:
        return _refused(one, other)
    pair = PAIRS.get(frozenset((one.name, other.name)))
    if pair is not None:
        return pair
    if "citext" in (one.name, other.name) and not TYPED_TEXTS & {one.name, other.name}:
        return CASES
    return SAME if one.name == other.name else _texts(one, other)


def _texts(one: ColumnType, other: ColumnType) -> PairVerdict:
    notations = TYPED_TEXTS & {one.name, other.name}
    if not notations:
        return SAME
    if len(notations) > 1:
        return _refused(one, other)
    (name,) = notations
    if name == "uuid":
        return HEXADECIMAL
    return PairVerdict(NOTATION, f"the text equals a value of type {name} only in the notation of Postgres")


def element_type(column: ColumnType) -> str:
    """The value type of a column, or of an array's elements."""
    return value_type(0, column.name) if column.is_array else column.value_type


def _refused(one: ColumnType, other: ColumnType) -> PairVerdict:
    return PairVerdict(
        REFUSED, f"no value of type {one.declared} equals one of type {other.declared}", hint=MAPPED_APART
    )


def compare_keys(one: ColumnType, other: ColumnType) -> PairVerdict:
    """The verdict about two columns of a business key: keys are compared by their texts, so `7` equals 7 there."""
    kinds = {one.value_type, other.value_type}
    if "text" in kinds and kinds & NUMBERS and not (one.is_array or other.is_array):
        return PairVerdict(NOTATION, "a text equals a number only without leading zeros and blanks")
    return compare(one, other)
