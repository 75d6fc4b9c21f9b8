"""Operation-based counters and logs with resets: a delta adds to the value that it stands on, a reset replaces it.

The value is the latest reset that no other reset has seen, plus the deltas that this one had not seen. A reset concurrent
with a delta or with a different reset is a conflict; equal concurrent resets agree. A decision is a reset to which deltas
that it had not seen add without a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from cdc_merge.merge import baselines, register_ops
from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, DECIDED, MISSING, Write
from cdc_merge.model import INSERT, UNKNOWN, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan

Measure: TypeAlias = Callable[[UnitState, Write], bool]
"""Note as `write.delta` what an update adds to `write.before`. False: the update is a reset."""


def apply_with(measure: Measure) -> Callable[[UnitState, FieldPlan, Event], str]:
    """The step of a genuine edit. An insert is a reset; a first insert of NULL and SET a = a write nothing."""

    def apply(state: UnitState, plan: FieldPlan, event: Event) -> str:
        key, insert = state.key_of(event.after), event.inserted
        before = event.before if event.before is not UNKNOWN else state.value_at(event.source)
        inserted = insert is not None and event.change.operation == INSERT
        same = not inserted and before is not UNKNOWN and state.key_of(before) == key
        if same or (insert is not None and insert.first and (event.after is None or event.after is ABSENT)):
            state.set_value(event.source, event.change, event.after, key)
            return register_ops.REPEATED
        if inserted and state.baselines:
            _promote_baselines(state, event)
        write = state.add_write(event.source, event.change, event.after, key)
        write.before = before
        register_ops.record_context(state, write, event)
        if insert is not None or not measure(state, write):
            _add_reset(state, write, event)
        write.after = state.by_source[event.source].seen
        register_ops.apply_consensus(state, plan, event)
        return register_ops.APPLIED if state.frontier == write.bit else register_ops.MERGED

    return apply


def _promote_baselines(state: UnitState, event: Event) -> None:
    """First-snapshot values that stand against a first insert are resets."""
    if event.inserted is None or not event.inserted.first:
        return
    promoted = baselines.promote_baselines(state, event.source, event.holders)
    for baseline in state.writes_in(promoted):
        baseline.is_reset = True
    state.resets |= promoted


def _add_reset(state: UnitState, write: Write, event: Event) -> None:
    write.is_reset = True
    state.resets &= ~write.seen
    if not any(other.seen & write.bit for other in state.writes_in(state.resets)):
        state.resets |= write.bit
    for other in state.writes_in(state.resets & state.frontier):
        equal = other is not write and other.key == write.key
        if equal and state.key_at(other.source) == write.key and other.source in event.holders:
            mine, theirs = state.by_source[write.source], state.by_source[other.source]
            mine.seen = theirs.seen = mine.seen | theirs.seen


def decide(state: UnitState, plan: FieldPlan, event: Event) -> str:
    write = state.add_decision(event.change, event.after, state.key_of(event.after))
    write.deletes = event.deletes
    write.is_reset = True
    state.resets = write.bit
    return register_ops.APPLIED


def end(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """Deltas that the delete had seen end with the other old values."""
    ended = state.all_writes if everything else state.deletes.get(delete, 0)
    for write in state.writes_in(ended & sum(state.writes)):
        write.delta, write.delta_unknown = None, False
    for at_source in state.by_source.values():
        at_source.delta_base = UNKNOWN
    register_ops.start_incarnation(state, delete, source, everything)


def delta_bases(state: UnitState) -> Iterator[MaybeValue]:
    """The values that deltas may add to, in the order of `from:`: of sources that hold the record, without NULL."""
    for source in state.order:
        at_source = state.by_source.get(source)
        if at_source is not None and at_source.key is not MISSING and not _is_empty(at_source.delta_base):
            yield at_source.delta_base


def _is_empty(base: MaybeValue) -> bool:
    return base is UNKNOWN or base is None or base is ABSENT


def any_null_base(state: UnitState) -> bool:
    """A source that holds the record began with NULL."""
    return any(at_source.key is not MISSING and at_source.delta_base is None for at_source in state.by_source.values())


def standing_resets(state: UnitState, front: list[Write]) -> list[Write]:
    """The resets that the writes of `front` are, or have seen."""
    reach = 0
    for write in front:
        reach |= write.bit | write.seen
    return [*state.writes_in(state.resets & reach)]


def unseen_deltas(state: UnitState, seen: int) -> list[Write]:
    """The writes with a delta that are not in `seen`; combined deltas may add up to 0."""
    return [w for w in state.writes.values() if w.delta is not None and not w.bit & seen]


def conflicting_writes(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    for reset in standing_resets(state, front):
        if any(_conflict(reset, write) for write in front):
            return front
    return []


def _conflict(reset: Write, write: Write) -> bool:
    """`write` is concurrent with the reset and sets another value, or adds to it; deltas add to a decision without a conflict."""
    if write is reset or write.bit & reset.seen or reset.bit & write.seen:
        return False
    return write.key != reset.key if write.is_reset else reset.kind != DECIDED and not write.delta_unknown
