"""The life cycle of a conflict: its id, its revisions, how it settles and how it ends (semantics §5).

Pure: time, ids and the unfinished conflicts are arguments. A conflict gets its id here when it is first detected (`raised`),
and keeps it while what is detected has the same identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cdc_merge.merge.conflict_detection import candidate_of, displayed
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import value_of
from cdc_merge.merge.writes import MISSING, Write
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, Candidate, Conflict, DetectedConflict

ConflictIdentity = tuple[str | None, str, str | None]

# concurrent_insert and concurrent_update are one conflict; a change of kind raises its revision.
SHARED_IDENTITY = {"concurrent_insert": "concurrent", "concurrent_update": "concurrent"}


def conflict_identity(detected: DetectedConflict) -> ConflictIdentity:
    """At most one conflict of a record is unfinished for each of these."""
    return (detected.group or detected.field, SHARED_IDENTITY.get(detected.kind, detected.kind), detected.rule)


@dataclass(frozen=True, slots=True)
class LifecycleContext:
    """What the life cycle needs from outside: our clock, new ids, and the policy in force."""

    now_us: int
    new_id: Callable[[], str]
    policy: str


def transitions(
    record: Record,
    detected: Sequence[DetectedConflict],
    unfinished: Mapping[ConflictIdentity, Conflict],
    context: LifecycleContext,
) -> list[Conflict]:
    """The conflicts of one record that change: those detected first settle, unfinished ones are revised or closed."""
    changed: list[Conflict] = []
    detected_by_identity = {conflict_identity(each): each for each in detected}
    for identity, each in detected_by_identity.items():
        conflict = unfinished.get(identity)
        if conflict is None:
            changed.append(raised(each, context))
        elif conflict.detected != each:
            changed.append(replace(conflict, detected=each, revision=conflict.revision + 1, policy=context.policy))
    for identity, conflict in unfinished.items():
        if identity not in detected_by_identity:
            changed.append(_closed(record, conflict, context))
    return changed


def raised(detected: DetectedConflict, context: LifecycleContext) -> Conflict:
    """A conflict that is detected for the first time."""
    return Conflict(
        id=context.new_id(),
        detected=detected,
        status="settling",
        revision=1,
        raised_us=context.now_us,
        labels=detected.labels,
        policy=context.policy,
    )


# ---------------------------------------------------------------- closing


def _closed(record: Record, conflict: Conflict, context: LifecycleContext) -> Conflict:
    resolution = _resolution(record, conflict.detected)
    labels = conflict.labels
    if resolution == "converged" and _overwrote(record, conflict.detected):
        labels = (*labels, "overwrote")
    return replace(conflict, status="closed", resolution=resolution, closed_us=context.now_us, labels=labels)


def _resolution(record: Record, detected: DetectedConflict) -> str:
    """decided (by people), converged (the sources agree by themselves), or superseded (by a write that has seen all
    candidates)."""
    state = record.unit_states.get(detected.group or detected.field or "")
    if state is None:
        if decided_by_people(record, detected):
            return "decided"
        return "converged" if detected.kind == "key_change" else "superseded"
    if detected.kind == "divergence" and detected.rule is not None:
        return "converged" if len(_keys_at_sources(record, state)) < 2 else "superseded"
    if any(write.source == DECISION_SOURCE for write in state.frontier_writes()):
        return "decided"
    if detected.kind == "divergence":
        return "converged"
    return "converged" if _has_converged(record, state, detected) else "superseded"


def _keys_at_sources(record: Record, state: UnitState) -> set[object]:
    """The comparison keys of the values at the sources that have the record."""
    return {state.key_at(source) for source in record.present} - {MISSING}


def decided_by_people(record: Record, detected: DetectedConflict) -> bool:
    """Whether people decided the record's end, or one of the fields in a conflict about the whole record (a check)."""
    if any(delete.source == DECISION_SOURCE for delete in record.deletes):
        return True
    fields = {field for each in detected.candidates if isinstance(each.value, Mapping) for field in each.value}
    groups = record.units.group_of
    names = {groups[field].name if field in groups else field for field in fields}
    states = [record.unit_states[name] for name in names if name in record.unit_states]
    return any(write.source == DECISION_SOURCE for state in states for write in state.frontier_writes())


def _has_converged(record: Record, state: UnitState, detected: DetectedConflict) -> bool:
    """One value is left, and it is one that a candidate had: the sources agree by themselves."""
    if len(_keys_at_sources(record, state)) == 1:
        return True
    stamps = {candidate.stamp for candidate in detected.candidates}
    writes = list(state.writes_in(state.frontier))
    return len({write.key for write in writes}) == 1 and any(write.stamp in stamps for write in writes)


def _overwrote(record: Record, detected: DetectedConflict) -> bool:
    """A genuine edit is lost, and a copy or another actor's write replaced it (unknown actors differ)."""
    unit = record.unit_of.get(detected.group or detected.field or "")
    if unit is None or not detected.kind.startswith("concurrent_"):
        return False
    state = record.unit_states[unit.name]
    value = displayed(unit, value_of(record, unit, state))
    lost = [each for each in detected.candidates if each.value != value and each.source != DECISION_SOURCE]
    return any(_is_replaced(state, each) for each in lost)


def _is_replaced(state: UnitState, lost: Candidate) -> bool:
    at_source = state.by_source.get(lost.source)
    change = at_source.set_by if at_source is not None else None
    if change is None or change.stamp <= lost.stamp:
        return True
    return change.copy is not None or change.actor is None or change.actor != lost.actor


# ---------------------------------------------------------------- lost updates


def lost_update_conflicts(
    record: Record, unfinished: Mapping[ConflictIdentity, Conflict], context: LifecycleContext
) -> Iterator[Conflict]:
    """Genuine writes that a copy or the consensus of all sources replaced while no conflict was open: recorded as closed."""
    for name, state in record.unit_states.items():
        lost, state.lost_updates = state.lost_updates, ()
        if lost and (name, "concurrent", None) not in unfinished:
            for write in lost:
                yield _lost_update(record, record.unit_of[name], write, context)


def _lost_update(record: Record, unit: Unit, write: Write, context: LifecycleContext) -> Conflict:
    state = record.unit_states[unit.name]
    lost = candidate_of(state, unit, write)
    detected = DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None if unit.plan.members else unit.name,
        group=unit.name if unit.plan.members else None,
        kind="concurrent_update",
        severity=unit.plan.severity,
        candidates=tuple(_lost_and_winning(state, unit, lost)),
        base=displayed(unit, write.before),  # type: ignore[arg-type]  # a group's base is an object too
        provisional=displayed(unit, value_of(record, unit, state)),
    )
    return Conflict(
        id=lost_update_id(detected, lost),
        detected=detected,
        status="closed",
        revision=1,
        raised_us=context.now_us,
        closed_us=context.now_us,
        resolution="converged",
        labels=("overwrote",),
        policy=context.policy,
    )


def _lost_and_winning(state: UnitState, unit: Unit, lost: Candidate) -> Iterable[Candidate]:
    yield lost
    at_source = state.by_source.get(lost.source)
    change = at_source.set_by if at_source is not None else None
    if at_source is None or change is None or change.stamp == lost.stamp or at_source.value is UNKNOWN:
        return
    value = displayed(unit, at_source.value)
    yield Candidate(lost.source, value, change.stamp, change.committed_us, change.actor, change.place)


def lost_update_id(detected: DetectedConflict, lost: Candidate) -> str:
    """The same lost write has the same id, however often its history is folded."""
    text = "\x1f".join((detected.entity, detected.key, detected.group or detected.field or "", *map(str, lost.place)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---------------------------------------------------------------- resolved by a rule


def resolved_by_rule(conflict: Conflict, detected: DetectedConflict, now_us: int) -> Conflict:
    """The conflict, closed because a rule resolves it. One that was never announced never is."""
    return replace(conflict, detected=detected, status="closed", resolution="auto", closed_us=now_us)


def is_same_auto_resolution(conflict: Conflict, detected: DetectedConflict) -> bool:
    """Whether the conflict records that a rule resolved the same candidates."""
    places = {candidate.place for candidate in conflict.detected.candidates}
    return conflict.resolution == "auto" and places == {candidate.place for candidate in detected.candidates}


# ---------------------------------------------------------------- announcing


def announced(conflict: Conflict, watermark_us: int, now_us: int, settle_us: int) -> Conflict | None:
    """The conflict, open, once the watermark has passed it and `settle` is over; None while it settles."""
    latest_us = max(candidate.stamp.wall_us for candidate in conflict.detected.candidates)
    if conflict.status != "settling" or watermark_us <= latest_us or now_us < conflict.raised_us + settle_us:
        return None
    return replace(conflict, status="open", announced_us=now_us)
