"""mv: every concurrent value is kept and people are asked; provisional is the latest stamp. Any type of value."""

from __future__ import annotations

from cdc_merge.merge import steps
from cdc_merge.merge.cell import Cell
from cdc_merge.merge.merge_type import MergeType
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import MaybeValue
from cdc_merge.plan import FieldPlan


def read(cell: Cell, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return steps.latest(front).value


def asks(cell: Cell, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return steps.differing(front)


TYPE = MergeType(
    name="mv",
    traits=Traits(agrees=True, settles=True, overwrites=True),
    keyed=steps.normalized,
    zero=steps.nothing,
    apply=steps.edit,
    copy=steps.repeat,
    snapshot=steps.observe,
    decide=steps.settle_question,
    witness=steps.witness,
    end=steps.end,
    read=read,
    start=steps.first_in_order,
    asks=asks,
)
