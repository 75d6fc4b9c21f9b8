"""counter, a PN-counter with resets: the base plus the sum of every source's deltas; exact.

An update from a number to a number is a delta. An insert, NULL → n and n → NULL are resets. The value is the latest reset
that no other reset has seen, plus the deltas which it had not seen. A reset concurrent with a delta or with a different
reset is a conflict; equal concurrent resets agree. A delta whose base is unknown counts as nothing and is a conflict
(`unknown_base`).
"""

from __future__ import annotations

from decimal import Decimal

from cdc_merge.merge import delta_ops
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, Traits, Write, plus
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.model.plan import FieldPlan

Number = Decimal | int


def number(value: MaybeValue) -> Number | None:
    return value if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def zero(state: UnitState, plan: FieldPlan) -> None:
    state.always_checked = plan.options.get("min") is not None or plan.options.get("max") is not None


def _delta(state: UnitState, write: Write) -> bool:
    """Note what an update from a number to a number adds."""
    before, old, new = write.before, number(write.before), number(write.value)
    if before is None or before is ABSENT or new is None:
        return False
    if old is None:
        write.delta_unknown = state.always_checked = True
    else:
        write.delta = plus(new, -old)
    return True


def base(state: UnitState) -> Number | None:
    return number(state.delta_base)


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    standing = delta_ops.standing_resets(state, front)
    if standing:
        latest = max(standing, key=lambda w: w.stamp)
        value, seen = number(latest.value), latest.seen | latest.bit
        if latest.value is ABSENT and not delta_ops.unseen_deltas(state, seen):
            return ABSENT
    else:
        value, seen = base(state), 0
    unseen = delta_ops.unseen_deltas(state, seen)
    for write in unseen:
        value = write.delta if value is None else plus(value, write.delta)
    return UNKNOWN if value is None and not standing and not unseen and not delta_ops.any_null(state) else value


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
    apply=delta_ops.apply_with(_delta),
    decide=delta_ops.decide,
    end=delta_ops.end,
    read=read,
    conflicting_writes=delta_ops.conflicting_writes,
)
