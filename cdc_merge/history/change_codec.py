"""The codec of history entries: a change as msgpack, self-describing and exact. Pure.

Rules
- A decoded change equals the encoded one, types included (`1` is not `True`, text is not `Json`, `1.0` is not `1.00`).
- The first element of every body is the number of its format: a newer format adds a reader and keeps the old.
- What msgpack has no type for is an extension type (`_EXTENDED`, `_READERS`). Strict packing sends whatever is not exactly of a
  msgpack type through `extended`, which is why fields are flattened: a tuple per field would go there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgpack

from cdc_merge.errors import StoreUnavailable
from cdc_merge.model import (
    DECISION,
    DELETE,
    INSERT,
    SNAPSHOT,
    TRUNCATE,
    UNKNOWN,
    UPDATE,
    Change,
    Copy,
    Json,
    Place,
    Stamp,
    Unknown,
)
from cdc_merge.model.fast_new import fast_new

FORMAT: Final = 1
Pack: TypeAlias = Callable[[object], bytes]

_UNKNOWN, _DECIMAL, _JSON, _WIDE_INT = 1, 2, 3, 4
_UNKNOWN_EXT: Final = msgpack.ExtType(_UNKNOWN, b"")
# ExtType(...) checks its arguments in Python, which is half the time of a decimal; these are right by construction.

# Only ever append: the position in this tuple is what is stored.
_ROWS: Final = (INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT, DECISION)
_ROW_NUMBER: Final[Mapping[str, int]] = {row: number for number, row in enumerate(_ROWS)}

# The hook's values have any type by nature: they are what msgpack could not place.
_EXTENDED: Final[Mapping[type, Callable[[Any], Any]]] = {
    tuple: list,
    Stamp: list,
    Place: list,
    Unknown: lambda _: _UNKNOWN_EXT,
    Decimal: lambda value: fast_new(msgpack.ExtType, (_DECIMAL, str(value).encode())),
    Json: lambda value: msgpack.ExtType(_JSON, value.encode()),
    int: lambda value: msgpack.ExtType(_WIDE_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)),
}

_READERS: Final[Mapping[int, Callable[[bytes], Any]]] = {
    _UNKNOWN: lambda _: UNKNOWN,
    _DECIMAL: lambda raw: Decimal(raw.decode("ascii")),
    _JSON: lambda raw: Json(raw.decode()),
    _WIDE_INT: lambda raw: int.from_bytes(raw, "big", signed=True),
}


def extended(value: Any) -> Any:
    form = _EXTENDED.get(type(value))
    if form is not None:
        return form(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not a value of the model")


def _read_extended(code: int, raw: bytes) -> Any:
    return _READERS[code](raw)


def packer() -> Pack:
    """Packs values of the model. It owns a buffer and calls back into Python: one per thread, made once because making it costs 1 µs."""
    pack: Pack = msgpack.Packer(strict_types=True, default=extended).pack
    return pack


def unpacked(body: bytes) -> tuple[Any, ...]:
    """The elements of a body behind its format number. StoreUnavailable when it is damaged or from a newer version."""
    try:
        items = msgpack.unpackb(body, use_list=False, ext_hook=_read_extended)
        version = items[0]
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError) as error:
        raise damaged(body) from error
    if version != FORMAT:
        raise StoreUnavailable(
            f"a stored entry has format {version}, this cdc-merge reads format {FORMAT}",
            hint="The store was written by a newer cdc-merge: run that version, or start with a store of its own.",
        )
    return items[1:]  # type: ignore[no-any-return]  # msgpack is untyped


def damaged(body: bytes) -> StoreUnavailable:
    return StoreUnavailable(
        f"a stored entry of {len(body)} bytes is damaged",
        hint="Stop the sidecar, check the disk, and restore the store from a backup or resync its sources.",
    )


# ---------------------------------------------------------------- changes


def encode_change(change: Change, pack: Pack) -> bytes:
    """The body of a change: all of it but the record, the place and the stamp's source, which are columns."""
    _, _, (wall_us, counter, _), _, row, changed, actor, copy, committed_us, identity, moved_to, moved_from = change
    fields: list[object] = []
    for name, (before, after) in changed.items():
        fields += (name, before, after)
    return pack(
        [
            FORMAT,
            wall_us,
            counter,
            _ROW_NUMBER.get(row, row),
            fields,
            actor,
            None if copy is None else [copy.from_source, copy.of],
            committed_us - wall_us,
            identity,
            moved_to,
            moved_from,
        ]
    )


def stamp_of(beginning: bytes, source: str) -> Stamp:
    """The stamp of a change whose body begins with these bytes (at least 32 of them, where there are so many)."""
    try:
        unpacker = msgpack.Unpacker()
        unpacker.feed(beginning)
        unpacker.read_array_header()
        unpacker.skip()
        return Stamp(unpacker.unpack(), unpacker.unpack(), source)
    except (ValueError, TypeError, msgpack.OutOfData) as error:
        raise damaged(beginning) from error


def decode_change(body: bytes, record: tuple[str, str], source: str, place: Place) -> Change:
    """The change that `encode_change` wrote, put together with its columns. StoreUnavailable when it cannot be read."""
    try:
        wall_us, counter, row, flat, actor, copy, behind_us, identity, moved_to, moved_from = unpacked(body)
        each = iter(flat)
        return Change(
            record[0],
            record[1],
            Stamp(wall_us, counter, source),
            place,
            row if row.__class__ is str else _ROWS[row],
            {name: (before, after) for name, before, after in zip(each, each, each, strict=True)},
            actor,
            copy and Copy(copy[0], tuple(Place(*of) for of in copy[1])),
            wall_us + behind_us,
            identity,
            moved_to,
            moved_from,
        )
    except (ValueError, TypeError, IndexError) as error:
        raise damaged(body) from error
