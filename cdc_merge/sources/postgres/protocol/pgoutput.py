"""Step 1, the decoder: one pgoutput payload in, one message out.

Protocol version 1 (Postgres docs, "Logical Replication Message Formats"). Sans I/O and stateless: transactions.py knows the
relation of an oid. A payload that is truncated, damaged, longer than its message or of an unknown kind gives
`ProtocolError` and nothing else; no more memory is used than the payload has.

Times are microseconds since 1970-01-01 UTC, LSNs integers. The values of TupleData are the server's text form in UTF-8.
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

TupleData: TypeAlias = tuple[RawValue, ...]
Payload: TypeAlias = "bytes | memoryview"


class BeginMessage(NamedTuple):
    """`commit_lsn` is where the commit record starts, which the transaction's own `Commit` repeats."""

    commit_lsn: int
    commit_us: int
    xid: int


class CommitMessage(NamedTuple):
    commit_lsn: int
    end_lsn: int
    commit_us: int


class OriginMessage(NamedTuple):
    """The replication origin under which the transaction was applied; `lsn` is a position at that origin, not here."""

    lsn: int
    name: str


class TypeMessage(NamedTuple):
    """The name of a type that is not built in. A domain has an empty namespace and its base type's name."""

    oid: int
    namespace: str
    name: str


class InsertMessage(NamedTuple):
    relation_oid: int
    new: TupleData


class UpdateMessage(NamedTuple):
    """`old` is None, the identity columns only, or (`old_is_full`) all; `has_unchanged`: `new` holds UNCHANGED."""

    relation_oid: int
    old: TupleData | None
    old_is_full: bool
    new: TupleData
    has_unchanged: bool


class DeleteMessage(NamedTuple):
    relation_oid: int
    old: TupleData
    old_is_full: bool


class TruncateMessage(NamedTuple):
    relation_oids: tuple[int, ...]


class LogicalMessage(NamedTuple):
    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Decoded: TypeAlias = (
    BeginMessage
    | CommitMessage
    | OriginMessage
    | Relation
    | TypeMessage
    | InsertMessage
    | UpdateMessage
    | DeleteMessage
    | TruncateMessage
    | LogicalMessage
)

# A NULL is one byte, a text value at least five. With this many bytes after the payload, both can be read by one unpack of
# five; that a message ends inside its payload is checked once, at its end.
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

_read_value = struct.Struct("!BI").unpack_from
_read_count = _COUNT.unpack_from
_read_row_head = struct.Struct("!IB").unpack_from

_TEXT, _NULL, _TOAST, _BINARY = b"tnub"
_OLD, _KEY, _NEW = b"OKN"


def decode(payload: Payload, start: int = 0) -> Decoded:
    """The message that `payload` holds from byte `start` on; ProtocolError when it holds none."""
    body = b"".join((payload, _PADDING))
    length = len(body) - len(_PADDING)
    try:
        read = _READERS[body[start]] if start < length else _empty_payload
        message, at = read(body, start + 1)
    except KeyError:
        kind = chr(body[start])
        raise ProtocolError(f"Message type {kind!r} is not part of protocol 1.", offset=start, length=length) from None
    except (struct.error, IndexError, ValueError):
        raise ProtocolError("The message is damaged or cut short.", offset=start, length=length) from None
    if at != length:
        raise ProtocolError("The message does not end where its payload ends.", offset=at, length=length)
    return message


def _empty_payload(body: bytes, at: int) -> tuple[Decoded, int]:
    raise IndexError(at)


def _tuple_data(body: bytes, at: int) -> tuple[TupleData, int, bool]:
    """One TupleData. This loop is the hottest of all: an unpack and a slice per value were the fastest measured."""
    (count,) = _read_count(body, at)
    at += 2
    values: list[RawValue] = []
    append = values.append
    read_value = _read_value
    has_unchanged = False
    for _ in range(count):
        kind, size = read_value(body, at)
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
            raise _wrong_value(kind, body, at)
    return tuple(values), at, has_unchanged


def _tuple_data_beside(body: bytes, at: int, old: TupleData) -> tuple[TupleData, int, bool]:
    """As `_tuple_data`, but a value that equals the old one is the same object: half the memory of an update with a complete
    old row, and a comparison of both finds most values identical. It takes no more time than a new slice."""
    (count,) = _read_count(body, at)
    if count != len(old):
        return _tuple_data(body, at)
    at += 2
    values: list[RawValue] = []
    append = values.append
    read_value = _read_value
    has_unchanged = False
    for before in old:
        kind, size = read_value(body, at)
        if kind == 116:  # as in _tuple_data
            at += 5
            end = at + size
            value = body[at:end]
            append(before if value == before else value)
            at = end
        elif kind == _NULL:
            append(None)
            at += 1
        elif kind == _TOAST:
            append(UNCHANGED)
            has_unchanged = True
            at += 1
        else:
            raise _wrong_value(kind, body, at)
    return tuple(values), at, has_unchanged


def _wrong_value(kind: int, body: bytes, at: int) -> ProtocolError:
    what = "in binary form, which was not requested" if kind == _BINARY else f"of unknown kind {chr(kind)!r}"
    return ProtocolError(f"A column is {what}.", offset=at, length=len(body) - len(_PADDING))


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(0, at)
    return body[at:end].decode(), end + 1


def _begin(body: bytes, at: int) -> tuple[BeginMessage, int]:
    lsn, time_us, xid = _BEGIN.unpack_from(body, at)
    return BeginMessage(lsn, time_us + POSTGRES_EPOCH_US, xid), at + _BEGIN.size


def _commit(body: bytes, at: int) -> tuple[CommitMessage, int]:
    _, lsn, end_lsn, time_us = _COMMIT.unpack_from(body, at)
    return CommitMessage(lsn, end_lsn, time_us + POSTGRES_EPOCH_US), at + _COMMIT.size


def _origin(body: bytes, at: int) -> tuple[OriginMessage, int]:
    (lsn,) = _LSN.unpack_from(body, at)
    name, at = _text(body, at + _LSN.size)
    return OriginMessage(lsn, name), at


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


def _insert(body: bytes, at: int) -> tuple[InsertMessage, int]:
    oid, kind = _read_row_head(body, at)
    if kind != _NEW:
        raise ValueError(kind)
    new, at, _ = _tuple_data(body, at + 5)
    return InsertMessage(oid, new), at


def _update(body: bytes, at: int) -> tuple[UpdateMessage, int]:
    oid, kind = _read_row_head(body, at)
    at += 5
    old: TupleData | None = None
    old_is_full = kind == _OLD
    if old_is_full or kind == _KEY:
        old, at, _ = _tuple_data(body, at)
        kind = body[at]
        at += 1
    if kind != _NEW:
        raise ValueError(kind)
    new, at, has_unchanged = _tuple_data(body, at) if old is None else _tuple_data_beside(body, at, old)
    return fast_new(UpdateMessage, (oid, old, old_is_full, new, has_unchanged)), at


def _delete(body: bytes, at: int) -> tuple[DeleteMessage, int]:
    oid, kind = _read_row_head(body, at)
    if kind not in (_OLD, _KEY):
        raise ValueError(kind)
    old, at, _ = _tuple_data(body, at + 5)
    return DeleteMessage(oid, old, kind == _OLD), at


def _truncate(body: bytes, at: int) -> tuple[TruncateMessage, int]:
    count, _ = _TRUNCATE.unpack_from(body, at)  # what cascaded is listed, too
    at += _TRUNCATE.size
    end = at + count * _OID.size
    if end > len(body):
        raise IndexError(end)
    oids = struct.unpack_from(f"!{count}I", body, at)
    return TruncateMessage(oids), end


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
