"""The ports of the pipeline: Source, Store, Observer. Small protocols; adapters implement them.

No adapter assumes that it serves the only worker: a store lets the worker that holds its claim write, and a source is
confirmed only by the worker that took its deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, runtime_checkable

from cdc_merge.model import (
    Change,
    Checkpoint,
    Conflict,
    Delivery,
    Fact,
    Missing,
    Place,
    Position,
    RecordKey,
    SourceStatus,
    Stamp,
    StoreFigures,
    UnresolvedChange,
)
from cdc_merge.model.source_commands import ChunkRequest, SourceOrders

NOTHING_FOLDED: Final[Mapping[RecordKey, Stamp]] = {}

NO_DIGESTS: Final[frozenset[bytes]] = frozenset()

PRUNED_SLOT: Final = 15
"""A record has at most sixteen checkpoints, one a slot; the last slot is for its pruned checkpoint, whose log is removed."""


class Source(Protocol):
    """The change stream of one business system. A thread of its own reads and answers the server; the pipeline only takes.

    `start` begins (or begins again) after `position`; None means that nothing of this source is on disk.
    `take` returns the deliveries received so far, in order, at most about `limit` row changes, without waiting; [] if none.
    `confirm` reports that everything up to `lsn` is on disk, so that the source may discard it.
    A source that fails retries or stops with `status().problem`; it never raises from `take`.
    """

    name: str

    def start(self, position: Position | None) -> None: ...
    def take(self, limit: int) -> Sequence[Delivery]: ...
    def confirm(self, lsn: int) -> None: ...
    def status(self) -> SourceStatus: ...
    def stop(self) -> None: ...


@runtime_checkable
class IncrementalSource(Protocol):
    """A database source that can be paused and can read chunks of an incremental snapshot beside its stream."""

    def pause(self, position: Position | None) -> None:
        """Read nothing until `start`, but keep reporting the slot's state; deliveries that were not taken come again."""
        ...

    def request_chunk(self, request: ChunkRequest) -> None:
        """Answer with one `ChunkRead` of that number in the stream, across any reconnects and restarts. A request replaces
        the one before."""
        ...

    def accept_loss(self, *, accepts: bool) -> None:
        """Whether a position that cannot be resumed is replaced by a new initial snapshot; from the next `start` on."""
        ...


# ---------------------------------------------------------------- the store, for the one that writes


class ChangeLog(Protocol):
    """The log of changes. The record cache appends every batch and folds records from it; ingest looks up places."""

    def histories(
        self, keys: Iterable[RecordKey], after: Mapping[RecordKey, Stamp] = NOTHING_FOLDED
    ) -> Mapping[RecordKey, list[Change]]:
        """All changes of these records in stamp order, those of this transaction included; a record without any has [].
        `after`: only the changes later than the checkpoint of that stamp; the others are not read."""
        ...

    def append(self, changes: Iterable[Change]) -> set[RecordKey]:
        """Add changes to the log. A change whose (record, place) is in the log is dropped; the smaller stamp stays.
        Returns the records of dropped changes."""
        ...

    def stamps_of(self, key: RecordKey, places: Iterable[Place]) -> Sequence[Stamp]:
        """The stamps of the record's changes at these places; places that are not in the log are left out."""
        ...


class CheckpointStore(Protocol):
    """Folded record states, so that a load need not fold the whole log. The checkpoint ladder of the record cache writes
    them."""

    def checkpoints(self, wanted: Mapping[RecordKey, Stamp | None]) -> Mapping[RecordKey, Checkpoint]:
        """The newest checkpoint of each record that has one; with a stamp, the newest that is earlier, or else the pruned
        checkpoint: nothing precedes that."""
        ...

    def save_checkpoint(self, key: RecordKey, checkpoint: Checkpoint, slot: int) -> None:
        """Save a checkpoint of all the record's changes in the log, in place of the slot's earlier one."""
        ...

    def promote_checkpoint(self, key: RecordKey, slot: int) -> None:
        """Move a checkpoint to the next slot, in place of the one there; nothing if the slot is empty."""
        ...

    def forget_checkpoints(self, key: RecordKey, since: Stamp) -> None:
        """Drop the checkpoints of that stamp and later ones, except the pruned one: a late change is not in them."""
        ...


class LogPruning(Protocol):
    """Removes the older end of the log. Retention needs it; a pruned checkpoint keeps what the removed changes meant."""

    def pruned(self, key: RecordKey) -> Checkpoint | None:
        """The record's pruned checkpoint, whose log is removed."""
        ...

    def save_pruned_checkpoint(self, key: RecordKey, checkpoint: Checkpoint) -> None:
        """The record begins with this checkpoint from here on; its earlier checkpoints are dropped."""
        ...

    def oldest(self, limit: int) -> Sequence[tuple[RecordKey, Stamp]]:
        """The first changes of the log, about in the order of arrival; never its very last."""
        ...

    def forget_oldest(self, count: int) -> None:
        """Remove the first changes of the log, as `oldest` lists them; pruned checkpoints must include them."""
        ...

    def forget_record(self, key: RecordKey) -> None:
        """Remove a record that has a pruned checkpoint and no log; the store remembers that its entity lost records."""
        ...


class ConflictStore(Protocol):
    """Conflicts by id. Detection and the lifecycle read the unfinished ones and save every step."""

    def open_conflicts(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Conflict]]:
        """The settling and open conflicts of these records."""
        ...

    def save_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Insert or replace by id."""
        ...


class PositionStore(Protocol):
    """Where each source resumes. Ingest saves it with the batch, so that position and changes commit together."""

    def save_position(self, source: str, position: Position, clock: Stamp) -> None: ...

    def save_orders(self, source: str, orders: SourceOrders) -> None:
        """The commands of a source (paused, resyncs), all of them."""
        ...


class IdentityStore(Protocol):
    """Row identity → business key. Mapping needs it for rows whose old values do not include the key."""

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        """identity → business key; identities without a key are left out."""
        ...

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        """identity → business key; None removes the identity."""
        ...


class QuarantineStore(Protocol):
    """Changes whose business key is unknown. Ingest quarantines and releases them; retention drops the oldest."""

    def quarantine(self, source: str, waiting: Iterable[UnresolvedChange]) -> None:
        """Save changes until their key is resolved. Earlier quarantined changes of a row's previous identity (`was`) move
        to its present identity."""
        ...

    def release_quarantined(
        self, source: str, label: str, identities: Iterable[str]
    ) -> Mapping[str, list[UnresolvedChange]]:
        """Remove and return the changes that wait for these identities, in the order of arrival."""
        ...

    def forget_quarantined(self, source: str, entity: str, table: str) -> int:
        """Drop the quarantined changes of a truncated table; their number."""
        ...

    def forget_quarantined_before(self, wall_us: int) -> Mapping[tuple[str, str], int]:
        """Drop changes quarantined since before this stamp time; (source, table) → their number."""
        ...

    def awaited_identities(self, source: str) -> Mapping[str, frozenset[tuple[str, ...]]]:
        """The label of each table with quarantined changes → the column sets that identify their rows."""
        ...


class DeadlineStore(Protocol):
    """Records whose conflicts depend on the watermark. The pipeline re-evaluates them when it passes their deadline."""

    def save_deadlines(self, due: Mapping[RecordKey, int | None]) -> None:
        """record → due stamp time (µs); None removes the deadline."""
        ...


class UniqueIndexStore(Protocol):
    """Digests of values that no two records of an entity may share. The unique index of conflict detection needs it."""

    def digests_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, frozenset[bytes]]:
        """The saved digests of these records, those of this transaction included; records without any are left out."""
        ...

    def keys_with(self, entity: str, digest: bytes, limit: int) -> list[str]:
        """The keys of the records with this digest, at most `limit`, in the store's own order."""
        ...

    def save_digests(self, digests: Mapping[RecordKey, frozenset[bytes]]) -> None:
        """Replace the digests of each of these records."""
        ...


class EvaluationStore(Protocol):
    """How far each entity is evaluated by which policy. Re-evaluation after a changed configuration resumes there."""

    def save_evaluated(self, entity: str, policy: str, reached: str | None) -> None:
        """The entity's records up to the key `reached` are evaluated by this policy; None: all of them."""
        ...


class MissingRecordStore(Protocol):
    """Records missing at some of their sources, for entities with `on_missing: report`."""

    def missing_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, Mapping[str, int]]:
        """The sources at which each record is missing, and since when (µs); records missing nowhere are left out."""
        ...

    def save_missing(self, missing: Mapping[RecordKey, Mapping[str, int]]) -> None:
        """Replace the sources at which each of these records is missing."""
        ...

    def forget_missing(self, entity: str) -> None:
        """Remove all of the entity's: it no longer reports missing records."""
        ...


class StoreTransaction(
    ChangeLog,
    CheckpointStore,
    LogPruning,
    ConflictStore,
    PositionStore,
    IdentityStore,
    QuarantineStore,
    DeadlineStore,
    UniqueIndexStore,
    EvaluationStore,
    MissingRecordStore,
    Protocol,
):
    """All changes of one batch. None is visible or saved unless the `with` block ends without an error."""

    def forget_source(self, source: str) -> list[RecordKey]:
        """Remove all history, identities and quarantined changes of a source whose initial snapshot did not finish; returns
        the records that had some."""
        ...


# ---------------------------------------------------------------- the store, for all that read


class Store(Protocol):
    """Durable histories, conflicts and positions. Readers see only committed state and may be on any thread."""

    def claim(self, owner: str) -> None:
        """Become the writer; StoreUnavailable if another worker holds the store."""
        ...

    def transaction(self) -> AbstractContextManager[StoreTransaction]:
        """One atomic batch. StoreHeld: nothing began; retry the same batch."""
        ...

    def positions(self) -> Mapping[str, tuple[Position, Stamp]]: ...
    def orders(self) -> Mapping[str, SourceOrders]: ...

    def history(self, record: RecordKey) -> list[Change]: ...
    def history_page(self, record: RecordKey, after: tuple[Stamp, int] | None, limit: int) -> list[Change]:
        """As `history`, at most `limit` changes: those behind all earlier stamps and the first n changes of this stamp
        (`after`). At most a page is in memory."""
        ...

    def folded(
        self, record: RecordKey, until: Stamp | None = None, *, whole: bool = False
    ) -> tuple[Checkpoint | None, list[Change]]:
        """A record as a checkpoint and the changes after it: its newest checkpoint (with `until`, the newest earlier one);
        with `whole`, its pruned checkpoint and all changes in its log. A pruned checkpoint is always returned: nothing
        precedes it."""
        ...

    def records(self, entity: str, after: str | None, limit: int) -> list[str]:
        """Keys of an entity, at most `limit`, those after `after` in the store's own order."""
        ...

    def conflict(self, conflict_id: str) -> Conflict | None: ...
    def conflicts(self, where: Mapping[str, str], after: str | None, limit: int) -> list[Conflict]:
        """Newest last, those after the id `after`. Filters: status (`settling`, `open`, `closed`), entity, field, kind,
        severity, source, key."""
        ...

    def unfinished_conflicts(self) -> Iterator[Conflict]:
        """All settling and open conflicts, for a worker that starts."""
        ...

    def awaited_identities(self) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
        """As `QuarantineStore.awaited_identities`, of each source with quarantined changes."""
        ...

    def parked(self) -> Mapping[tuple[str, str], int]:
        """(source, table) → the number of quarantined changes."""
        ...

    def deadlines(self) -> Mapping[RecordKey, int]:
        """All saved deadlines: record → due stamp time (µs)."""
        ...

    def evaluated(self) -> Mapping[str, tuple[str, str | None]]:
        """The saved progress of each entity: its policy and the key reached."""
        ...

    def missing(self, where: tuple[str, str | None], after: str | None, limit: int) -> list[Missing]:
        """Missing records of an entity and, unless None, a source (`where`), in the order of keys: those of at most `limit`
        records after the key `after`."""
        ...

    def lost(self) -> frozenset[str]:
        """The entities of which retention removed records."""
        ...

    def figures(self) -> StoreFigures:
        """Counts from the store (history size, open conflicts, quarantined changes); the pipeline adds its own (cached
        records, watermark)."""
        ...

    def close(self) -> None: ...


# ---------------------------------------------------------------- beside the store


class SpillSpace(Protocol):
    """Lists of plain values spilled to disk, each in a numbered bucket, while one large transaction is merged.

    `size_bytes`: all that was put."""

    size_bytes: int

    def put(self, bucket: int, items: Sequence[object]) -> None: ...
    def read(self, bucket: int) -> Iterator[Any]:
        """The bucket's lists, in the order in which they were put."""
        ...

    def close(self) -> None: ...


class Observer(Protocol):
    """Receives facts after they are durable. Must not raise and must not wait."""

    def __call__(self, fact: Fact) -> None: ...
