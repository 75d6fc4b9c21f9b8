"""Step 1: what a source delivers. Committed transactions, idle marks, snapshot rows and chunks, in the source's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias


class Unchanged(Enum):
    """pgoutput's 'u': an unchanged TOASTed column. It is absent from the change: neither NULL nor a write."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED


RawValue: TypeAlias = "bytes | None | Unchanged"
"""One column of a row as the source sent it: the type's text form in UTF-8, NULL, or unchanged."""


class Column(NamedTuple):
    """One column of a relation. `type_oid` 0 means that only `type_name` is known."""

    name: str
    type_oid: int
    type_name: str = ""
    is_identity: bool = False


class Relation(NamedTuple):
    """A table as the stream announced it. `identity` is Postgres's relreplident: d, i, f or n."""

    oid: int
    namespace: str
    name: str
    identity: str
    columns: tuple[Column, ...]

    @property
    def table(self) -> str:
        return f"{self.namespace}.{self.name}"


class RowChange(NamedTuple):
    """Insert, update, delete, truncate or snapshot read of one source row.

    `old` holds all columns when `old_is_full`, else only the identity columns (the others None and meaningless);
    None when the source sent no old row. `new` is None for deletes and truncates. `ordinal` counts the row changes of
    that table within its transaction, from 0, and is the same on every delivery.
    """

    operation: str
    relation: Relation
    old: tuple[RawValue, ...] | None
    old_is_full: bool
    new: tuple[RawValue, ...] | None
    ordinal: int


class Message(NamedTuple):
    """A logical message (pg_logical_emit_message). `content` is raw bytes."""

    prefix: str
    content: bytes
    transactional: bool


class Transaction(NamedTuple):
    """One committed source transaction, complete and in commit order.

    `end_lsn` is the commit's end: confirming it means that this transaction never comes again.
    `origin` is the replication origin's name when the transaction was applied under one. `changes` may be read as often
    as needed; those of a large transaction are not in memory.
    """

    source: str
    system: str
    timeline: int
    end_lsn: int
    commit_us: int
    origin: str | None
    messages: tuple[Message, ...]
    changes: Sequence[RowChange]


class Idle(NamedTuple):
    """The source sent everything up to `lsn`, and its own clock read `at_us` then: nothing is in flight.

    `membership` says what it sends of which tables, where that is not as it was; a text for the source to compare.
    """

    source: str
    system: str
    timeline: int
    lsn: int
    at_us: int
    membership: str = ""


class SnapshotBegan(NamedTuple):
    """A consistent copy of tables starts: all rows are as of `lsn`, when the source's clock read `at_us`.

    `expected_rows` is an estimate per table. `lost` is None for a first copy: rows that an earlier, unfinished copy of
    these tables brought are void. Else it names the problem for which the stream could not be continued: the history
    stays, what the copy says is seen beside it, and what it does not name is looked for.
    """

    source: str
    system: str
    timeline: int
    lsn: int
    at_us: int
    expected_rows: Mapping[str, int]
    lost: str | None = None


class SnapshotRows(NamedTuple):
    """A piece of the first copy: rows of one table (`operation` is "snapshot", ordinals count through the table)."""

    source: str
    changes: tuple[RowChange, ...]


class SnapshotTable(NamedTuple):
    """All rows of one table of the copy were delivered."""

    source: str
    table: str


class SnapshotDone(NamedTuple):
    """The copy is over; the stream follows from `lsn`. `unfinished` are tables that an interrupted copy did not finish:
    its moment is gone with the session that exported it, so they are to be read beside the stream."""

    source: str
    lsn: int
    unfinished: tuple[str, ...] = ()


class ChunkRead(NamedTuple):
    """Rows of one table, read again while the stream is followed: the answer to a request (`orders.RowsWanted`).

    `rows` are the source's where its stream has reached `lsn`, at `at_us`; ordinals count through this delivery.
    `reached` is where the next piece begins, None at the table's end. With a `problem`, nothing was read.
    """

    source: str
    system: str
    timeline: int
    lsn: int
    at_us: int
    number: int
    rows: tuple[RowChange, ...] = ()
    reached: tuple[str, ...] | None = None
    expected: int = 0
    problem: str = ""


Delivery: TypeAlias = "Transaction | Idle | SnapshotBegan | SnapshotRows | SnapshotTable | SnapshotDone | ChunkRead"
