"""Cells of the wire turned into what rests in the history without a value in between, for the commonest types. Pure.

What comes out is, to every reader, what packing the read value gives; cells of equal values give equal bytes. The suite compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

import msgpack

from cdc_merge.bodies import Pack, packed_number
from cdc_merge.mapping.values import Reader, plain_type, reader
from cdc_merge.model import Column

PackedReader: TypeAlias = Callable[[bytes], bytes]

_SHORT: Final = tuple([msgpack.packb("x" * size)[:-size] if size else b"\xa0" for size in range(256)])
_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_ZEROS: Final = (b"0", b"-0")


def packed_reader(column: Column, read: Reader, pack: Pack) -> PackedReader:
    """As `read`, of a cell that is not NULL, packed. UnreadableValue or ValueError for what `read` does not take."""
    make = _MAKERS.get(plain_type(column.type_oid, column.type_name))
    if make is not None and read is reader(column.type_oid, column.type_name, column.name):
        return make(read, pack)
    return lambda cell: pack(read(cell))


def _text(read: Reader, pack: Pack) -> PackedReader:
    def packed(cell: bytes) -> bytes:
        text = cell.decode()  # ValueError
        return _SHORT[len(cell)] + cell if len(cell) < len(_SHORT) else pack(text)

    return packed


def _integer(read: Reader, pack: Pack) -> PackedReader:
    return lambda cell: pack(int(cell))


def _numeric(read: Reader, pack: Pack) -> PackedReader:
    is_number = _NUMBER.fullmatch

    def packed(cell: bytes) -> bytes:
        if not is_number(cell):
            return pack(read(cell))
        number = cell.rstrip(b"0").rstrip(b".") if b"." in cell else cell
        return packed_number(b"0" if number in _ZEROS else number)

    return packed


_MAKERS: Final[dict[str, Callable[[Reader, Pack], PackedReader]]] = {
    "text": _text,
    "integer": _integer,
    "decimal": _numeric,
}
