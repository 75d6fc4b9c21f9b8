"""What the pipeline needs from outside: Source, Store, Observer. Small protocols; adapters implement them.

No adapter assumes that it serves the only worker: a store hands out records to whoever holds its claim, and a source is
confirmed only by the worker that took its deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from cdc_merge.model import (
    Change,
    Conflict,
    Delivery,
    Fact,
    Figures,
    Position,
    RecordKey,
    SourceStatus,
    Stamp,
)


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


class StoreTransaction(Protocol):
    """Everything one batch changes. Nothing of it is visible or kept unless the `with` block ends without an error."""

    def histories(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Change]]:
        """All changes of these records in stamp order, this transaction's own included; unknown records give []."""
        ...

    def append(self, changes: Iterable[Change]) -> set[RecordKey]:
        """Add changes to the log. A change whose (record, place) is there already is dropped; the smaller stamp stays.
        The records to which that happened."""
        ...

    def open_conflicts(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Conflict]]:
        """The settling and open conflicts of these records."""
        ...

    def save_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Insert or replace by id."""
        ...

    def save_position(self, source: str, position: Position, clock: Stamp) -> None: ...

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        """identity → business key, for the identities that are known."""
        ...

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        """identity → business key; None forgets the identity."""
        ...

    def forget_source(self, source: str) -> list[RecordKey]:
        """Remove all history and identities of a source whose first copy did not finish; the records it touched."""
        ...


class Store(Protocol):
    """Where histories, conflicts and positions rest. Readers see only what is durable and may be on any thread."""

    def claim(self, owner: str) -> None:
        """Become the writer; StoreUnavailable if another worker holds the store."""
        ...

    def transaction(self) -> AbstractContextManager[StoreTransaction]: ...
    def positions(self) -> Mapping[str, tuple[Position, Stamp]]: ...
    def history(self, record: RecordKey) -> list[Change]: ...
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

    def figures(self) -> Figures:
        """Counts from the store (history size, open conflicts); cache and watermark are the pipeline's to fill in."""
        ...

    def close(self) -> None: ...


class Observer(Protocol):
    """Told facts after they are durable. Must not raise and must not wait."""

    def __call__(self, fact: Fact) -> None: ...
