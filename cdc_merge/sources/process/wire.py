"""The wire format of the pipe between a reader's process and its parent: delivery parts, reports, commands. Pure.

One codec, `marshal`: the cheapest exact form that was measured for rows; the other messages are too rare to need another.
It knows plain values only, so both ends convert the model's types. Both ends are the same installation and the same
Python, and nothing of this is ever stored. A transaction travels in parts, so that neither end has it in memory twice; the
rows of a spilled one do not travel at all.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from cdc_merge.model import (
    UNCHANGED,
    ChunkRead,
    Column,
    Delivery,
    Idle,
    Message,
    Parked,
    Position,
    RawValue,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    SnapshotTable,
    SourceChanged,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.fast_new import fast_new
from cdc_merge.model.source_commands import ChunkRequest

PART_ROWS: Final = 1_000  # about 200 kB of short rows

# At both ends: far more than the tables of one source. A stream repeats its Relation messages.
_RELATIONS_KEPT: Final = 1024
_PLAIN_ITEMS: Final = 6  # of a row; one with unchanged TOASTed values has one item more

_PLAIN: Final[dict[type, str]] = {Idle: "I", SnapshotTable: "C", SnapshotDone: "D"}


class DeliveryPart(NamedTuple):
    """A part of a delivery, which is complete with the part that `is_last`."""

    body: bytes
    is_last: bool


class Packer:
    """The sending end. A relation is sent once, before its first row."""

    def __init__(self) -> None:
        self._relations: dict[int, tuple[int, Relation]] = {}

    def pack(self, delivery: Delivery) -> Iterator[DeliveryPart]:
        if isinstance(delivery, Transaction | SnapshotRows):
            yield from self._row_parts(delivery)
        elif isinstance(delivery, SnapshotBegan):
            yield _last_part("B", *delivery[:5], dict(delivery.expected_rows), delivery.lost)
        elif isinstance(delivery, ChunkRead):
            yield from self._chunk_parts(delivery)
        else:
            yield _last_part(_PLAIN[type(delivery)], *delivery)

    def _row_parts(self, delivery: Transaction | SnapshotRows) -> Iterator[DeliveryPart]:
        if len(self._relations) >= _RELATIONS_KEPT:
            self._relations.clear()
        changes = delivery.changes
        yield from self._relation_parts(changes)
        whole = len(changes) - len(changes) % PART_ROWS
        for start in range(0, whole, PART_ROWS):
            yield self._part("R", changes[start : start + PART_ROWS], is_last=False)
        if isinstance(delivery, Transaction):
            messages = tuple(tuple(message) for message in delivery.messages)
            yield self._part("T", changes[whole:], tuple(delivery[:6]), messages)
        else:
            yield self._part("S", changes[whole:], delivery.source)

    def _chunk_parts(self, delivery: ChunkRead) -> Iterator[DeliveryPart]:
        yield from self._relation_parts(delivery.rows)
        yield self._part("A", delivery.rows, tuple(delivery._replace(rows=())))

    def _relation_parts(self, changes: Iterable[RowChange]) -> Iterator[DeliveryPart]:
        sent = self._relations
        for change in changes:
            relation = change.relation
            if id(relation) not in sent:
                # The reference to the relation ensures that no other one has this id.
                number, _ = sent[id(relation)] = (len(sent), relation)
                columns: tuple[Any, ...] = tuple(tuple(column) for column in relation.columns)
                yield DeliveryPart(marshal.dumps(("N", number, (*relation[:4], columns))), is_last=False)

    def _part(self, kind: str, changes: Sequence[RowChange], *items: Any, is_last: bool = True) -> DeliveryPart:
        numbers = self._relations
        rows: list[tuple[Any, ...]] = [
            (operation, numbers[id(relation)][0], old, is_full, new, ordinal)
            for operation, relation, old, is_full, new, ordinal in changes
        ]
        try:
            return DeliveryPart(marshal.dumps((kind, rows, *items)), is_last)
        except ValueError:  # marshal knows no enums: there are unchanged TOASTed values, which are rare
            rows = [
                (*row[:2], _encode_unchanged(row[2]), row[3], _encode_unchanged(row[4]), row[5], True) for row in rows
            ]
            return DeliveryPart(marshal.dumps((kind, rows, *items)), is_last)


def _last_part(*items: Any) -> DeliveryPart:
    return DeliveryPart(marshal.dumps(items), is_last=True)


def _encode_unchanged(cells: tuple[RawValue, ...] | None) -> tuple[Any, ...] | None:
    """An unchanged TOASTed value travels as Ellipsis."""
    return None if cells is None else tuple(... if cell is UNCHANGED else cell for cell in cells)


def _decode_unchanged(cells: tuple[Any, ...] | None) -> tuple[RawValue, ...] | None:
    return None if cells is None else tuple(UNCHANGED if cell is ... else cell for cell in cells)


class Unpacker:
    """The receiving end: takes parts in order, and gives a delivery with its last part."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._changes: list[RowChange] = []

    def unpack(self, body: bytes) -> Delivery | None:
        kind, *items = marshal.loads(body)  # written by our own child a moment ago
        return self._HANDLERS[kind](self, *items)

    def _rows(self, rows: list[tuple[Any, ...]]) -> None:
        relations = self._relations
        append = self._changes.append
        for row in rows:
            if len(row) == _PLAIN_ITEMS:
                operation, relation, old, is_full, new, ordinal = row
            else:
                operation, relation, old, is_full, new, ordinal, _ = row
                old, new = _decode_unchanged(old), _decode_unchanged(new)
            append(fast_new(RowChange, (operation, relations[relation], old, is_full, new, ordinal)))

    def _relation(self, number: int, relation: tuple[Any, ...]) -> None:
        oid, namespace, name, identity, columns = relation
        columns = tuple(Column(*column) for column in columns)
        self._relations[number] = Relation(oid, namespace, name, identity, columns)

    def _transaction(self, rows: list[Any], head: tuple[Any, ...], messages: tuple[Any, ...]) -> Transaction:
        logical = tuple(Message(*message) for message in messages)
        return fast_new(Transaction, (*head, logical, self._complete_with(rows)))

    def _snapshot_rows(self, rows: list[Any], source: str) -> SnapshotRows:
        return SnapshotRows(source, self._complete_with(rows))

    def _chunk_read(self, rows: list[Any], head: tuple[Any, ...]) -> ChunkRead:
        return ChunkRead(*head)._replace(rows=self._complete_with(rows))

    def _complete_with(self, rows: list[Any]) -> tuple[RowChange, ...]:
        self._rows(rows)
        changes, self._changes = tuple(self._changes), []
        return changes

    _HANDLERS: Final[dict[str, Callable[..., Delivery | None]]] = {
        "R": _rows,
        "N": _relation,
        "T": _transaction,
        "S": _snapshot_rows,
        "A": _chunk_read,
        "B": lambda _, *items: SnapshotBegan(*items),
        "I": lambda _, *items: Idle(*items),
        "C": lambda _, *items: SnapshotTable(*items),
        "D": lambda _, *items: SnapshotDone(*items),
    }


# ---------------------------------------------------------------- messages: child to parent


class MessageKind(IntEnum):
    """The first byte of a message. SPILLED is followed by the descriptor of the spill file with the transaction's rows."""

    PART = 1
    LAST_PART = 2
    STATUS = 3
    FACT = 4
    SPILLED = 5
    CRASH = 6


ReaderReport: TypeAlias = SourceStatus | SourceChanged | Parked
"""Status and facts that a reader reports to its parent."""

_REPORTS: Final[Mapping[str, type[ReaderReport]]] = {
    each.__name__: each for each in (SourceStatus, SourceChanged, Parked)
}


class PipeMessage(NamedTuple):
    """A message to the parent: a delivery part, a spilled transaction or a report (for CRASH: what and where, as a text).

    `reached`, with the end of a delivery: the position from which a new reader continues. `large` is a spilled transaction
    without its rows; `rows` are their number and their file's size in bytes."""

    kind: MessageKind
    part: bytes = b""
    reached: Position | None = None
    report: ReaderReport | str | None = None
    large: Transaction | None = None
    rows: tuple[int, int] = (0, 0)


def part_message(part: DeliveryPart, reached: Position | None) -> bytes:
    """`reached`: the position from which a new reader continues after the part's delivery."""
    body, is_last = part
    if is_last:
        return _message(MessageKind.LAST_PART, (_position_items(reached), body))
    return b"%c%b" % (MessageKind.PART, body)


def spilled_message(large: Transaction, rows: tuple[int, int], reached: Position | None) -> bytes:
    messages = tuple(tuple(message) for message in large.messages)
    return _message(MessageKind.SPILLED, (_position_items(reached), tuple(large[:6]), messages, rows))


def report_message(report: ReaderReport) -> bytes:
    kind = MessageKind.STATUS if isinstance(report, SourceStatus) else MessageKind.FACT
    return _message(kind, (type(report).__name__, *(getattr(report, field.name) for field in fields(report))))


def crash_message(what: str) -> bytes:
    return _message(MessageKind.CRASH, what)


def _message(kind: MessageKind, content: Any) -> bytes:
    return b"%c%b" % (kind, marshal.dumps(content))


def _position_items(reached: Position | None) -> tuple[Any, ...] | None:
    return None if reached is None else tuple(reached)


def read_message(message: bytes) -> PipeMessage:
    kind, body = MessageKind(message[0]), message[1:]
    if kind is MessageKind.PART:
        return PipeMessage(kind, body)
    content = marshal.loads(body)  # written by our own child a moment ago
    if kind is MessageKind.LAST_PART:
        reached, part = content
        return PipeMessage(kind, part, Position(*reached) if reached else None)
    if kind is MessageKind.SPILLED:
        reached, head, messages, rows = content
        large = Transaction(*(*head, tuple(Message(*message) for message in messages), ()))
        return PipeMessage(kind, reached=Position(*reached) if reached else None, large=large, rows=rows)
    return PipeMessage(kind, report=content if kind is MessageKind.CRASH else _REPORTS[content[0]](*content[1:]))


# ---------------------------------------------------------------- commands: parent to child


class CommandKind(IntEnum):
    """STOP ends the reader; CONFIRM has the LSN that is on disk, TAKEN a number of bytes, READ_CHUNK a ChunkRequest."""

    STOP = 1
    CONFIRM = 2
    TAKEN = 3
    READ_CHUNK = 4


def command(kind: CommandKind, argument: int | ChunkRequest) -> bytes:
    return marshal.dumps((int(kind), tuple(argument) if isinstance(argument, ChunkRequest) else argument))


def read_command(sent: bytes) -> tuple[CommandKind, Any]:
    """The command and its argument."""
    number, argument = marshal.loads(sent)  # written by our own parent a moment ago
    kind = CommandKind(number)
    return kind, ChunkRequest(*argument) if kind is CommandKind.READ_CHUNK else argument
