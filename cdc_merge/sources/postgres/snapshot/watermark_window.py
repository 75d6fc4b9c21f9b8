"""What the stream says between the two marks around a piece of a table that is read again. Pure.

A row that it names there is, where the second mark stands, what was read of it with all that the stream says laid over it;
whichever of the two came first, this is so. A row is named by its replica identity; with REPLICA IDENTITY FULL by its
primary key, or without one by all that was read of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.model import SNAPSHOT, TRUNCATE, UNCHANGED, RawValue, Relation, RowChange, Transaction

MARK_PREFIX: Final = "cdc_merge.read"
LOW, HIGH = "low", "high"

MAX_NAMED: Final = 100_000  # rows remembered of one window, about 20 MB; beyond it the piece is read again

Name: TypeAlias = "tuple[RawValue, ...]"

_NOTHING: Final[dict[str, RawValue]] = {}


class Chunk(NamedTuple):
    """What was read of a table. `hidden` are the transactions (32 bits of their ids) that the reading did not see."""

    relation: Relation
    rows: tuple[tuple[RawValue, ...], ...]
    hidden: frozenset[int]
    reached: tuple[str, ...] | None
    expected: int


class Window:
    """One reading of a piece, between the marks `token` low and `token` high. `named_by`: the columns that name a row."""

    def __init__(self, token: str, table: str, named_by: Sequence[str]) -> None:
        self._token = token
        self._table = table
        self._named_by = tuple(named_by)
        self._said: dict[Name, dict[str, RawValue] | None] = {}
        self._earlier: frozenset[int] = frozenset()
        self.is_open = False
        self.is_blurred = False
        self.superseded = 0  # rows of which the stream said something, when `rows` was asked

    def mark(self, side: str) -> str:
        """The content of a mark's message."""
        return f"{self._token} {side}"

    def is_mark(self, transaction: Transaction, side: str) -> bool:
        wanted = self.mark(side).encode()
        return any(said.prefix == MARK_PREFIX and said.content == wanted for said in transaction.messages)

    def open(self, earlier: frozenset[int]) -> None:
        """The low mark came; `earlier` are the transactions that came before it."""
        self._earlier = earlier
        self.is_open = True

    def see(self, transaction: Transaction) -> None:
        """A transaction between the marks."""
        for change in transaction.changes:
            if change.relation.table == self._table and not self.is_blurred:
                self._note(change)

    def _note(self, change: RowChange) -> None:
        if change.operation == TRUNCATE or len(self._said) > MAX_NAMED:
            self.is_blurred = True
            return
        columns = [column.name for column in change.relation.columns]
        before = None
        if change.old is not None:
            before = self._name(columns, change.old)
        if change.new is None:
            self._said[before or ()] = None
            return
        new = dict(zip(columns, _filled(change.new, change.old), strict=True))
        after = self._name(columns, tuple(new.values()))
        known = self._said.get(after if before is None else before) or {}
        if before is not None and before != after:
            self._said[before] = None
        self._said[after] = known | {column: cell for column, cell in new.items() if cell is not UNCHANGED}

    def _name(self, columns: Sequence[str], row: Sequence[RawValue]) -> Name:
        cells = dict(zip(columns, row, strict=True))
        if not cells.keys() >= set(self._named_by):
            self.is_blurred = True
            return ()
        name = tuple(cells[column] for column in self._named_by)
        self.is_blurred = self.is_blurred or UNCHANGED in name
        return name

    def must_read_again(self, chunk: Chunk) -> bool:
        """Whether it cannot be said what the piece holds: everything moved, or a transaction that the stream told before
        the marks was not visible to the reading."""
        return self.is_blurred or bool(chunk.hidden & self._earlier)

    def rows(self, chunk: Chunk) -> tuple[RowChange, ...]:
        """The rows of the piece as they are where the high mark stands; without those that are gone by then."""
        columns = [column.name for column in chunk.relation.columns]
        found: list[RowChange] = []
        for cells in chunk.rows:
            said = self._said.get(self._name(columns, cells), _NOTHING)
            if said is not _NOTHING:
                self.superseded += 1
            if said is not None:
                now = tuple(said.get(column, cell) for column, cell in zip(columns, cells, strict=True))
                found.append(RowChange(SNAPSHOT, chunk.relation, None, False, now, len(found)))  # noqa: FBT003 - a tuple's field
        return tuple(found)


def _filled(row: Sequence[RawValue], old: Sequence[RawValue] | None) -> Sequence[RawValue]:
    """Unchanged TOASTed cells are in the old row, where there is one that has them."""
    if old is None or UNCHANGED not in row:
        return row
    return [was if cell is UNCHANGED and was is not None else cell for was, cell in zip(old, row, strict=True)]
