"""mv, a multi-value register: every concurrent value is kept and needs a decision; provisional is the latest. Any value type."""

from __future__ import annotations

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import MergeType
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import MaybeValue
from cdc_merge.model.plan import FieldPlan


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return register_ops.latest(front).value


def conflicting_writes(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return register_ops.differing_writes(front)


TYPE = MergeType(
    name="mv",
    traits=Traits(agrees=True, settles=True, overwrites=True),
    comparison_key=register_ops.comparison_key,
    zero=register_ops.no_preparation,
    apply=register_ops.apply_write,
    copy=register_ops.apply_copy,
    snapshot=register_ops.apply_snapshot_read,
    decide=register_ops.apply_decision,
    record_delete_context=register_ops.record_delete_context,
    end=register_ops.start_incarnation,
    read=read,
    start=register_ops.first_in_order,
    conflicting_writes=conflicting_writes,
)
