"""Deliveries between two processes of ours, as `marshal` parcels: the cheapest exact form that was measured. Pure.

Both ends are the same installation and the same Python; nothing of this is ever stored. A large transaction travels in several
parcels, so that neither end holds it twice.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from cdc_merge.model import (
    UNCHANGED,
    Cell,
    Column,
    Delivery,
    Idle,
    Message,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    Transaction,
)

# Rows of one parcel: about 2 MB of short rows.
PARCEL_ROWS: Final = 5_000

_new_tuple = tuple.__new__


class Packer:
    """The sending end. A relation is sent once, before the first row of it."""

    def __init__(self) -> None:
        self._relations: dict[int, tuple[int, Relation]] = {}

    def pack(self, delivery: Delivery) -> Iterator[bytes]:
        if isinstance(delivery, Transaction):
            yield from self._parts(delivery.changes)
            yield marshal.dumps(("T", *delivery[:6], tuple(tuple(m) for m in delivery.messages)))
        elif isinstance(delivery, SnapshotRows):
            yield from self._parts(delivery.changes)
            yield marshal.dumps(("S", delivery.source))
        elif isinstance(delivery, SnapshotBegan):
            yield marshal.dumps(("B", *delivery[:5], dict(delivery.expected_rows)))
        elif isinstance(delivery, Idle):
            yield marshal.dumps(("I", *delivery))
        else:
            yield marshal.dumps(("D", *delivery))

    def _parts(self, changes: Sequence[RowChange]) -> Iterator[bytes]:
        for start in range(0, len(changes), PARCEL_ROWS):
            part = changes[start : start + PARCEL_ROWS]
            yield from self._announced(part)
            yield marshal.dumps(("R", [self._row(change) for change in part]))

    def _announced(self, changes: Iterable[RowChange]) -> Iterator[bytes]:
        known = self._relations
        for change in changes:
            relation = change.relation
            if id(relation) not in known:
                known[id(relation)] = (len(known), relation)
                columns = tuple(tuple(column) for column in relation.columns)
                told: Any = ("N", known[id(relation)][0], (*relation[:4], columns))
                yield marshal.dumps(told)

    def _row(self, change: RowChange) -> tuple[Any, ...]:
        operation, relation, old, is_full, new, ordinal = change
        gaps = new is not None and UNCHANGED in new
        if gaps or (old is not None and UNCHANGED in old):
            return (operation, self._relations[id(relation)][0], _without(old), is_full, _without(new), ordinal, True)
        return (operation, self._relations[id(relation)][0], old, is_full, new, ordinal)


def _without(cells: tuple[Cell, ...] | None) -> tuple[Any, ...] | None:
    """marshal knows no enums: an unchanged cell travels as Ellipsis."""
    return None if cells is None else tuple(... if cell is UNCHANGED else cell for cell in cells)


def _with(cells: tuple[Any, ...] | None) -> tuple[Cell, ...] | None:
    return None if cells is None else tuple(UNCHANGED if cell is ... else cell for cell in cells)


class Unpacker:
    """The receiving end: parcels in order; a delivery when one is complete."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._changes: list[RowChange] = []

    def unpack(self, parcel: bytes) -> Delivery | None:
        kind, *rest = marshal.loads(parcel)  # noqa: S302 - written by our own child a moment ago
        if kind == "R":
            self._rows(rest[0])
        elif kind == "N":
            number, (oid, namespace, name, identity, columns) = rest
            self._relations[number] = Relation(oid, namespace, name, identity, tuple(Column(*c) for c in columns))
        else:
            return self._delivery(kind, rest)
        return None

    def _rows(self, rows: list[tuple[Any, ...]]) -> None:
        relations = self._relations
        append = self._changes.append
        for row in rows:
            if len(row) == 6:
                operation, relation, old, is_full, new, ordinal = row
            else:
                operation, relation, old, is_full, new, ordinal, _ = row
                old, new = _with(old), _with(new)
            append(_new_tuple(RowChange, (operation, relations[relation], old, is_full, new, ordinal)))

    def _delivery(self, kind: str, rest: list[Any]) -> Delivery:
        if kind == "T":
            changes, self._changes = tuple(self._changes), []
            source, system, timeline, end_lsn, commit_us, origin, messages = rest
            said = tuple(Message(*message) for message in messages)
            return Transaction(source, system, timeline, end_lsn, commit_us, origin, said, changes)
        if kind == "S":
            changes, self._changes = tuple(self._changes), []
            return SnapshotRows(rest[0], changes)
        if kind == "B":
            return SnapshotBegan(*rest)
        return Idle(*rest) if kind == "I" else SnapshotDone(*rest)
