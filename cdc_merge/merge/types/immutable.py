"""immutable, a write-once register: bound to the latest decision, else to the first value that is not NULL, also of a snapshot.

Of several first snapshots the first source of `from:` that has a value binds. Any other value in the frontier is a conflict,
even from a writer who had seen the bound one. `type_state` is the binding: (key, value, rank), None while unbound;
`resets` keeps the write that bound.
"""

from __future__ import annotations

from typing import Any

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Event, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import MISSING, Write
from cdc_merge.model import UNKNOWN, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan

# Bound by a write or decision: no snapshot may take its place.
WRITTEN = -1


def _bind(state: UnitState, value: MaybeValue, rank: int) -> None:
    if value is not None and value is not UNKNOWN:
        state.type_state = (state.key_of(value), value, rank)


def zero(state: UnitState, plan: FieldPlan) -> None:
    state.always_checked = True


def apply(state: UnitState, plan: FieldPlan, event: Event) -> str:
    unbound, before = state.type_state is None, state.next_bit
    if unbound:
        _bind(state, event.after, WRITTEN)
    outcome = register_ops.apply_write(state, plan, event)
    if unbound and state.type_state is not None and state.next_bit != before:
        state.resets = before
    return outcome


def snapshot(state: UnitState, plan: FieldPlan, event: Event) -> str:
    rank = state.order.index(event.source) if event.source in state.order else len(state.order)
    if state.at(event.source).snapshot_key is MISSING and (state.type_state is None or rank < state.type_state[2]):
        _bind(state, event.after, rank)
    return register_ops.apply_snapshot_read(state, plan, event)


def decide(state: UnitState, plan: FieldPlan, event: Event) -> str:
    state.type_state = (state.key_of(event.after), event.after, WRITTEN)
    state.resets = state.next_bit
    return register_ops.apply_decision(state, plan, event)


def end(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """A new incarnation unbinds, unless the delete had not seen the write that bound: then the earliest write left binds."""
    register_ops.start_incarnation(state, delete, source, everything)
    if state.resets:
        return
    state.type_state = None
    remaining = [w for w in state.frontier_writes() if w.value is not None]
    if remaining:
        _bind(state, remaining[0].value, WRITTEN)
        state.resets = remaining[0].bit


def dump_state(state: UnitState) -> list[Any]:
    return list(state.type_state[1:])


def load_state(state: UnitState, plan: FieldPlan) -> None:
    if state.type_state is not None:
        value, rank = state.type_state
        state.type_state = (state.key_of(value), value, rank)


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return register_ops.latest(front).value if state.type_state is None else state.type_state[1]


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    return register_ops.first_in_order(state, plan, views) if state.type_state is None else state.type_state[1]


def conflicting_writes(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    bound = None if state.type_state is None else state.type_state[0]
    return front if any(w.key != bound for w in front) else []


TYPE = mv.TYPE._replace(
    name="immutable",
    zero=zero,
    apply=apply,
    snapshot=snapshot,
    decide=decide,
    end=end,
    read=read,
    start=start,
    conflicting_writes=conflicting_writes,
)._replace(dump_state=dump_state, load_state=load_state)
