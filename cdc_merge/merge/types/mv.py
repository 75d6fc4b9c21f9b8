"""mv: every concurrent value is kept and people are asked; provisional is the latest stamp. Any type of value."""

from __future__ import annotations

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import MergeType
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import MaybeValue
from cdc_merge.model.plan import FieldPlan


def read(cell: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return register_ops.latest(front).value


def conflicting_writes(cell: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return register_ops.differing(front)


TYPE = MergeType(
    name="mv",
    traits=Traits(agrees=True, settles=True, overwrites=True),
    keyed=register_ops.normalized,
    zero=register_ops.nothing,
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
