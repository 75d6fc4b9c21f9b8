"""The result of mapping one delivery: record changes, plus side effects for the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cdc_merge.mapping.relation import RelationColumns
from cdc_merge.model import Change, Copy, Parked, Place, RecordKey, Stamp, UnresolvedChange


class Truncated(NamedTuple):
    """A truncate: every record of `entity` that the source held from this table is deleted at `stamp`.

    A change of the same delivery with a later stamp inserts its record again.
    """

    entity: str
    table: str
    stamp: Stamp
    place: Place
    actor: str | None = None
    copy: Copy | None = None


class MappingResult(NamedTuple):
    """Record changes of one delivery, plus side effects for the store.

    `clock` is the last HLC stamp that was issued. `identities`: label → replica identity → business key (None: deleted), to
    be remembered. `parked` are rows that are unreadable or whose key is not resolved, without values. `clock_cut_us`: by how much
    the commit time was cut because it lay too far ahead. `previous_keys`: record → previous key, for a row that changed its key
    and whose change leaves fields out (unchanged TOASTed or unsent columns): their values are those that this source held
    under the previous key. `announced_columns`: tables whose Relation message is the first one or a different one. `unresolved`:
    changes to be quarantined (semantics §4); `parked` lists them, too. `former_identities`: label → replica identity → key,
    of rows that changed their identity before their key was resolved. `unreadable_rows`: table → rows that are parked for good.
    """

    changes: tuple[Change, ...]
    clock: Stamp
    identities: Mapping[str, Mapping[str, str | None]]
    truncated: tuple[Truncated, ...] = ()
    parked: tuple[Parked, ...] = ()
    clock_cut_us: int = 0
    previous_keys: Mapping[RecordKey, str] = {}
    announced_columns: tuple[RelationColumns, ...] = ()
    unresolved: tuple[UnresolvedChange, ...] = ()
    former_identities: Mapping[str, Mapping[str, str]] = {}
    unreadable_rows: Mapping[str, int] = {}
