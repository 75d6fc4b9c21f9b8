"""Multi-value register operations, shared by every type that is built on plain writes: edit, copy, snapshot read,
decision, delete, new incarnation.

Outcomes are the label values of `merges_total`: applied, merged, conflict, copy, copy_unmatched, agreement, repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cdc_merge.merge import baselines, waiting_copies
from cdc_merge.merge.late_copies import apply_late_copy, remember_value
from cdc_merge.merge.merge_type import Event, Views
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, BASELINE, MISSING, Insert, SourceState, Write
from cdc_merge.model import INSERT, UNKNOWN, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan
from cdc_merge.values.normalizers import normalizer

APPLIED, MERGED, COPIED, UNMATCHED = "applied", "merged", "copy", "copy_unmatched"
AGREED, REPEATED = "agreement", "repeat"


def identity_key(value: object) -> object:
    return value


def comparison_key(plan: FieldPlan) -> Callable[[Any], object]:
    """Values are compared after the field's `normalize:` list; a field without one compares the value itself."""
    if plan.members:
        return by_member(plan)
    return normalizer(plan.normalize) if plan.normalize else identity_key


def by_member(plan: FieldPlan) -> Callable[[Any], object]:
    """A group is compared member by member; `options["normalize"]` holds each member's own list."""
    lists = plan.options.get("normalize") or {}
    per_member = [normalizer(tuple(lists.get(member, ()))) for member in plan.members]

    def key(values: Any) -> object:
        return tuple([f(v) for f, v in zip(per_member, values, strict=True)]) if type(values) is tuple else values

    return key


def no_preparation(state: UnitState, plan: FieldPlan) -> None:
    """A state of plain writes needs no preparation."""


def no_conflicts(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return []


# ---------------------------------------------------------------- genuine edits


def apply_write(state: UnitState, plan: FieldPlan, event: Event) -> str:
    keyed = state.key_of
    key = keyed(event.after)
    before = event.before if event.before is not UNKNOWN else state.value_at(event.source)
    insert = event.inserted
    if insert is None or event.change.operation != INSERT:
        if before is not UNKNOWN and keyed(before) == key:
            state.set_value(event.source, event.change, event.after, key)
            return _apply_return(state, plan, event) if event.returned else REPEATED
    elif (event.after is None or event.after is ABSENT) and insert.first:
        return _first_null(state, plan, event, key)
    elif not insert.first:
        baselines.see_baselines(state, event.source)
    elif state.baselines:
        baselines.promote_baselines(state, event.source, event.holders)
    if plan.agreement == "past" and apply_late_copy(state, event.source, event.change, event.after, event.holders):
        apply_consensus(state, plan, event)
        return COPIED
    write = state.add_write(event.source, event.change, event.after, key)
    write.before = before
    record_context(state, write, event)
    return agree_and_settle(state, plan, event, write)


def _apply_return(state: UnitState, plan: FieldPlan, event: Event) -> str:
    """A row that was deleted for its source only returned with its last value: no write, but it agrees like one."""
    state.restore_overruled(event.source)
    agreed = agreement(state, plan, event)
    apply_consensus(state, plan, event)
    return AGREED if agreed else REPEATED


def record_context(state: UnitState, write: Write, event: Event) -> None:
    """What conflict detection needs of a write: the insert it descends from, the deletes its writer had seen."""
    if event.inserted is not None:
        _begin_inserts(state, event, event.inserted)
        write.inserts = state.by_source[event.source].inserts
        _share_insert(state, write)
    if event.deletes:
        write.deletes = event.deletes


def _share_insert(state: UnitState, write: Write) -> None:
    """Copies that waited for this insert have seen it; what was written on them since descends from it."""
    seers: list[SourceState | Write] = [*state.by_source.values(), *state.writes.values()]
    for seer in seers:
        if seer.seen & write.bit:
            seer.inserts |= write.inserts


def _begin_inserts(state: UnitState, event: Event, insert: Insert) -> None:
    """The source's values descend from this insert from here on; a re-insert has seen every first-snapshot value."""
    at_source = state.by_source[event.source]
    at_source.inserts |= {insert}
    if not insert.first:
        at_source.inserts |= {other.baseline for other in state.by_source.values() if other.baseline is not None}


def _first_null(state: UnitState, plan: FieldPlan, event: Event, key: object) -> str:
    at_source = state.set_value(event.source, event.change, event.after, key)
    assert event.inserted is not None
    at_source.inserts |= {event.inserted._replace(first=False)}  # no value of it stands against first-snapshot values
    agreement(state, plan, event)
    apply_consensus(state, plan, event)
    return REPEATED


def agree_and_settle(state: UnitState, plan: FieldPlan, event: Event, write: Write) -> str:
    """Agreement, then consensus; the outcome."""
    several = len(event.holders) > 1
    agreed = several and agreement(state, plan, event)
    at_source = state.by_source[event.source]
    write.after = at_source.seen
    if state.waiting_copies:
        waiting_copies.match(state, write)
    if several or state.frontier != write.bit or at_source.seen != state.all_writes:
        apply_consensus(state, plan, event)
    if agreed:
        return AGREED
    return APPLIED if state.frontier == write.bit else MERGED


def agreement(state: UnitState, plan: FieldPlan, event: Event) -> bool:
    if not state.traits.agrees or plan.agreement == "off":
        return False
    return state.agree(event.source, event.holders)


def apply_consensus(state: UnitState, plan: FieldPlan, event: Event) -> None:
    if state.traits.settles and plan.agreement != "off" and event.holders:
        state.apply_consensus(event.holders, bound=bound_of(state))
    if state.diverged:
        state.diverged = still_diverged(state)


def bound_of(state: UnitState) -> object:
    """The value an immutable is bound to; other types are bound to nothing."""
    return state.type_state[0] if type(state.type_state) is tuple else MISSING


# ---------------------------------------------------------------- copies


def apply_copy(state: UnitState, plan: FieldPlan, event: Event) -> str:
    key = state.key_of(event.after)
    if state.key_at(event.source) == key:
        state.apply_unchanged_copy(event.source, event.change, key, event.holders)
        apply_consensus(state, plan, event)
        return REPEATED
    matched = state.apply_copy(event.source, event.change, (event.after, key), event.holders)
    apply_consensus(state, plan, event)
    return COPIED if matched else UNMATCHED


# ---------------------------------------------------------------- snapshot reads


def apply_snapshot_read(state: UnitState, plan: FieldPlan, event: Event) -> str:
    first = baselines.read_snapshot(state, event.source, event.change, event.after, candidate=event.snapshot_candidates)
    if len(event.holders) > 1 or state.frontier:
        agreement(state, plan, event)
        if first:
            state.diverged = (*state.diverged, *_diverging_pairs(state, event))
        apply_consensus(state, plan, event)
    return REPEATED


def _diverging_pairs(state: UnitState, event: Event) -> list[tuple[str, str]]:
    """The holders that a first snapshot differs from, by their first snapshots or, without one, by their values; NULL
    differs from nothing."""
    source = event.source
    mine = state.by_source[source].snapshot_key
    pairs = []
    for other in event.holders:
        at_source = state.by_source.get(other)
        if at_source is None:
            continue
        key = at_source.key if at_source.snapshot_key is MISSING else at_source.snapshot_key
        if other != source and mine is not None and key is not None and key is not MISSING and key != mine:
            pairs.append((other, source))
    return pairs


def still_diverged(state: UnitState) -> tuple[tuple[str, str], ...]:
    """The pairs that have not held one value since."""
    return tuple((a, b) for a, b in state.diverged if state.key_at(a) != state.key_at(b) or state.key_at(a) is MISSING)


# ---------------------------------------------------------------- decisions, deletes, new incarnations


def apply_decision(state: UnitState, plan: FieldPlan, event: Event) -> str:
    write = state.add_decision(event.change, event.after, state.key_of(event.after))
    write.deletes = event.deletes
    if state.waiting_copies:
        waiting_copies.match(state, write)
    if state.traits.agrees and plan.agreement != "off":
        state.agree_with_decision(write, event.holders)
        for source in event.holders if plan.agreement == "past" else ():
            if state.key_at(source) == write.key:
                remember_value(state, source, event.holders, is_new=True)
    apply_consensus(state, plan, event)
    return APPLIED


def record_delete_context(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """The delete's context: its source's, or everything where the source does not map the unit."""
    state.record_delete_context(delete, state.all_writes if everything else state.seen_by(source))


def start_incarnation(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """The old values that the delete had seen, or all of them, end with the new incarnation."""
    ended = state.all_writes if everything else state.deletes.get(delete, 0)
    for write in state.writes_in(state.frontier | state.overwritten | state.resets):
        if write.kind == BASELINE:
            ended |= write.bit
    for at_source in state.by_source.values():
        at_source.baseline_ended = True
    state.frontier &= ~ended
    state.overwritten &= ~ended
    state.resets &= ~ended
    state.baselines = 0
    state.at(source).seen |= ended


def first_in_order(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    """Before the first write: the value of the first source of `from:` that has one, NULL giving way to any."""
    first: MaybeValue = UNKNOWN
    for _, value in views:
        if value is not None and value is not UNKNOWN:
            return value
        if value is None:
            first = None
    return first


def latest(front: list[Write]) -> Write:
    return front[-1]


def differing_writes(front: list[Write]) -> list[Write]:
    """All of the frontier when it holds values that differ, else nothing."""
    first = front[0].key
    return front if any(w.key != first for w in front) else []
