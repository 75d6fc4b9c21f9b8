"""The result of ingesting one delivery, and the changes that only the batch can complete: it knows the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from cdc_merge.mapping.mapping_result import Truncated
from cdc_merge.mapping.relation import RelationColumns
from cdc_merge.model import (
    TRUNCATE,
    UNKNOWN,
    Change,
    ChunkRead,
    MaybeValue,
    Parked,
    QuarantineReleased,
    RecordKey,
)
from cdc_merge.model.heartbeats import Heartbeat
from cdc_merge.model.source_commands import Resync


class MissingFromChunk(NamedTuple):
    """The requested `keys` that a chunk does not contain. Those of them that the source has not changed since the resync
    began are deleted there."""

    entity: str
    keys: tuple[str, ...]
    resync: Resync
    read: ChunkRead


class IngestResult(NamedTuple):
    """Record changes of one delivery, or of one piece of it, plus what the batch has to do beside them.

    `retracted`: records of whose history the store removed a part. `released`: what left the quarantine; resolved changes are
    among `changes`. `missing`: what a chunk does not contain. The other fields are MappingResult's.
    """

    changes: tuple[Change, ...] = ()
    truncated: tuple[Truncated, ...] = ()
    parked: tuple[Parked, ...] = ()
    retracted: tuple[RecordKey, ...] = ()
    clock_cut_us: int = 0
    committed_us: int = 0
    previous_keys: Mapping[RecordKey, str] = {}
    announced_columns: tuple[RelationColumns, ...] = ()
    is_piece: bool = False
    heartbeats: tuple[tuple[Heartbeat, int], ...] = ()  # each with the number of lost ones before it
    missing: MissingFromChunk | None = None
    released: tuple[QuarantineReleased, ...] = ()


def with_previous_values(change: Change, previous_value: Callable[[str], MaybeValue], fields: frozenset[str]) -> Change:
    """The change of a row that moved to a new key, with the values that the stream left out: those under the previous key."""
    absent = {field: previous_value(field) for field in sorted(fields) if field not in change.fields}
    added: dict[str, tuple[MaybeValue, MaybeValue]] = {f: (UNKNOWN, v) for f, v in absent.items() if v is not UNKNOWN}
    return change._replace(fields={**change.fields, **added}) if added else change


def truncations(truncated: Truncated, keys: Iterable[str], committed_us: int) -> Iterator[Change]:
    """A truncate as one change per record that had a row at the source."""
    of_any = Change(truncated.entity, "", truncated.stamp, truncated.place, TRUNCATE, {})
    of_any = of_any._replace(actor=truncated.actor, copy=truncated.copy, committed_us=committed_us)
    return (of_any._replace(key=key) for key in keys)
