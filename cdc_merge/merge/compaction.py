"""Compaction: a unit state forgets the writes that cannot matter again, so that a change costs the same after a long history.

A write outside the frontier matters only through the masks that contain it. Two such writes that the same masks contain cannot be
told apart any more: the later one stays, with the deltas of both (`Traits.combine`). The full fold never compacts; the law
suite compares the two.
"""

from __future__ import annotations

from typing import Any

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import BASELINE, CompactionLimits, Insert, SourceState, Write

Joins = list[tuple[Write, Write]]
"""(forgotten, what stands for it), in the order in which they were joined."""


def compact(state: UnitState, limits: CompactionLimits, joins: Joins | None = None) -> None:
    """Forget what cannot matter again and renumber the masks. Exact: see the module's header. `joins` collects which write
    stands for which from here on."""
    if any(len(at_source.inserts) > limits.inserts for at_source in state.by_source.values()):
        _compact_inserts(state)
    if _is_plain(state) and _compact_plain(state, joins):
        return
    keep = state.frontier | state.overwritten | state.baselines | state.resets
    for waiting in state.waiting_copies:
        keep |= waiting.replaced | waiting.written
    keep |= _unknown_deltas(state)
    for write in state.writes.values():
        keep |= write.bit if write.is_reset and state.key_at(write.source) == write.key else 0
    masks = [at_source.seen for at_source in state.by_source.values()]
    masks.extend(state.deletes.values())
    masks.extend(seen for values in state.past_values.values() for _, seen in values)
    for write in state.writes_in(keep):
        masks.append(write.seen)
        masks.append(write.after)
    if state.traits.binds:
        keep = _keep_first(state, keep, masks)
    _renumber(state, _representatives(state, keep, masks, joins))


def _compact_inserts(state: UnitState) -> None:
    """Inserts that the same sources and writes descend from cannot be told apart: the latest of each kind stands for all."""
    owners: list[SourceState | Write] = [*state.by_source.values(), *state.writes.values()]
    latest: dict[tuple[object, ...], Insert] = {}
    for insert in sorted(frozenset[Insert]().union(*[owner.inserts for owner in owners])):
        descendants = tuple([insert in owner.inserts for owner in owners])
        latest[insert.stamp if insert.baseline else insert.first, descendants] = insert
    kept = frozenset(latest.values())
    for owner in owners:
        owner.inserts &= kept


def _is_plain(state: UnitState) -> bool:
    """The frontier is one write and nothing else is kept: the common case, in which compacting is a few steps."""
    front = state.frontier
    kept = state.overwritten | state.baselines | state.resets | (front & (front - 1))
    return (
        not (kept or state.waiting_copies or state.deletes or state.past_values or state.always_checked) and front != 0
    )


def _compact_plain(state: UnitState, joins: Joins | None) -> bool:
    """All that the frontier write has seen becomes one write, if every source has seen all of it or nothing of it."""
    front = state.writes[state.frontier]
    old = [w for w in state.writes.values() if w is not front and w.kind != BASELINE]
    over = sum([w.bit for w in old])
    sources = state.by_source.values()
    if not old or over & ~front.seen or any(at_source.seen & over not in (0, over) for at_source in sources):
        return False
    latest = max(old, key=lambda w: w.change.stamp)
    for write in old:
        if write is not latest and write.delta is not None:
            latest.delta = _combined(state, write.delta, latest.delta)
    if joins is not None:
        joins += [(write, latest) for write in old if write is not latest]
    for at_source in sources:
        at_source.seen = (1 if at_source.seen & over else 0) | (2 if at_source.seen & front.bit else 0)
        at_source.overruled = 0
    latest.bit, latest.seen, latest.after = 1, 0, 1
    front.bit, front.seen, front.after = 2, 1, 3
    state.writes = {1: latest, 2: front}
    state.frontier, state.next_bit = 2, 4
    return True


def _representatives(state: UnitState, keep: int, masks: list[int], joins: Joins | None) -> list[Write]:
    classes: dict[tuple[bool, ...], Write] = {}
    survivors: list[Write] = []
    for write in state.writes.values():
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
            if not state.traits.binds:
                later.delta = _combined(state, older.delta, later.delta)
            classes[signature] = later
            if joins is not None:
                joins.append((older, later))
    survivors.extend(classes.values())
    return sorted(survivors, key=lambda w: w.bit)


def _keep_first(state: UnitState, keep: int, masks: list[int]) -> int:
    """`keep` with the first of the writes that cannot be told apart: a new incarnation may bind the value to it."""
    first: dict[tuple[bool, ...], Write] = {}
    for write in sorted(state.writes.values(), key=lambda w: w.stamp):
        if write.delta and not write.bit & keep:
            first.setdefault(tuple([bool(mask & write.bit) for mask in masks]), write)
    for write in first.values():
        keep |= write.bit
        masks += (write.seen, write.after)
    return keep


def _unknown_deltas(state: UnitState) -> int:
    """The unknown deltas that no reset has seen: each is a candidate of its own."""
    if not state.always_checked:
        return 0
    unknown, settled = 0, 0
    for write in state.writes_in(state.resets):
        settled |= write.seen
    for write in state.writes.values():
        unknown |= write.bit if write.delta_unknown else 0
    return unknown & ~settled


def _combined(state: UnitState, one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else state.traits.combine(one, other)


def _renumber(state: UnitState, survivors: list[Write]) -> None:  # noqa: C901 - one loop for each kind of mask
    renamed = {write.bit: 1 << index for index, write in enumerate(survivors)}

    def moved(mask: int) -> int:
        out = 0
        for old, new in renamed.items():
            if mask & old:
                out |= new
        return out

    state.frontier, state.overwritten = moved(state.frontier), moved(state.overwritten)
    state.baselines, state.resets = moved(state.baselines), moved(state.resets)
    for at_source in state.by_source.values():
        at_source.seen, at_source.overruled = moved(at_source.seen), moved(at_source.overruled)
    for delete, seen in state.deletes.items():
        state.deletes[delete] = moved(seen)
    for pair, values in state.past_values.items():
        state.past_values[pair] = [(key, moved(seen)) for key, seen in values]
    for waiting in state.waiting_copies:
        waiting.replaced, waiting.written = moved(waiting.replaced), moved(waiting.written)
    for write in survivors:
        write.bit = renamed[write.bit]
        write.seen, write.after = moved(write.seen), moved(write.after)
    state.writes = {write.bit: write for write in survivors}
    state.next_bit = 1 << len(survivors)
