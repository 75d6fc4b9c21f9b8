"""immutable: bound to the latest decision, else to the first value that is not NULL, a snapshot's included.

Of several first snapshots the first source of `from:` that has a value binds. Any other value in the frontier is a conflict,
even from a writer who had seen the bound one. `cell.extra` is the binding: (key, value, rank), None while unbound;
`cell.sets` keeps the write that bound. `delta` marks the writes that may bind: with a value, and not ended by a new life.
"""

from __future__ import annotations

from typing import Any

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Event, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, MISSING, Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan

# Bound by a write or decision: no snapshot may take its place.
WRITTEN = -1


def _bind(cell: UnitState, value: MaybeValue, rank: int) -> None:
    if value is not None and value is not UNKNOWN and value is not ABSENT:
        cell.extra = (cell.keyed(value), value, rank)


def zero(cell: UnitState, plan: FieldPlan) -> None:
    cell.watched = True


def apply(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    unbound, before = cell.extra is None, cell.next
    if unbound:
        _bind(cell, event.after, WRITTEN)
    outcome = register_ops.apply_write(cell, plan, event)
    if cell.next != before:
        write = cell.writes[before]
        if write.value is not None and write.value is not ABSENT:
            write.delta = True
        if unbound and cell.extra is not None:
            cell.sets = before
    elif unbound:
        cell.extra = None  # what was no write binds nothing
    return outcome


def snapshot(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    rank = cell.order.index(event.source) if event.source in cell.order else len(cell.order)
    before, event.rivals = cell.next, True
    binds = cell.side(event.source).first_key is MISSING and (cell.extra is None or rank < cell.extra[2])
    if binds:
        _bind(cell, event.after, rank)
    outcome = register_ops.apply_snapshot_read(cell, plan, event)
    if binds and cell.next != before:
        cell.sets = before
    return outcome


def decide(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    cell.extra = (cell.keyed(event.after), event.after, WRITTEN)
    cell.sets = cell.next
    return register_ops.apply_decision(cell, plan, event)


def end(cell: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """A new life unbinds, unless the delete had not seen the write that bound: then the earliest left binds."""
    over = cell.everything if everything else cell.deletes.get(delete, 0)
    for write in cell.of(over & sum(cell.writes)):
        write.delta = None
    register_ops.start_incarnation(cell, delete, source, everything)
    if cell.sets:
        return
    cell.extra = None
    left = [w for w in cell.writes.values() if w.delta]
    if left:
        first = min(left, key=lambda w: w.stamp)
        _bind(cell, first.value, WRITTEN)
        cell.sets = first.bit


def dump_state(cell: UnitState) -> list[Any]:
    return list(cell.extra[1:])


def load_state(cell: UnitState, plan: FieldPlan) -> None:
    if cell.extra is not None:
        value, rank = cell.extra
        cell.extra = (cell.keyed(value), value, rank)


def read(cell: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return register_ops.latest(front).value if cell.extra is None else cell.extra[1]


def start(cell: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    return register_ops.first_in_order(cell, plan, views) if cell.extra is None else cell.extra[1]


def conflicting_writes(cell: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    bound = None if cell.extra is None else cell.extra[0]
    if all(w.key == bound for w in front):
        return []
    binding = cell.writes.get(cell.sets)
    if binding is None or any(w.key == bound for w in front):
        return front
    return sorted([binding, *front], key=lambda w: w.stamp)


TYPE = mv.TYPE._replace(
    name="immutable",
    traits=Traits(agrees=True, settles=True, overwrites=True, binds=True, together=max),
    zero=zero,
    apply=apply,
    snapshot=snapshot,
    decide=decide,
    end=end,
    read=read,
    start=start,
    conflicting_writes=conflicting_writes,
)._replace(dump_state=dump_state, load_state=load_state)
