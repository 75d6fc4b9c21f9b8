"""The commonest change of all in a few steps: the only holder of a value writes on, and nothing else is going on.

What it leaves is what a genuine edit (`Cell.write`) and then `compact` would have left, in the same two objects: the standing write
becomes what was before it, and the object of what was before it becomes the new standing write. Whatever is not as simple as that is
answered with False, and nothing was done. The law suite compares with the full fold, which never comes here.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.merge.cell import Cell
from cdc_merge.merge.steps import adds_nothing, itself
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import NO_DELETES, REFUSED, WRITE
from cdc_merge.model import UNKNOWN, Change, MaybeValue

# The masks of a cell that keeps two writes, the second having seen the first.
FORMER: Final = 1
STANDING: Final = 2
BOTH: Final = 3
NEXT: Final = 4


def succeeds(  # noqa: C901, PLR0911, PLR0912, PLR0913, PLR0917 - the hot path, in one piece
    cell: Cell, unit: Unit, source: str, change: Change, before: MaybeValue, after: MaybeValue
) -> bool:
    """Whether the change, a genuine update by the cell's only source, was taken as the successor of its standing write."""
    sides = cell.sides
    if cell.next != NEXT or cell.frontier != STANDING or len(sides) != 1 or unit.adds is None:
        return False
    if cell.overwritten or cell.baselines or cell.sets or cell.waiting or cell.deletes:
        return False
    if cell.past or cell.watched or cell.traces or cell.diverged:
        return False
    side = sides.get(source)
    if side is None or side.seen != BOTH:
        return False
    writes = cell.writes
    former, standing = writes[FORMER], writes[STANDING]
    if former.kind != WRITE or standing.kind != WRITE:
        return False
    if before is UNKNOWN:
        before = side.value
        if before is UNKNOWN:
            return False
    keyed = unit.keyed
    key, was = (after, before) if keyed is itself else (keyed(after), keyed(before))
    if was == key:
        return False
    part = None if unit.adds is adds_nothing else unit.adds(before, after)
    if part is REFUSED:
        return False
    if former.part is not None:
        standing.part = former.part if standing.part is None else cell.traits.together(former.part, standing.part)
    standing.bit, standing.seen, standing.after = FORMER, 0, FORMER
    former.bit, former.seen, former.after = STANDING, FORMER, BOTH
    former.source, former.change, former.value, former.key = source, change, after, key
    former.before, former.part = before, part
    former.inserts, former.deletes = side.inserts, NO_DELETES
    former.is_set = former.is_gap = False
    writes[FORMER], writes[STANDING] = standing, former
    side.value, side.key, side.by = after, key, change
    side.untouched = side.ended = False
    return True
