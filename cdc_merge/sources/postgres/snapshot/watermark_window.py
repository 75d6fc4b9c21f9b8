"""The watermark window around a chunk of a table: merges the chunk with the stream between low and high watermark. Pure.

At the high watermark, a row of the chunk that also changed in the window is the row as read with the streamed values over it,
whichever of the two came first. Rows are matched by replica identity; with REPLICA IDENTITY FULL by primary key, or without
one by all columns that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.model import SNAPSHOT, TRUNCATE, UNCHANGED, RawValue, Relation, RowChange, Transaction

WATERMARK_PREFIX: Final = "cdc_merge.read"
LOW, HIGH = "low", "high"

MAX_ROWS: Final = 100_000  # changed rows of one window, about 20 MB; beyond it the chunk is read again

RowIdentity: TypeAlias = "tuple[RawValue, ...]"

_NOTHING: Final[dict[str, RawValue]] = {}


class Chunk(NamedTuple):
    """Rows that were read of a table. `hidden` are the transactions (32 bits of their ids) that the read did not see; `reached`
    is the key after which the next chunk begins."""

    relation: Relation
    rows: tuple[tuple[RawValue, ...], ...]
    hidden: frozenset[int]
    reached: tuple[str, ...] | None
    expected: int


class Window:
    """One read of a chunk, between the watermarks `token` low and `token` high. `identity_columns` identify a row."""

    def __init__(self, token: str, table: str, identity_columns: Sequence[str]) -> None:
        self._token = token
        self._table = table
        self._identity_columns = tuple(identity_columns)
        self._streamed: dict[RowIdentity, dict[str, RawValue] | None] = {}
        self._earlier: frozenset[int] = frozenset()
        self.is_open = False
        self.is_ambiguous = False
        self.superseded = 0  # rows of the chunk that also changed in the window, as counted by `rows`

    def watermark(self, side: str) -> str:
        """The content of a watermark's logical message."""
        return f"{self._token} {side}"

    def is_watermark(self, transaction: Transaction, side: str) -> bool:
        wanted = self.watermark(side).encode()
        return any(
            streamed.prefix == WATERMARK_PREFIX and streamed.content == wanted for streamed in transaction.messages
        )

    def open(self, earlier: frozenset[int]) -> None:
        """Open the window at the low watermark; `earlier` are the transactions before it."""
        self._earlier = earlier
        self.is_open = True

    def add_transaction(self, transaction: Transaction) -> None:
        """Add a transaction between the watermarks."""
        for change in transaction.changes:
            if change.relation.table == self._table and not self.is_ambiguous:
                self._note(change)

    def _note(self, change: RowChange) -> None:
        if change.operation == TRUNCATE or len(self._streamed) > MAX_ROWS:
            self.is_ambiguous = True
            return
        columns = [column.name for column in change.relation.columns]
        before = None
        if change.old is not None:
            before = self._identity_of(columns, change.old)
        if change.new is None:
            self._streamed[before or ()] = None
            return
        new = dict(zip(columns, _filled(change.new, change.old), strict=True))
        after = self._identity_of(columns, tuple(new.values()))
        previous = self._streamed.get(after if before is None else before) or {}
        if before is not None and before != after:
            self._streamed[before] = None
        self._streamed[after] = previous | {column: value for column, value in new.items() if value is not UNCHANGED}

    def _identity_of(self, columns: Sequence[str], row: Sequence[RawValue]) -> RowIdentity:
        values = dict(zip(columns, row, strict=True))
        if not values.keys() >= set(self._identity_columns):
            self.is_ambiguous = True
            return ()
        identity = tuple(values[column] for column in self._identity_columns)
        self.is_ambiguous = self.is_ambiguous or UNCHANGED in identity
        return identity

    def must_repeat(self, chunk: Chunk) -> bool:
        """Whether the chunk must be read again: a truncate, too many changes or unidentified rows in the window, or an earlier
        transaction of the stream that was not visible to the read."""
        return self.is_ambiguous or bool(chunk.hidden & self._earlier)

    def rows(self, chunk: Chunk) -> tuple[RowChange, ...]:
        """The rows of the chunk as of the high watermark; without those that are deleted by then."""
        columns = [column.name for column in chunk.relation.columns]
        rows: list[RowChange] = []
        for values in chunk.rows:
            streamed = self._streamed.get(self._identity_of(columns, values), _NOTHING)
            if streamed is not _NOTHING:
                self.superseded += 1
            if streamed is not None:
                now = tuple(streamed.get(column, value) for column, value in zip(columns, values, strict=True))
                rows.append(RowChange(SNAPSHOT, chunk.relation, None, False, now, len(rows)))  # noqa: FBT003 - a tuple's field
        return tuple(rows)


def _filled(row: Sequence[RawValue], old: Sequence[RawValue] | None) -> Sequence[RawValue]:
    """The row with its unchanged TOASTed values taken from the old row, where it has them."""
    if old is None or UNCHANGED not in row:
        return row
    return [was if value is UNCHANGED and was is not None else value for was, value in zip(old, row, strict=True)]
