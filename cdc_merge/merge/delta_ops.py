"""Operation-based counters and logs with resets: a delta adds to the value that it stands on, a reset replaces it.

The value is the latest reset that no other reset has seen, plus the deltas that this one had not seen. A reset concurrent
with a delta or with a different reset is a conflict; equal concurrent resets agree. A decision is a reset to which deltas
that it had not seen add without a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from cdc_merge.merge import baselines, register_ops, waiting_copies
from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, BASELINE, DECIDED, MISSING, Insert, SourceState, Write
from cdc_merge.model import INSERT, UNKNOWN, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan

Measure: TypeAlias = Callable[[UnitState, Write], bool]
"""Note as `write.delta` what an update adds to `write.before`. False: the update is a reset."""


def apply_with(measure: Measure, *, unifies_resets: bool = False) -> Callable[[UnitState, FieldPlan, Event], str]:
    """The step of a genuine edit. An insert is a reset; a first insert of NULL and SET a = a write nothing. `unifies_resets`:
    equal concurrent resets are one."""

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
        if inserted or not measure(state, write):
            _add_reset(state, write, event, unifies_resets=unifies_resets)
        elif state.delta_base is UNKNOWN:
            _fix_delta_base(state, write, event.holders)
        write.after = state.by_source[event.source].seen
        if state.waiting_copies:
            waiting_copies.match(state, write)
        for reset in [*state.writes_in(state.resets)]:
            state.resets &= ~reset.seen
        register_ops.apply_consensus(state, plan, event)
        return register_ops.APPLIED if state.frontier == write.bit else register_ops.MERGED

    return apply


def _fix_delta_base(state: UnitState, write: Write, holders: tuple[str, ...]) -> None:
    """Deltas add to the value that the first source of `from:` with a value held just before the first of them."""
    for source in holders:
        value = write.before if source == write.source else state.value_at(source)
        if value is not UNKNOWN and value is not None and value is not ABSENT:
            state.delta_base = value
            return
    if not write.delta_unknown:
        state.delta_base = None


def _promote_baselines(state: UnitState, event: Event) -> None:
    """First-snapshot values that stand against a first insert are resets."""
    if event.inserted is None or not event.inserted.first:
        return
    promoted = baselines.promote_baselines(state, event.source, event.holders)
    for baseline in state.writes_in(promoted):
        baseline.is_reset = True
    state.resets |= promoted


def _add_reset(state: UnitState, write: Write, event: Event, *, unifies_resets: bool) -> None:
    write.is_reset = True
    state.resets &= ~write.seen
    equals = [other for other in state.writes.values() if _is_equal_reset(state, other, write, event.holders)]
    if not any(other.seen & write.bit for other in state.writes_in(state.resets)):
        state.resets |= write.bit
    baselines_met = _agree_on_reset(state, write, event.holders, equals)
    if unifies_resets:
        for other in equals:
            _unify(state, other, write)
        for baseline in baselines_met:
            _unify_with_baseline(state, write, baseline)


def _is_equal_reset(state: UnitState, other: Write, write: Write, holders: tuple[str, ...]) -> bool:
    """A concurrent reset to the same value that no reset has seen, or whose value its source still holds."""
    if other is write or not other.is_reset or other.key != write.key or other.kind == DECIDED:
        return False
    stands = other.bit & state.resets or (other.source in holders and state.key_at(other.source) == other.key)
    return bool(stands) and not other.bit & write.seen and not write.bit & other.seen


def _agree_on_reset(
    state: UnitState, write: Write, holders: tuple[str, ...], equals: list[Write]
) -> list[Insert | None]:
    """Holders of the value that have seen one of the equal resets join their contexts. The first-snapshot values among
    them, each of which counts as such a reset."""
    resets = write.bit | sum([other.bit for other in equals])
    alike = [state.by_source[s] for s in holders if state.key_at(s) == write.key]
    writer = state.by_source[write.source]
    baselines_met = [each.baseline for each in alike if _counts_as_insert(each, writer)]
    agreeing = [each for each in alike if each.seen & resets or each.inserts & frozenset(baselines_met)]
    seen = 0
    for each in agreeing:
        seen |= each.seen
    for each in agreeing:
        each.seen = seen
    return baselines_met


def _counts_as_insert(at_source: SourceState, writer: SourceState) -> bool:
    """A first-snapshot value that a source still holds counts as an insert against a first insert elsewhere (§4)."""
    baseline = at_source.baseline
    if baseline is None or not at_source.untouched or at_source.baseline_ended or baseline in writer.inserts:
        return False
    return any(i.first and not i.baseline and i.stamp > baseline.stamp for i in writer.inserts)


def _unify(state: UnitState, one: Write, other: Write) -> None:
    """Two equal resets become one: a context with either contains both, and each has the context of both."""
    one.seen = other.seen = one.seen | other.seen
    seers: list[SourceState | Write] = [*state.by_source.values(), *state.writes.values()]
    for seer in seers:
        if seer.seen & one.bit:
            seer.seen |= other.bit
    for write in state.writes.values():
        if write.after & one.bit:
            write.after |= other.bit
        if write.seen & other.bit:
            state.frontier &= ~other.bit


def _unify_with_baseline(state: UnitState, reset: Write, baseline: Insert | None) -> None:
    """A first-snapshot value is an equal reset too: writes that descend from it have seen this one."""
    for write in state.writes.values():
        if write is not reset and baseline in write.inserts and write.kind != BASELINE:
            write.seen |= reset.bit
            write.after |= reset.bit
            state.frontier &= ~reset.bit


def decide(state: UnitState, plan: FieldPlan, event: Event) -> str:
    write = state.add_decision(event.change, event.after, state.key_of(event.after))
    write.deletes = event.deletes
    write.is_reset = True
    state.resets = write.bit
    if state.waiting_copies:
        waiting_copies.match(state, write)
    return register_ops.APPLIED


def end(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """Deltas that the delete had seen end with the other old values."""
    ended = state.all_writes if everything else state.deletes.get(delete, 0)
    for write in state.writes_in(ended & sum(state.writes)):
        write.delta, write.delta_unknown, write.is_reset = None, False, False
    if all(write.delta is None for write in state.writes.values()):
        state.delta_base = UNKNOWN
    register_ops.start_incarnation(state, delete, source, everything)


def take_base_of_sources(state: UnitState, bases: Mapping[str, MaybeValue]) -> None:
    """A checkpoint of FOLD_VERSION 2 has the base beside each source's value: the first one of `from:` that is a value counts."""
    if all(write.delta is None for write in state.writes.values()):
        return
    at_holders = [bases[s] for s in state.order if s in bases and state.key_at(s) is not MISSING]
    usable = [base for base in at_holders if base is not UNKNOWN and base is not ABSENT]
    state.delta_base = next((base for base in usable if base is not None), None if usable else UNKNOWN)


def any_null(state: UnitState) -> bool:
    """A source is known to hold NULL."""
    return any(at_source.value is None for at_source in state.by_source.values())


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
