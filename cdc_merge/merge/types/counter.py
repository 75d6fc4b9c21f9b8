"""counter: base plus the sum of every source's deltas; exact.

An update from a number to a number is a delta. An insert, NULL → n and n → NULL are sets. The value is the latest set
that no other set has seen, plus the deltas which it had not seen. A set concurrent with a delta or with a different set
is asked about; equal concurrent sets agree. A delta whose base is unknown counts as nothing and is asked about
(`unknown_base`).
"""

from __future__ import annotations

from decimal import Decimal

from cdc_merge.merge import parts, steps
from cdc_merge.merge.cell import Cell
from cdc_merge.merge.merge_type import Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.writes import ABSENT, Traits, Write, plus
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.plan import FieldPlan

Number = Decimal | int


def number(value: MaybeValue) -> Number | None:
    return value if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def zero(cell: Cell, plan: FieldPlan) -> None:
    cell.watched = plan.options.get("min") is not None or plan.options.get("max") is not None


def _delta(cell: Cell, write: Write) -> bool:
    """Note what an update from a number to a number adds."""
    before, old, new = write.before, number(write.before), number(write.value)
    if before is None or before is ABSENT or new is None:
        return False
    if old is None:
        write.is_gap = cell.watched = True
    else:
        write.part = plus(new, -old)
        side = cell.sides[write.source]
        if side.base is UNKNOWN and not cell.sets and base(cell) is None:
            side.base = old  # the first count that is known; what it was before that is asked (`unknown_base`)
    return True


def base(cell: Cell) -> Number | None:
    return next((value for value in map(number, parts.bases(cell)) if value is not None), None)


def read(cell: Cell, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    standing = parts.standing(cell, front)
    if standing:
        latest = max(standing, key=lambda w: w.stamp)
        value, seen = number(latest.value), latest.seen | latest.bit
        if latest.value is ABSENT and not parts.unseen(cell, seen):
            return ABSENT
    else:
        value, seen = base(cell), 0
    unseen = parts.unseen(cell, seen)
    for write in unseen:
        value = write.part if value is None else plus(value, write.part)
    return UNKNOWN if value is None and not standing and not unseen and not parts.null_held(cell) else value


def start(cell: Cell, plan: FieldPlan, views: Views) -> MaybeValue:
    value = base(cell)
    return steps.first_in_order(cell, plan, views) if value is None else value


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
    zero=zero,
    apply=parts.applying(_delta),
    decide=parts.decide,
    end=parts.end,
    read=read,
    start=start,
    asks=parts.asks,
)
