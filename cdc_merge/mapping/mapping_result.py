"""What a delivery tells, in the words of the merging side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cdc_merge.mapping.relation import RelationColumns
from cdc_merge.model import Change, Copy, Parked, Place, RecordKey, Stamp, UnresolvedChange


class Truncated(NamedTuple):
    """A table was emptied: every record of `entity` that it held is gone at `stamp`.

    A change of the same delivery with a later stamp brings its record back.
    """

    entity: str
    table: str
    stamp: Stamp
    place: Place
    actor: str | None = None
    copy: Copy | None = None


class MappingResult(NamedTuple):
    """What a delivery tells.

    `clock` is the last stamp given out. `identities`: table → identity → business key (None: gone), to be remembered.
    `parked` are rows that could not be read or located, without values. `cut_us`: by how much the commit time lay too
    far ahead. `carried`: a record whose row came from another key and whose change leaves fields out (unchanged
    TOASTed or unsent columns): they are what this source held before the transaction under the key named here.
    `shapes`: the tables whose columns are announced for the first time, or differently from before. `waiting`: changes
    of rows whose keys nobody knows yet (semantics §4); they are among `parked` too. `named`: label → identity → key, of
    rows that have another identity by now and were named under that.
    """

    changes: tuple[Change, ...]
    clock: Stamp
    identities: Mapping[str, Mapping[str, str | None]]
    truncated: tuple[Truncated, ...] = ()
    parked: tuple[Parked, ...] = ()
    cut_us: int = 0
    carried: Mapping[RecordKey, str] = {}
    shapes: tuple[RelationColumns, ...] = ()
    waiting: tuple[UnresolvedChange, ...] = ()
    named: Mapping[str, Mapping[str, str]] = {}
