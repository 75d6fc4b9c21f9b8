"""Reading a record: the merged record, the view of each source, and the writes that count at present. Nothing here writes."""

from __future__ import annotations

from typing import Any, Final

from cdc_merge.merge import auto_resolution, map_fields
from cdc_merge.merge.record_state import NO_STAMPS, PRESENT, Delete, Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.merge.writes import ABSENT, BASELINE, Write
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, MaybeValue, MergedRecord, SourceView, Value

# Types that join concurrent writes: a delete takes nothing out of their frontiers.
JOINING: Final = frozenset({"counter", "append", "set"})


def merged(record: Record) -> MergedRecord:
    """The merged record with every source's view. An ended record has no values."""
    is_deleted = ended(record)
    return MergedRecord(
        entity=record.units.entity.name,
        key=record.key,
        deleted=is_deleted,
        values={} if is_deleted else values(record),
        sources={
            source: source_view(record, source) for source in record.units.entity.sources if source in record.rows
        },
    )


def values(record: Record) -> dict[str, Value]:
    """One value per field; unknown ones are left out, groups appear as their members, maps as objects."""
    by_field: dict[str, MaybeValue] = {}
    trees: dict[str, dict[str, Any]] = {}
    for name, state in record.unit_states.items():
        unit = record.unit_of[name]
        value = value_of(record, unit, state)
        if unit.owner in record.units.entity.fields and unit.name != unit.owner:
            trees.setdefault(unit.owner, {})[name] = value
        elif unit.plan.members:
            by_field.update(members_of(unit.plan, value))
        else:
            by_field[name] = value
    by_field.update(_merged_maps(record, trees))
    return {name: value for name, value in by_field.items() if value is not UNKNOWN}


def _merged_maps(record: Record, trees: dict[str, dict[str, Any]]) -> dict[str, MaybeValue]:
    """A map is NULL where every holder's map is NULL and no key is left, else the object of its keys."""
    maps: dict[str, MaybeValue] = {}
    for plan in record.units.entity.fields.values():
        if plan.merge != "map":
            continue
        keys = [k for (name, source), k in record.map_keys.items() if name == plan.name and source in record.present]
        document = map_fields.assembled(plan, trees.get(plan.name, {}))
        is_null = bool(keys) and all(map(map_fields.is_null, keys)) and document == map_fields.EMPTY
        if keys or plan.name in trees:
            maps[plan.name] = None if is_null else document
    return maps


def value_of(record: Record, unit: Unit, state: UnitState) -> MaybeValue:
    """The merged (or provisional) value of one unit; ABSENT for an absent map key."""
    front = readable_frontier(record, unit, state)
    if front:
        value = unit.type.read(state, unit.plan, front)
        conflicting = unit.type.conflicting_writes(state, unit.plan, front) if unit.plan.auto else []
        return auto_resolution.value_with_answer(state, unit.plan, conflicting, value) if conflicting else value
    views = [(s, state.by_source[s].value) for s in record.holders(unit) if s in state.by_source]
    present = [(s, v) for s, v in views if v is not ABSENT]
    if not present and views:
        return ABSENT  # type: ignore[no-any-return]
    return unit.type.start(state, unit.plan, present)


def readable_frontier(record: Record, unit: Unit, state: UnitState) -> list[Write]:
    """The writes that the value is read from: a record stays readable while a delete that has seen them is opposed elsewhere."""
    return live_frontier(record, unit, state) or state.frontier_writes()


def live_frontier(record: Record, unit: Unit, state: UnitState) -> list[Write]:
    """The frontier without the writes that a delete which still counts had seen: the possible candidates of a conflict."""
    front = state.frontier_writes()
    if not record.deletes or unit.plan.merge in JOINING:
        return front
    seen = _seen_by_deletes(record, unit, state)
    return [w for w in front if not w.bit & seen]


def _seen_by_deletes(record: Record, unit: Unit, state: UnitState) -> int:
    """The joint context of the deletes that still count, of units that their sources map."""
    seen = 0
    for delete in record.deletes:
        if delete.source == DECISION_SOURCE or record.units.maps(delete.source, unit):
            seen |= state.deletes.get(delete.stamp, 0)
    return seen


def unseen_deletes(record: Record) -> list[Delete]:
    """The deletes that no other delete has seen."""
    seen = NO_STAMPS.union(*[delete.seen_deletes for delete in record.deletes])
    return [delete for delete in record.deletes if delete.stamp not in seen]


def writes_unseen_by(record: Record, delete: Delete) -> list[tuple[Unit, Write]]:
    """The frontier writes that oppose a delete: no delete had seen them, and their writers had not seen this one."""
    writes = []
    for name, state in record.unit_states.items():
        seen = _seen_by_deletes(record, record.unit_of[name], state)
        for write in state.frontier_writes():
            if write.kind != BASELINE and not write.bit & seen and delete.is_concurrent_with(write, state):
                writes.append((record.unit_of[name], write))
    return writes


def ended(record: Record) -> bool:
    """The record is deleted: no source holds it, or a delete is unopposed (with `delete_wins` any delete)."""
    if not any(row.presence == PRESENT for row in record.rows.values()):
        return bool(record.rows)
    if record.units.entity.deletes == "delete_wins":
        return bool(record.deletes)
    return any(not writes_unseen_by(record, delete) for delete in unseen_deletes(record))


def source_view(record: Record, source: str) -> SourceView:
    """The values of one source, as far as they are known."""
    row = record.rows[source]
    by_field: dict[str, MaybeValue] = {}
    if row.presence == PRESENT:
        for name, state in record.unit_states.items():
            plan = record.unit_of[name].plan
            value = state.value_at(source)
            if value is not UNKNOWN and name == record.unit_of[name].owner:
                by_field.update(members_of(plan, value) if plan.members else {name: value})
        by_field.update(_maps_of(record, source))
    return SourceView(row.presence, {f: v for f, v in by_field.items() if v is not UNKNOWN}, row.last)


def _maps_of(record: Record, source: str) -> dict[str, MaybeValue]:
    maps: dict[str, MaybeValue] = {}
    for plan in record.units.entity.fields.values():
        if plan.merge == "map" and (plan.name, source) in record.map_keys:
            keys = record.map_keys[(plan.name, source)]
            by_path = {f"{plan.name}.{k}": v for k, v in (keys or {}).items()}
            maps[plan.name] = None if map_fields.is_null(keys) else map_fields.assembled(plan, by_path)
    return maps
