"""The fold's step: one change applied to a record, by operation; then to every unit that the change touches.

It serves the full fold and the incremental path alike; they differ only in whether unit states are compacted. Rows and
deletes are handled here, their causality with the units' writes by semantics §4; the units themselves by their merge type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cdc_merge.merge import auto_resolution, baselines, map_fields, waiting_copies
from cdc_merge.merge.compaction import compact
from cdc_merge.merge.late_copies import remember_value
from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.noop_updates import changes_anything
from cdc_merge.merge.record_deletes import (
    apply_delete,
    forget_delete,
    forget_own_deletes,
    see_moves,
    start_incarnation,
)
from cdc_merge.merge.record_state import DELETED, NO_STAMPS, PRESENT, Outcomes, Record, Row
from cdc_merge.merge.register_ops import MERGED, REPEATED, UNMATCHED
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, group_values
from cdc_merge.merge.writes import Insert
from cdc_merge.model import DECISION, DELETE, INSERT, SNAPSHOT, TRUNCATE, UNKNOWN, UPDATE, Change, MaybeValue


def apply(record: Record, change: Change, outcomes: Outcomes | None = None) -> None:
    """Fold one change into the record. Changes come in stamp order, each once."""
    stamp = change.stamp
    source = stamp.source
    if "/" in source:
        source = source.partition("/")[0]
    STEPS[change.operation](record, change, source, outcomes)
    record.last = stamp
    row = record.rows.get(source)
    if row is not None:
        row.last = stamp
        row.identity = change.identity or row.identity


# ---------------------------------------------------------------- operations


def _insert(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    earlier = record.rows.get(source)
    if change.copy is not None:
        _insert_by_copy(record, change, source, outcomes)
        return
    insert = None
    if earlier is None:
        insert = Insert(change.stamp, first=True, baseline=False)
    elif _is_deleted_for_record(record, earlier):
        insert = Insert(change.stamp, first=False, baseline=False)
    if insert is not None:
        start_incarnation(record, source, ends_values=True)
    returned = insert is None and earlier is not None and earlier.presence != PRESENT and not earlier.kept
    if returned:
        see_moves(record, source)
    entered_by = change if insert is not None or earlier is None else _with_move(earlier, change)
    row = record.row(source)
    row.reinserted_by_copy = False
    row.inserted, row.entered_by = insert or row.inserted, entered_by
    _apply_to_units(record, change, source, insert, outcomes, returned=returned)


def _is_deleted_for_record(record: Record, row: Row) -> bool:
    """Not truncated with its table, and not deleted for its source only."""
    return row.presence != PRESENT and not row.kept and record.units.entity.deletes != "local"


def _with_move(row: Row, change: Change) -> Change:
    """A row that is entered or read again without having been deleted keeps the business key that it moved from."""
    was_there = row.presence == PRESENT or row.kept
    moved_from = row.entered_by.moved_from if was_there and row.entered_by is not None else None
    return change if moved_from is None else change._replace(moved_from=moved_from)


def _insert_by_copy(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    """A marked insert overwrites the source's own delete, seen or not."""
    was_deleted = source in record.rows and _is_deleted_for_record(record, record.rows[source])
    forget_own_deletes(record, source)
    row = record.row(source)
    row.reinserted_by_copy, row.entered_by = row.reinserted_by_copy or was_deleted, change
    for state in record.unit_states.values() if was_deleted else ():
        state.restore_before_delete(source)
    _apply_to_units(record, change, source, None, outcomes)


def _update(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    is_first = source not in record.rows
    row = record.row(source)
    insert = None
    if row.reinserted_by_copy and change.copy is None and changes_anything(record, change, source):
        row.reinserted_by_copy = False
        insert = Insert(change.stamp, first=False, baseline=False)
        row.presence = DELETED
        start_incarnation(record, source, ends_values=False)
        row.presence = PRESENT
    if is_first:
        _read_old_tuple(record, change, source)
    _apply_to_units(record, change, source, insert, outcomes)


def _read_old_tuple(record: Record, change: Change, source: str) -> None:
    """A row that appears first in an update: its old tuple counts as a snapshot."""
    for field, (before, _) in change.fields.items():
        unit = record.units.by_name.get(field)
        if unit is not None and before is not UNKNOWN:
            baselines.read_snapshot(record.unit_state(unit), source, change, before, candidate=False)


def _delete(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    apply_delete(record, change, source)


def _snapshot(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    earlier = record.rows.get(source)
    entered_by = change if earlier is None else _with_move(earlier, change)
    record.row(source).entered_by = entered_by
    _apply_to_units(record, change, source, None, outcomes)


def _decision(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    """A decision of fields has seen these fields' candidates, not the record's deletes. A decision without fields keeps the
    record against its deletes."""
    if not change.fields:
        for delete in record.deletes:
            forget_delete(record, delete)
        record.deletes = []
        return
    _apply_to_units(record, change, source, None, outcomes)


STEPS: Final[dict[str, Callable[[Record, Change, str, Outcomes | None], None]]] = {
    INSERT: _insert,
    UPDATE: _update,
    DELETE: _delete,
    TRUNCATE: _delete,
    SNAPSHOT: _snapshot,
    DECISION: _decision,
}

# ---------------------------------------------------------------- units


def _apply_to_units(  # noqa: PLR0913 - the hot path: no object in between
    record: Record,
    change: Change,
    source: str,
    insert: Insert | None,
    outcomes: Outcomes | None,
    *,
    returned: bool = False,
) -> None:
    """Give every unit that the change touches its event. The hot path: one pass, one event object."""
    event = Event(source, change, insert, record.seen_deletes.get(source, NO_STAMPS))
    event.returned = returned
    event.max_ahead_us = record.max_ahead_us
    for unit, before, after in _touched_units(record, change, source):
        if after is UNKNOWN:
            continue
        state = record.unit_state(unit)
        event.before, event.after = before, after
        outcome = _apply_to_unit(record, state, unit, event)
        if outcomes is not None:
            outcomes.append((unit.owner, unit.plan.merge, outcome if outcome != MERGED else _checked(state, unit)))


def _touched_units(record: Record, change: Change, source: str) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    by_name = record.units.by_name
    for field, (before, after) in change.fields.items():
        unit = by_name.get(field)
        if unit is not None:
            yield unit, before, after
    if not record.units.has_only_fields:
        yield from _touched_maps_and_groups(record, change, source)


def _touched_maps_and_groups(
    record: Record, change: Change, source: str
) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    units = record.units
    for field in change.fields:
        if field not in units.by_name and field not in units.group_of and field in units.entity.fields:
            yield from map_fields.events(record, units.entity.fields[field], change, source)
    if units.group_of:
        for plan, fields in units.grouped(change.fields):
            unit = units.by_name[plan.name]
            yield unit, *group_values(plan, fields, record.unit_state(unit).value_at(source))


def _apply_to_unit(record: Record, state: UnitState, unit: Unit, event: Event) -> str:
    """The step of the unit's merge type, and what follows every step; its outcome."""
    change = event.change
    event.holders = record.holders_by_owner.get(unit.owner) or record.holders(unit)
    event.snapshot_candidates = unit.snapshot_candidates
    if state.waiting_copies:
        waiting_copies.expire(state, change.stamp, record.max_ahead_us)
    outcome = unit.steps[_step(change)](state, unit.plan, event)
    if unit.plan.agreement == "past" and change.operation != DECISION:
        is_new = change.operation != SNAPSHOT and outcome not in (UNMATCHED, REPEATED)
        remember_value(state, event.source, event.holders, is_new=is_new)
    front = state.frontier
    if front & (front - 1) or state.always_checked or state.diverged or state.baselines or state.lost_updates:
        record.unsettled[unit.name] = None
    elif record.unsettled:
        record.unsettled.pop(unit.name, None)
    if record.compacts and len(state.writes) > record.units.limits.writes:
        compact(state, record.units.limits)
    return outcome


def _step(change: Change) -> int:
    """The place of the change's step in `Unit.steps`: apply, copy, snapshot, decide."""
    if change.operation == SNAPSHOT:
        return 2
    if change.operation == DECISION:
        return 3
    return 0 if change.copy is None else 1


def _checked(state: UnitState, unit: Unit) -> str:
    """`conflict`, or `merged` where nothing conflicts or a rule answers by itself."""
    conflicting = unit.type.conflicting_writes(state, unit.plan, state.frontier_writes())
    has_conflict = conflicting and auto_resolution.automatic_answer(state, unit.plan, conflicting) is None
    return "conflict" if has_conflict else MERGED
