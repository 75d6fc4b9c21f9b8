"""A naive table with the row changes that Postgres would send of it, and random statements on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.mapping.mapping_result import MappingResult
from cdc_merge.model import (
    UNCHANGED,
    Column,
    RawValue,
    Relation,
    RowChange,
    Stamp,
    Transaction,
)
from cdc_merge.model.plan import Plan, TableMap

TABLE = "public.t"
NAMES = ("id", "no", "phone", "bio")
MAP = TableMap("crm", "customer", TABLE, ("no",), {"phone": "phone", "bio": "bio"})
IDENTITIES = {"full": NAMES, "by key": ("no",), "by id": ("id",), "by both": ("id", "no")}
KEYS = ("1", "2", "3")


class Line(NamedTuple):
    """A row of the table."""

    id: str
    no: str
    phone: str
    bio: str


class Table:
    """The naive table, and the stream that Postgres would send of it. Rows have a private number."""

    def __init__(self, lines: Sequence[Line], identity: str) -> None:
        columns = tuple(Column(name, 25, "", name in IDENTITIES[identity]) for name in NAMES)
        self.relation = Relation(1, "public", "t", "f" if identity == "full" else "d", columns)
        self.rows = dict(enumerate(lines))
        self.before = dict(self.rows)
        self.changes: list[RowChange] = []
        self.is_full = identity == "full"
        self.identity = IDENTITIES[identity]
        self._next = 100

    def __repr__(self) -> str:
        rows = [str(line) for line in self.before.values()]
        return "\n".join([*rows, *(f"{change.operation} {change.old} → {change.new}" for change in self.changes)])

    def insert(self, no: str, phone: str) -> None:
        if all(line.no != no for line in self.rows.values()):
            self._next += 1
            self.rows[self._next] = line = Line(str(self._next), no, phone, "b0")
            self._send("insert", None, self._cells(line))

    def delete(self, number: int) -> None:
        self._send("delete", self._cells(self.rows.pop(number)), None)

    def update(self, number: int, **values: str) -> None:
        old = self.rows[number]
        new = self.rows[number] = old._replace(**values)
        renamed = any(getattr(old, name) != getattr(new, name) for name in self.identity)
        # An unchanged TOASTed value is not sent, also under REPLICA IDENTITY FULL.
        cells = tuple(
            UNCHANGED if name == "bio" and old.bio == new.bio else cell
            for name, cell in zip(NAMES, self._cells(new), strict=True)
        )
        self._send("update", self._cells(old) if renamed or self.is_full else None, cells)

    def swap(self, one: int, other: int, through: str | None) -> None:
        mine, its = self.rows[one].no, self.rows[other].no
        if through is not None:
            self.update(one, no=through)
        self.update(other, no=mine) if through is not None else self.update(one, no=its)
        self.update(one, no=its) if through is not None else self.update(other, no=mine)

    def _cells(self, line: Line) -> tuple[RawValue, ...]:
        return tuple(text.encode() for text in line)

    def _send(self, operation: str, old: tuple[RawValue, ...] | None, new: tuple[RawValue, ...] | None) -> None:
        if old is not None and not self.is_full:
            old = tuple(cell if name in self.identity else None for name, cell in zip(NAMES, old, strict=True))
        is_full = old is not None and self.is_full
        self.changes.append(RowChange(operation, self.relation, old, is_full, new, len(self.changes)))


def run(table: Table, draw: st.DrawFn) -> None:
    """One statement that the table's constraints allow."""
    phone = draw(st.sampled_from("ab"))
    kind = draw(st.sampled_from(["insert", "update", "toast", "re-key", "delete", "swap", "defer", "re-id"]))
    numbers = sorted(table.rows)
    if kind == "insert" or not numbers:
        table.insert(draw(st.sampled_from(KEYS)), phone)
        return
    number = draw(st.sampled_from(numbers))
    free = sorted({*KEYS, "x"} - {line.no for line in table.rows.values()})
    if kind == "update":
        table.update(number, phone=phone)
    elif kind == "toast":
        table.update(number, bio=draw(st.sampled_from(["b0", "b1"])))
    elif kind == "re-key" and free:
        table.update(number, no=draw(st.sampled_from(free)), phone=phone)
    elif kind == "delete":
        table.delete(number)
    elif kind == "re-id":
        table.update(number, id=str(200 + len(table.changes)))
    elif kind in ("swap", "defer") and len(numbers) > 1:
        one, other = draw(st.permutations(numbers))[:2]
        # A deferrable constraint cannot be a replica identity (55000), so there keys swap through a third.
        is_deferred = kind == "defer" and (table.is_full or "no" not in table.identity)
        table.swap(one, other, None if is_deferred else "tmp")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[str, Table]:
    identity = draw(st.sampled_from(sorted(IDENTITIES)))
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=3))
    table = Table([Line(f"i{key}", key, draw(st.sampled_from("ab")), f"b{key}") for key in keys], identity)
    for _ in range(draw(st.integers(1, 7))):
        run(table, draw)
    return identity, table


def map_table(table: Table, *, whole_rows: bool = False) -> MappingResult:
    mapper = Mapper("crm", (MAP,), Plan({}, (MAP,)), whole_rows=whole_rows)
    wanted = mapper.identities_to_look_up(table.changes).get(TABLE, set())
    known = {(TABLE, line.id): line.no for line in table.before.values() if line.id in wanted}
    tx = Transaction("crm", "7", 1, 4711, 1000, None, (), tuple(table.changes))
    return mapper.map_transaction(tx, Stamp(0, 0, "crm"), 1000, known)
