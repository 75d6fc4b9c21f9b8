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
    """The identity of a record: entity and business key (canonical text)."""

    entity: str
    key: str


class Missing(NamedTuple):
    """A source that does not have a record, as reported by `on_missing: report`. `since_us`: stamp time."""

    entity: str
    key: str
    source: str
    since_us: int


class Copy(NamedTuple):
    """The copy mark of a change that replicates an existing write. `of` are the places of the writes (our write-back);
    `from_source` (message cdc_merge.copy) adds everything that this source had seen to the causal context."""

    from_source: str | None = None
    of: tuple[Place, ...] = ()


# The values of Change.operation.
INSERT: Final = "insert"


UPDATE: Final = "update"


DELETE: Final = "delete"


TRUNCATE: Final = "truncate"


SNAPSHOT: Final = "snapshot"


DECISION: Final = "decision"


class Change(NamedTuple):
    """The effect of one source transaction on one record: an entry of the history.

    `stamp` is its HLC stamp, `place` its identity. `operation` is insert, update, delete, truncate, snapshot or decision.
    `fields` maps field → (before, after): for an update the changed fields if the old row was complete, else all fields that
    were sent; `before` is UNKNOWN where the source did not send it. `actor` is who made the change. `copy` is None for a
    genuine edit. `committed_us` is the source's own commit time, uncut.
    `identity` distinguishes two rows of one source with the same business key (canonical text of the replica identity).
    `moved_to` (a delete) and `moved_from` (an insert) link the two halves of a re-key: a change of the business key.
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
    """A quarantined change: its business key is not resolved, `change.key` is empty. `identity` is the replica identity of its
    row, in the `columns` of the table `label`; `was` is the one before the change."""

    label: str
    columns: tuple[str, ...]
    identity: str
    was: str
    change: Change


class Checkpoint(NamedTuple):
    """The state of a record, folded up to and including `stamp`. `tree` is the state as merge/checkpoint.py dumps it, under the
    policy digest `policy`; `number` counts the record's checkpoints. `pruned`: retention has removed the log before it, so it
    cannot be rebuilt."""

    stamp: Stamp
    number: int
    policy: str
    tree: Sequence[Any]
    pruned: bool = False
