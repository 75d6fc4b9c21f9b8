"""Merge types as somebody might plausibly have written them, each wrong in one way: what the law suite must catch.

One line a mistake in `MISTAKES`. A mistake takes the place of the real thing while a law runs; `alphabet` names the small
worlds in which it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from cdc_merge.merge import apply, fold, map_fields, register_ops
from cdc_merge.merge.merge_type import Event, MergeType
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.types import TYPES, append, counter, flag, immutable, lattice, lww, max_min, mv, orset, priority
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Fields, Units, group_values
from cdc_merge.merge.writes import BASELINE, Write
from cdc_merge.model import DECISION, SNAPSHOT, Change, MaybeValue
from cdc_merge.model.plan import EntityPlan, FieldPlan

LISTED: Final = ("draft", "sent", "void", "paid")

Swap = tuple[Any, str, Any]
"""(owner, name, the wrong one): a mapping's entry or a module's attribute."""


class Mistake(NamedTuple):
    """`law`: order, where the meaning of one order of arrival is right; deeper, where it takes three steps; else oracle."""

    alphabet: str
    sentence: str
    swap: Swap
    law: str = "oracle"


def _type(name: str, kind: MergeType, **wrong: Any) -> Swap:
    return TYPES, name, kind._replace(**wrong)


# ---------------------------------------------------------------- how a state is read

Read = Callable[[UnitState, FieldPlan, list[Write]], MaybeValue]


def _of_all_writes(read: Read) -> Read:
    """Whoever had seen a value cannot take it back: nothing ever leaves the frontier."""

    def wrong(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
        return read(state, plan, [write for write in state.writes.values() if write.kind != BASELINE])

    return wrong


def _latest_of_all(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return max(state.writes.values(), key=lambda write: write.stamp).value


def _first(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    return front[0].value


def _every_write_conflicts(state: UnitState, plan: FieldPlan, front: list[Write]) -> list[Write]:
    return front if len(front) > 1 else []


def _frontier_alone(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    """What everybody had seen is no longer part of the sum."""
    base = counter.base(state) or 0
    return sum((write.delta or 0 for write in front), base)


def _lower(plan: FieldPlan, values: Iterable[object]) -> object:
    """The greatest lower bound of a chain."""
    written = [value for value in values if value is not None]
    return min(written, key=LISTED.index) if set(written) <= set(LISTED) and written else next(iter(written), None)


# ---------------------------------------------------------------- what a change does


def _add_wins(state: UnitState, plan: FieldPlan, event: Event) -> str:
    return orset.apply(state, replace(plan, options={}), event)


def _remove_wins(state: UnitState, plan: FieldPlan, event: Event) -> str:
    return orset.apply(state, replace(plan, options={**plan.options, "wins": "remove"}), event)


def _without_dots(state: UnitState, plan: FieldPlan, element: object, what: tuple[Event, object]) -> None:
    """A removal takes every addition away, seen or not."""
    state.type_state.dots.pop(element, None)


def _genuine(change: Change) -> int:
    """A copy is somebody's edit."""
    return {SNAPSHOT: 2, DECISION: 3}.get(change.operation, 0)


def _no_consensus(self: UnitState, holders: tuple[str, ...], *, bound: object = None) -> None:
    """What everybody holds is nothing special."""


def _no_agreement(state: UnitState, plan: FieldPlan, event: Event) -> bool:
    return False


def _agreement_anyway(state: UnitState, plan: FieldPlan, event: Event) -> bool:
    return state.traits.agrees and state.agree(event.source, event.holders)


def _never_late(state: UnitState, *_: object) -> bool:
    return False


def _repeats_count(changes: Iterable[Change]) -> list[Change]:
    """Stamp order, but what comes again counts again."""
    return sorted(changes, key=lambda change: change.stamp)


def _as_they_came(changes: Iterable[Change]) -> list[Change]:
    """Repeats are dropped, but the order of arrival decides."""
    return list({change.place: change for change in changes}.values())


# ---------------------------------------------------------------- what is merged as one


class OneValue(Units):
    """A map is one value."""

    def __init__(self, entity: EntityPlan) -> None:
        whole = {n: replace(p, merge="mv") if p.merge == "map" else p for n, p in entity.fields.items()}
        super().__init__(replace(entity, fields=whole))


class MemberByMember(Units):
    """A group is so many fields."""

    def __init__(self, entity: EntityPlan) -> None:
        members = {member: FieldPlan(member) for group in entity.groups.values() for member in group.members}
        super().__init__(replace(entity, fields={**entity.fields, **members}, groups={}))


def _unsent_is_null(plan: FieldPlan, fields: Fields, held: MaybeValue) -> tuple[MaybeValue, MaybeValue]:
    """The members that an update leaves out are NULL."""
    return group_values(plan, fields, None)


def _only_what_is_there(record: Record, plan: FieldPlan) -> set[str]:
    """A row that lacks a key says nothing of it."""
    return set()


def _every_key_alike(plan: FieldPlan, key: str) -> FieldPlan:
    """A key's own type is overlooked."""
    return FieldPlan(f"{plan.name}.{key}", agreement=plan.agreement, severity=plan.severity)


# ---------------------------------------------------------------- the table

AS_THEY_CAME: Final[Swap] = (fold, "ordered", _as_they_came)

MISTAKES: Final = (
    Mistake("mv", "equal values are a conflict", _type("mv", mv.TYPE, conflicting_writes=_every_write_conflicts)),
    Mistake(
        "mv", "the later stamp has seen the earlier", _type("mv", mv.TYPE, conflicting_writes=register_ops.no_conflicts)
    ),
    Mistake("mv", "a marked copy is somebody's edit", (apply, "_step", _genuine)),
    Mistake("mv", "sources that hold one value agree on nothing", (register_ops, "agreement", _no_agreement)),
    Mistake("mv", "what everybody holds settles nothing", (UnitState, "apply_consensus", _no_consensus)),
    Mistake("mv", "the order of arrival decides", AS_THEY_CAME, "order"),
    Mistake("mv_past", "a value held before is a new edit", (register_ops, "apply_late_copy", _never_late), "deeper"),
    Mistake("mv_off", "equality proves agreement although it is off", (register_ops, "agreement", _agreement_anyway)),
    Mistake("lww", "the latest stamp wins over who had seen it", _type("lww", lww.TYPE, read=_latest_of_all)),
    Mistake("lww", "the first wins", _type("lww", lww.TYPE, read=_first)),
    Mistake("lww", "ties by arrival", AS_THEY_CAME, "order"),
    Mistake("priority", "the latest wins", _type("priority", priority.TYPE, read=mv.read)),
    Mistake("priority", "rank counts for ever", _type("priority", priority.TYPE, read=_of_all_writes(priority.read))),
    Mistake("priority", "rank by arrival", _type("priority", priority.TYPE, read=_first)),
    Mistake(
        "counter",
        "equal numbers agree",
        _type("counter", counter.TYPE, apply=register_ops.apply_write, traits=mv.TYPE.traits),
    ),
    Mistake("counter", "the latest number wins", _type("counter", counter.TYPE, read=mv.read)),
    Mistake("counter", "a delta counts again when it comes again", (fold, "ordered", _repeats_count), "order"),
    Mistake("counter", "deltas of the frontier alone", _type("counter", counter.TYPE, read=_frontier_alone)),
    Mistake("max", "never lowered again", _type("max", max_min.MAX, read=_of_all_writes(max_min.MAX.read))),
    Mistake("max", "forgets all but the latest", _type("max", max_min.MAX, read=mv.read)),
    Mistake("min", "never raised again", _type("min", max_min.MIN, read=_of_all_writes(max_min.MIN.read))),
    Mistake("min", "the greatest", _type("min", max_min.MIN, read=max_min.MAX.read)),
    Mistake("set", "without dots", (orset, "_remove", _without_dots)),
    Mistake("set", "one value", _type("set", mv.TYPE, comparison_key=orset.TYPE.comparison_key)),
    Mistake("set", "add wins as remove wins", _type("set", orset.TYPE, apply=_remove_wins)),
    Mistake("set_remove", "remove wins as add wins", _type("set", orset.TYPE, apply=_add_wins)),
    Mistake("set", "copies remove", _type("set", orset.TYPE, copy=orset.apply)),
    Mistake("map", "one value", (fold, "Units", OneValue)),
    Mistake("map", "every key is mv", (map_fields, "key_plan", _every_key_alike)),
    Mistake("map", "a row says nothing of the keys it lacks", (map_fields, "_all_keys", _only_what_is_there)),
    Mistake("flag", "the latest wins", _type("flag", flag.TYPE, read=mv.read)),
    Mistake("flag", "wins for ever", _type("flag", flag.TYPE, read=_of_all_writes(flag.read))),
    Mistake("lattice", "the latest wins", _type("lattice", lattice.TYPE, read=mv.read)),
    Mistake("lattice", "never goes down", _type("lattice", lattice.TYPE, read=_of_all_writes(lattice.read))),
    Mistake("lattice", "goes down", (lattice, "join", _lower)),
    Mistake(
        "lattice",
        "what cannot be joined is not asked",
        _type("lattice", lattice.TYPE, conflicting_writes=register_ops.no_conflicts),
    ),
    Mistake("append", "a copy is appended again", _type("append", append.TYPE, copy=append.TYPE.apply)),
    Mistake("append", "the latest text wins", _type("append", append.TYPE, read=mv.read)),
    Mistake(
        "append",
        "a part beside a rewrite is not asked",
        _type("append", append.TYPE, conflicting_writes=register_ops.no_conflicts),
    ),
    Mistake("immutable", "the second write wins", _type("immutable", immutable.TYPE, read=mv.read)),
    Mistake(
        "immutable",
        "who has seen it may change it",
        _type("immutable", immutable.TYPE, conflicting_writes=mv.conflicting_writes),
    ),
    Mistake(
        "immutable",
        "a first snapshot binds nothing",
        _type("immutable", immutable.TYPE, snapshot=register_ops.apply_snapshot_read),
    ),
    Mistake("group", "member by member", (fold, "Units", MemberByMember)),
    Mistake("group", "what an update leaves out is NULL", (apply, "group_values", _unsent_is_null)),
)
