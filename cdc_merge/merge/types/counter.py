"""counter: base plus the sum of every source's deltas; exact.

An update from a number to a number is a delta. An insert, NULL → n and n → NULL are sets. The value is the latest set that no
other set has seen, plus the deltas which it had not seen. A set concurrent with a delta or with a different set is asked
about; equal concurrent sets agree. A delta whose base is unknown counts as nothing and is asked about (`unknown_base`).
"""

from __future__ import annotations

from decimal import Decimal

from cdc_merge.merge import steps
from cdc_merge.merge.cell import BASELINE, DECIDED, Cell, Traits, Write, plus
from cdc_merge.merge.merge_type import Event, Views
from cdc_merge.merge.types import mv
from cdc_merge.model import INSERT, UNKNOWN, MaybeValue, Stamp
from cdc_merge.plan import FieldPlan

Number = Decimal | int


def number(value: MaybeValue) -> Number | None:
    return value if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def zero(cell: Cell, plan: FieldPlan) -> None:
    cell.watched = plan.options.get("min") is not None or plan.options.get("max") is not None


def apply(cell: Cell, plan: FieldPlan, event: Event) -> str:
    source, after = event.source, event.after
    before = event.before if event.before is not UNKNOWN else cell.view(source)
    inserted = event.born is not None and event.change.row == INSERT
    if not inserted and before == after and before is not UNKNOWN:
        cell.hold(source, event.change, after, after)
        return steps.REPEATED
    if event.born is not None and event.born.first and after is None:
        cell.hold(source, event.change, None, None)
        return steps.REPEATED
    is_set = inserted or before is None or number(after) is None
    write = cell.write(source, event.change, after, after)
    write.before = before
    steps.describe(cell, write, event)
    if is_set:
        _set(cell, write, event)
    else:
        _delta(cell, write, before, after)
    write.after = cell.sides[source].seen
    steps.everybody(cell, plan, event)
    return steps.APPLIED if cell.frontier == write.bit else steps.MERGED


def _set(cell: Cell, write: Write, event: Event) -> None:
    write.is_set = True
    cell.sets &= ~write.seen
    if not any(other.seen & write.bit for other in cell.of(cell.sets)):
        cell.sets |= write.bit
    for other in list(cell.of((cell.sets & cell.frontier) | cell.baselines)):
        if other is not write and other.key == write.key and cell.held(other.source) == write.key:
            if other.source in event.holders:
                mine, theirs = cell.sides[write.source], cell.sides[other.source]
                mine.seen = theirs.seen = mine.seen | theirs.seen


def _delta(cell: Cell, write: Write, before: MaybeValue, after: MaybeValue) -> None:
    old, new = number(before), number(after)
    if old is None or new is None:
        write.is_gap = cell.watched = True
    else:
        write.total = plus(new, -old)


def decide(cell: Cell, plan: FieldPlan, event: Event) -> str:
    write = cell.decide(event.change, event.after, event.after)
    write.deletes = event.deletes
    write.is_set = True
    cell.sets = write.bit
    return steps.APPLIED


def end(cell: Cell, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    ended = cell.everything if everything else cell.deletes.get(delete, 0)
    for write in cell.of(ended & sum(cell.writes)):
        write.total = 0
    for side in cell.sides.values():
        side.first = UNKNOWN
    steps.end(cell, delete, source, everything)


def base(cell: Cell) -> Number | None:
    """The first snapshot value of the first source of `from:` that has one; NULL counts as absent."""
    found = (number(cell.sides[source].first) for source in cell.order if source in cell.sides)
    return next((value for value in found if value is not None), None)


def read(cell: Cell, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    standing = _standing(cell, front)
    if standing:
        latest = max(standing, key=lambda w: w.stamp)
        start, seen = number(latest.value), latest.seen | latest.bit
    else:
        start, seen = base(cell), 0
    unseen = [w.total for w in cell.writes.values() if not w.bit & seen and not w.is_set and w.total]
    value = start
    for delta in unseen:
        value = delta if value is None else plus(value, delta)
    return value


def start(cell: Cell, plan: FieldPlan, views: Views) -> MaybeValue:
    value = base(cell)
    return steps.first_in_order(cell, plan, views) if value is None else value


def asks(cell: Cell, plan: FieldPlan, front: list[Write]) -> list[Write]:
    if any(write.kind == BASELINE for write in front):
        return front
    for chosen in _standing(cell, front):
        if any(_disputes(chosen, write) for write in front):
            return front
    return []


def _standing(cell: Cell, front: list[Write]) -> list[Write]:
    """The sets that the writes of `front` are or rest on."""
    reach = 0
    for write in front:
        reach |= write.bit | write.seen
    return [*cell.of(cell.sets & reach)]


def _disputes(chosen: Write, write: Write) -> bool:
    """`write` is concurrent with the set `chosen` and says something else; deltas add to a decision without a question."""
    if write is chosen or write.bit & chosen.seen or chosen.bit & write.seen:
        return False
    return write.key != chosen.key if write.is_set else chosen.kind != DECIDED and not write.is_gap


def outside(plan: FieldPlan, value: MaybeValue) -> bool:
    """The merged value leaves `min`/`max`."""
    known = number(value)
    if known is None:
        return False
    low, high = plan.options.get("min"), plan.options.get("max")
    return (low is not None and known < low) or (high is not None and known > high)


TYPE = mv.TYPE._replace(
    name="counter",
    traits=Traits(agrees=False, settles=False, overwrites=False),
    automatic=True,
    zero=zero,
    apply=apply,
    decide=decide,
    end=end,
    read=read,
    start=start,
    asks=asks,
)
