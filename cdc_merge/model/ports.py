"""What the pipeline needs from outside: Source, Store, Observer. Small protocols; adapters implement them.

No adapter assumes that it serves the only worker: a store hands out records to whoever holds its claim, and a source is
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
"""A record has at most sixteen bases, one a slot; the last slot is its root's, whose log is gone."""


class Source(Protocol):
    """One business system's change stream. Its own thread reads and answers the server; the pipeline only takes.

    `start` begins (or begins again) after `position`; None means that nothing of this source is on disk.
    `take` returns what has arrived, in order, at most about `limit` row changes, without waiting; [] when there is nothing.
    `confirm` says that everything up to `lsn` is on disk, so the source may forget it.
    A source that fails keeps trying or stops with `status().problem`; it never raises from `take`.
    """

    name: str

    def start(self, position: Position | None) -> None: ...
    def take(self, limit: int) -> Sequence[Delivery]: ...
    def confirm(self, lsn: int) -> None: ...
    def status(self) -> SourceStatus: ...
    def stop(self) -> None: ...


@runtime_checkable
class Rereadable(Protocol):
    """What a source of a database can do beside following its stream."""

    def rest(self, position: Position | None) -> None:
        """Read nothing until `start`, but keep telling of the slot; what was not taken comes again."""
        ...

    def request_chunk(self, wanted: ChunkRequest) -> None:
        """Answer with one `RowsRead` of that number in the stream, whatever reconnects and restarts lie between. A
        request replaces the one before."""
        ...

    def accept_loss(self, *, accepts: bool) -> None:
        """Whether a position that cannot be continued is copied anew; as of the next `start`."""
        ...


class StoreTransaction(Protocol):
    """Everything one batch changes. Nothing of it is visible or kept unless the `with` block ends without an error."""

    def histories(
        self, keys: Iterable[RecordKey], after: Mapping[RecordKey, Stamp] = NOTHING_FOLDED
    ) -> Mapping[RecordKey, list[Change]]:
        """All changes of these records in stamp order, this transaction's own included; unknown records give [].
        `after`: only what is later than the base of that stamp, and the rest is not read."""
        ...

    def checkpoints(self, wanted: Mapping[RecordKey, Stamp | None]) -> Mapping[RecordKey, Checkpoint]:
        """The newest base of each record that has one; the newest earlier than the stamp where one is given, or else the
        record's root: nothing precedes that."""
        ...

    def save_checkpoint(self, key: RecordKey, base: Checkpoint, slot: int) -> None:
        """Keep a base that holds every change of the record in the log, in place of the slot's earlier one."""
        ...

    def promote_checkpoint(self, key: RecordKey, slot: int) -> None:
        """Move a base to the next slot, in place of what was there; nothing when the slot is empty."""
        ...

    def forget_checkpoints(self, key: RecordKey, since: Stamp) -> None:
        """Drop the bases of that stamp and later ones, except the root: a change came that they do not hold."""
        ...

    def append(self, changes: Iterable[Change]) -> set[RecordKey]:
        """Add changes to the log. A change whose (record, place) is there already is dropped; the smaller stamp stays.
        The records to which that happened."""
        ...

    def stamps_of(self, key: RecordKey, places: Iterable[Place]) -> Sequence[Stamp]:
        """The stamps of the record's changes at these places, as far as the log has them."""
        ...

    def pruned(self, key: RecordKey) -> Checkpoint | None:
        """The base whose log is gone."""
        ...

    def save_pruned_checkpoint(self, key: RecordKey, base: Checkpoint) -> None:
        """From here on the record begins with this base; its earlier bases go."""
        ...

    def oldest(self, limit: int) -> Sequence[tuple[RecordKey, Stamp]]:
        """The log's first changes, about in the order of arrival; never its very last."""
        ...

    def forget_oldest(self, count: int) -> None:
        """Remove the first changes of the log, as `oldest` lists them; roots must hold them."""
        ...

    def forget_record(self, key: RecordKey) -> None:
        """Remove a record that has a root and no log; the store remembers that its entity has lost some."""
        ...

    def open_conflicts(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Conflict]]:
        """The settling and open conflicts of these records."""
        ...

    def save_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Insert or replace by id."""
        ...

    def save_position(self, source: str, position: Position, clock: Stamp) -> None: ...

    def save_orders(self, source: str, orders: SourceOrders) -> None:
        """What the source was told, whole."""
        ...

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        """identity → business key, for the identities that are known."""
        ...

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        """identity → business key; None forgets the identity."""
        ...

    def quarantine(self, source: str, waiting: Iterable[UnresolvedChange]) -> None:
        """Keep changes whose records nobody knows yet. Whatever waits for the row that each one's row was before (`was`)
        waits for its identity from now on."""
        ...

    def release_quarantined(
        self, source: str, label: str, identities: Iterable[str]
    ) -> Mapping[str, list[UnresolvedChange]]:
        """What waits for these identities, in the order in which it came; it is kept no longer."""
        ...

    def forget_quarantined(self, source: str, entity: str, table: str) -> int:
        """Drop what waits for rows of an emptied table; how many that were."""
        ...

    def forget_quarantined_before(self, wall_us: int) -> Mapping[tuple[str, str], int]:
        """Drop what has waited since before this stamp time; (source, table) → how many that were."""
        ...

    def awaited_identities(self, source: str) -> Mapping[str, frozenset[tuple[str, ...]]]:
        """The label of each table with rows that wait → the columns by which these are named."""
        ...

    def save_deadlines(self, due: Mapping[RecordKey, int | None]) -> None:
        """Records that stamp time alone will say something new about, and when (µs); None: no longer."""
        ...

    def digests_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, frozenset[bytes]]:
        """What `save_digests` kept of these records, this transaction's own included; those without any are left out."""
        ...

    def keys_with(self, entity: str, digest: bytes, limit: int) -> list[str]:
        """The keys of the records that hold the digest, at most `limit`, in the store's own order."""
        ...

    def save_digests(self, digests: Mapping[RecordKey, frozenset[bytes]]) -> None:
        """What each of these records may not share with another one, in place of what was kept of it."""
        ...

    def save_evaluated(self, entity: str, policy: str, reached: str | None) -> None:
        """The entity's records up to the key `reached` were judged by this policy; None: all of them."""
        ...

    def missing_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, Mapping[str, int]]:
        """The sources that lack these records, and since when (µs), as far as that is told; others are left out."""
        ...

    def save_missing(self, missing: Mapping[RecordKey, Mapping[str, int]]) -> None:
        """Which sources lack each of these records, in place of what was kept of it."""
        ...

    def forget_missing(self, entity: str) -> None:
        """It is told no more which records of the entity are missing."""
        ...

    def forget_source(self, source: str) -> list[RecordKey]:
        """Remove all history, identities and waiting changes of a source whose first copy did not finish; the records it touched."""
        ...


class Store(Protocol):
    """Where histories, conflicts and positions rest. Readers see only what is durable and may be on any thread."""

    def claim(self, owner: str) -> None:
        """Become the writer; StoreUnavailable if another worker holds the store."""
        ...

    def transaction(self) -> AbstractContextManager[StoreTransaction]:
        """Whole or not at all. StoreHeld: nothing was begun, the same may be tried again."""
        ...

    def positions(self) -> Mapping[str, tuple[Position, Stamp]]: ...
    def orders(self) -> Mapping[str, SourceOrders]: ...
    def history(self, record: RecordKey) -> list[Change]: ...
    def history_page(self, record: RecordKey, after: tuple[Stamp, int] | None, limit: int) -> list[Change]:
        """As `history`, at most `limit` of them: those behind the first n changes that have the stamp (`after`), and
        all earlier ones. Holds no more than a page in memory."""
        ...

    def folded(
        self, record: RecordKey, until: Stamp | None = None, *, whole: bool = False
    ) -> tuple[Checkpoint | None, list[Change]]:
        """One state of a record: its newest base (earlier than `until`, where that is given) and the changes after it;
        with `whole` its root and all that is left of its log. A root is there whatever is asked: nothing precedes it."""
        ...

    def records(self, entity: str, after: str | None, limit: int) -> list[str]:
        """Keys of an entity, at most `limit`, those after `after` in the store's own order."""
        ...

    def conflict(self, conflict_id: str) -> Conflict | None: ...
    def conflicts(self, where: Mapping[str, str], after: str | None, limit: int) -> list[Conflict]:
        """Filters: status (`settling`, `open`, `closed`), entity, field, kind, severity, source, key; newest last; `after` is an id."""
        ...

    def unfinished_conflicts(self) -> Iterator[Conflict]:
        """All settling and open conflicts, for a worker that starts."""
        ...

    def awaited_identities(self) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
        """As `StoreTransaction.awaited`, of each source that has parked changes."""
        ...

    def parked(self) -> Mapping[tuple[str, str], int]:
        """Source and table → how many changes wait for their rows to be named."""
        ...

    def deadlines(self) -> Mapping[RecordKey, int]:
        """What `save_due` kept: record → stamp time."""
        ...

    def evaluated(self) -> Mapping[str, tuple[str, str | None]]:
        """What `save_judged` kept: entity → the policy, the key reached."""
        ...

    def missing(self, where: tuple[str, str | None], after: str | None, limit: int) -> list[Missing]:
        """What `save_missing` kept of an entity and, if one is named, a source, in the order of keys: those of at most
        `limit` records after the key `after`."""
        ...

    def lost(self) -> frozenset[str]:
        """The entities of which ended records were removed."""
        ...

    def figures(self) -> StoreFigures:
        """Counts from the store (history size, open conflicts, what is parked); cache and watermark are the pipeline's to fill in."""
        ...

    def close(self) -> None: ...


class SpillSpace(Protocol):
    """Lists of plain values laid aside, each in a numbered bucket, for as long as one large transaction is merged.

    `size_bytes`: all that was put."""

    size_bytes: int

    def put(self, bucket: int, items: Sequence[object]) -> None: ...
    def read(self, bucket: int) -> Iterator[Any]:
        """The bucket's lists, in the order in which they were put."""
        ...

    def close(self) -> None: ...


class Observer(Protocol):
    """Told facts after they are durable. Must not raise and must not wait."""

    def __call__(self, fact: Fact) -> None: ...
