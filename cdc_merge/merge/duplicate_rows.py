"""Two rows of one source under one business key: the record follows the row that had it first (semantics §4).

Rows are told apart by their replica identity, where that is not the key itself. What happens to the other rows, the
twins, is kept beside the record and is none of its history, until the row that it follows goes: then the twin that came
first takes its place, as an update. Of rows read at one snapshot the one with the smaller identity is the first. An
update under an identity that nobody knows is the followed row under a new name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cdc_merge.merge.record_state import NO_TWINS, PRESENT, DuplicateRow, Record, Row
from cdc_merge.merge.views import view
from cdc_merge.model import DELETE, INSERT, SNAPSHOT, TRUNCATE, UNKNOWN, UPDATE, Change


def followed(record: Record, change: Change) -> Change | None:
    """What the record is told of a change; None for what concerns a twin alone."""
    source = change.stamp.source.partition("/")[0]
    row = record.rows.get(source)
    if row is None or change.operation == TRUNCATE:
        if row is not None:
            row.duplicates = NO_TWINS
        return change
    if row.presence != PRESENT or row.identity is None or change.identity == row.identity:
        return _succeeded(record, row, change) if row.duplicates and change.operation == DELETE else change
    return TAKEN[change.operation](record, row, change) if change.operation in TAKEN else change


def _came(record: Record, row: Row, change: Change) -> Change | None:
    """Another row came under the key."""
    held = {field: after for field, (_, after) in change.fields.items()}
    row.duplicates = {**row.duplicates, change.identity or "": DuplicateRow(_bare(change), held)}
    return None


def _copied(record: Record, row: Row, change: Change) -> Change | None:
    """A row of a first copy: the smaller identity is the one to follow."""
    first = row.by
    is_first = first is not None and first.operation == SNAPSHOT and _one_copy(first, change)
    if first is None or not is_first or order_of(change.identity) > order_of(row.identity):
        return _came(record, row, change)
    source = change.stamp.source.partition("/")[0]
    row.duplicates = {**row.duplicates, row.identity or "": DuplicateRow(_bare(first), view(record, source).values)}
    _unread(record, source)
    return change


def _changed(record: Record, row: Row, change: Change) -> Change | None:
    twin = row.duplicates.get(change.identity or "")
    if twin is None:
        return change
    held = {**twin.fields, **{field: after for field, (_, after) in change.fields.items() if after is not UNKNOWN}}
    row.duplicates = {**row.duplicates, change.identity or "": DuplicateRow(twin.change, held)}
    return None


def _gone(record: Record, row: Row, change: Change) -> Change | None:
    """A row that nobody has seen is no reason to believe that the followed one is still there, unless others are."""
    if not row.duplicates:
        return change
    row.duplicates = {identity: twin for identity, twin in row.duplicates.items() if identity != change.identity}
    return None


TAKEN: Final[Mapping[str, Callable[[Record, Row, Change], Change | None]]] = {
    INSERT: _came,
    SNAPSHOT: _copied,
    UPDATE: _changed,
    DELETE: _gone,
}


def _succeeded(record: Record, row: Row, change: Change) -> Change:
    """The followed row has gone, and the source holds another one: for the record that is an update."""
    identity, twin = min(row.duplicates.items(), key=lambda each: _since(*each))
    row.duplicates = {name: other for name, other in row.duplicates.items() if name != identity}
    row.by = twin.change
    views = view(record, change.stamp.source.partition("/")[0]).values
    fields = {
        field: (views.get(field, UNKNOWN), value)
        for field, value in twin.fields.items()
        if views.get(field, UNKNOWN) != value
    }
    return change._replace(operation=UPDATE, fields=fields, identity=identity, moved_to=None)


def _since(identity: str, twin: DuplicateRow) -> tuple[object, ...]:
    """Rows of one copy came at once."""
    change = twin.change
    came = change.stamp._replace(counter=0) if change.operation == SNAPSHOT else change.stamp
    return (came, order_of(identity))


def order_of(identity: str | None) -> tuple[tuple[bool, int, str], ...]:
    """Numbers count as numbers: row 9 is smaller than row 10."""
    parts = (identity or "").split(",")
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _one_copy(one: Change, other: Change) -> bool:
    return one.place._replace(ordinal=0) == other.place._replace(ordinal=0)


def _bare(change: Change) -> Change:
    return change._replace(fields={})


def _unread(record: Record, source: str) -> None:
    """What was read of the source's row at its first copy is taken back: another row is read in its place."""
    for cell in record.cells.values():
        cell.sides.pop(source, None)
        for write in cell.of(cell.baselines):
            if write.source == source:
                cell.baselines &= ~write.bit
        cell.diverged = tuple([pair for pair in cell.diverged if source not in pair])
