"""immutable, a write-once register: bound to the latest decision, else to the first value that is not NULL, also of a snapshot.

Of several first snapshots the first source of `from:` that has a value binds. Any other value in the frontier is a conflict,
even from a writer who had seen the bound one. `type_state` is the binding: (key, value, rank), None while unbound;
`resets` keeps the write that bound; `delta` marks the writes that may bind: with a value, and not ended by a new incarnation.
"""

from __future__ import annotations

from typing import Any

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Event, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, MISSING, WRITE, Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan

# Bound by a write or decision: no snapshot may take its place.
WRITTEN = -1


def _bind(state: UnitState, value: MaybeValue, rank: int) -> None:
    if value is not None and value is not UNKNOWN and value is not ABSENT:
        state.type_state = (state.key_of(value), value, rank)


def zero(state: UnitState, plan: FieldPlan) -> None:
    state.always_checked = True


def apply(state: UnitState, plan: FieldPlan, event: Event) -> str:
    unbound, before = state.type_state is None, state.next_bit
    if unbound:
        _bind(state, event.after, WRITTEN)
    outcome = register_ops.apply_write(state, plan, event)
    if state.next_bit != before:
        write = state.writes[before]
        if write.value is not None and write.value is not ABSENT:
            write.delta = True
        if unbound and state.type_state is not None:
            state.resets = before
    elif unbound:
        state.type_state = None  # a change that is no write binds nothing
    return outcome


def snapshot(state: UnitState, plan: FieldPlan, event: Event) -> str:
    rank = state.order.index(event.source) if event.source in state.order else len(state.order)
    before, event.snapshot_candidates = state.next_bit, True
    is_first = state.at(event.source).snapshot_key is MISSING
    binds = is_first and (state.type_state is None or rank < state.type_state[2])
    if binds:
        _bind(state, event.after, rank)
    outcome = register_ops.apply_snapshot_read(state, plan, event)
    if binds and state.next_bit != before:
        state.resets = before
    return outcome


def decide(state: UnitState, plan: FieldPlan, event: Event) -> str:
    state.type_state = (state.key_of(event.after), event.after, WRITTEN)
    state.resets = state.next_bit
    return register_ops.apply_decision(state, plan, event)


def end(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """A new incarnation unbinds, unless the delete had not seen the write that bound: then the earliest write left binds."""
    ended = state.all_writes if everything else state.deletes.get(delete, 0)
    for write in state.writes_in(ended & sum(state.writes)):
        write.delta = None
    register_ops.start_incarnation(state, delete, source, everything)
    if state.resets:
        return
    state.type_state = None
    remaining = [w for w in state.writes.values() if w.delta]
    if remaining:
        first = min(remaining, key=lambda w: w.stamp)
        _bind(state, first.value, WRITTEN)
        state.resets = first.bit


def dump_state(state: UnitState) -> list[Any]:
    return list(state.type_state[1:])


def load_state(state: UnitState, plan: FieldPlan) -> None:
    if state.type_state is not None:
        value, rank = state.type_state
        state.type_state = (state.key_of(value), value, rank)
    for write in state.writes_in(state.frontier):  # checkpoints of FOLD_VERSION 2 have no marks
        if write.kind == WRITE and write.value is not None and write.value is not ABSENT:
            write.delta = True


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return register_ops.latest(front).value if state.type_state is None else state.type_state[1]


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    return register_ops.first_in_order(state, plan, views) if state.type_state is None else state.type_state[1]


def conflicting_writes(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    bound = None if state.type_state is None else state.type_state[0]
    if all(w.key == bound for w in front):
        return []
    binding = state.writes.get(state.resets)
    if binding is None or any(w.key == bound for w in front):
        return front
    return sorted([binding, *front], key=lambda w: w.stamp)


TYPE = mv.TYPE._replace(
    name="immutable",
    traits=Traits(agrees=True, settles=True, overwrites=True, binds=True, combine=max),
    zero=zero,
    apply=apply,
    snapshot=snapshot,
    decide=decide,
    end=end,
    read=read,
    start=start,
    conflicting_writes=conflicting_writes,
)._replace(dump_state=dump_state, load_state=load_state)
