"""flag, a boolean of which one value wins among concurrent writes (`wins: true` or `wins: false`). NULL gives way."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.model.plan import FieldPlan


def _join(plan: FieldPlan, values: Iterable[MaybeValue]) -> MaybeValue:
    present = [v for v in values if v is not UNKNOWN]
    written = [v for v in present if v is not None]
    winner = bool(plan.options.get("wins", True))
    if not written:
        return None if present else UNKNOWN
    return winner if winner in written else not winner


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return _join(plan, [w.value for w in front])


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    return _join(plan, [value for _, value in views])


TYPE = mv.TYPE._replace(
    name="flag",
    traits=Traits(agrees=True, settles=False, overwrites=False),
    read=read,
    start=start,
    conflicting_writes=register_ops.no_conflicts,
)
