"""The read side as console and command line use it.

Implementations serve many threads at once and return only durable state. A cursor is opaque: None requests the first page,
and the last page's cursor is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from cdc_merge.model import Change, Conflict, Explanation, MergedRecord, Missing, RecordKey, RestorePlan, Stamp
from cdc_merge.model.plan import Rule
from cdc_merge.queries.source_documents import SourceReport

Item = TypeVar("Item")


class Page(NamedTuple, Generic[Item]):
    """A page of a list, and the cursor of the next page."""

    items: Sequence[Item]
    next_cursor: str | None


class QueryPort(Protocol):
    """The read side. Missing objects are None or empty; an unknown entity or field is NotFound."""

    def conflicts(self, where: Mapping[str, str], cursor: str | None, limit: int) -> Page[Conflict]:
        """Newest last. `where`: status, entity, field, kind, severity, source, key; all must match."""
        ...

    def conflict(self, conflict_id: str) -> Conflict | None: ...

    def record(self, record: RecordKey, as_of: Stamp | None) -> MergedRecord | None:
        """The state after the history up to and including `as_of`, all of it when None; None without any history."""
        ...

    def records(self, entity: str, cursor: str | None, limit: int) -> Page[MergedRecord]:
        """Every record, deleted ones included, in no guaranteed order. NotFound if there is no such entity."""
        ...

    def missing(self, entity: str, source: str | None, cursor: str | None, limit: int) -> Page[Missing]:
        """Records missing at sources, in the order of keys; only at `source` unless None. `limit` counts records. Empty
        unless the entity's `on_missing` is report."""
        ...

    def history(self, record: RecordKey, cursor: str | None, limit: int) -> Page[Change]:
        """In stamp order; empty if there is no such record."""
        ...

    def explain(self, record: RecordKey, field: str) -> Explanation | None:
        """None if there is no such record, NotFound if its entity has no such field."""
        ...

    def restore(self, record: RecordKey, to: Stamp | None, fields: Sequence[str]) -> RestorePlan | None:
        """The plan to restore the record to its state at `to`, or with None to its last conflict-free state; only these
        fields, if any are given. None if there is no such record, NotFound if it did not exist then."""
        ...

    def sources(self) -> Sequence[SourceReport]: ...
    def rules(self) -> Sequence[Rule]: ...

    def ready(self) -> tuple[bool, str]:
        """Whether every reachable source has streamed, and one sentence with those that have not."""
        ...

    def problem(self) -> str | None:
        """Why merging ended until the next start; None while it works."""
        ...

    def reload(self) -> None:
        """Reload the configuration; on ConfigError the previous one stays in force."""
        ...
