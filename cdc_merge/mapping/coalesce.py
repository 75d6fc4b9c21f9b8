"""Coalescing: the row changes of one transaction become one change per record (semantics §1).

Nearly every record has a single row change, which is kept as it is. Only where a record or a row is changed again, or a row
changes its business key or its replica identity, its values are read and the row is tracked step by step; the states before
and after the transaction decide the record's change. Intermediate states leave no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple, Protocol, TypeAlias

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.key_resolution import RowKeys, RowValues, fill_unchanged
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import UNCHANGED, RowChange, Stamp, Value


class KeyedChange(NamedTuple):
    """One row change with its resolved keys and its HLC stamp."""

    mapping: RelationMapping
    change: RowChange
    stamp: Stamp
    keys: RowKeys


EntityKey: TypeAlias = tuple[str, str]
"""Entity and business key; a plain tuple: one is made per row change, and a NamedTuple takes six times as long."""

LabeledIdentity: TypeAlias = tuple[str, str]
"""The label of a table and the replica identity of one of its rows."""


class TrackedRow:
    """One source row, tracked through a transaction.

    `key_at_start` is its business key before the transaction (None: no such row), `key` its current one (None: deleted);
    `identity_at_start` and `identity` likewise. `before` and `after` are the known field values at the start and by now,
    the actor column's under "". `leaving` is the change that ended its first key, `last` its latest change.
    """

    __slots__ = (
        "after",
        "before",
        "identity",
        "identity_at_start",
        "key",
        "key_at_start",
        "last",
        "leaving",
        "unreadable",
        "values",
    )

    def __init__(self, keyed: KeyedChange) -> None:
        self.key_at_start = self.key = keyed.keys.key_before
        self.identity_at_start = keyed.keys.identity_before
        self.identity = keyed.keys.identity_before or keyed.keys.identity_after
        self.before: dict[str, Value] = {}
        self.after: dict[str, Value] = {}
        self.last = self.leaving = keyed
        self.values: RowValues = ()
        self.unreadable: str | None = None

    def apply(self, keyed: KeyedChange) -> None:
        """Apply the row's next change: its keys and its values."""
        if self.key == self.key_at_start != keyed.keys.key_after:
            self.leaving = keyed
        self.key, self.last = keyed.keys.key_after, keyed
        if keyed.change.new is not None:
            self.values = fill_unchanged(keyed.change.old if keyed.change.old_is_full else None, keyed.change.new)
        self.identity = keyed.keys.identity_after or self.identity
        try:
            self._read(keyed.mapping, keyed.change)
        except UnreadableValue as error:
            self.unreadable = str(error)

    def _read(self, mapping: RelationMapping, change: RowChange) -> None:
        for field, index, read in mapping.tracked:
            if change.old is not None and (change.old_is_full or index in mapping.identity_columns):
                value = change.old[index]
                if value is not UNCHANGED and field not in self.after:
                    self.before.setdefault(field, None if value is None else read(value))
                    self.after[field] = self.before[field]
            if change.new is not None:
                value = change.new[index]
                if value is not UNCHANGED:
                    self.after[field] = None if value is None else read(value)

    def matches_old_row(self, keyed: KeyedChange) -> bool:
        """Whether the complete old row of a change is this row's current state."""
        if self.last.change.relation == keyed.change.relation:
            return self.values == keyed.change.old
        # The table was altered in between: the mapped values of both are compared.
        old = TrackedRow(keyed)
        old.apply(keyed._replace(change=keyed.change._replace(new=None)))
        return all(self.after.get(field, value) == value for field, value in old.before.items())


class RowTransition(NamedTuple):
    """What a transaction did to a record: the row that had its key at the start and the one that has it at the end (both:
    an update)."""

    record: EntityKey
    row_at_start: TrackedRow | None
    row_at_end: TrackedRow | None

    @property
    def key_of_unsent_fields(self) -> str | None:
        """The previous key of this record's row, when the source did not send all of its fields."""
        row = self.row_at_end
        if row is None or row.key_at_start is None or row.key_at_start == row.key:
            return None
        return row.key_at_start if any(field not in row.after for field, _, _ in row.last.mapping.fields) else None


class ChangeSink(Protocol):
    """Takes the keyed changes of a transaction in order, and gives its records' changes at the end."""

    def add(self, keyed: KeyedChange) -> None: ...
    def drop_table(self, label: str) -> None: ...
    def single_changes(self) -> Iterator[KeyedChange]: ...
    def transitions(self) -> list[RowTransition]: ...


class Coalescer:
    """Collects a transaction's keyed changes: `single_changes()` of records changed once, `transitions()` of the others."""

    def __init__(self) -> None:
        self._single: dict[EntityKey, KeyedChange | None] = {}  # None: its rows are tracked
        self._rows: dict[LabeledIdentity, list[TrackedRow]] = {}
        self._tracked: list[tuple[str, str, TrackedRow]] = []

    def add(self, keyed: KeyedChange) -> None:
        mapping, _, _, (before, after, identity_before, identity_after) = keyed
        if before is None or after is None or (before == after and identity_before == identity_after):
            record = (mapping.table.entity, after if after is not None else before or "")
            if record not in self._single:
                self._single[record] = keyed
                return
        self._track(keyed)

    def drop_table(self, label: str) -> None:
        """A truncate: earlier changes of this table in the transaction have no effect."""
        self._single = {
            record: keyed for record, keyed in self._single.items() if keyed is None or keyed.mapping.label != label
        }
        self._tracked = [entry for entry in self._tracked if entry[1] != label]
        self._rows = {
            identity: [row for row in rows if row.last.mapping.label != label] for identity, rows in self._rows.items()
        }

    def single_changes(self) -> Iterator[KeyedChange]:
        return (keyed for keyed in self._single.values() if keyed is not None)

    def transitions(self) -> list[RowTransition]:
        """The transitions of all records that were changed more than once, in no particular order."""
        at_start: dict[EntityKey, list[TrackedRow]] = {}
        at_end: dict[EntityKey, list[TrackedRow]] = {}
        for entity, _, row in self._tracked:
            if row.key_at_start is not None:
                at_start.setdefault((entity, row.key_at_start), []).append(row)
            if row.key is not None:
                at_end.setdefault((entity, row.key), []).append(row)
        return [
            transition
            for record in {**at_start, **at_end}
            for transition in _transitions_of(record, at_start.get(record, ()), at_end.get(record, ()))
        ]

    def _track(self, keyed: KeyedChange) -> None:
        for key in (keyed.keys.key_before, keyed.keys.key_after):
            if key is not None:
                record = (keyed.mapping.table.entity, key)
                single = self._single.get(record)
                self._single[record] = None
                if single is not None:
                    self._apply(single)
        self._apply(keyed)

    def _apply(self, keyed: KeyedChange) -> None:
        entity, label = keyed.mapping.table.entity, keyed.mapping.label
        row = self._take_tracked_row(keyed)
        if row is None:
            row = TrackedRow(keyed)
            self._tracked.append((entity, label, row))
        row.apply(keyed)
        if keyed.keys.identity_after is not None:
            self._rows.setdefault((label, keyed.keys.identity_after), []).append(row)

    def _take_tracked_row(self, keyed: KeyedChange) -> TrackedRow | None:
        """Remove the changed row from its identity; None when it was not changed before."""
        if keyed.keys.identity_before is None:
            return None
        rows = self._rows.get((keyed.mapping.label, keyed.keys.identity_before), [])
        for row in reversed(rows):
            # Without an identity of their own, two rows may share a key for a while (deferred constraints, or none).
            if keyed.mapping.has_own_identity or not keyed.change.old_is_full or row.matches_old_row(keyed):
                rows.remove(row)
                return row
        return None


def _transitions_of(
    record: EntityKey, at_start: Iterable[TrackedRow], at_end: Iterable[TrackedRow]
) -> Iterator[RowTransition]:
    arrived = [row for row in at_end if row.key_at_start != row.key]
    departed = [row for row in at_start if row.key_at_start != row.key]
    yield from (RowTransition(record, row, row) for row in at_start if row.key_at_start == row.key)
    yield from (RowTransition(record, before, after) for before, after in zip_longest(departed, arrived))
