"""What the stream says between the two marks around a piece of a table that is read again. Pure.

Rows that it names there are as the stream tells them, not as they were read. A row is named by its replica identity; with
REPLICA IDENTITY FULL by its primary key, or without one by all that was read of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.model import SNAPSHOT, TRUNCATE, UNCHANGED, Cell, Relation, RowChange, Transaction

MARK_PREFIX: Final = "cdc_merge.read"
LOW, HIGH = "low", "high"

MAX_NAMED: Final = 100_000  # rows remembered of one window, about 20 MB; beyond it the piece is read again

Name: TypeAlias = "tuple[Cell, ...]"


class Piece(NamedTuple):
    """What was read of a table. `hidden` are the transactions (32 bits of their ids) that the reading did not see."""

    relation: Relation
    rows: tuple[tuple[Cell, ...], ...]
    hidden: frozenset[int]
    reached: tuple[str, ...] | None
    expected: int


class Window:
    """One reading of a piece, between the marks `token` low and `token` high. `named_by`: the columns that name a row."""

    def __init__(self, token: str, table: str, named_by: Sequence[str]) -> None:
        self._token = token
        self._table = table
        self._named_by = tuple(named_by)
        self._named: set[Name] = set()
        self._earlier: frozenset[int] = frozenset()
        self.is_open = False
        self.is_blurred = False

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
        if change.operation == TRUNCATE or len(self._named) > MAX_NAMED:
            self.is_blurred = True
            return
        for row in (change.old, change.new):
            if row is not None:
                self._named.add(self._name(change.relation, _filled(row, change.old)))

    def _name(self, relation: Relation, row: Sequence[Cell]) -> Name:
        places = {column.name: index for index, column in enumerate(relation.columns)}
        if not places.keys() >= set(self._named_by):
            self.is_blurred = True
            return ()
        name = tuple(row[places[column]] for column in self._named_by)
        self.is_blurred = self.is_blurred or UNCHANGED in name
        return name

    def must_read_again(self, piece: Piece) -> bool:
        """Whether it cannot be said what the piece holds: everything moved, or a transaction that the stream told before
        the marks was not visible to the reading."""
        return self.is_blurred or bool(piece.hidden & self._earlier)

    def sorted_out(self, piece: Piece) -> tuple[tuple[RowChange, ...], tuple[RowChange, ...]]:
        """(the rows as they are where the high mark stands, those that moved between the marks)."""
        rows: list[RowChange] = []
        moved: list[RowChange] = []
        for ordinal, cells in enumerate(piece.rows):
            change = RowChange(SNAPSHOT, piece.relation, None, False, cells, ordinal)  # noqa: FBT003 - a tuple's field
            (moved if self._name(piece.relation, cells) in self._named else rows).append(change)
        return tuple(rows), tuple(moved)


def _filled(row: Sequence[Cell], old: Sequence[Cell] | None) -> Sequence[Cell]:
    """Unchanged TOASTed cells are in the old row, where there is one."""
    if old is None or UNCHANGED not in row:
        return row
    return [was if cell is UNCHANGED else cell for was, cell in zip(old, row, strict=True)]
