"""Whether an update changes anything at its source: `SET a = a` is not a write (semantics §3).

The units find this out by themselves. It is computed beforehand only where a whole row depends on it: the first genuine edit
of a row that a marked insert brought back counts as the insert (§2 rule 2).
"""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.merge import map_fields
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Unit, group_values
from cdc_merge.model import UNKNOWN, Change, MaybeValue


def changes_anything(record: Record, change: Change, source: str) -> bool:
    """Some field, group or map of the change differs from its value at the source, as far as that is known."""
    return any(
        after is not UNKNOWN and (before is UNKNOWN or unit.key_of(before) != unit.key_of(after))
        for unit, before, after in _unit_values(record, change, source)
    ) or any(_changes_map(record, field, change, source) for field in change.fields)


def _unit_values(record: Record, change: Change, source: str) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    """Each field and group of the change, with (before, after)."""
    units = record.units
    for field, (before, after) in change.fields.items():
        unit = units.by_name.get(field)
        if unit is not None:
            yield unit, _value_at(record, unit, source) if before is UNKNOWN else before, after
    for plan, fields in units.grouped(change.fields):
        unit = units.by_name[plan.name]
        yield unit, *group_values(plan, fields, _value_at(record, unit, source))


def _value_at(record: Record, unit: Unit, source: str) -> MaybeValue:
    state = record.unit_states.get(unit.name)
    return UNKNOWN if state is None else state.value_at(source)


def _changes_map(record: Record, field: str, change: Change, source: str) -> bool:
    plan = record.units.entity.fields.get(field)
    if plan is None or plan.merge != "map":
        return False
    before, after = change.fields[field]
    if before is UNKNOWN and (field, source) not in record.map_keys:
        return after is not UNKNOWN
    keys = record.map_keys[field, source] if before is UNKNOWN else map_fields.parsed(before)
    return after is not UNKNOWN and (map_fields.parsed(after) or {}) != (keys or {})
