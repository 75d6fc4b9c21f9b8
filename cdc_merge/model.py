"""The vocabulary: the words of semantics.md §1 as frozen values, and nothing else.

No I/O, no clock, no rules. Hot values (`Stamp`, `Place`, `Change`, the row changes) are NamedTuples: they are made
once per change and compared by content, and a tuple was the cheapest honest type when measured.

Times are integers: microseconds since 1970-01-01 UTC. LSNs are integers (`lsn_text` writes them as Postgres does).

Field values are canonical and hashable (mapping/values.py makes them):
None (SQL NULL) · str (text, enum, date, timestamp and everything not named here) · int · Decimal · bool · float ·
bytes ·
`Json` (canonical JSON text) · tuple (array).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias


class Unknown(Enum):
    """What we do not know is neither NULL nor a value."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN


class Json(str):
    """Canonical JSON text: keys sorted, no spaces, numbers exact. A class of its own, so that text stays text."""

    __slots__ = ()


Value: TypeAlias = "None | str | int | Decimal | bool | float | bytes | tuple[Value, ...]"
MaybeValue: TypeAlias = "Value | Unknown"

DECISION_SOURCE: Final = "cdc_merge"


class Stamp(NamedTuple):
    """A hybrid-logical-clock reading; the tuple order is the total order of semantics §2."""

    wall_us: int
    counter: int
    source: str

    def __str__(self) -> str:
        return f"{self.wall_us}.{self.counter}@{self.source}"


def stamp_from_text(text: str) -> Stamp:
    """Read `<wall_us>.<counter>@<source>`; ValueError when it is anything else."""
    clock, _, source = text.partition("@")
    wall_us, _, counter = clock.partition(".")
    if not source:
        raise ValueError("a stamp reads <wall_us>.<counter>@<source>")
    return Stamp(int(wall_us), int(counter), source)


class Place(NamedTuple):
    """The identity of a change: where it stands in its source, whatever was delivered how often."""

    system: str
    timeline: int
    lsn: int
    table: str
    ordinal: int


def lsn_text(lsn: int) -> str:
    """An LSN as Postgres writes it, `0/16B3748`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_from_text(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


# ---------------------------------------------------------------- step 1: what a source delivers


class Unchanged(Enum):
    """pgoutput's 'u': an unchanged TOASTed column. It is absent from the change: neither NULL nor a write."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED

Cell: TypeAlias = "bytes | None | Unchanged"
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
    old: tuple[Cell, ...] | None
    old_is_full: bool
    new: tuple[Cell, ...] | None
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


class RowsRead(NamedTuple):
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


Delivery: TypeAlias = "Transaction | Idle | SnapshotBegan | SnapshotRows | SnapshotTable | SnapshotDone | RowsRead"


class Position(NamedTuple):
    """How far a source is merged and on disk. `slot` names the slot it belongs to; `passed_us` is the stamp time that
    the source has passed.

    `snapshot` is none or done, and while a copy is not finished running (a first one) or again (one into a history that
    exists); `copied` are then the tables that it has finished. `membership` is what was sent of which tables at that point
    (`Idle`), "" when that is not known.
    """

    system: str
    timeline: int
    lsn: int
    snapshot: str
    slot: str
    passed_us: int = 0
    copied: tuple[str, ...] = ()
    membership: str = ""

    @property
    def is_copying(self) -> bool:
        """The picture is not complete, and nothing may be confirmed."""
        return self.snapshot in ("running", "again")


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a reader knows about its source right now (contract §7, `source`). Unknown figures are None.

    `queued_bytes` wait to be merged, at most about `queue_limit_bytes`; `waited_s`: for how long, all in all, the source
    was not read because that was reached. `confirmed_lsn`: what the server was told that it may forget. `last_received_us`: our
    clock at the newest transaction. `invalidation`: why the server has given the slot up, "" while it has not.
    `inactive_since_us`: since when nobody reads it, by the server's clock. `server_spilled_bytes`: what the server wrote aside
    while decoding large transactions, since its statistics were reset. `counts`: what was counted of it (capture.py).
    `open_bytes`: of a transaction whose commit has not come. `waits`: it is not read at present, as too much is queued.
    `copy_tables_left`, `copy_s`: tables that its first copy has not finished, and how long the latest copy took so far.
    """

    name: str
    type: str
    up: bool = False
    state: str = "connecting"
    received_lsn: int = 0
    server_lsn: int = 0
    last_commit_us: int | None = None
    last_message_us: int | None = None
    reconnects: int = 0
    slot: str | None = None
    slot_active: bool | None = None
    wal_status: str | None = None
    retained_bytes: int | None = None
    safe_bytes: int | None = None
    problem: str | None = None
    confirmed_lsn: int = 0
    queued_bytes: int = 0
    queue_limit_bytes: int = 0
    waited_s: float = 0.0
    heartbeats_sent: int = 0
    heartbeats_permitted: bool | None = None
    last_received_us: int | None = None
    invalidation: str | None = None
    inactive_since_us: int | None = None
    catalog_xmin_age: int | None = None
    server_spilled_bytes: int | None = None
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    open_bytes: int = 0
    waits: bool = False
    copy_tables_left: int = 0
    copy_s: float = 0.0


# ---------------------------------------------------------------- step 2, 3: changes of records


class RecordKey(NamedTuple):
    entity: str
    key: str


class Missing(NamedTuple):
    """A source that does not have a record, where that is told (`on_missing: report`). `since_us`: stamp time."""

    entity: str
    key: str
    source: str
    since_us: int


class Copy(NamedTuple):
    """Marks a change that repeats somebody else's write. `of` names the writes by place (our write-back);
    `from_source` (message cdc_merge.copy) teaches all that this source had seen."""

    from_source: str | None = None
    of: tuple[Place, ...] = ()


# What happened to the source's row; the values of Change.row.
INSERT: Final = "insert"
UPDATE: Final = "update"
DELETE: Final = "delete"
TRUNCATE: Final = "truncate"
SNAPSHOT: Final = "snapshot"
DECISION: Final = "decision"


class Change(NamedTuple):
    """One source transaction as far as one record is concerned: an entry of the history.

    `row` is what happened to the source's row (insert, update, delete, truncate, snapshot, decision).
    `fields` holds (before, after) of every field the change says something about: for an update the changed ones where
    the old row was complete, else all that were sent; `before` is UNKNOWN where the source did not say.
    `copy` is None for a genuine edit. `committed_us` is the source's own commit time, uncut.
    `identity` tells two rows of one source with the same business key apart (canonical text of the replica identity).
    `moved_to` (a delete) and `moved_from` (an insert) link the two halves of a change of the business key.
    """

    entity: str
    key: str
    stamp: Stamp
    place: Place
    row: str
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]
    actor: str | None = None
    copy: Copy | None = None
    committed_us: int = 0
    identity: str | None = None
    moved_to: str | None = None
    moved_from: str | None = None


class Waiting(NamedTuple):
    """A change whose record nobody knows yet: `change.key` is empty. It is about the row of the table `label` whose
    `columns` read `identity`, and read `was` before the change."""

    label: str
    columns: tuple[str, ...]
    identity: str
    was: str
    change: Change


class Base(NamedTuple):
    """A record folded up to and with `stamp`: `tree` is what merge/base.py made of it under the policy of that name.
    `number` counts the bases that the record had. `root`: the log before it is gone, so nothing can make it again."""

    stamp: Stamp
    number: int
    policy: str
    tree: Sequence[Any]
    root: bool = False


# ---------------------------------------------------------------- step 4: what a history means


@dataclass(frozen=True, slots=True)
class SourceView:
    """What one source holds: presence is unknown, present or deleted; `values` leaves unknown fields out."""

    presence: str
    values: Mapping[str, Value]
    last_stamp: Stamp | None


@dataclass(frozen=True, slots=True)
class MergedRecord:
    """What a history means. `values` leaves unknown fields out; groups appear as their member fields. `missing`: the
    sources that lack the record, where that is told (`on_missing: report`)."""

    entity: str
    key: str
    deleted: bool
    values: Mapping[str, Value]
    sources: Mapping[str, SourceView]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to a conflict's question. `value` UNKNOWN: left out (an absent map key). `key`: whose it is, in a
    question about several records."""

    source: str
    value: MaybeValue | Mapping[str, Value]
    stamp: Stamp
    committed_us: int
    actor: str | None
    place: Place
    seen: tuple[Stamp, ...] = ()
    delta: Decimal | int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A conflict as the merge sees it: a pure function of history and rules, without id or life. `records`: the keys of
    all the records that it is about, where `key` is only the first of them."""

    entity: str
    key: str
    field: str | None
    group: str | None
    kind: str
    severity: str
    candidates: tuple[Candidate, ...]
    base: MaybeValue = UNKNOWN
    provisional: MaybeValue | Mapping[str, Value] = UNKNOWN
    labels: tuple[str, ...] = ()
    rule: str | None = None
    records: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str | None, str, str | None]:
        """At most one open conflict of a record has this identity."""
        return (self.group or self.field, self.kind, self.rule)


# ---------------------------------------------------------------- step 5: the queue


@dataclass(frozen=True, slots=True)
class Conflict:
    """A question with an id and a life. `status` is settling, open or closed; `resolution` auto, decided, converged,
    dismissed or superseded once closed."""

    id: str
    question: Question
    status: str
    revision: int
    raised_us: int
    announced_us: int | None = None
    closed_us: int | None = None
    resolution: str | None = None
    labels: tuple[str, ...] = ()
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """One write of one field, and what became of it: won, lost, merged, candidate or overwritten. `saw`: writes that its
    writer had seen, the latest ones where they are many; `saw_earlier`: how many more there are, all earlier."""

    stamp: Stamp
    source: str
    kind: str
    before: MaybeValue
    after: MaybeValue
    saw: tuple[Stamp, ...]
    outcome: str
    because: str
    saw_earlier: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a field has its value (contract §7, `explain`). `rule` names the rule that answers its questions by itself."""

    entity: str
    key: str
    field: str
    merge: str
    value: MaybeValue
    frontier: tuple[Stamp, ...]
    writes: tuple[Explained, ...]
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreWrite:
    """What would be written to one source: `action` is insert, update or delete; `fields` field → (what it holds, what
    it would hold)."""

    source: str
    action: str
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]


@dataclass(frozen=True, slots=True)
class LaterEdit:
    """An edit since the time that a record would be restored to; its `fields` are those that it wrote. `undone`: those of
    them whose value would go."""

    change: Change
    undone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """How a record would be brought back to what it meant at `to`. `deleted` and `fields` say (now, then); `fields` only
    those that differ."""

    entity: str
    key: str
    to: Stamp
    deleted: tuple[bool, bool]
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]
    writes: tuple[RestoreWrite, ...]
    later: tuple[LaterEdit, ...]


# ---------------------------------------------------------------- facts: what observers are told


@dataclass(frozen=True, slots=True)
class BatchMerged:
    """A batch is on disk. Counters are keyed by the label values of contract §5.

    `transactions`: how many rows each transaction changed, by source. `behind`: transactions whose commit time lay before
    one that was committed earlier, by (source, why): `own` where the source's clock or its concurrent commits did that,
    `origin` where they were applied under a replication origin and carry its time. `loads`: records that were wanted, by
    where their state was, `memory` or `store`.
    """

    seconds: Mapping[str, float]
    changes: Mapping[tuple[str, str, str], int]
    merges: Mapping[tuple[str, str, str, str], int]
    detection_seconds: Mapping[str, tuple[float, ...]]
    late_changes: int
    raised: tuple[Conflict, ...] = ()
    closed: tuple[Conflict, ...] = ()
    rules: Mapping[tuple[str, str], int] = field(default_factory=dict)
    transactions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    behind: Mapping[tuple[str, str], int] = field(default_factory=dict)
    loads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConflictMoved:
    """A conflict was raised, revised, announced or closed; `what` says which."""

    what: str
    conflict: Conflict


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """A source's connection or health changed; `sentence` is for people, `problem` a stable name or None. `failure`: what
    kind of failure that was, "" where nothing failed."""

    source: str
    state: str
    sentence: str
    problem: str | None = None
    hint: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """A row was set aside because it could not be read, or because nobody knows whose it is; the stream went on. `is_kept`: it
    is merged as soon as its identity is named."""

    source: str
    table: str
    reason: str
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Unparked:
    """Changes that had been kept wait no longer. `outcome`: `named` (they were merged), `emptied` (their table was),
    `expired` (older than the retention, and still nobody knew whose they were)."""

    source: str
    table: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class ClockCut:
    """A commit lay further ahead of our clock than allowed and was cut for stamping."""

    source: str
    ahead_us: int


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    source: str
    entity: str
    rows: int
    expected: int


@dataclass(frozen=True, slots=True)
class ResyncMoved:
    """A piece of a table was read again and is on disk: `rows` of about `expected` so far. With it `read` rows came, and
    `gone` records were found not to be there. `state` is rows, missing (what no piece named is looked for), done or
    failed."""

    source: str
    table: str
    state: str
    rows: int
    expected: int
    read: int
    gone: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DetectionDegraded:
    """A change met a record of which something was removed by retention. `reason`: tombstone_removed (it cannot be told
    whether its row was deleted or never seen), history_removed (it is older than what is left, and is not merged)."""

    source: str
    entity: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoopDetected:
    """Two sources have set fields of a record to the same values to and fro, many times and shortly after each other."""

    entity: str
    key: str
    sources: tuple[str, str]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """The configuration file was read again while running. `policy` is the one in force afterwards; `problem` says why
    that is still the old one, None when the file's is; `problems` lists each place."""

    policy: str
    problem: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatPassed:
    """A message that we wrote into a source is merged and on disk, `seconds` after it was sent; `lost` before it never
    came."""

    source: str
    seconds: float
    lost: int


@dataclass(frozen=True, slots=True)
class StoreWaits:
    """Merging waits because another program holds the store, `problem` says so; None: it goes on after `seconds`."""

    problem: str | None
    hint: str = ""
    seconds: float = 0.0


Fact: TypeAlias = (
    "BatchMerged | ConflictMoved | SourceChanged | Parked | Unparked | ClockCut | SnapshotProgress | DetectionDegraded"
    " | LoopDetected | ConfigReloaded | ResyncMoved"
    " | HeartbeatPassed | StoreWaits"
)

EMPTY: Final[Mapping[str, Value]] = {}


@dataclass(frozen=True, slots=True)
class Figures:
    """Sizes that observers read when they are asked, not when something happens."""

    records_cached: int = 0
    history_changes: int = 0
    watermark_us: int = 0
    conflicts_open: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    oldest_open_us: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missing: Mapping[tuple[str, str], int] = field(default_factory=dict)
    parked: Mapping[tuple[str, str], int] = field(default_factory=dict)
