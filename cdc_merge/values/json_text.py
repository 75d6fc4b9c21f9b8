"""JSON and hstore as canonical JSON text: keys sorted, no spaces, the last of equal keys, numbers exact and shortest.

A number is written out in full (`100`, `0.05`) up to `_PLAIN_DIGITS` digits and as `1E+5000` beyond, so equal numbers
have equal text, and a hostile exponent does not become a gigabyte of zeros.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Final, TypeAlias

from cdc_merge.model import Json

_PLAIN_DIGITS: Final = 1000
_HSTORE_PAIR: Final = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|(NULL))(?:, ?|$)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class JsonNumber(str):
    """A JSON number as canonical text; a class of its own, so that it is written without quotes."""

    __slots__ = ()


JsonDocument: TypeAlias = "None | bool | str | JsonNumber | list[JsonDocument] | dict[str, JsonDocument]"


def read_json(cell: bytes) -> Json:
    """ValueError or RecursionError when it is no JSON."""
    document: JsonDocument = json.loads(
        cell.decode(), parse_int=_number, parse_float=_number, parse_constant=_refused_constant
    )
    # The type json (not jsonb) accepts half of a surrogate pair, which UTF-8 cannot encode: it stays an escape.
    return Json(_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", _written(document)))


def read_hstore(cell: bytes) -> Json:
    """An hstore as a JSON object of texts and nulls. ValueError when it is none."""
    text, position = cell.decode(), 0
    pairs: dict[str, JsonDocument] = {}
    while position < len(text):
        match = _HSTORE_PAIR.match(text, position)
        if match is None:
            raise ValueError("no hstore")
        key, value, null = match.groups()
        pairs[unescaped(key)] = None if null else unescaped(value)
        position = match.end()
    return Json(_written(pairs))


def unescaped(text: str) -> str:
    r"""The text without its backslashes: `\x` means `x`, as in quoted elements of hstore and arrays."""
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def plain(number: Decimal) -> str:
    """A finite number in exact notation, without exponent and trailing zeros: `100`, `0.5`, `0`."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if number else "0"


def _number(text: str) -> JsonNumber:
    number = Decimal(text)
    sign, digits, exponent = number.as_tuple()
    if abs(number.adjusted()) <= _PLAIN_DIGITS and -int(exponent) <= _PLAIN_DIGITS:
        return JsonNumber(plain(number))
    significant = "".join(map(str, digits)).rstrip("0")
    if not significant:
        return JsonNumber("0")
    return JsonNumber(f"{'-' if sign else ''}{significant}E{int(exponent) + len(digits) - len(significant):+}")


def _refused_constant(name: str) -> JsonDocument:
    raise ValueError(f"{name} is no JSON")


def _written(document: JsonDocument) -> str:
    if isinstance(document, JsonNumber):
        return document
    if isinstance(document, dict):
        return "{" + ",".join(f"{_written(key)}:{_written(document[key])}" for key in sorted(document)) + "}"
    if isinstance(document, list):
        return "[" + ",".join(map(_written, document)) + "]"
    return json.dumps(document, ensure_ascii=False)
