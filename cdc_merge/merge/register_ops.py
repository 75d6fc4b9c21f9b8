"""The steps that every type built on plain writes shares: edit, copy, snapshot read, decision, delete, new life.

Outcomes are the label values of `merges_total`: applied, merged, conflict, copy, copy_unmatched, agreement, repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def normalized(plan: FieldPlan) -> Callable[[Any], object]:
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


def nothing(cell: UnitState, plan: FieldPlan) -> None:
    """A cell of plain writes needs no preparation."""


def no_conflicts(cell: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return []


# ---------------------------------------------------------------- genuine edits


def apply_write(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    keyed = cell.keyed
    key = keyed(event.after)
    before = event.before if event.before is not UNKNOWN else cell.view(event.source)
    born = event.inserted
    if born is None or event.change.operation != INSERT:
        if before is not UNKNOWN and keyed(before) == key:
            cell.hold(event.source, event.change, event.after, key)
            return _returned(cell, plan, event) if event.returned else REPEATED
    elif (event.after is None or event.after is ABSENT) and born.first:
        return _first_null(cell, plan, event, key)
    elif not born.first:
        cell.see_baselines(event.source)
    elif cell.baselines:
        cell.wake(event.source, event.holders)
    if plan.agreement == "past" and cell.late_copy(event.source, event.change, event.after, event.holders):
        apply_consensus(cell, plan, event)
        return COPIED
    write = cell.write(event.source, event.change, event.after, key)
    write.before = before
    describe(cell, write, event)
    return settle(cell, plan, event, write)


def _returned(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    """A row that was away for itself only came again with what it had: no write, but it agrees like one."""
    cell.come_back(event.source)
    agreed = agreement(cell, plan, event)
    apply_consensus(cell, plan, event)
    return AGREED if agreed else REPEATED


def describe(cell: UnitState, write: Write, event: Event) -> None:
    """What later questions ask about a write: the insert it goes back to, the deletes its writer had seen."""
    if event.inserted is not None:
        _born(cell, event, event.inserted)
        write.inserts = cell.sides[event.source].inserts
        _teach_insert(cell, write)
    if event.deletes:
        write.deletes = event.deletes


def _teach_insert(cell: UnitState, write: Write) -> None:
    """Copies that waited for this insert have seen it; what was written on them since goes back to it."""
    seers: list[SourceState | Write] = [*cell.sides.values(), *cell.writes.values()]
    for seer in seers:
        if seer.seen & write.bit:
            seer.inserts |= write.inserts


def _born(cell: UnitState, event: Event, born: Insert) -> None:
    """The source's values go back to this insert from here on; a re-insert has seen every first-snapshot value."""
    side = cell.sides[event.source]
    side.inserts |= {born}
    if not born.first:
        side.inserts |= {other.baseline for other in cell.sides.values() if other.baseline is not None}


def _first_null(cell: UnitState, plan: FieldPlan, event: Event, key: object) -> str:
    side = cell.hold(event.source, event.change, event.after, key)
    assert event.inserted is not None
    side.inserts |= {event.inserted._replace(first=False)}  # no value of it stands against first-snapshot values
    agreement(cell, plan, event)
    apply_consensus(cell, plan, event)
    return REPEATED


def settle(cell: UnitState, plan: FieldPlan, event: Event, write: Write) -> str:
    """Agreement, then what everybody holds."""
    several = len(event.holders) > 1
    agreed = several and agreement(cell, plan, event)
    side = cell.sides[event.source]
    write.after = side.seen
    if cell.waiting:
        cell.answer(write)
    if several or cell.frontier != write.bit or side.seen != cell.everything:
        apply_consensus(cell, plan, event)
    if agreed:
        return AGREED
    return APPLIED if cell.frontier == write.bit else MERGED


def agreement(cell: UnitState, plan: FieldPlan, event: Event) -> bool:
    if not cell.traits.agrees or plan.agreement == "off":
        return False
    return cell.agree(event.source, event.holders)


def apply_consensus(cell: UnitState, plan: FieldPlan, event: Event) -> None:
    if cell.traits.settles and plan.agreement != "off" and event.holders:
        cell.apply_consensus(event.holders, bound=bound_of(cell))
    if cell.diverged:
        cell.diverged = still_diverged(cell)


def bound_of(cell: UnitState) -> object:
    """The value an immutable is bound to; other types are bound to nothing."""
    return cell.extra[0] if type(cell.extra) is tuple else MISSING


# ---------------------------------------------------------------- copies


def apply_copy(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    key = cell.keyed(event.after)
    if cell.held(event.source) == key:
        cell.learn_unchanged(event.source, event.change, key, event.holders)
        apply_consensus(cell, plan, event)
        return REPEATED
    matched = cell.copy(event.source, event.change, (event.after, key), event.holders)
    apply_consensus(cell, plan, event)
    return COPIED if matched else UNMATCHED


# ---------------------------------------------------------------- snapshot reads


def apply_snapshot_read(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    first = cell.read_first(event.source, event.change, event.after, candidate=event.rivals)
    if len(event.holders) > 1 or cell.frontier:
        agreement(cell, plan, event)
        if first:
            cell.diverged = (*cell.diverged, *_apart(cell, event))
        apply_consensus(cell, plan, event)
    return REPEATED


def _apart(cell: UnitState, event: Event) -> list[tuple[str, str]]:
    """Whom a first snapshot differs from: the others' first snapshots, or what a source without one holds; NULL from nothing."""
    source = event.source
    mine = cell.sides[source].first_key
    found = []
    for other in event.holders:
        side = cell.sides.get(other)
        if side is None:
            continue
        key = side.key if side.first_key is MISSING else side.first_key
        if other != source and mine is not None and key is not None and key is not MISSING and key != mine:
            found.append((other, source))
    return found


def still_diverged(cell: UnitState) -> tuple[tuple[str, str], ...]:
    """The pairs that have not come to hold one value."""
    return tuple((a, b) for a, b in cell.diverged if cell.held(a) != cell.held(b) or cell.held(a) is MISSING)


# ---------------------------------------------------------------- decisions, deletes, new lives


def apply_decision(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    write = cell.decide(event.change, event.after, cell.keyed(event.after))
    write.deletes = event.deletes
    if cell.waiting:
        cell.answer(write)
    if cell.traits.agrees and plan.agreement != "off":
        cell.agree_with_decision(write, event.holders)
        for source in event.holders if plan.agreement == "past" else ():
            if cell.held(source) == write.key:
                cell.remember(source, event.holders, came=True)
    apply_consensus(cell, plan, event)
    return APPLIED


def record_delete_context(cell: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """What a delete had seen of this cell: what its source had seen, or everything where the source does not map it."""
    cell.record_delete_context(delete, cell.everything if everything else cell.seen(source))


def start_incarnation(cell: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """A new life that has seen the delete: the old values that the delete had seen (or all of them) are over."""
    ended = cell.everything if everything else cell.deletes.get(delete, 0)
    for write in cell.of(cell.frontier | cell.overwritten | cell.sets):
        if write.kind == BASELINE:
            ended |= write.bit
    for side in cell.sides.values():
        side.over = True
    cell.frontier &= ~ended
    cell.overwritten &= ~ended
    cell.sets &= ~ended
    cell.baselines = 0
    cell.side(source).seen |= ended


def first_in_order(cell: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    """Nobody has written: the first source of `from:` that has a value, NULL giving way to any."""
    found: MaybeValue = UNKNOWN
    for _, value in views:
        if value is not None and value is not UNKNOWN:
            return value
        if value is None:
            found = None
    return found


def latest(front: list[Write]) -> Write:
    return front[-1]


def differing(front: list[Write]) -> list[Write]:
    """All of the frontier when it holds values that differ, else nothing."""
    first = front[0].key
    return front if any(w.key != first for w in front) else []
