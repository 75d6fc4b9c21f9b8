"""Step 1, the decoder: one pgoutput payload in, one message out.

Protocol version 1 (Postgres docs, "Logical Replication Message Formats"). Sans I/O and without memory: what a relation
id means is rows.py's business. A payload that is truncated, damaged, longer than its message or of an unknown kind
gives `ProtocolError` and nothing else; no more memory is used than the payload has.

Times are microseconds since 1970-01-01 UTC, LSNs integers. Cells are the text the server sent, in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.errors import ProtocolError
from cdc_merge.model import UNCHANGED, Column, RawValue, Relation
from cdc_merge.model.fast_new import fast_new

POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01 in unix microseconds: the wire counts from there."""

Cells: TypeAlias = tuple[RawValue, ...]
Payload: TypeAlias = "bytes | memoryview"


class Begin(NamedTuple):
    """`commit_lsn` is where the commit record starts, which the transaction's own `Commit` repeats."""

    commit_lsn: int
    commit_us: int
    xid: int


class Commit(NamedTuple):
    commit_lsn: int
    end_lsn: int
    commit_us: int


class Origin(NamedTuple):
    """The transaction was applied under a replication origin; `lsn` is a position at that origin, not here."""

    lsn: int
    name: str


class TypeMessage(NamedTuple):
    """Names a type that is not built in. A domain comes with an empty namespace and its base type's name."""

    oid: int
    namespace: str
    name: str


class Insert(NamedTuple):
    relation_oid: int
    new: Cells


class Update(NamedTuple):
    """`old` is None, the identity columns only, or (`old_is_full`) all; `has_unchanged`: `new` holds UNCHANGED."""

    relation_oid: int
    old: Cells | None
    old_is_full: bool
    new: Cells
    has_unchanged: bool


class Delete(NamedTuple):
    relation_oid: int
    old: Cells
    old_is_full: bool


class Truncate(NamedTuple):
    relation_oids: tuple[int, ...]


class LogicalMessage(NamedTuple):
    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Decoded: TypeAlias = (
    Begin | Commit | Origin | Relation | TypeMessage | Insert | Update | Delete | Truncate | LogicalMessage
)

# A NULL cell is one byte, a text cell at least five. With this many bytes behind the payload, both can be read by
# one unpack of five; that a message stopped inside its payload is checked once, at its end.
_PADDING: Final = bytes(4)

_BEGIN: Final = struct.Struct("!QqI")
_COMMIT: Final = struct.Struct("!BQQq")
_LSN: Final = struct.Struct("!Q")
_OID: Final = struct.Struct("!I")
_COUNT: Final = struct.Struct("!H")
_OID_COUNT: Final = struct.Struct("!BH")
_MESSAGE: Final = struct.Struct("!BQ")
_COLUMN_TYPE: Final = struct.Struct("!Ii")
_TRUNCATE: Final = struct.Struct("!IB")

_read_cell = struct.Struct("!BI").unpack_from
_read_count = _COUNT.unpack_from
_read_row_head = struct.Struct("!IB").unpack_from

_TEXT, _NULL, _TOAST, _BINARY = b"tnub"
_OLD, _KEY, _NEW = b"OKN"


def decode(payload: Payload, start: int = 0) -> Decoded:
    """The message that `payload` holds from byte `start` on; ProtocolError when it holds none."""
    body = b"".join((payload, _PADDING))
    length = len(body) - len(_PADDING)
    try:
        read = _READERS[body[start]] if start < length else _nothing
        message, at = read(body, start + 1)
    except KeyError:
        kind = chr(body[start])
        raise ProtocolError(f"Message type {kind!r} is not part of protocol 1.", offset=start, length=length) from None
    except (struct.error, IndexError, ValueError):
        raise ProtocolError("The message is damaged or cut short.", offset=start, length=length) from None
    if at != length:
        raise ProtocolError("The message does not end where its payload ends.", offset=at, length=length)
    return message


def _nothing(body: bytes, at: int) -> tuple[Decoded, int]:
    raise IndexError(at)


def _cells(body: bytes, at: int) -> tuple[Cells, int, bool]:
    """One TupleData. This loop is the hottest of all: an unpack and a slice per cell were the fastest measured."""
    (count,) = _read_count(body, at)
    at += 2
    cells: list[RawValue] = []
    append = cells.append
    read_cell = _read_cell
    has_unchanged = False
    for _ in range(count):
        kind, size = read_cell(body, at)
        if kind == 116:  # 't', text: a literal is faster than a global here
            at += 5
            end = at + size
            append(body[at:end])
            at = end
        elif kind == _NULL:
            append(None)
            at += 1
        elif kind == _TOAST:
            append(UNCHANGED)
            has_unchanged = True
            at += 1
        else:
            raise _wrong_cell(kind, body, at)
    return tuple(cells), at, has_unchanged


def _cells_beside(body: bytes, at: int, old: Cells) -> tuple[Cells, int, bool]:
    """As `_cells`, where a cell that equals the old one is the old one: half the memory of an update with a full old
    row, and whoever compares the two finds most of them identical. Costs no more time than a slice kept."""
    (count,) = _read_count(body, at)
    if count != len(old):
        return _cells(body, at)
    at += 2
    cells: list[RawValue] = []
    append = cells.append
    read_cell = _read_cell
    has_unchanged = False
    for before in old:
        kind, size = read_cell(body, at)
        if kind == 116:  # as in _cells
            at += 5
            end = at + size
            cell = body[at:end]
            append(before if cell == before else cell)
            at = end
        elif kind == _NULL:
            append(None)
            at += 1
        elif kind == _TOAST:
            append(UNCHANGED)
            has_unchanged = True
            at += 1
        else:
            raise _wrong_cell(kind, body, at)
    return tuple(cells), at, has_unchanged


def _wrong_cell(kind: int, body: bytes, at: int) -> ProtocolError:
    what = "in binary form, which was not asked for" if kind == _BINARY else f"of unknown kind {chr(kind)!r}"
    return ProtocolError(f"A column came {what}.", offset=at, length=len(body) - len(_PADDING))


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(0, at)
    return body[at:end].decode(), end + 1


def _begin(body: bytes, at: int) -> tuple[Begin, int]:
    lsn, time_us, xid = _BEGIN.unpack_from(body, at)
    return Begin(lsn, time_us + POSTGRES_EPOCH_US, xid), at + _BEGIN.size


def _commit(body: bytes, at: int) -> tuple[Commit, int]:
    _, lsn, end_lsn, time_us = _COMMIT.unpack_from(body, at)
    return Commit(lsn, end_lsn, time_us + POSTGRES_EPOCH_US), at + _COMMIT.size


def _origin(body: bytes, at: int) -> tuple[Origin, int]:
    (lsn,) = _LSN.unpack_from(body, at)
    name, at = _text(body, at + _LSN.size)
    return Origin(lsn, name), at


def _relation(body: bytes, at: int) -> tuple[Relation, int]:
    (oid,) = _OID.unpack_from(body, at)
    namespace, at = _text(body, at + _OID.size)
    name, at = _text(body, at)
    identity = chr(body[at])
    (count,) = _COUNT.unpack_from(body, at + 1)
    at += 1 + _COUNT.size
    columns: list[Column] = []
    for _ in range(count):
        is_identity = bool(body[at] & 1)
        column, at = _text(body, at + 1)
        type_oid, _typmod = _COLUMN_TYPE.unpack_from(body, at)
        at += _COLUMN_TYPE.size
        columns.append(Column(column, type_oid, "", is_identity))
    # The server leaves out pg_catalog, the only namespace that it abbreviates.
    return Relation(oid, namespace or "pg_catalog", name, identity, tuple(columns)), at


def _type(body: bytes, at: int) -> tuple[TypeMessage, int]:
    (oid,) = _OID.unpack_from(body, at)
    namespace, at = _text(body, at + _OID.size)
    name, at = _text(body, at)
    return TypeMessage(oid, namespace, name), at


def _insert(body: bytes, at: int) -> tuple[Insert, int]:
    oid, kind = _read_row_head(body, at)
    if kind != _NEW:
        raise ValueError(kind)
    new, at, _ = _cells(body, at + 5)
    return Insert(oid, new), at


def _update(body: bytes, at: int) -> tuple[Update, int]:
    oid, kind = _read_row_head(body, at)
    at += 5
    old: Cells | None = None
    old_is_full = kind == _OLD
    if old_is_full or kind == _KEY:
        old, at, _ = _cells(body, at)
        kind = body[at]
        at += 1
    if kind != _NEW:
        raise ValueError(kind)
    new, at, has_unchanged = _cells(body, at) if old is None else _cells_beside(body, at, old)
    return fast_new(Update, (oid, old, old_is_full, new, has_unchanged)), at


def _delete(body: bytes, at: int) -> tuple[Delete, int]:
    oid, kind = _read_row_head(body, at)
    if kind not in (_OLD, _KEY):
        raise ValueError(kind)
    old, at, _ = _cells(body, at + 5)
    return Delete(oid, old, kind == _OLD), at


def _truncate(body: bytes, at: int) -> tuple[Truncate, int]:
    count, _ = _TRUNCATE.unpack_from(body, at)  # what cascaded is listed, too
    at += _TRUNCATE.size
    end = at + count * _OID.size
    if end > len(body):
        raise IndexError(end)
    oids = struct.unpack_from(f"!{count}I", body, at)
    return Truncate(oids), end


def _message(body: bytes, at: int) -> tuple[LogicalMessage, int]:
    flags, lsn = _MESSAGE.unpack_from(body, at)
    prefix, at = _text(body, at + _MESSAGE.size)
    (size,) = _OID.unpack_from(body, at)
    at += _OID.size
    return LogicalMessage(bool(flags & 1), lsn, prefix, body[at : at + size]), at + size


_READERS: Final[dict[int, Callable[[bytes, int], tuple[Decoded, int]]]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
}

KINDS: Final = frozenset(_READERS)
"""The first bytes of the messages that there are."""
