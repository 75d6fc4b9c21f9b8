"""Steps 2 and 3: changes of records, the entries of the history, and checkpoints folded from them.

Hot values (`Stamp`, `Place`, `Change`, the row changes) are NamedTuples: they are made once per change and compared by
content, and a tuple was the cheapest honest type when measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cdc_merge.model.positions import Place, Stamp
from cdc_merge.model.value_types import MaybeValue


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
    operation: str
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]
    actor: str | None = None
    copy: Copy | None = None
    committed_us: int = 0
    identity: str | None = None
    moved_to: str | None = None
    moved_from: str | None = None


class UnresolvedChange(NamedTuple):
    """A change whose record nobody knows yet: `change.key` is empty. It is about the row of the table `label` whose
    `columns` read `identity`, and read `was` before the change."""

    label: str
    columns: tuple[str, ...]
    identity: str
    was: str
    change: Change


class Checkpoint(NamedTuple):
    """A record folded up to and with `stamp`: `tree` is what merge/checkpoint.py made of it under the policy of that name.
    `number` counts the bases that the record had. `root`: the log before it is gone, so nothing can make it again."""

    stamp: Stamp
    number: int
    policy: str
    tree: Sequence[Any]
    pruned: bool = False
