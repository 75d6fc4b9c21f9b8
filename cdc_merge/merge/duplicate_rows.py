"""Two rows of one source under one business key: a fold that lets the record follow the row that had the key first (§4).

Rows are distinguished by their replica identity, where that is not the business key itself. The other rows are duplicates: they
are kept beside the record and are no part of its history. When the followed row is deleted, the oldest duplicate takes its
place, as an update. Of rows read by one snapshot the smallest identity is the oldest. An update under an unknown identity is
the followed row under a new identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cdc_merge.merge.baselines import remove_snapshot_of
from cdc_merge.merge.record_state import NO_DUPLICATES, PRESENT, DuplicateRow, Record, Row
from cdc_merge.merge.views import source_view
from cdc_merge.model import DELETE, INSERT, SNAPSHOT, TRUNCATE, UNKNOWN, UPDATE, Change


def follow_first_row(record: Record, change: Change) -> Change | None:
    """The change as far as the record is concerned; None for what concerns a duplicate alone."""
    source = change.stamp.source.partition("/")[0]
    row = record.rows.get(source)
    if row is None or change.operation == TRUNCATE:
        if row is not None:
            row.duplicates = NO_DUPLICATES
        return change
    if row.presence != PRESENT or row.identity is None or change.identity == row.identity:
        return _succeed(record, row, change) if row.duplicates and change.operation == DELETE else change
    return OF_OTHER_ROWS[change.operation](record, row, change) if change.operation in OF_OTHER_ROWS else change


def _insert(record: Record, row: Row, change: Change) -> Change | None:
    """Another row took the key."""
    values = {field: after for field, (_, after) in change.fields.items()}
    row.duplicates = {**row.duplicates, change.identity or "": DuplicateRow(_bare(change), values)}
    return None


def _snapshot(record: Record, row: Row, change: Change) -> Change | None:
    """A row of an initial snapshot: the smaller identity is the one to follow."""
    first = row.entered_by
    of_one_snapshot = first is not None and first.operation == SNAPSHOT and _one_snapshot(first, change)
    if first is None or not of_one_snapshot or identity_order(change.identity) > identity_order(row.identity):
        return _insert(record, row, change)
    source = change.stamp.source.partition("/")[0]
    duplicate = DuplicateRow(_bare(first), source_view(record, source).values)
    row.duplicates = {**row.duplicates, row.identity or "": duplicate}
    for state in record.unit_states.values():
        remove_snapshot_of(state, source)
    return change


def _update(record: Record, row: Row, change: Change) -> Change | None:
    duplicate = row.duplicates.get(change.identity or "")
    if duplicate is None:
        return change
    sent = {field: after for field, (_, after) in change.fields.items() if after is not UNKNOWN}
    updated = DuplicateRow(duplicate.change, {**duplicate.fields, **sent})
    row.duplicates = {**row.duplicates, change.identity or "": updated}
    return None


def _delete(record: Record, row: Row, change: Change) -> Change | None:
    """The delete of an unknown row is taken as that of the followed one, unless there are duplicates."""
    if not row.duplicates:
        return change
    row.duplicates = {identity: other for identity, other in row.duplicates.items() if identity != change.identity}
    return None


OF_OTHER_ROWS: Final[Mapping[str, Callable[[Record, Row, Change], Change | None]]] = {
    INSERT: _insert,
    SNAPSHOT: _snapshot,
    UPDATE: _update,
    DELETE: _delete,
}
"""What a change of another identity than the followed row's does."""


def _succeed(record: Record, row: Row, change: Change) -> Change:
    """The followed row is deleted, and the source holds another one: for the record that is an update."""
    identity, successor = min(row.duplicates.items(), key=lambda each: _age(*each))
    row.duplicates = {name: other for name, other in row.duplicates.items() if name != identity}
    row.entered_by = successor.change
    views = source_view(record, change.stamp.source.partition("/")[0]).values
    fields = {
        field: (views.get(field, UNKNOWN), value)
        for field, value in successor.fields.items()
        if views.get(field, UNKNOWN) != value
    }
    return change._replace(operation=UPDATE, fields=fields, identity=identity, moved_to=None)


def _age(identity: str, duplicate: DuplicateRow) -> tuple[object, ...]:
    """Rows of one snapshot have one age."""
    change = duplicate.change
    stamp = change.stamp._replace(counter=0) if change.operation == SNAPSHOT else change.stamp
    return (stamp, identity_order(identity))


def identity_order(identity: str | None) -> tuple[tuple[bool, int, str], ...]:
    """Numbers count as numbers: row 9 is smaller than row 10."""
    parts = (identity or "").split(",")
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _one_snapshot(one: Change, other: Change) -> bool:
    return one.place._replace(ordinal=0) == other.place._replace(ordinal=0)


def _bare(change: Change) -> Change:
    return change._replace(fields={})
