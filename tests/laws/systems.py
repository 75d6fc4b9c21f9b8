"""Systems in memory, and the streams that PostgreSQL would send of them: what a model of the whole way of the data drives.

A `System` keeps whole rows and writes its own log. Its replica identity decides what an old row says, a large unchanged
column is not sent again, its clock may be stepped, and its stream may be held back, read a piece at a time, or read
again. Nothing here knows how changes are mapped or merged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from cdc_merge.model import (
    UNCHANGED,
    Column,
    Delivery,
    Idle,
    Message,
    Place,
    Position,
    RawValue,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    SourceStatus,
    Transaction,
    Value,
)

TABLE: Final = "public.customer"
TEXT, INTEGER, NUMERIC, BOOLEAN, TEXTS, JSONB = 25, 23, 1700, 16, 1009, 3802
JOB_ORIGIN: Final = "sync"
"""The replication origin under which a sync job may apply."""

Values = Mapping[str, Value]


class Sheet(NamedTuple):
    """A table: `identity` is full, or the column that an old row shows; `large`: the column that is not sent unchanged."""

    columns: Mapping[str, int]
    identity: str = "full"
    large: str | None = None

    def relation(self) -> Relation:
        columns = {"id": INTEGER, "no": TEXT, **self.columns}
        is_full = self.identity == "full"
        told = tuple(Column(name, oid, "", is_full or name == self.identity) for name, oid in columns.items())
        return Relation(1, "public", "customer", "f" if is_full else "d", told)


def _text(value: Value) -> RawValue:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, tuple):
        return ("{" + ",".join(str(item) for item in value) + "}").encode()
    assert isinstance(value, str | int | Decimal), "a value of these systems"
    return str(value).encode()


class Mark(NamedTuple):
    """How a sync job marks its transaction; a plain one is anybody's edit. `of`: the writes that it repeats, by place."""

    origin: str | None = None
    messages: tuple[Message, ...] = ()


def marked(*, source: str | None = None) -> Mark:
    said = json.dumps({"from": source}).encode() if source else b""
    return Mark(messages=(Message("cdc_merge.copy", said, transactional=True),))


def applied(places: Iterable[Place]) -> Mark:
    said = json.dumps({"writes": [list(place) for place in places]}).encode()
    return Mark(messages=(Message("cdc_merge.apply", said, transactional=True),))


PLAIN: Final = Mark()
UNDER_ORIGIN: Final = Mark(origin=JOB_ORIGIN)


class Statements:
    """One open transaction: rows change at once, and the log is written as they do."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.changes: list[RowChange] = []

    def insert(self, no: str, values: Values) -> None:
        system = self._system
        system.last_id += 1
        blank = dict.fromkeys(system.sheet.columns)
        row = system.rows[no] = {**blank, **values, "id": system.last_id, "no": no}
        self._log("insert", None, self.cells(row), no)

    def update(self, no: str, values: Values) -> None:
        old = self._system.rows.pop(no)
        new = {**old, **values}
        moved_to = str(new["no"])
        self._system.rows[moved_to] = new
        identity, large = self._system.sheet.identity, self._system.sheet.large
        shows_old = identity == "full" or old[identity] != new[identity]
        cells = [UNCHANGED if n == large and old[n] == new[n] else _text(v) for n, v in new.items()]
        self._log("update", self._old(old) if shows_old else None, self._in_order(new, cells), moved_to)

    def delete(self, no: str) -> None:
        self._log("delete", self._old(self._system.rows.pop(no)), None, no)

    def truncate(self) -> None:
        self._system.rows.clear()
        self._log("truncate", None, None, "")

    def swap(self, one: str, other: str) -> None:
        self.update(one, {"no": "between"})
        self.update(other, {"no": one})
        self.update("between", {"no": other})

    def _old(self, row: Values) -> tuple[RawValue, ...]:
        identity = self._system.sheet.identity
        return self._in_order(row, [_text(v) if identity in ("full", n) else None for n, v in row.items()])

    def cells(self, row: Values) -> tuple[RawValue, ...]:
        return self._in_order(row, [_text(value) for value in row.values()])

    def _in_order(self, row: Values, cells: Sequence[RawValue]) -> tuple[RawValue, ...]:
        named = dict(zip(row, cells, strict=True))
        return tuple(named[column.name] for column in self._system.relation.columns)

    def _log(self, operation: str, old: tuple[RawValue, ...] | None, new: tuple[RawValue, ...] | None, no: str) -> None:
        is_full = self._system.sheet.identity == "full" and old is not None
        ordinal = len(self.changes)
        self.changes.append(RowChange(operation, self._system.relation, old, is_full, new, ordinal))
        self._system.touched[no] = ordinal


class System:
    """`offset_us`: how far its clock is ahead. `tape`: all that its server would send to somebody who reads from the
    beginning. `places`: of the last change of each row."""

    def __init__(self, name: str, sheet: Sheet) -> None:
        self.name = name
        self.sheet = sheet
        self.relation = sheet.relation()
        self.offset_us = 0
        self.rows: dict[str, dict[str, Value]] = {}
        self.places: dict[str, Place] = {}
        self.tape: list[Delivery] = []
        self.touched: dict[str, int] = {}
        self.last_id = 0
        self._lsn = 0

    def holds(self, no: str) -> Values:
        """The mapped columns of a row."""
        return {name: self.rows[no][name] for name in self.sheet.columns}

    def first_copy(self, now_us: int, *, at_a_time: int = 2) -> None:
        """A consistent copy of what it holds now; the stream follows."""
        copied = Statements(self)
        lines = [
            RowChange("snapshot", self.relation, None, False, copied.cells(row), number)
            for number, row in enumerate(self.rows.values())
        ]
        at = self._next_lsn()
        self.tape.append(SnapshotBegan(self.name, self._server, 1, at, now_us + self.offset_us, {TABLE: len(lines)}))
        for start in range(0, len(lines), at_a_time):
            self.tape.append(SnapshotRows(self.name, tuple(lines[start : start + at_a_time])))
        self.tape.append(SnapshotDone(self.name, at))

    def commit(self, now_us: int, work: Callable[[Statements], None], mark: Mark = PLAIN) -> None:
        statements, lsn = Statements(self), self._next_lsn()
        self.touched = {}
        work(statements)
        changes, at_us = tuple(statements.changes), now_us + self.offset_us
        self.tape.append(Transaction(self.name, self._server, 1, lsn, at_us, mark.origin, mark.messages, changes))
        self.places |= {no: Place(self._server, 1, lsn, TABLE, ordinal) for no, ordinal in self.touched.items()}

    def idle(self, now_us: int) -> None:
        self.tape.append(Idle(self.name, self._server, 1, self._next_lsn(), now_us + self.offset_us))

    @property
    def _server(self) -> str:
        return f"server of {self.name}"

    def _next_lsn(self) -> int:
        self._lsn += 100
        return self._lsn


def end_of(delivery: Delivery) -> int:
    """Where a delivery of the stream ends; the first copy lies before every position."""
    if isinstance(delivery, Transaction):
        return delivery.end_lsn
    return delivery.lsn if isinstance(delivery, Idle) else 0


class Stream:
    """ports.Source over a system's tape: gives as much as it is allowed to. `arrived_us`: when each delivery was
    taken for good, by our own clock."""

    def __init__(self, system: System, now_us: Callable[[], int], arrived_us: dict[int, int]) -> None:
        self.name = system.name
        self.allowed = 0
        self.next = 0
        self._arrived_us = arrived_us
        self._system = system
        self._now_us = now_us
        self._durable = 0

    @property
    def is_over(self) -> bool:
        return self.next == len(self._system.tape)

    def start(self, position: Position | None) -> None:
        """Begin after the position, as a server does; an unfinished first copy begins again."""
        self.next = self._durable = 0
        if position is not None and position.snapshot != "running":
            self._durable = position.lsn
            tape = self._system.tape
            later = (n for n, delivery in enumerate(tape) if end_of(delivery) > position.lsn)
            self.next = next(later, len(tape))

    def take(self, limit: int) -> Sequence[Delivery]:
        tape = self._system.tape
        if self.allowed and self.next < len(tape) and isinstance(tape[self.next], SnapshotBegan):
            # Stamps of a copy that had to begin again count on from those of the first attempt; tests/system/crash has that.
            self.allowed = max(self.allowed, 1 + next(n for n, d in enumerate(tape) if isinstance(d, SnapshotDone)))
        taken = tape[self.next : self.next + self.allowed]
        for number, delivery in enumerate(taken, self.next):
            if end_of(delivery) > self._durable:
                self._arrived_us[number] = self._now_us()
        self.next += len(taken)
        self.allowed -= len(taken)
        return taken

    def again(self, count: int) -> None:
        """The last deliveries of the stream come once more; a first copy does not."""
        tape = self._system.tape
        while count and self.next and end_of(tape[self.next - 1]):
            self.next, count = self.next - 1, count - 1

    def confirm(self, lsn: int) -> None:
        self._durable = max(self._durable, lsn)

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)

    def stop(self) -> None: ...
