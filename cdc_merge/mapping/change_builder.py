"""The change of a record, built from its keyed change or its row transition: fields, actor, copy mark, links of a re-key.

With a complete old row only changed fields are in the change: raw values are compared as bytes first, those that differ are
read, and canonical equals (`1.0` and `1.00`) are dropped. Without one, every field that was sent is in it, with an UNKNOWN
`before`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from cdc_merge.mapping.attribution import Attribution, column_actor, copy_of
from cdc_merge.mapping.coalesce import KeyedChange, RowTransition, TrackedRow
from cdc_merge.mapping.relation import ACTOR_FIELD, RelationMapping
from cdc_merge.model import DELETE, INSERT, UNCHANGED, UNKNOWN, UPDATE, Change, MaybeValue, Place, RawValue, RowChange
from cdc_merge.model.fast_new import fast_new
from cdc_merge.values.keys import value_text

FieldChanges: TypeAlias = dict[str, tuple[MaybeValue, MaybeValue]]


class TransactionContext(NamedTuple):
    """Attributes that all changes of one delivery share."""

    system: str
    timeline: int
    lsn: int
    committed_us: int
    origin: str | None
    attribution: Attribution
    whole_rows: bool

    def place(self, mapping: RelationMapping, change: RowChange) -> Place:
        return fast_new(Place, (self.system, self.timeline, self.lsn, mapping.table.table, change.ordinal))


def build_change(keyed: KeyedChange, context: TransactionContext) -> Change | None:
    """The change of a record with a single row change; None when no mapped field changed. UnreadableValue: park it."""
    mapping, change, stamp, (before, after, identity_before, identity_after) = keyed
    if after is None:
        operation, fields = DELETE, {}
    elif before is None:
        operation, fields = INSERT, inserted_fields(mapping, change)
    else:
        operation, fields = UPDATE, _updated_fields(mapping, change, whole_rows=context.whole_rows)
        if not fields:
            return None
    system, timeline, lsn, committed_us, origin, attribution, _ = context
    actor = attribution.actor if mapping.actor is None else attribution.actor or column_actor(mapping, change)
    key = after if after is not None else before
    is_plain = actor is None and origin is None and attribution.copy is None
    copy = None if is_plain else copy_of(attribution, origin, mapping.table, actor)
    identity = (identity_after or identity_before) if mapping.has_own_identity else None
    table = mapping.table
    place = fast_new(Place, (system, timeline, lsn, table.table, change.ordinal))
    return fast_new(
        Change,
        (table.entity, key, stamp, place, operation, fields, actor, copy, committed_us, identity, None, None),
    )


def build_transition(transition: RowTransition, context: TransactionContext) -> Change | None:
    """The change of a record with several row changes; None when no mapped field differs at the end."""
    start, end = transition.row_at_start, transition.row_at_end
    if end is None:
        assert start is not None, "a transition has at least one row"
        return _transition_change(transition, DELETE, {}, start.leaving, context)._replace(moved_to=start.key)
    if start is None:
        fields: FieldChanges = {field: (UNKNOWN, value) for field, value in end.after.items() if field != ACTOR_FIELD}
        return _transition_change(transition, INSERT, fields, end.last, context)._replace(moved_from=end.key_at_start)
    fields = {
        field: (was, value)
        for field, value in end.after.items()
        if field != ACTOR_FIELD and ((was := start.before.get(field, UNKNOWN)) != value or context.whole_rows)
    }
    is_other_row = end.last.mapping.has_own_identity and start.identity_at_start != end.identity
    if not fields and not is_other_row:
        return None
    last = end.last if start is end else max(start.leaving, end.last, key=lambda keyed: keyed.stamp)
    return _transition_change(transition, UPDATE, fields, last, context)


def inserted_fields(mapping: RelationMapping, change: RowChange) -> FieldChanges:
    """Every field of an inserted row."""
    new = change.new or ()
    fields: FieldChanges = {}
    for field, index, read in mapping.fields:
        value = new[index]
        if value is UNCHANGED and change.old is not None and change.old_is_full:
            value = change.old[index]
        if value is not UNCHANGED:
            fields[field] = (UNKNOWN, None if value is None else read(value))
    return fields


def _updated_fields(mapping: RelationMapping, change: RowChange, *, whole_rows: bool) -> FieldChanges:
    new: tuple[RawValue, ...] = change.new or ()
    old = change.old
    if old is None or not change.old_is_full:
        return _sent_fields(mapping, old, new)
    fields = _unchanged_fields(mapping, old) if whole_rows else {}
    for field, index, read in mapping.fields:
        before, after = old[index], new[index]
        # The decoder makes equal values one object, so nearly every column ends here.
        if before is after or before == after or before is UNCHANGED or after is UNCHANGED:
            continue
        was = None if before is None else read(before)
        value = None if after is None else read(after)
        if was != value:
            fields[field] = (was, value)
    return fields


def _unchanged_fields(mapping: RelationMapping, values: tuple[RawValue, ...]) -> FieldChanges:
    """Every field of a row that was sent, as (value, value)."""
    fields: FieldChanges = {}
    for field, index, read in mapping.fields:
        raw = values[index]
        if raw is not UNCHANGED:
            value = None if raw is None else read(raw)
            fields[field] = (value, value)
    return fields


def _sent_fields(
    mapping: RelationMapping, old_key: tuple[RawValue, ...] | None, new: tuple[RawValue, ...]
) -> FieldChanges:
    """The fields of an update without a complete old row; an old key tuple has the identity columns."""
    fields: FieldChanges = {}
    for field, index, read in mapping.fields:
        raw = new[index]
        if raw is UNCHANGED:
            continue
        value = None if raw is None else read(raw)
        was: MaybeValue = UNKNOWN
        if old_key is not None and index in mapping.identity_columns:
            old = old_key[index]
            was = UNKNOWN if old is UNCHANGED else None if old is None else read(old)
        if was != value:
            fields[field] = (was, value)
    return fields


def _transition_change(
    transition: RowTransition, operation: str, fields: FieldChanges, last: KeyedChange, context: TransactionContext
) -> Change:
    row = transition.row_at_end or transition.row_at_start
    assert row is not None, "a transition has at least one row"
    mapping = row.last.mapping
    actor = context.attribution.actor or _written_actor(row)
    entity, key = transition.record
    return Change(
        entity,
        key,
        last.stamp,
        context.place(last.mapping, last.change),
        operation,
        fields,
        actor,
        copy_of(context.attribution, context.origin, mapping.table, actor),
        context.committed_us,
        (row.identity if transition.row_at_end else row.identity_at_start) if mapping.has_own_identity else None,
    )


def _written_actor(row: TrackedRow) -> str | None:
    """The value of the actor column, if the transaction wrote it; None for a deleted row."""
    value = row.after.get(ACTOR_FIELD)
    if value is None or row.key is None:
        return None
    wrote = row.key_at_start is None or row.last.mapping.table.actor_always_written
    changed = ACTOR_FIELD in row.before and row.before[ACTOR_FIELD] != value
    return value_text(value) if wrote or changed else None
