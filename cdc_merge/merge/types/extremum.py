"""max, min: the greatest or least value of the frontier. A writer who has seen 9 may lower a max to 2.

NULL gives way to any value; a frontier of nothing but NULL reads NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cdc_merge.mapping.values import order_key
from cdc_merge.merge import steps
from cdc_merge.merge.cell import Cell
from cdc_merge.merge.merge_type import MergeType, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue, Value
from cdc_merge.plan import FieldPlan

Pick = Callable[..., Value]


def _extreme(pick: Pick, values: Iterable[MaybeValue]) -> MaybeValue:
    known = [v for v in values if v is not UNKNOWN]
    written = [v for v in known if v is not None]
    if written:
        return pick(written, key=order_key)
    return None if known else UNKNOWN


def _reading(pick: Pick) -> Callable[[Cell, FieldPlan, list[Write]], MaybeValue]:
    def read(cell: Cell, plan: FieldPlan, front: list[Write]) -> MaybeValue:
        return _extreme(pick, [w.value for w in front])

    return read


def _starting(pick: Pick) -> Callable[[Cell, FieldPlan, Views], MaybeValue]:
    def start(cell: Cell, plan: FieldPlan, views: Views) -> MaybeValue:
        return _extreme(pick, [value for _, value in views])

    return start


def _type(name: str, pick: Pick) -> MergeType:
    return mv.TYPE._replace(
        name=name,
        traits=Traits(agrees=True, settles=False, overwrites=False),
        read=_reading(pick),
        start=_starting(pick),
        asks=steps.no_questions,
    )


MAX = _type("max", max)
MIN = _type("min", min)
