"""Forgetting what can never matter again, so that one more change costs the same however long a history is.

Writes outside the frontier matter only through the sets that contain them: two such writes contained in the same sets can never be told
apart again, so the later of them stays, with what both add (`Traits.together`). The full fold never compacts; the law suite compares.
"""

from __future__ import annotations

from typing import Any

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import BASELINE, MANY_INSERTS, Insert, SourceState, Write

Joins = list[tuple[Write, Write]]
"""(forgotten, what stands for it), in the order in which they were joined."""


def compact(cell: UnitState, joins: Joins | None = None) -> None:
    """Forget what can never matter again; masks are renumbered. Exact: see the module's header. `joins` is told which
    write stands for which from here on."""
    if any(len(side.inserts) > MANY_INSERTS for side in cell.sides.values()):
        _compact_inserts(cell)
    if _is_plain(cell) and _compact_plain(cell, joins):
        return
    keep = cell.frontier | cell.overwritten | cell.baselines | cell.sets
    for waiting in cell.waiting:
        keep |= waiting.replaced | waiting.written
    keep |= _open_gaps(cell)
    for write in cell.writes.values():
        keep |= write.bit if write.is_reset and cell.held(write.source) == write.key else 0
    masks = [side.seen for side in cell.sides.values()]
    masks.extend(cell.deletes.values())
    masks.extend(seen for held in cell.past.values() for _, seen in held)
    for write in cell.of(keep):
        masks.append(write.seen)
        masks.append(write.after)
    if cell.traits.binds:
        keep = _keep_first(cell, keep, masks)
    _renumber(cell, _representatives(cell, keep, masks, joins))


def _compact_inserts(cell: UnitState) -> None:
    """Inserts that the same sides and writes go back to can never be told apart again: the latest of each kind stays
    for all of them."""
    owners: list[SourceState | Write] = [*cell.sides.values(), *cell.writes.values()]
    latest: dict[tuple[object, ...], Insert] = {}
    for insert in sorted(frozenset[Insert]().union(*[owner.inserts for owner in owners])):
        held_by = tuple([insert in owner.inserts for owner in owners])
        latest[insert.stamp if insert.baseline else insert.first, held_by] = insert
    kept = frozenset(latest.values())
    for owner in owners:
        owner.inserts &= kept


def _is_plain(cell: UnitState) -> bool:
    """One write stands and nothing else is kept: the common case, in which compacting is a few steps."""
    front = cell.frontier
    kept = cell.overwritten | cell.baselines | cell.sets | (front & (front - 1))
    return not (kept or cell.waiting or cell.deletes or cell.past or cell.watched) and front != 0


def _compact_plain(cell: UnitState, joins: Joins | None) -> bool:
    """All that the standing write has seen becomes one write, if every source has seen all of it or nothing of it."""
    front = cell.writes[cell.frontier]
    old = [w for w in cell.writes.values() if w is not front and w.kind != BASELINE]
    over = sum([w.bit for w in old])
    sides = cell.sides.values()
    if not old or over & ~front.seen or any(side.seen & over not in (0, over) for side in sides):
        return False
    latest = max(old, key=lambda w: w.change.stamp)
    for write in old:
        if write is not latest and write.delta is not None:
            latest.delta = _both(cell, write.delta, latest.delta)
    if joins is not None:
        joins += [(write, latest) for write in old if write is not latest]
    for side in sides:
        side.seen = (1 if side.seen & over else 0) | (2 if side.seen & front.bit else 0)
        side.overruled = 0
    latest.bit, latest.seen, latest.after = 1, 0, 1
    front.bit, front.seen, front.after = 2, 1, 3
    cell.writes = {1: latest, 2: front}
    cell.frontier, cell.next = 2, 4
    return True


def _representatives(cell: UnitState, keep: int, masks: list[int], joins: Joins | None) -> list[Write]:
    classes: dict[tuple[bool, ...], Write] = {}
    survivors: list[Write] = []
    for write in cell.writes.values():
        if write.bit & keep:
            survivors.append(write)
            continue
        if write.kind == BASELINE:
            continue
        signature = tuple([bool(mask & write.bit) for mask in masks])
        earlier = classes.get(signature)
        if earlier is None:
            classes[signature] = write
        else:
            later, older = (write, earlier) if write.stamp > earlier.stamp else (earlier, write)
            if not cell.traits.binds:
                later.delta = _both(cell, older.delta, later.delta)
            classes[signature] = later
            if joins is not None:
                joins.append((older, later))
    survivors.extend(classes.values())
    return sorted(survivors, key=lambda w: w.bit)


def _keep_first(cell: UnitState, keep: int, masks: list[int]) -> int:
    """Of the writes that cannot be told apart the first stays too: a new life may bind the value to it."""
    found: dict[tuple[bool, ...], Write] = {}
    for write in sorted(cell.writes.values(), key=lambda w: w.stamp):
        if write.delta and not write.bit & keep:
            found.setdefault(tuple([bool(mask & write.bit) for mask in masks]), write)
    for write in found.values():
        keep |= write.bit
        masks += (write.seen, write.after)
    return keep


def _open_gaps(cell: UnitState) -> int:
    """The unknown deltas that no rewrite has seen: each is a candidate of its own."""
    if not cell.watched:
        return 0
    gaps, settled = 0, 0
    for write in cell.of(cell.sets):
        settled |= write.seen
    for write in cell.writes.values():
        gaps |= write.bit if write.delta_unknown else 0
    return gaps & ~settled


def _both(cell: UnitState, one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else cell.traits.together(one, other)


def _renumber(cell: UnitState, survivors: list[Write]) -> None:  # noqa: C901 - one loop for each kind of mask
    renamed = {write.bit: 1 << index for index, write in enumerate(survivors)}

    def moved(mask: int) -> int:
        out = 0
        for old, new in renamed.items():
            if mask & old:
                out |= new
        return out

    cell.frontier, cell.overwritten = moved(cell.frontier), moved(cell.overwritten)
    cell.baselines, cell.sets = moved(cell.baselines), moved(cell.sets)
    for side in cell.sides.values():
        side.seen, side.overruled = moved(side.seen), moved(side.overruled)
    for delete, seen in cell.deletes.items():
        cell.deletes[delete] = moved(seen)
    for pair, held in cell.past.items():
        cell.past[pair] = [(key, moved(seen)) for key, seen in held]
    for waiting in cell.waiting:
        waiting.replaced, waiting.written = moved(waiting.replaced), moved(waiting.written)
    for write in survivors:
        write.bit = renamed[write.bit]
        write.seen, write.after = moved(write.seen), moved(write.after)
    cell.writes = {write.bit: write for write in survivors}
    cell.next = 1 << len(survivors)
