"""priority, a register with ranked writers: the highest-ranked source of the frontier (`order:`), then the latest stamp."""

from __future__ import annotations

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Write
from cdc_merge.model import DECISION_SOURCE, MaybeValue
from cdc_merge.model.plan import FieldPlan


def _rank(plan: FieldPlan, source: str) -> int:
    order = list(plan.options.get("order", ()))
    if source == DECISION_SOURCE:
        return -1
    return order.index(source) if source in order else len(order)


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    best = min(_rank(plan, w.source) for w in front)
    return register_ops.latest([w for w in front if _rank(plan, w.source) == best]).value


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    ranked = sorted(views, key=lambda view: _rank(plan, view[0]))
    return register_ops.first_in_order(state, plan, ranked)


TYPE = mv.TYPE._replace(name="priority", read=read, start=start, conflicting_writes=register_ops.no_conflicts)
