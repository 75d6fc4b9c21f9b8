"""What a folded record says: the merged record, its views, and which writes count at present."""

from __future__ import annotations

from typing import Any, Final

from cdc_merge.merge import auto_resolution, map_fields
from cdc_merge.merge.record_state import NONE, PRESENT, Delete, Record, opposes
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.merge.writes import ABSENT, BASELINE, Write
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, MaybeValue, MergedRecord, SourceView, Value

JOINING: Final = frozenset({"counter", "append", "set"})  # a delete takes nothing out of their frontiers


def merged(record: Record) -> MergedRecord:
    """The merged record with every source's view. An ended record has no values."""
    gone = ended(record)
    return MergedRecord(
        entity=record.units.entity.name,
        key=record.key,
        deleted=gone,
        values={} if gone else values(record),
        sources={source: view(record, source) for source in record.units.entity.sources if source in record.rows},
    )


def values(record: Record) -> dict[str, Value]:
    """One value per field; unknown ones are left out, groups appear as their members, maps as objects."""
    found: dict[str, MaybeValue] = {}
    trees: dict[str, dict[str, Any]] = {}
    for name, cell in record.cells.items():
        unit = record.unit_of[name]
        value = value_of(record, unit, cell)
        if unit.owner in record.units.entity.fields and unit.name != unit.owner:
            trees.setdefault(unit.owner, {})[name] = value
        elif unit.plan.members:
            found.update(members_of(unit.plan, value))
        else:
            found[name] = value
    found.update(_maps(record, trees))
    return {name: value for name, value in found.items() if value is not UNKNOWN}


def _maps(record: Record, trees: dict[str, dict[str, Any]]) -> dict[str, MaybeValue]:
    """A map is NULL where every holder's map is NULL and no key is left, else the object of its keys."""
    found: dict[str, MaybeValue] = {}
    for plan in record.units.entity.fields.values():
        if plan.merge != "map":
            continue
        held = [h for (name, source), h in record.map_keys.items() if name == plan.name and source in record.present]
        document = map_fields.assembled(plan, trees.get(plan.name, {}))
        is_null = bool(held) and all(map(map_fields.is_null, held)) and document == map_fields.EMPTY
        if held or plan.name in trees:
            found[plan.name] = None if is_null else document
    return found


def value_of(record: Record, unit: Unit, cell: UnitState) -> MaybeValue:
    """The merged (or provisional) value of one unit; ABSENT for a map key that is not there."""
    front = effective(record, unit, cell)
    if front:
        value = unit.type.read(cell, unit.plan, front)
        asked = unit.type.conflicting_writes(cell, unit.plan, front) if unit.plan.auto else []
        return auto_resolution.read(cell, unit.plan, asked, value) if asked else value
    views = [(s, cell.sides[s].value) for s in record.holders(unit) if s in cell.sides]
    there = [(s, v) for s, v in views if v is not ABSENT]
    if not there and views:
        return ABSENT  # type: ignore[no-any-return]
    return unit.type.start(cell, unit.plan, there)


def effective(record: Record, unit: Unit, cell: UnitState) -> list[Write]:
    """What the value is read from: the record stays readable while a delete that has seen everything is opposed elsewhere."""
    return standing(record, unit, cell) or cell.front()


def standing(record: Record, unit: Unit, cell: UnitState) -> list[Write]:
    """The frontier without what a delete that still counts had seen: what may be asked about."""
    front = cell.front()
    if not record.deletes or unit.plan.merge in JOINING:
        return front
    over = _seen_by_deletes(record, unit, cell)
    return [w for w in front if not w.bit & over]


def _seen_by_deletes(record: Record, unit: Unit, cell: UnitState) -> int:
    """What the deletes that still count have seen, of units that their sources map."""
    over = 0
    for delete in record.deletes:
        if delete.source == DECISION_SOURCE or record.units.maps(delete.source, unit):
            over |= cell.deletes.get(delete.stamp, 0)
    return over


def counting(record: Record) -> list[Delete]:
    """The deletes that no other delete has seen."""
    seen = NONE.union(*[delete.known for delete in record.deletes])
    return [delete for delete in record.deletes if delete.stamp not in seen]


def opposing(record: Record, delete: Delete) -> list[tuple[Unit, Write]]:
    """The writes of the frontiers that no delete had seen and whose writers had not seen this one."""
    found = []
    for name, cell in record.cells.items():
        over = _seen_by_deletes(record, record.unit_of[name], cell)
        for write in cell.front():
            if write.kind != BASELINE and not write.bit & over and opposes(cell, write, delete):
                found.append((record.unit_of[name], write))
    return found


def ended(record: Record) -> bool:
    """An unopposed delete ends the record (with `delete_wins` any delete); so does that no source holds it."""
    if not any(row.presence == PRESENT for row in record.rows.values()):
        return bool(record.rows)
    if record.units.entity.deletes == "delete_wins":
        return bool(record.deletes)
    return any(not opposing(record, delete) for delete in counting(record))


def view(record: Record, source: str) -> SourceView:
    """What one source is known to hold."""
    row = record.rows[source]
    held: dict[str, MaybeValue] = {}
    if row.presence == PRESENT:
        for name, cell in record.cells.items():
            plan = record.unit_of[name].plan
            value = cell.view(source)
            if value is not UNKNOWN and name == record.unit_of[name].owner:
                held.update(members_of(plan, value) if plan.members else {name: value})
        held.update(_held_maps(record, source))
    return SourceView(row.presence, {f: v for f, v in held.items() if v is not UNKNOWN}, row.last)


def _held_maps(record: Record, source: str) -> dict[str, MaybeValue]:
    found: dict[str, MaybeValue] = {}
    for plan in record.units.entity.fields.values():
        if plan.merge == "map" and (plan.name, source) in record.map_keys:
            keys = record.map_keys[(plan.name, source)]
            held = {f"{plan.name}.{k}": v for k, v in (keys or {}).items()}
            found[plan.name] = None if map_fields.is_null(keys) else map_fields.assembled(plan, held)
    return found
