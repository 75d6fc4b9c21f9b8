"""Whether an update says anything that its source did not hold already: `SET a = a` is not a write (semantics §3).

The cells find this out by themselves. It is asked beforehand only where a whole row depends on it: the first genuine edit of a row
that a marked insert brought back counts as the insert (§2 rule 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cdc_merge.merge import map_fields
from cdc_merge.merge.units import Unit, group_values
from cdc_merge.model import UNKNOWN, Change, MaybeValue

if TYPE_CHECKING:
    from cdc_merge.merge.record_state import Record


def changes_anything(record: Record, change: Change, source: str) -> bool:
    """Some field, group or map of the change differs from what the source held, as far as that is known."""
    return any(
        after is not UNKNOWN and (before is UNKNOWN or unit.keyed(before) != unit.keyed(after))
        for unit, before, after in _told(record, change, source)
    ) or any(_map_differs(record, field, change, source) for field in change.fields)


def _told(record: Record, change: Change, source: str) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    units = record.units
    for field, (before, after) in change.fields.items():
        unit = units.by_name.get(field)
        if unit is not None:
            yield unit, _held(record, unit, source) if before is UNKNOWN else before, after
    for plan, fields in units.grouped(change.fields):
        unit = units.by_name[plan.name]
        yield unit, *group_values(plan, fields, _held(record, unit, source))


def _held(record: Record, unit: Unit, source: str) -> MaybeValue:
    cell = record.cells.get(unit.name)
    return UNKNOWN if cell is None else cell.view(source)


def _map_differs(record: Record, field: str, change: Change, source: str) -> bool:
    plan = record.units.entity.fields.get(field)
    if plan is None or plan.merge != "map":
        return False
    before, after = change.fields[field]
    if before is UNKNOWN and (field, source) not in record.map_keys:
        return after is not UNKNOWN
    held = record.map_keys[field, source] if before is UNKNOWN else map_fields.parsed(before)
    return after is not UNKNOWN and (map_fields.parsed(after) or {}) != (held or {})
