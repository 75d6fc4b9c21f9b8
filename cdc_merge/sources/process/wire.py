"""All that travels between a reader's process and its parent: deliveries in parcels, frames, commands. Pure.

One codec, `marshal`: the cheapest exact form that was measured for rows, and what is rarer has no need of another. It knows
plain values only, so both ends name what they make of them. Both ends are the same installation and the same Python;
nothing of this is ever stored. A large transaction travels in several parcels, so that neither end holds it twice.
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

PARCEL_ROWS: Final = 1_000  # about 200 kB of short rows

# At both ends: far more than the tables of one source. A stream announces its tables again and again.
_RELATIONS_KEPT: Final = 1024
_PLAIN_ITEMS: Final = 6  # of a row; one with unchanged cells has a mark behind them

_PLAIN: Final[dict[type, str]] = {Idle: "I", SnapshotTable: "C", SnapshotDone: "D"}


class WireFrame(NamedTuple):
    """`is_last`: with it, a delivery is complete."""

    body: bytes
    is_last: bool


class Packer:
    """The sending end. A relation is sent once, before the first row of it."""

    def __init__(self) -> None:
        self._relations: dict[int, tuple[int, Relation]] = {}

    def pack(self, delivery: Delivery) -> Iterator[WireFrame]:
        if isinstance(delivery, Transaction | SnapshotRows):
            yield from self._of_rows(delivery)
        elif isinstance(delivery, SnapshotBegan):
            yield _last("B", *delivery[:5], dict(delivery.expected_rows), delivery.lost)
        elif isinstance(delivery, ChunkRead):
            yield from self._of_read(delivery)
        else:
            yield _last(_PLAIN[type(delivery)], *delivery)

    def _of_rows(self, delivery: Transaction | SnapshotRows) -> Iterator[WireFrame]:
        if len(self._relations) >= _RELATIONS_KEPT:
            self._relations.clear()
        changes = delivery.changes
        yield from self._announced(changes)
        whole = len(changes) - len(changes) % PARCEL_ROWS
        for start in range(0, whole, PARCEL_ROWS):
            yield self._parcel("R", changes[start : start + PARCEL_ROWS], is_last=False)
        if isinstance(delivery, Transaction):
            messages = tuple(tuple(message) for message in delivery.messages)
            yield self._parcel("T", changes[whole:], tuple(delivery[:6]), messages)
        else:
            yield self._parcel("S", changes[whole:], delivery.source)

    def _of_read(self, delivery: ChunkRead) -> Iterator[WireFrame]:
        yield from self._announced(delivery.rows)
        yield self._parcel("A", delivery.rows, tuple(delivery._replace(rows=())))

    def _announced(self, changes: Iterable[RowChange]) -> Iterator[WireFrame]:
        known = self._relations
        for change in changes:
            relation = change.relation
            if id(relation) not in known:
                # Kept, so that no other relation can have this id.
                number, _ = known[id(relation)] = (len(known), relation)
                columns: tuple[Any, ...] = tuple(tuple(column) for column in relation.columns)
                yield WireFrame(marshal.dumps(("N", number, (*relation[:4], columns))), is_last=False)

    def _parcel(self, kind: str, changes: Sequence[RowChange], *items: Any, is_last: bool = True) -> WireFrame:
        numbers = self._relations
        rows: list[tuple[Any, ...]] = [
            (operation, numbers[id(relation)][0], old, is_full, new, ordinal)
            for operation, relation, old, is_full, new, ordinal in changes
        ]
        try:
            return WireFrame(marshal.dumps((kind, rows, *items)), is_last)
        except ValueError:  # marshal knows no enums: there are unchanged cells, which are rare
            rows = [(*row[:2], _without(row[2]), row[3], _without(row[4]), row[5], True) for row in rows]
            return WireFrame(marshal.dumps((kind, rows, *items)), is_last)


def _last(*items: Any) -> WireFrame:
    return WireFrame(marshal.dumps(items), is_last=True)


def _without(cells: tuple[RawValue, ...] | None) -> tuple[Any, ...] | None:
    """An unchanged cell travels as Ellipsis."""
    return None if cells is None else tuple(... if cell is UNCHANGED else cell for cell in cells)


def _with(cells: tuple[Any, ...] | None) -> tuple[RawValue, ...] | None:
    return None if cells is None else tuple(UNCHANGED if cell is ... else cell for cell in cells)


class Unpacker:
    """The receiving end: parcels in order; a delivery when one is complete."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._changes: list[RowChange] = []

    def unpack(self, body: bytes) -> Delivery | None:
        kind, *items = marshal.loads(body)  # written by our own child a moment ago
        return self._TAKE[kind](self, *items)

    def _rows(self, rows: list[tuple[Any, ...]]) -> None:
        relations = self._relations
        append = self._changes.append
        for row in rows:
            if len(row) == _PLAIN_ITEMS:
                operation, relation, old, is_full, new, ordinal = row
            else:
                operation, relation, old, is_full, new, ordinal, _ = row
                old, new = _with(old), _with(new)
            append(fast_new(RowChange, (operation, relations[relation], old, is_full, new, ordinal)))

    def _relation(self, number: int, told: tuple[Any, ...]) -> None:
        oid, namespace, name, identity, columns = told
        columns = tuple(Column(*column) for column in columns)
        self._relations[number] = Relation(oid, namespace, name, identity, columns)

    def _transaction(self, rows: list[Any], head: tuple[Any, ...], messages: tuple[Any, ...]) -> Transaction:
        said = tuple(Message(*message) for message in messages)
        return fast_new(Transaction, (*head, said, self._all_with(rows)))

    def _snapshot_rows(self, rows: list[Any], source: str) -> SnapshotRows:
        return SnapshotRows(source, self._all_with(rows))

    def _rows_read(self, rows: list[Any], head: tuple[Any, ...]) -> ChunkRead:
        return ChunkRead(*head)._replace(rows=self._all_with(rows))

    def _all_with(self, rows: list[Any]) -> tuple[RowChange, ...]:
        self._rows(rows)
        changes, self._changes = tuple(self._changes), []
        return changes

    _TAKE: Final[dict[str, Callable[..., Delivery | None]]] = {
        "R": _rows,
        "N": _relation,
        "T": _transaction,
        "S": _snapshot_rows,
        "A": _rows_read,
        "B": lambda _, *items: SnapshotBegan(*items),
        "I": lambda _, *items: Idle(*items),
        "C": lambda _, *items: SnapshotTable(*items),
        "D": lambda _, *items: SnapshotDone(*items),
    }


# ---------------------------------------------------------------- frames: child to parent


class FromChild(IntEnum):
    """The first byte of a frame. Behind LAID_ASIDE comes the descriptor of the file that holds the transaction's rows."""

    PARCEL = 1
    LAST_PARCEL = 2
    STATUS = 3
    FACT = 4
    LAID_ASIDE = 5
    SURPRISE = 6


News: TypeAlias = SourceStatus | SourceChanged | Parked
"""What a reader tells of itself and of its source."""

_NEWS: Final[Mapping[str, type[News]]] = {each.__name__: each for each in (SourceStatus, SourceChanged, Parked)}


class Frame(NamedTuple):
    """What the parent reads from the pipe: a parcel, with `reached` when it is a delivery's last, or news (of what ended the
    reader, in words).

    `large` is a transaction without its rows: their number and their file's size in bytes are `rows`."""

    kind: FromChild
    parcel: bytes = b""
    reached: Position | None = None
    told: News | str | None = None
    large: Transaction | None = None
    rows: tuple[int, int] = (0, 0)


def parcel_frame(parcel: WireFrame, reached: Position | None) -> bytes:
    """`reached`: where a new reader would go on behind the delivery that the parcel is of."""
    body, is_last = parcel
    return _frame(FromChild.LAST_PARCEL, (_place(reached), body)) if is_last else b"%c%b" % (FromChild.PARCEL, body)


def large_frame(large: Transaction, rows: tuple[int, int], reached: Position | None) -> bytes:
    messages = tuple(tuple(message) for message in large.messages)
    return _frame(FromChild.LAID_ASIDE, (_place(reached), tuple(large[:6]), messages, rows))


def news_frame(news: News) -> bytes:
    kind = FromChild.STATUS if isinstance(news, SourceStatus) else FromChild.FACT
    return _frame(kind, (type(news).__name__, *(getattr(news, told.name) for told in fields(news))))


def surprise_frame(what: str) -> bytes:
    return _frame(FromChild.SURPRISE, what)


def _frame(kind: FromChild, told: Any) -> bytes:
    return b"%c%b" % (kind, marshal.dumps(told))


def _place(reached: Position | None) -> tuple[Any, ...] | None:
    return None if reached is None else tuple(reached)


def read_frame(frame: bytes) -> Frame:
    kind, body = FromChild(frame[0]), frame[1:]
    if kind is FromChild.PARCEL:
        return Frame(kind, body)
    told = marshal.loads(body)  # written by our own child a moment ago
    if kind is FromChild.LAST_PARCEL:
        reached, parcel = told
        return Frame(kind, parcel, Position(*reached) if reached else None)
    if kind is FromChild.LAID_ASIDE:
        reached, head, messages, rows = told
        large = Transaction(*(*head, tuple(Message(*message) for message in messages), ()))
        return Frame(kind, reached=Position(*reached) if reached else None, large=large, rows=rows)
    return Frame(kind, told=told if kind is FromChild.SURPRISE else _NEWS[told[0]](*told[1:]))


# ---------------------------------------------------------------- commands: parent to child


class ToChild(IntEnum):
    STOP = 1
    CONFIRM = 2
    TAKEN = 3
    READ_AGAIN = 4
    LEAVE_WHOLE = 5


def command(word: ToChild, of: int | ChunkRequest | frozenset[str]) -> bytes:
    return marshal.dumps((int(word), tuple(of) if isinstance(of, ChunkRequest) else of))


def read_command(sent: bytes) -> tuple[ToChild, Any]:
    """The word, and what comes with it."""
    number, of = marshal.loads(sent)  # written by our own parent a moment ago
    word = ToChild(number)
    return word, ChunkRequest(*of) if word is ToChild.READ_AGAIN else of
