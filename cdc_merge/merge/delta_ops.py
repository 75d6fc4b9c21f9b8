"""What counters and logs share: a rewrite (`is_set`) says the whole value, a part adds to whatever it stands on.

The value is the latest rewrite that no other rewrite has seen, plus the parts which that one had not seen. A rewrite
concurrent with a part or with a different rewrite is asked about; equal concurrent rewrites agree. A decision is a
rewrite to which parts that it had not seen add without a question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, BASELINE, DECIDED, Insert, SourceState, Write
from cdc_merge.model import INSERT, UNKNOWN, Stamp
from cdc_merge.model.plan import FieldPlan

Measure: TypeAlias = Callable[[UnitState, Write], bool]
"""A type's own word on an update: note what it adds to `write.before`. False: it is a rewrite."""


def applying(measure: Measure, *, equal_are_one: bool = False) -> Callable[[UnitState, FieldPlan, Event], str]:
    """The step of a genuine edit. What begins a row is a rewrite; a first insert of NULL and SET a = a write nothing."""

    def apply(cell: UnitState, plan: FieldPlan, event: Event) -> str:
        key, born = cell.keyed(event.after), event.inserted
        before = event.before if event.before is not UNKNOWN else cell.view(event.source)
        inserted = born is not None and event.change.operation == INSERT
        same = not inserted and before is not UNKNOWN and cell.keyed(before) == key
        if same or (born is not None and born.first and (event.after is None or event.after is ABSENT)):
            cell.hold(event.source, event.change, event.after, key)
            return register_ops.REPEATED
        if inserted and cell.baselines:
            _wake(cell, event)
        write = cell.write(event.source, event.change, event.after, key)
        write.before = before
        register_ops.describe(cell, write, event)
        if inserted or not measure(cell, write):
            _rewrite(cell, write, event, equal_are_one=equal_are_one)
        elif cell.base is UNKNOWN:
            _fix_base(cell, write, event.holders)
        write.after = cell.sides[event.source].seen
        if cell.waiting:
            cell.answer(write)
        for chosen in [*cell.of(cell.sets)]:
            cell.sets &= ~chosen.seen
        register_ops.apply_consensus(cell, plan, event)
        return register_ops.APPLIED if cell.frontier == write.bit else register_ops.MERGED

    return apply


def _fix_base(cell: UnitState, write: Write, holders: tuple[str, ...]) -> None:
    """What the parts add to: what the first source of `from:` that has a value held just before the first of them."""
    for source in holders:
        value = write.before if source == write.source else cell.view(source)
        if value is not UNKNOWN and value is not None and value is not ABSENT:
            cell.base = value
            return
    if not write.delta_unknown:
        cell.base = None


def _wake(cell: UnitState, event: Event) -> None:
    """First-snapshot values that stand against a first insert are rewrites."""
    if event.inserted is None or not event.inserted.first:
        return
    woken = cell.wake(event.source, event.holders)
    for first in cell.of(woken):
        first.is_reset = True
    cell.sets |= woken


def _rewrite(cell: UnitState, write: Write, event: Event, *, equal_are_one: bool) -> None:
    write.is_reset = True
    cell.sets &= ~write.seen
    twins = [twin for twin in cell.writes.values() if _equal(cell, twin, write, event.holders)]
    if not any(other.seen & write.bit for other in cell.of(cell.sets)):
        cell.sets |= write.bit
    # Who holds what was set, and had seen one of the equal ones, agrees.
    equal = write.bit | sum([twin.bit for twin in twins])
    alike = [cell.sides[s] for s in event.holders if cell.held(s) == write.key]
    rests = [side for side in alike if _counts_as_insert(side, write, cell.sides[write.source])]
    firsts = {side.baseline for side in rests}
    sides = [side for side in alike if side.seen & equal or side.inserts & firsts]
    together = 0
    for side in sides:
        together |= side.seen
    for side in sides:
        side.seen = together
    for twin in twins if equal_are_one else ():
        _make_one(cell, twin, write)
    for side in rests if equal_are_one else ():
        _see_one(cell, write, side.baseline)


def _equal(cell: UnitState, twin: Write, write: Write, holders: tuple[str, ...]) -> bool:
    """Another rewrite to the same, neither having seen the other, that no rewrite has seen or that its source still holds."""
    if twin is write or not twin.is_reset or twin.key != write.key or twin.kind == DECIDED:
        return False
    stands = twin.bit & cell.sets or (twin.source in holders and cell.held(twin.source) == twin.key)
    return bool(stands) and not twin.bit & write.seen and not write.bit & twin.seen


def _counts_as_insert(side: SourceState, write: Write, writer: SourceState) -> bool:
    """What a source still holds since its first snapshot counts as an insert against a first insert elsewhere (§4)."""
    if side.baseline is None or not side.untouched or side.over or side.baseline in writer.inserts:
        return False
    return any(i.first and not i.baseline and i.stamp > side.baseline.stamp for i in writer.inserts)


def _see_one(cell: UnitState, write: Write, baseline: Insert | None) -> None:
    """The first-snapshot value that a source still holds is an equal rewrite too: what goes back to it has seen this one."""
    for other in cell.writes.values():
        if other is not write and baseline in other.inserts and other.kind != BASELINE:
            other.seen |= write.bit
            other.after |= write.bit
            cell.frontier &= ~write.bit


def _make_one(cell: UnitState, twin: Write, write: Write) -> None:
    """Equal rewrites of a log are one: who has seen one has seen the other, and each stands for what both had seen."""
    twin.seen = write.seen = twin.seen | write.seen
    seers: list[SourceState | Write] = [*cell.sides.values(), *cell.writes.values()]
    for seer in seers:
        if seer.seen & twin.bit:
            seer.seen |= write.bit
    for other in cell.writes.values():
        if other.after & twin.bit:
            other.after |= write.bit
        if other.seen & write.bit:
            cell.frontier &= ~write.bit


def decide(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    write = cell.decide(event.change, event.after, cell.keyed(event.after))
    write.deletes = event.deletes
    write.is_reset = True
    cell.sets = write.bit
    if cell.waiting:
        cell.answer(write)
    return register_ops.APPLIED


def end(cell: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """Parts that the delete had seen are over with the other old values."""
    ended = cell.everything if everything else cell.deletes.get(delete, 0)
    for write in cell.of(ended & sum(cell.writes)):
        write.delta, write.delta_unknown, write.is_reset = None, False, False
    if all(write.delta is None for write in cell.writes.values()):
        cell.base = UNKNOWN
    register_ops.start_incarnation(cell, delete, source, everything)


def null_held(cell: UnitState) -> bool:
    """Somebody is known to hold NULL."""
    return any(side.value is None for side in cell.sides.values())


def standing(cell: UnitState, front: list[Write]) -> list[Write]:
    """The rewrites that the writes of `front` are or rest on."""
    reach = 0
    for write in front:
        reach |= write.bit | write.seen
    return [*cell.of(cell.sets & reach)]


def unseen(cell: UnitState, seen: int) -> list[Write]:
    """The writes that bring a part and are not in `seen`; parts that were put together may add up to 0."""
    return [w for w in cell.writes.values() if w.delta is not None and not w.bit & seen]


def conflicting_writes(cell: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    for chosen in standing(cell, front):
        if any(_disputes(chosen, write) for write in front):
            return front
    return []


def _disputes(chosen: Write, write: Write) -> bool:
    """`write` is concurrent with the rewrite `chosen` and says something else; parts add to a decision unasked."""
    if write is chosen or write.bit & chosen.seen or chosen.bit & write.seen:
        return False
    return write.key != chosen.key if write.is_reset else chosen.kind != DECIDED and not write.delta_unknown
