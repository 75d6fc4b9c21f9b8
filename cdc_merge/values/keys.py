"""The text of business keys and replica identities.

A single key is its value's canonical text; a composite key is its parts in mapping order, percent-encoded, joined by
`,` (contract §7). Equal values have equal text, so `7`, integer or numeric, is one key whichever source wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from cdc_merge.model import UNCHANGED, UNKNOWN, RawValue, Unknown, Value
from cdc_merge.values.json_text import plain
from cdc_merge.values.postgres_text import Reader

MaybeKey: TypeAlias = "str | None | Unknown"
KeyReader: TypeAlias = Callable[[tuple[RawValue, ...]], MaybeKey]

# The unreserved characters of RFC 3986 §2.3 stand for themselves.
_RESERVED: Final = re.compile(r"[^A-Za-z0-9_.~-]")
_ENCODED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_NULL: Final = "%00"  # no text in Postgres contains a NUL, so no element encodes to this


def encoded(text: str) -> str:
    """Percent-encoded as UTF-8 (RFC 3986)."""
    return _RESERVED.sub(lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), text)


def decoded(text: str) -> str:
    """The inverse of `encoded`."""
    raw = _ENCODED.sub(lambda sign: bytes([int(sign[1], 16)]), text.encode())
    return raw.decode(errors="replace")


def value_text(value: Value) -> str:
    """The canonical text of a value that is not NULL."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, tuple):
        return "{" + ",".join(_NULL if part is None else encoded(value_text(part)) for part in value) + "}"
    if isinstance(value, Decimal | float):
        return plain(Decimal(str(value)))
    return "true" if value else "false"


def key_text(parts: Sequence[Value]) -> str:
    """The text of a key whose parts are all known and not NULL."""
    if len(parts) == 1:
        return value_text(parts[0])
    return ",".join(encoded(value_text(part)) for part in parts)


def key_parts(text: str, count: int) -> tuple[str, ...]:
    """The parts of a key of `count` parts, as `value_text` wrote them. ValueError when there are not so many."""
    if count == 1:
        return (text,)
    parts = tuple(decoded(part) for part in text.split(","))
    if len(parts) != count:
        raise ValueError(f"the key has {len(parts)} parts where {count} are expected")
    return parts


def key_reader(columns: Sequence[tuple[int, Reader]]) -> KeyReader:
    """A reader of the key in the values at these indexes: None when a part is NULL, UNKNOWN when one was not sent."""
    if len(columns) > 1:
        return _composite(columns)
    index, read = columns[0]

    def read_single(cells: tuple[RawValue, ...]) -> MaybeKey:
        cell = cells[index]
        if cell is None:
            return None
        if cell is UNCHANGED:
            return UNKNOWN
        value = read(cell)
        if type(value) is int:
            return str(value)
        return value if type(value) is str else value_text(value)

    return read_single


def _composite(columns: Sequence[tuple[int, Reader]]) -> KeyReader:
    def read_composite(cells: tuple[RawValue, ...]) -> MaybeKey:
        parts: list[Value] = []
        for index, read in columns:
            cell = cells[index]
            if cell is None:
                return None
            if cell is UNCHANGED:
                return UNKNOWN
            parts.append(read(cell))
        return key_text(parts)

    return read_composite
