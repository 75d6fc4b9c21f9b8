"""A touched record → its Change: which fields, who, copy or edit, and the links of a re-key.

Of a whole old row only the changed fields are told: cells are compared as bytes first, what differs is read, and what
is then equal (`1.0` and `1.00`) is dropped. Without one, all that was sent is told, and what was before is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from cdc_merge.mapping.attribution import Attribution, column_actor, copy_of
from cdc_merge.mapping.coalesce import LocatedChange, Row, RowTransition
from cdc_merge.mapping.relation import ACTOR_FIELD, RelationMapping
from cdc_merge.model import DELETE, INSERT, UNCHANGED, UNKNOWN, UPDATE, Change, MaybeValue, Place, RawValue, RowChange
from cdc_merge.values.keys import value_text

Fields: TypeAlias = dict[str, tuple[MaybeValue, MaybeValue]]

# Once per row: tuple.__new__ makes the same value as the class in half the time.
_new_tuple = tuple.__new__


class TransactionContext(NamedTuple):
    """What all changes of one delivery share."""

    system: str
    timeline: int
    lsn: int
    committed_us: int
    origin: str | None
    said: Attribution
    whole_rows: bool

    def place(self, mapping: RelationMapping, change: RowChange) -> Place:
        return _new_tuple(Place, (self.system, self.timeline, self.lsn, mapping.table.table, change.ordinal))


def build_change(touch: LocatedChange, scope: TransactionContext) -> Change | None:
    """The change of a record that was touched once; None when nothing mapped has changed. UnreadableValue: park it."""
    mapping, change, stamp, (before, after, row_before, row_after) = touch
    if after is None:
        row, fields = DELETE, {}
    elif before is None:
        row, fields = INSERT, inserted(mapping, change)
    else:
        row, fields = UPDATE, _updated(mapping, change, whole_rows=scope.whole_rows)
        if not fields:
            return None
    system, timeline, lsn, committed_us, origin, said, _ = scope
    actor = said.actor if mapping.actor is None else said.actor or column_actor(mapping, change)
    key = after if after is not None else before
    is_plain = actor is None and origin is None and said.copy is None
    copy = None if is_plain else copy_of(said, origin, mapping.table, actor)
    identity = (row_after or row_before) if mapping.distinct else None
    table = mapping.table
    place = _new_tuple(Place, (system, timeline, lsn, table.table, change.ordinal))
    told = (table.entity, key, stamp, place, row, fields, actor, copy, committed_us, identity, None, None)
    return _new_tuple(Change, told)


def build_followed(told: RowTransition, scope: TransactionContext) -> Change | None:
    """The change of a record that several row changes were about; None when nothing mapped has changed in the end."""
    gone, come = told.gone, told.come
    if come is None:
        assert gone is not None, "a record is told of at least one row"
        return _change(told, DELETE, {}, gone.left, scope)._replace(moved_to=gone.key)
    if gone is None:
        fields: Fields = {field: (UNKNOWN, value) for field, value in come.after.items() if field != ACTOR_FIELD}
        return _change(told, INSERT, fields, come.last, scope)._replace(moved_from=come.born)
    fields = {
        field: (was, value)
        for field, value in come.after.items()
        if field != ACTOR_FIELD and ((was := gone.before.get(field, UNKNOWN)) != value or scope.whole_rows)
    }
    is_other_row = come.last.reading.distinct and gone.first_name != come.name
    if not fields and not is_other_row:
        return None
    last = come.last if gone is come else max(gone.left, come.last, key=lambda touch: touch.stamp)
    return _change(told, UPDATE, fields, last, scope)


def inserted(mapping: RelationMapping, change: RowChange) -> Fields:
    """Every field of a row that was not there before."""
    new = change.new or ()
    fields: Fields = {}
    for field, index, read in mapping.fields:
        cell = new[index]
        if cell is UNCHANGED and change.old is not None and change.old_is_full:
            cell = change.old[index]
        if cell is not UNCHANGED:
            fields[field] = (UNKNOWN, None if cell is None else read(cell))
    return fields


def _updated(mapping: RelationMapping, change: RowChange, *, whole_rows: bool) -> Fields:
    new: tuple[RawValue, ...] = change.new or ()
    old = change.old
    if old is None or not change.old_is_full:
        return _sent(mapping, old, new)
    fields = _held(mapping, old) if whole_rows else {}
    for field, index, read in mapping.fields:
        before, after = old[index], new[index]
        # The reader's decoder makes equal cells one object, so that nearly every column ends here.
        if before is after or before == after or before is UNCHANGED or after is UNCHANGED:
            continue
        was = None if before is None else read(before)
        value = None if after is None else read(after)
        if was != value:
            fields[field] = (was, value)
    return fields


def _held(mapping: RelationMapping, cells: tuple[RawValue, ...]) -> Fields:
    """Every field that is known of a row, as not changed."""
    fields: Fields = {}
    for field, index, read in mapping.fields:
        cell = cells[index]
        if cell is not UNCHANGED:
            value = None if cell is None else read(cell)
            fields[field] = (value, value)
    return fields


def _sent(mapping: RelationMapping, key_cells: tuple[RawValue, ...] | None, new: tuple[RawValue, ...]) -> Fields:
    """The fields of an update without a whole old row; an old key tuple knows the identity columns."""
    fields: Fields = {}
    for field, index, read in mapping.fields:
        cell = new[index]
        if cell is UNCHANGED:
            continue
        value = None if cell is None else read(cell)
        was: MaybeValue = UNKNOWN
        if key_cells is not None and index in mapping.identity_columns:
            old = key_cells[index]
            was = UNKNOWN if old is UNCHANGED else None if old is None else read(old)
        if was != value:
            fields[field] = (was, value)
    return fields


def _change(
    told: RowTransition,
    row: str,
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]],
    last: LocatedChange,
    scope: TransactionContext,
) -> Change:
    of = told.come or told.gone
    assert of is not None, "a record is told of at least one row"
    mapping = of.last.reading
    actor = scope.said.actor or _actor(of)
    entity, key = told.record
    return Change(
        entity,
        key,
        last.stamp,
        scope.place(last.reading, last.change),
        row,
        fields,
        actor,
        copy_of(scope.said, scope.origin, mapping.table, actor),
        scope.committed_us,
        (of.name if told.come else of.first_name) if mapping.distinct else None,
    )


def _actor(row: Row) -> str | None:
    """Who the actor column names, if the transaction wrote it; a row that is gone names nobody."""
    value = row.after.get(ACTOR_FIELD)
    if value is None or row.key is None:
        return None
    wrote = row.born is None or row.last.reading.table.actor_always_written
    changed = ACTOR_FIELD in row.before and row.before[ACTOR_FIELD] != value
    return value_text(value) if wrote or changed else None
