"""What the queue adds to questions: an id while a question stays open, revisions, settling, and how it ended
(semantics §5).

Pure: time, ids and what is already open are arguments. The questions themselves are the merge's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cdc_merge.merge.conflict_detection import candidate, shown
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import value_of
from cdc_merge.merge.writes import MISSING, Write
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, Candidate, Conflict, DetectedConflict

ConflictIdentity = tuple[str | None, str, str | None]

# concurrent_insert and concurrent_update are one question; a change of kind raises its revision.
ONE_IDENTITY = {"concurrent_insert": "concurrent", "concurrent_update": "concurrent"}


def conflict_identity(question: DetectedConflict) -> ConflictIdentity:
    """At most one conflict of a record is open for each of these."""
    return (question.group or question.field, ONE_IDENTITY.get(question.kind, question.kind), question.rule)


@dataclass(frozen=True, slots=True)
class LifecycleContext:
    """What the queue needs of the world: our clock, how ids are made, and the policy in force."""

    now_us: int
    new_id: Callable[[], str]
    policy: str


def transitions(
    record: Record,
    questions: Sequence[DetectedConflict],
    known: Mapping[ConflictIdentity, Conflict],
    moment: LifecycleContext,
) -> list[Conflict]:
    """The conflicts of one record that change: new ones settling, open ones revised or closed."""
    moved: list[Conflict] = []
    found = {conflict_identity(question): question for question in questions}
    for identity, question in found.items():
        conflict = known.get(identity)
        if conflict is None:
            moved.append(_raised(question, moment))
        elif conflict.detected != question:
            moved.append(replace(conflict, detected=question, revision=conflict.revision + 1, policy=moment.policy))
    for identity, conflict in known.items():
        if identity not in found:
            moved.append(_closed(record, conflict, moment))
    return moved


def _raised(question: DetectedConflict, moment: LifecycleContext) -> Conflict:
    return Conflict(
        id=moment.new_id(),
        detected=question,
        status="settling",
        revision=1,
        raised_us=moment.now_us,
        labels=question.labels,
        policy=moment.policy,
    )


def _closed(record: Record, conflict: Conflict, moment: LifecycleContext) -> Conflict:
    resolution = _resolution(record, conflict.detected)
    labels = conflict.labels
    if resolution == "converged" and _overwrote(record, conflict.detected):
        labels = (*labels, "overwrote")
    return replace(conflict, status="closed", resolution=resolution, closed_us=moment.now_us, labels=labels)


def _resolution(record: Record, question: DetectedConflict) -> str:
    """decided by people, converged by the sources themselves, or superseded by what somebody wrote who had seen it
    all."""
    cell = record.cells.get(question.group or question.field or "")
    if cell is None:
        if decided_by_people(record, question):
            return "decided"
        return "converged" if question.kind == "key_change" else "superseded"
    front = cell.front()
    if question.kind == "divergence" and question.rule is not None:
        return "converged" if len({cell.held(s) for s in record.present} - {MISSING}) < 2 else "superseded"
    if any(w.source == DECISION_SOURCE for w in front):
        return "decided"
    if question.kind == "divergence":
        return "converged"
    return "converged" if _agrees(record, cell, question) else "superseded"


def decided_by_people(record: Record, question: DetectedConflict) -> bool:
    """People decided the record's end, or one of the fields that a question about the whole record mentions."""
    return _decided_row(record) or _decided_fields(record, question)


def _decided_row(record: Record) -> bool:
    return any(d.source == DECISION_SOURCE for d in record.deletes)


def _decided_fields(record: Record, question: DetectedConflict) -> bool:
    """People decided one of the fields that a question about the whole record (a check) mentions."""
    named = {field for c in question.candidates if isinstance(c.value, Mapping) for field in c.value}
    groups = record.units.group_of
    names = {groups[field].name if field in groups else field for field in named}
    return any(w.source == DECISION_SOURCE for n in names if n in record.cells for w in record.cells[n].front())


def _agrees(record: Record, cell: UnitState, question: DetectedConflict) -> bool:
    """The frontier holds one value, and it is one that a candidate had: the sources came to agree by themselves."""
    stamps = {c.stamp for c in question.candidates}
    keys = {w.key for w in cell.of(cell.frontier)}
    held = {cell.held(s) for s in record.present} - {MISSING}
    return len(held) == 1 or (len(keys) == 1 and any(w.stamp in stamps for w in cell.of(cell.frontier)))


def _overwrote(record: Record, question: DetectedConflict) -> bool:
    """A genuine edit vanished, and what replaced it was a copy or another actor's (unknown is different)."""
    unit = record.unit_of.get(question.group or question.field or "")
    if unit is None or not question.kind.startswith("concurrent_"):
        return False
    cell = record.cells[unit.name]
    value = shown(unit, value_of(record, unit, cell))
    return any(_replaced(cell, c) for c in question.candidates if c.value != value and c.source != DECISION_SOURCE)


def _replaced(cell: UnitState, lost: Candidate) -> bool:
    side = cell.sides.get(lost.source)
    by = side.by if side is not None else None
    if by is None or by.stamp <= lost.stamp:
        return True
    return by.copy is not None or by.actor is None or by.actor != lost.actor


# ---------------------------------------------------------------- traces


def lost_update_conflicts(
    record: Record, known: Mapping[ConflictIdentity, Conflict], moment: LifecycleContext
) -> Iterator[Conflict]:
    """Genuine writes that a copy, or what everybody holds, took away while no question was open: recorded as closed."""
    for name, cell in record.cells.items():
        taken, cell.lost_updates = cell.lost_updates, ()
        if taken and (name, "concurrent", None) not in known:
            for write in taken:
                yield _trace(record, record.unit_of[name], write, moment)


def _trace(record: Record, unit: Unit, write: Write, moment: LifecycleContext) -> Conflict:
    cell = record.cells[unit.name]
    lost = candidate(cell, unit, write)
    question = DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None if unit.plan.members else unit.name,
        group=unit.name if unit.plan.members else None,
        kind="concurrent_update",
        severity=unit.plan.severity,
        candidates=tuple(_parties(cell, unit, lost)),
        base=shown(unit, write.before),  # type: ignore[arg-type]  # a group's base is an object too
        provisional=shown(unit, value_of(record, unit, cell)),
    )
    return Conflict(
        id=trace_id(question, lost),
        detected=question,
        status="closed",
        revision=1,
        raised_us=moment.now_us,
        closed_us=moment.now_us,
        resolution="converged",
        labels=("overwrote",),
        policy=moment.policy,
    )


def _parties(cell: UnitState, unit: Unit, lost: Candidate) -> Iterable[Candidate]:
    yield lost
    side = cell.sides.get(lost.source)
    change = side.by if side is not None else None
    if side is not None and change is not None and change.stamp != lost.stamp and side.value is not UNKNOWN:
        value = shown(unit, side.value)
        yield Candidate(lost.source, value, change.stamp, change.committed_us, change.actor, change.place)


def trace_id(question: DetectedConflict, lost: Candidate) -> str:
    """The same write leaves the same trace, however often its history is folded."""
    text = "\x1f".join((question.entity, question.key, question.group or question.field or "", *map(str, lost.place)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---------------------------------------------------------------- answered by a rule


def resolved_by_rule(conflict: Conflict, question: DetectedConflict, now_us: int) -> Conflict:
    """The conflict, closed because a rule answers its question by itself; what was never announced never is."""
    return replace(conflict, detected=question, status="closed", resolution="auto", closed_us=now_us)


def is_same_auto_resolution(conflict: Conflict, question: DetectedConflict) -> bool:
    """Whether the conflict tells that a rule answered this very question: the same candidates."""
    told = {candidate.place for candidate in conflict.detected.candidates}
    return conflict.resolution == "auto" and told == {candidate.place for candidate in question.candidates}


# ---------------------------------------------------------------- announcing


def announced(conflict: Conflict, watermark_us: int, now_us: int, settle_us: int) -> Conflict | None:
    """The conflict, open, once the watermark has passed it and `settle` is over; None while it settles."""
    latest = max(c.stamp.wall_us for c in conflict.detected.candidates)
    if conflict.status != "settling" or watermark_us <= latest or now_us < conflict.raised_us + settle_us:
        return None
    return replace(conflict, status="open", announced_us=now_us)
