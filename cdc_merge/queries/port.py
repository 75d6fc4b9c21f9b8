"""What the console and the command line may ask.

Whoever answers is asked from many threads at once, and shows only what is durable.

A cursor is opaque: None asks for the beginning, and the answer's cursor is None at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from cdc_merge.model import Change, Conflict, Explanation, MergedRecord, Missing, RecordKey, RestorePlan, Stamp
from cdc_merge.model.plan import Rule
from cdc_merge.queries.documents import SourceReading

Item = TypeVar("Item")


class Page(NamedTuple, Generic[Item]):
    """A piece of a list, and where the next piece begins."""

    items: Sequence[Item]
    next_cursor: str | None


class QueryPort(Protocol):
    """The read side. What does not exist is None or empty; a field that an entity has not is NotFound."""

    def conflicts(self, where: Mapping[str, str], cursor: str | None, limit: int) -> Page[Conflict]:
        """Newest last. `where`: status, entity, field, kind, severity, source, key; all must hold."""
        ...

    def conflict(self, conflict_id: str) -> Conflict | None: ...

    def record(self, record: RecordKey, as_of: Stamp | None) -> MergedRecord | None:
        """What the history up to and with `as_of` means, all of it when None; None if there is none of it."""
        ...

    def records(self, entity: str, cursor: str | None, limit: int) -> Page[MergedRecord]:
        """Every record, ended ones too, in no promised order. NotFound if there is no such entity."""
        ...

    def missing(self, entity: str, source: str | None, cursor: str | None, limit: int) -> Page[Missing]:
        """Which sources lack which records, in the order of keys; of one source, if it is named. A page is about so many
        records. Nothing, where the entity's `on_missing` is not report."""
        ...

    def history(self, record: RecordKey, cursor: str | None, limit: int) -> Page[Change]:
        """In stamp order; empty if there is no such record."""
        ...

    def explain(self, record: RecordKey, field: str) -> Explanation | None:
        """None if there is no such record, NotFound if its entity has no such field."""
        ...

    def restore(self, record: RecordKey, to: Stamp | None, fields: Sequence[str]) -> RestorePlan | None:
        """How the record would be brought back to what it meant at `to`, or with None to its last state without a
        question; only these fields, if any are named. None if there is no such record, NotFound if there was none
        then."""
        ...

    def sources(self) -> Sequence[SourceReading]: ...
    def rules(self) -> Sequence[Rule]: ...

    def ready(self) -> tuple[bool, str]:
        """Whether every source that can be reached has streamed, and one sentence that says which has not."""
        ...

    def problem(self) -> str | None:
        """Why nothing is merged any more, until somebody starts it again; None while all is well."""
        ...

    def reload(self) -> None:
        """Read the configuration again; ConfigError leaves the old one in force."""
        ...
