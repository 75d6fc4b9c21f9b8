"""Conflicts that the merge detects in a record by itself. A pure function of history and plan.

Each kind of a unit's conflict is one entry of DETECTORS. Of a deleted record only the moves of its rows are detected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.merge.key_changes import key_change
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.types import counter
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.merge.views import ended, readable_frontier, unseen_deletes, value_of, writes_unseen_by
from cdc_merge.merge.writes import ABSENT, BASELINE, DECIDED, MISSING, SourceState, Write
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, Candidate, Change, DetectedConflict, MaybeValue, Value

SEVERITIES: Final = ("low", "medium", "high", "critical")
NO_TARGETS: Final[Mapping[str, Record]] = {}

DisplayedValue: TypeAlias = "MaybeValue | Mapping[str, Value]"


def merge_conflicts(record: Record, targets: Mapping[str, Record] = NO_TARGETS) -> tuple[DetectedConflict, ...]:
    """Every conflict of the record at present, in a stable order. `targets`: the records of its rows' new keys, as far as
    they are loaded (merge/key_changes.py)."""
    if not (record.unsettled or record.deletes or record.moves):
        return ()
    severity = highest_severity(unit.plan.severity for unit in record.units.by_name.values())
    conflicts = [*key_change(record, targets, severity)]
    if ended(record):
        return tuple(conflicts)
    conflicts.extend(_update_delete(record))
    for name in sorted(record.unsettled):
        state, unit = record.unit_states[name], record.unit_of[name]
        for detect in DETECTORS:
            conflicts.extend(detect(record, unit, state))
    return tuple(conflicts)


# ---------------------------------------------------------------- concurrent_update, concurrent_insert


def _concurrent(record: Record, unit: Unit, state: UnitState) -> Iterator[DetectedConflict]:
    front = readable_frontier(record, unit, state)
    if not front:
        return
    conflicting = unit.type.conflicting_writes(state, unit.plan, front) or _overruled(unit, front)
    if not conflicting:
        return
    yield build_write_conflict(
        ConflictSubject(record, unit, state),
        conflicting,
        kind=_kind(unit, conflicting),
        labels=("baseline",) if any(w.kind == BASELINE for w in conflicting if w.bit & state.frontier) else (),
        base=base_of(state, conflicting),
    )


def _overruled(unit: Unit, front: list[Write]) -> list[Write]:
    """Writes that had not seen a decision in the frontier, in types that would otherwise settle it (§3, Decisions)."""
    decided = [w for w in front if w.kind == DECIDED]
    if not decided or unit.plan.merge == "set" or all(w.key == decided[0].key for w in front):
        return []
    return [] if any(w.is_reset or w.delta for w in front) else front


def _kind(unit: Unit, candidates: list[Write]) -> str:
    if unit.plan.merge in ("counter", "append"):
        return "concurrent_update"
    separate = any(
        _from_separate_inserts(a, b) for i, a in enumerate(candidates) for b in candidates[i + 1 :] if a.key != b.key
    )
    return "concurrent_insert" if separate else "concurrent_update"


def _from_separate_inserts(one: Write, other: Write) -> bool:
    """The writes descend from different inserts, neither of which had seen the other; first-snapshot values count against
    real ones."""
    if DECIDED in (one.kind, other.kind):
        return False  # people do not insert
    mine, theirs = one.inserts - other.inserts, other.inserts - one.inserts
    return bool(mine and theirs) and not all(insert.baseline for insert in mine | theirs)


def base_of(state: UnitState, candidates: list[Write]) -> MaybeValue:
    """The latest write that all candidates have seen, else the first snapshot value that their sources shared."""
    common = state.all_writes
    for write in candidates:
        common &= write.seen
    seen = [w for w in state.writes_in(common & sum(state.writes)) if w.kind != BASELINE]
    if seen:
        return max(seen, key=lambda w: w.stamp).value
    sources = {w.source for w in candidates if w.source != DECISION_SOURCE}
    shared = [state.by_source[s].snapshot_value if s in state.by_source else UNKNOWN for s in sorted(sources)]
    if shared and UNKNOWN not in shared and len({state.key_of(v) for v in shared}) == 1:
        return shared[0]
    return UNKNOWN


# ---------------------------------------------------------------- bound, unknown_base, divergence


def _bound(record: Record, unit: Unit, state: UnitState) -> Iterator[DetectedConflict]:
    if unit.plan.merge != "counter":
        return
    front = readable_frontier(record, unit, state)
    if front and counter.outside(unit.plan, value_of(record, unit, state)):
        yield build_write_conflict(
            ConflictSubject(record, unit, state), front, kind="bound", base=base_of(state, front)
        )


def _unknown_base(record: Record, unit: Unit, state: UnitState) -> Iterator[DetectedConflict]:
    if unit.plan.merge != "counter":
        return
    settled = 0
    for reset in state.writes_in(state.resets):
        settled |= reset.seen
    unknown = [w for w in state.writes.values() if w.delta_unknown and not w.bit & settled]
    if unknown:
        yield build_write_conflict(
            ConflictSubject(record, unit, state), sorted(unknown, key=lambda w: w.stamp), kind="unknown_base"
        )


def _diverged(record: Record, unit: Unit, state: UnitState) -> Iterator[DetectedConflict]:
    """Sources that differed at their first snapshot and still do; not beside a conflict of concurrent writes."""
    if not state.diverged or any(_concurrent(record, unit, state)):
        return
    holders = [s for s in record.holders(unit) if state.key_at(s) is not MISSING]
    open_pairs = [pair for pair in state.diverged if _still_differ(state, pair, holders)]
    if not open_pairs:
        return
    differing = {source for pair in open_pairs for source in pair}
    candidates = [_value_candidate(unit, source, state.by_source[source]) for source in holders if source in differing]
    yield build_conflict(
        ConflictSubject(record, unit, state), tuple(candidates), kind="divergence", labels=("baseline",)
    )


def _still_differ(state: UnitState, pair: tuple[str, str], holders: list[str]) -> bool:
    """Both hold the record, differ, and one of them still has its first-snapshot value."""
    one, other = pair
    if one not in holders or other not in holders or state.key_at(one) == state.key_at(other):
        return False
    return state.by_source[one].untouched or state.by_source[other].untouched


def _value_candidate(unit: Unit, source: str, at_source: SourceState) -> Candidate:
    change = at_source.set_by
    assert change is not None
    return Candidate(
        source=source,
        value=displayed(unit, at_source.value),
        stamp=change.stamp,
        committed_us=change.committed_us,
        actor=change.actor,
        place=change.place,
    )


DETECTORS: Final[tuple[Callable[[Record, Unit, UnitState], Iterable[DetectedConflict]], ...]] = (
    _concurrent,
    _bound,
    _unknown_base,
    _diverged,
)

# ---------------------------------------------------------------- update_delete


def _update_delete(record: Record) -> Iterator[DetectedConflict]:
    if record.units.entity.deletes != "review":
        return
    deletes = [(d, writes_unseen_by(record, d)) for d in unseen_deletes(record)]
    opposed = [(d, writes) for d, writes in deletes if writes]
    if not opposed:
        return
    candidates = [_delete_candidate(d.change, d.source) for d, _ in opposed]
    against = {(u.name, w.stamp): (u, w) for _, writes in opposed for u, w in writes}
    candidates += update_candidates(list(against.values()))
    yield DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None,
        group=None,
        kind="update_delete",
        severity=highest_severity(u.plan.severity for u, _ in against.values()),
        candidates=tuple(sorted(candidates, key=lambda c: c.stamp)),
    )


def _delete_candidate(change: Change, source: str) -> Candidate:
    """A delete has no value; a row that moved has its new key for one."""
    return Candidate(source, change.moved_to, change.stamp, change.committed_us, change.actor, change.place)


def update_candidates(writes: list[tuple[Unit, Write]]) -> list[Candidate]:
    """One candidate a change: the fields that it wrote and that are still in the frontier."""
    fields: dict[Change, dict[str, Value]] = {}
    by_stamp: dict[object, Change] = {}
    for unit, write in writes:
        change = by_stamp.setdefault(write.stamp, write.change)
        fields.setdefault(_without_fields(change), {}).update(_named_values(unit, write.value))
    return [
        Candidate(w.stamp.source.partition("/")[0], values, w.stamp, w.committed_us, w.actor, w.place)
        for w, values in fields.items()
    ]


def _without_fields(change: Change) -> Change:
    """The change as a key of a mapping."""
    return change._replace(fields=())  # type: ignore[arg-type]


def _named_values(unit: Unit, value: MaybeValue) -> dict[str, Value]:
    named = members_of(unit.plan, value) if unit.plan.members else {unit.name: value}
    return {name: v for name, v in named.items() if v is not UNKNOWN and v is not ABSENT}


def highest_severity(severities: Iterable[str]) -> str:
    return max(severities, key=SEVERITIES.index, default="medium")


# ---------------------------------------------------------------- building conflicts


def displayed(unit: Unit, value: MaybeValue) -> DisplayedValue:
    """A unit's value for people: a group by member, an absent key as unknown."""
    if value is ABSENT:
        return UNKNOWN
    if unit.plan.members:
        return _named_values(unit, value)
    return value


def candidate_of(state: UnitState, unit: Unit, write: Write) -> Candidate:
    """A write as a candidate. `seen`: the latest write it had seen, which stands for all before it."""
    seen = [w.stamp for w in state.writes_in(write.seen & sum(state.writes)) if w.kind != BASELINE]
    change = write.change
    return Candidate(
        source=write.source,
        value=displayed(unit, write.value),
        stamp=change.stamp,
        committed_us=change.committed_us,
        actor=change.actor,
        place=change.place,
        seen=(max(seen),) if seen else (),
        delta=None if unit.plan.merge != "counter" or write.is_reset or write.delta_unknown else write.delta,
    )


class ConflictSubject(NamedTuple):
    """The unit that a conflict is about: a field, a group or a map key."""

    record: Record
    unit: Unit
    state: UnitState


def build_write_conflict(
    subject: ConflictSubject,
    writes: list[Write],
    *,
    kind: str,
    labels: tuple[str, ...] = (),
    base: MaybeValue = UNKNOWN,
) -> DetectedConflict:
    candidates = tuple(candidate_of(subject.state, subject.unit, w) for w in writes)
    return build_conflict(subject, candidates, kind=kind, labels=labels, base=base)


def build_conflict(
    subject: ConflictSubject,
    candidates: tuple[Candidate, ...],
    *,
    kind: str,
    labels: tuple[str, ...] = (),
    base: MaybeValue = UNKNOWN,
) -> DetectedConflict:
    record, unit, state = subject
    group = unit.plan.name if unit.plan.members else None
    return DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None if group else unit.name,
        group=group,
        kind=kind,
        severity=unit.plan.severity,
        candidates=candidates,
        base=displayed(unit, base),  # type: ignore[arg-type]  # a group's base is an object too
        provisional=displayed(unit, value_of(record, unit, state)),
        labels=labels,
    )
