"""The steps that every type built on plain writes shares: edit, copy, snapshot read, decision, delete, new life.

Outcomes are the label values of `merges_total`: applied, merged, conflict, copy, copy_unmatched, agreement, repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cdc_merge.mapping.normal import normalizer
from cdc_merge.merge.cell import COMPACT_AT, MISSING, Cell, Write
from cdc_merge.merge.merge_type import Event, Views
from cdc_merge.model import UNKNOWN, MaybeValue, Stamp
from cdc_merge.plan import FieldPlan

APPLIED, MERGED, COPIED, UNMATCHED = "applied", "merged", "copy", "copy_unmatched"
AGREED, REPEATED = "agreement", "repeat"


def itself(value: object) -> object:
    return value


def normalized(plan: FieldPlan) -> Callable[[Any], object]:
    """Values are compared after the field's `normalize:` list; a field without one compares the value itself."""
    if plan.members:
        return by_member(plan)
    return normalizer(plan.normalize) if plan.normalize else itself


def by_member(plan: FieldPlan) -> Callable[[Any], object]:
    """A group is compared member by member; `options["normalize"]` holds each member's own list."""
    lists = plan.options.get("normalize") or {}
    per_member = [normalizer(tuple(lists.get(member, ()))) for member in plan.members]

    def key(values: Any) -> object:
        return tuple([f(v) for f, v in zip(per_member, values, strict=True)]) if type(values) is tuple else values

    return key


def nothing(cell: Cell, plan: FieldPlan) -> None:
    """A cell of plain writes needs no preparation."""


def no_questions(cell: Cell, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return []


# ---------------------------------------------------------------- genuine edits


def edit(cell: Cell, plan: FieldPlan, event: Event) -> str:
    key = cell.keyed(event.after)
    source = event.source
    before = event.before if event.before is not UNKNOWN else cell.views.get(source, UNKNOWN)
    if event.root is None:
        if before is not UNKNOWN and cell.keyed(before) == key:
            cell.hold(source, event.change, event.after, key)
            return REPEATED
    elif event.after is None and event.root.first:
        return _first_null(cell, plan, event, key)
    write = cell.write(source, event.change, event.after, key)
    write.before = before
    describe(cell, write, event)
    return settle(cell, plan, event, write)


def describe(cell: Cell, write: Write, event: Event) -> None:
    """What later questions ask about a write: the insert it goes back to, the deletes its writer had seen."""
    if event.root is not None:
        cell.roots[event.source] = event.root._replace(seen=_inserts_seen(cell, write.seen))
    write.root = cell.roots.get(event.source)
    if event.deletes:
        write.deletes = event.deletes


def _inserts_seen(cell: Cell, seen: int) -> frozenset[Stamp]:
    roots: set[Stamp] = set()
    for write in cell.writes.values():
        if write.bit & seen and write.root is not None:
            roots.add(write.root.stamp)
            roots |= write.root.seen
    return frozenset(roots)


def _first_null(cell: Cell, plan: FieldPlan, event: Event, key: object) -> str:
    cell.hold(event.source, event.change, None, key)
    assert event.root is not None
    cell.roots[event.source] = event.root._replace(seen=_inserts_seen(cell, cell.seen.get(event.source, 0)))
    agreement(cell, plan, event)
    return REPEATED


def settle(cell: Cell, plan: FieldPlan, event: Event, write: Write) -> str:
    """Agreement, then what everybody holds, then what the cell may forget."""
    agreed = len(event.holders) > 1 and agreement(cell, plan, event)
    write.after = cell.seen[event.source]
    everybody(cell, plan, event)
    outcome = AGREED if agreed else APPLIED if cell.frontier == write.bit else MERGED
    return outcome


def agreement(cell: Cell, plan: FieldPlan, event: Event) -> bool:
    if not cell.traits.agrees or plan.agreement == "off":
        return False
    return cell.agree(event.source, event.holders)


def everybody(cell: Cell, plan: FieldPlan, event: Event) -> None:
    if not cell.traits.settles or plan.agreement == "off" or not event.holders:
        return
    if len(event.holders) > 1 or cell.frontier & (cell.frontier - 1):
        cell.everybody(event.holders, bound=bound_of(cell))
    if cell.diverged:
        cell.diverged = still_diverged(cell, event.holders)


def bound_of(cell: Cell) -> object:
    """The value an immutable is bound to; other types are bound to nothing."""
    return cell.extra[0] if type(cell.extra) is tuple else MISSING


def compact_if_long(cell: Cell) -> None:
    if len(cell.writes) > COMPACT_AT:
        cell.compact()


# ---------------------------------------------------------------- copies


def repeat(cell: Cell, plan: FieldPlan, event: Event) -> str:
    key = cell.keyed(event.after)
    source = event.source
    before = event.before if event.before is not UNKNOWN else cell.views.get(source, UNKNOWN)
    if before is not UNKNOWN and cell.held.get(source, MISSING) == key == cell.keyed(before):
        return REPEATED
    matched = cell.copy(source, event.change, event.after, key)
    everybody(cell, plan, event)
    return COPIED if matched else UNMATCHED


# ---------------------------------------------------------------- snapshot reads


def observe(cell: Cell, plan: FieldPlan, event: Event) -> str:
    source = event.source
    newly = source not in cell.first
    known = {s: k for s, k in cell.first.items() if s != source}
    cell.read_first(source, event.change, event.after, candidate=event.rivals)
    agreement(cell, plan, event)
    if newly and _differs(cell.first[source], known):
        cell.diverged = True
    everybody(cell, plan, event)
    if cell.diverged:
        cell.diverged = still_diverged(cell, event.holders)
    return REPEATED


def _differs(key: object, others: dict[str, object]) -> bool:
    return key is not None and any(other is not None and other != key for other in others.values())


def still_diverged(cell: Cell, holders: tuple[str, ...]) -> bool:
    """Sources that differed at their first snapshot differ still; a first NULL differs from nothing."""
    held = {
        cell.held[s]
        for s in holders
        if s in cell.held and not (cell.held[s] is None and cell.first.get(s, MISSING) is None)
    }
    return len(held) > 1


# ---------------------------------------------------------------- decisions, deletes, new lives


def settle_question(cell: Cell, plan: FieldPlan, event: Event) -> str:
    write = cell.decide(event.change, event.after, cell.keyed(event.after))
    write.deletes = event.deletes
    if cell.traits.agrees and plan.agreement != "off":
        cell.agree_with_decision(write, event.holders)
    everybody(cell, plan, event)
    return APPLIED


def witness(cell: Cell, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """What a delete had seen of this cell: what its source had seen, or everything where the source does not map it."""
    cell.seen[delete] = cell.everything if everything else cell.seen.get(source, 0)


def end(cell: Cell, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    """A new life that has seen the delete: the old values that the delete had seen (or all of them) are over."""
    ended = cell.everything if everything else cell.seen.get(delete, 0)
    cell.frontier &= ~ended
    cell.overwritten &= ~ended
    cell.sets &= ~ended
    cell.baselines = 0
    cell.first_by = {}
    cell.diverged = False
    cell.void = True
    cell.seen[source] = cell.seen.get(source, 0) | ended


def first_in_order(cell: Cell, plan: FieldPlan, views: Views) -> MaybeValue:
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
