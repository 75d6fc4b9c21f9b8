"""Why a field has its value: every write, what its writer had seen, and its outcome (contract §7, `explain`).

`explain` is the definition: it reads a full fold, whose unit states have forgotten nothing. `explain_in_one_pass` gives the same
in one pass over however long a history, with the outcomes that write_outcomes.py notes; of what a writer had seen it
names the latest writes and counts the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from cdc_merge.errors import NotFound
from cdc_merge.merge import auto_resolution, map_fields
from cdc_merge.merge.conflict_detection import displayed
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import readable_frontier, value_of
from cdc_merge.merge.write_outcomes import NAMED, WriteOutcome, fold_and_track
from cdc_merge.merge.writes import BASELINE, DECIDED, Write
from cdc_merge.model import UNKNOWN, Change, Explained, Explanation, Json, MaybeValue, Stamp

Outcome: TypeAlias = tuple[str, str]
"""(outcome, because)."""


class Frontier(NamedTuple):
    """The writes that the value is read from, and those of them that need a decision."""

    writes: list[Write]
    conflicting: list[Write]


def explain(record: Record, field: str) -> Explanation:
    """The explanation of one field, group member's group or map key. NotFound when the entity has no such field."""
    unit = _unit(record, field)
    state = record.unit_states.get(unit.name)
    if state is None:
        return _explanation(record, unit, UNKNOWN, (), ())
    frontier = _frontier(record, unit, state)
    writes = sorted((w for w in state.writes.values() if w.kind != BASELINE), key=lambda w: w.stamp)
    explained = tuple(_of_kept_write(state, unit, write, frontier) for write in writes)
    stamps = tuple(w.stamp for w in frontier.writes)
    return _explanation(record, unit, value_of(record, unit, state), stamps, explained)


def explain_in_one_pass(record: Record, changes: Iterable[Change], field: str, *, named: int = NAMED) -> Explanation:
    """Fold the changes (in stamp order) into a record that does not compact, and explain one of its fields as `explain`
    does. `named`: so many of the writes that a writer had seen are named. NotFound when the entity has no such field."""
    group = record.units.group_of.get(field)
    outcomes = fold_and_track(record, changes, group.name if group else field, named=named)
    unit = _unit(record, field)
    state = record.unit_states.get(unit.name)
    if state is None:
        return _explanation(record, unit, UNKNOWN, (), ())
    frontier = _frontier(record, unit, state)
    explained = tuple(_of_tracked_write(state, unit, each, frontier) for each in outcomes)
    stamps = tuple(w.stamp for w in frontier.writes)
    return _explanation(record, unit, value_of(record, unit, state), stamps, explained)


def _unit(record: Record, field: str) -> Unit:
    units = record.units
    group = units.group_of.get(field)
    unit = record.unit_of.get(field) or units.by_name.get(group.name if group else field)
    if unit is None:
        raise NotFound(
            f"Entity {units.entity.name} has no field {field}.",
            hint="Its fields: " + ", ".join(sorted({*units.by_name, *units.group_of, *units.entity.fields})),
        )
    return unit


def _frontier(record: Record, unit: Unit, state: UnitState) -> Frontier:
    front = readable_frontier(record, unit, state)
    return Frontier(front, unit.type.conflicting_writes(state, unit.plan, front) if front else [])


def _of_kept_write(state: UnitState, unit: Unit, write: Write, frontier: Frontier) -> Explained:
    saw = tuple(sorted(w.stamp for w in state.writes_in(write.seen) if w.kind != BASELINE))
    outcome = _present_outcome(state, unit, write, frontier)
    if outcome is None:
        later = [w for w in state.writes.values() if w.seen & write.bit and w.kind != BASELINE]
        outcome = _past_outcome(unit, min(later, key=lambda w: w.stamp, default=None))
    return _explained(unit, write, (saw, 0), outcome)


def _of_tracked_write(state: UnitState, unit: Unit, tracked: WriteOutcome, frontier: Frontier) -> Explained:
    write = tracked.write
    is_kept = state.writes.get(write.bit) is write
    outcome = _present_outcome(state, unit, write, frontier) if is_kept else None
    if outcome is None:
        outcome = _past_outcome(unit, tracked.seen_by)
    return _explained(unit, write, (tracked.saw or (), tracked.earlier), outcome)


# ---------------------------------------------------------------- outcomes


def _present_outcome(state: UnitState, unit: Unit, write: Write, frontier: Frontier) -> Outcome | None:
    """The outcome of a write that counts, or was overwritten; None for one that later writes or a delete have seen."""
    front, conflicting = frontier
    if write.bit & state.overwritten:
        return "overwritten", "A copy of a concurrent write replaced it before any other writer had seen it."
    if write not in front:
        return None
    answer = auto_resolution.automatic_answer(state, unit.plan, conflicting) if write in conflicting else None
    return _frontier_outcome(unit, write, frontier) if answer is None else _answered_outcome(write, answer)


def _past_outcome(unit: Unit, seen_by: Write | None) -> Outcome:
    """A write that later ones have seen; `seen_by` is the earliest of them."""
    if unit.plan.merge in ("counter", "set", "append"):
        return "merged", "Later writes build on it; its contribution is part of the value."
    if seen_by is not None:
        return "lost", f"{seen_by.source} had seen it and wrote again at {seen_by.stamp}."
    return "lost", "A delete had seen it, or the record was inserted again."


def _answered_outcome(write: Write, answer: object) -> Outcome:
    if answer is write:
        return "won", "Concurrent with other writes; the rule's automatic answer is this write."
    if isinstance(answer, Write):
        return "lost", f"Concurrent with other writes; the rule's automatic answer is the write of {answer.stamp}."
    return "merged", "Concurrent with other writes; the rule keeps the value of the merge type."


def _frontier_outcome(unit: Unit, write: Write, frontier: Frontier) -> Outcome:
    front, conflicting = frontier
    if write in conflicting:
        others = ", ".join(str(w.stamp) for w in front if w is not write)
        return "candidate", f"Concurrent with {others}: neither writer had seen the other's write."
    if len(front) == 1:
        return "won", "No other write of this field is concurrent with it."
    if unit.plan.merge in ("counter", "set", "append"):
        return "merged", "Its contribution was merged with concurrent writes."
    if all(w.key == write.key for w in front):
        return "won", "All concurrent writes have the same value."
    return "merged", f"Concurrent with other writes; merge type {unit.plan.merge} decides between them."


# ---------------------------------------------------------------- building


def _explained(unit: Unit, write: Write, saw: tuple[tuple[Stamp, ...], int], outcome: Outcome) -> Explained:
    return Explained(
        stamp=write.stamp,
        source=write.source,
        kind="decision" if write.kind == DECIDED else "write",
        before=_plain(unit, write.before),
        after=_plain(unit, write.value),
        saw=saw[0],
        saw_earlier=saw[1],
        outcome=outcome[0],
        because=outcome[1],
    )


def _explanation(
    record: Record, unit: Unit, value: MaybeValue, frontier: tuple[Stamp, ...], writes: tuple[Explained, ...]
) -> Explanation:
    return Explanation(
        entity=record.units.entity.name,
        key=record.key,
        field=unit.name,
        merge=unit.plan.merge,
        value=_plain(unit, value),
        frontier=frontier,
        writes=writes,
    )


def _plain(unit: Unit, value: MaybeValue) -> MaybeValue:
    """A unit's value as one value: a group as a JSON object of its members."""
    plain = displayed(unit, value)
    return Json(map_fields.text_of(plain)) if isinstance(plain, Mapping) else plain
