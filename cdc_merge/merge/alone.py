"""Whose plain updates of a record can ask nothing, whatever they say: those of the only source that has it.

Such an update is the successor of values that its source has seen, all of them its own. Nobody stands against it, no type, check or
rule has a word on it, so that it can be folded later, together with others: the record is the same then, and nothing is asked late.
What would be asked of it is asked when somebody else comes, by the ordinary way. The law suite compares.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.merge.cell import Cell
from cdc_merge.merge.record import PRESENT, Record
from cdc_merge.merge.steps import itself
from cdc_merge.merge.units import Unit, Units

NOBODY: Final = ""


def writer_of(record: Record) -> str:
    """The source whose plain updates can ask nothing, if its entity's cannot; NOBODY where there is none."""
    if len(record.rows) != 1:
        return NOBODY
    if record.deletes or record.known or record.waiting or record.drifts or record.map_keys or record.caught:
        return NOBODY
    ((source, row),) = record.rows.items()
    if row.presence != PRESENT or row.kept or row.fresh or row.twins or row.identity is not None:
        return NOBODY
    if row.by is not None and row.by.moved_from is not None:
        return NOBODY
    return source if all(_is_its_own(cell, source) for cell in record.cells.values()) else NOBODY


def asks_nothing(units: Units) -> bool:
    """No type of the entity has questions of its own, or more to do for an update than to take it."""
    if units.catches is not None or units.timed or not units.plain:
        return False
    return all(
        unit.adds is not None and unit.keyed is itself and not _is_watched(unit) for unit in units.by_name.values()
    )


def _is_watched(unit: Unit) -> bool:
    cell = Cell(unit.type.traits, unit.keyed, unit.order)
    unit.type.zero(cell, unit.plan)
    return cell.watched


def _is_its_own(cell: Cell, source: str) -> bool:
    """The source has written, or at least seen, all that stands; nothing waits to be asked or told."""
    if cell.overwritten or cell.waiting or cell.deletes or cell.traces or cell.diverged or cell.watched or cell.past:
        return False
    if (cell.frontier | cell.baselines | cell.sets) & ~cell.seen(source):
        return False
    return all(name == source for name in cell.sides) and all(write.source == source for write in cell.writes.values())
