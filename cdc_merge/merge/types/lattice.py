"""lattice: concurrent writes read as their least upper bound in an order (a chain or a graph), even one that was never written.

`order` is a list (each element below the next) or a mapping from an element to those directly above it. Where no least upper
bound exists, or a value is not listed, the writes conflict and the latest stamp is provisional. NULL is below everything.
Only concurrent writes are joined: a writer who has seen the old value may go anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import MISSING, Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.model.plan import FieldPlan


def _above(order: Any, value: object) -> frozenset[object]:
    """The value and all that lies above it; empty for an unlisted value."""
    if isinstance(order, Mapping):
        return _reachable(order, value)
    listed: Sequence[object] = list(order)
    return frozenset(listed[listed.index(value) :]) if value in listed else frozenset()


def _reachable(order: Mapping[object, Iterable[object]], value: object) -> frozenset[object]:
    listed = set(order) | {above for several in order.values() for above in several}
    reached: set[object] = set()
    pending = [value] if value in listed else []
    while pending:
        here = pending.pop()
        if here not in reached:
            reached.add(here)
            pending.extend(order.get(here, ()))
    return frozenset(reached)


def join(plan: FieldPlan, values: Iterable[object]) -> object:
    """The least upper bound, or MISSING."""
    order = plan.options.get("order", ())
    distinct = {v for v in values if v is not None}
    if len(distinct) < 2:
        return next(iter(distinct), None)
    common = frozenset.intersection(*[_above(order, v) for v in distinct])
    for bound in common:
        if common <= _above(order, bound):
            return bound
    return MISSING


def _joined(plan: FieldPlan, front: list[Write]) -> object:
    if not register_ops.differing_writes(front):
        return register_ops.latest(front).value
    if any(w.value is not None and not _above(plan.options.get("order", ()), w.value) for w in front):
        return MISSING
    return join(plan, [w.value for w in front])


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    joined: Any = _joined(plan, front)
    return register_ops.latest(front).value if joined is MISSING else joined


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    present = [value for _, value in views if value is not UNKNOWN]
    joined: Any = join(plan, present) if present else MISSING
    return register_ops.first_in_order(state, plan, views) if joined is MISSING else joined


def conflicting_writes(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return front if _joined(plan, front) is MISSING else []


TYPE = mv.TYPE._replace(
    name="lattice",
    traits=Traits(agrees=True, settles=False, overwrites=False),
    read=read,
    start=start,
    conflicting_writes=conflicting_writes,
)
