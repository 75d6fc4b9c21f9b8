"""Step 1: what a source delivers. Committed transactions, idle marks, snapshot rows and chunks, in the source's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias


class Unchanged(Enum):
    """An unchanged TOASTed column: TupleData's 'u'. It is absent from the change: neither NULL nor a write."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED


RawValue: TypeAlias = "bytes | None | Unchanged"
"""One column of TupleData: the type's text form in UTF-8, NULL, or unchanged."""


class Column(NamedTuple):
    """One column of a relation. `type_oid` 0: only `type_name` is known. `is_identity`: part of the replica identity."""

    name: str
    type_oid: int
    type_name: str = ""
    is_identity: bool = False


class Relation(NamedTuple):
    """A table as in its Relation message. `identity` is its replica identity setting, relreplident: d, i, f or n."""

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

    `old` is the complete old row when `old_is_full` (REPLICA IDENTITY FULL), else its identity columns (the others are None
    and meaningless); None when the source sent no old row. `new` is None for deletes and truncates. `ordinal` counts the row
    changes of that table within its transaction, from 0, and is the same on every delivery.
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

    `system` and `timeline` identify the server's history. `end_lsn` is the end of the commit record: once it is confirmed, the
    server does not send this transaction again. `origin` is the name of the replication origin under which it was applied.
    `changes` may be read as often as needed; those of a large transaction are spilled, not in memory.
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
    """An idle mark: the source has sent everything up to `lsn`, and its clock read `at_us` then; nothing is in flight.

    `membership` are the publication members, if they have changed: a text that the source itself compares.
    """

    source: str
    system: str
    timeline: int
    lsn: int
    at_us: int
    membership: str = ""


class SnapshotBegan(NamedTuple):
    """A snapshot starts: all rows are as of `lsn`, the slot's consistent point, when the source's clock read `at_us`.

    `expected_rows` is an estimate per table. `lost` is None for an initial snapshot: rows of an earlier, unfinished one are
    void. Else it is the problem by which the position was lost: the history stays, the snapshot's rows are compared with it,
    and records without a row are looked up.
    """

    source: str
    system: str
    timeline: int
    lsn: int
    at_us: int
    expected_rows: Mapping[str, int]
    lost: str | None = None


class SnapshotRows(NamedTuple):
    """A chunk of a snapshot: rows of one table (`operation` is "snapshot", ordinals count through the table)."""

    source: str
    changes: tuple[RowChange, ...]


class SnapshotTable(NamedTuple):
    """All rows of one table of the snapshot were delivered."""

    source: str
    table: str


class SnapshotDone(NamedTuple):
    """The snapshot is complete; the stream starts at `lsn`. `unfinished` are the tables that an interrupted snapshot did not
    finish: its exported snapshot ended with its session, so they get an incremental snapshot."""

    source: str
    lsn: int
    unfinished: tuple[str, ...] = ()


class ChunkRead(NamedTuple):
    """A chunk of an incremental snapshot: the answer to the `source_commands.ChunkRequest` of this `number`.

    `rows` are as of `lsn`, the chunk's high watermark in the stream, at `at_us`; ordinals count through this delivery.
    `reached` is the key after which the next chunk begins, None at the table's end. With a `problem`, nothing was read.
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
