"""max, min: the greatest or least value of the frontier, not of the history: a writer who has seen 9 may lower a max to 2.

NULL gives way to any value; a frontier of nothing but NULL reads NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import MergeType, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue, Value
from cdc_merge.model.plan import FieldPlan
from cdc_merge.values.postgres_text import order_key

Pick = Callable[..., Value]


def _extreme(pick: Pick, values: Iterable[MaybeValue]) -> MaybeValue:
    present = [v for v in values if v is not UNKNOWN]
    written = [v for v in present if v is not None]
    if written:
        return pick(written, key=order_key)
    return None if present else UNKNOWN


def _reading(pick: Pick) -> Callable[[UnitState, FieldPlan, list[Write]], MaybeValue]:
    def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
        return _extreme(pick, [w.value for w in front])

    return read


def _starting(pick: Pick) -> Callable[[UnitState, FieldPlan, Views], MaybeValue]:
    def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
        return _extreme(pick, [value for _, value in views])

    return start


def _type(name: str, pick: Pick) -> MergeType:
    return mv.TYPE._replace(
        name=name,
        traits=Traits(agrees=True, settles=False, overwrites=False),
        read=_reading(pick),
        start=_starting(pick),
        conflicting_writes=register_ops.no_conflicts,
    )


MAX = _type("max", max)
MIN = _type("min", min)
