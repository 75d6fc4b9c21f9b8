"""duplicate: records of one entity that share what they may not, one question per connected set (semantics §5).

It stands under the smallest key and names every record. Candidates are the standing writes of the fields that the
matching rules compare; of a record that nobody has written, what the sources hold since their first snapshots; and of
two rows of one source under one key each row, as it is. Where all of that was there before anything could be told about
it, the question is labelled `baseline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from cdc_merge.conflicts.lifecycle import ConflictIdentity, LifecycleContext
from cdc_merge.conflicts.rules.rulebook import Rulebook
from cdc_merge.conflicts.rules.unique import CompiledUnique
from cdc_merge.merge.conflict_detection import highest
from cdc_merge.merge.record_state import DuplicateRow, Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.merge.views import effective, ended, value_of, view
from cdc_merge.merge.writes import BASELINE
from cdc_merge.model import SNAPSHOT, UNKNOWN, Candidate, Change, Conflict, DetectedConflict, MaybeValue, Stamp, Value

KIND: Final = "duplicate"

# A set beyond it is a value that stands for "none" (tax number 0): the question names the first records by key.
MOST_RECORDS: Final = 500


class Member(NamedTuple):
    """One record of a connected set, and the rules by which it matches others."""

    record: Record
    rules: tuple[CompiledUnique, ...]


# ---------------------------------------------------------------- connected sets


class Index(Protocol):
    """Who holds which digest, in one entity."""

    def digests_of(self, key: str) -> Iterable[bytes]: ...

    def keys_with(self, digest: bytes) -> Sequence[str]:
        """In a fixed order, the first `MOST_RECORDS` of them."""
        ...


def connected(key: str, index: Index) -> tuple[str, ...]:
    """The keys of the records that match the record, or match one that does, itself included, in order. Of a set that
    is too large the first ones, the same whichever of them is asked."""
    found = _reached(key, index)
    while found[0] != key and len(found) == MOST_RECORDS:
        key = found[0]
        found = _reached(key, index)
    return found


def _reached(key: str, index: Index) -> tuple[str, ...]:
    reached, seen, latest = {key}, set[bytes](), [key]
    while latest and len(reached) < MOST_RECORDS:
        digests = {digest for each in latest for digest in index.digests_of(each)} - seen
        seen |= digests
        found = sorted({each for digest in digests for each in index.keys_with(digest)} - reached)
        latest = found[: MOST_RECORDS - len(reached)]
        reached.update(latest)
    return tuple(sorted(reached))


# ---------------------------------------------------------------- the question


def detected_duplicate(members: Sequence[Member], rulebook: Rulebook) -> DetectedConflict | None:
    """What is asked about a connected set, its records in the order of their keys; None for one record alone whose
    sources have one row each."""
    if len(members) < 2 and not any(has_duplicate_rows(member.record) for member in members):
        return None
    candidates = [each for member in members for each in (*_candidates(member), *_rows(member.record))]
    if not candidates:
        return None
    first = members[0].record
    severities = [rule.rule.severity for member in members for rule in member.rules]
    severities = severities or [unit.plan.severity for unit in first.units.by_name.values()]
    return DetectedConflict(
        entity=first.units.entity.name,
        key=first.key,
        field=None,
        group=None,
        kind=KIND,
        severity=rulebook.record_severity or highest(severities),
        candidates=tuple(candidate for candidate, _ in candidates),
        provisional=None,
        labels=("baseline",) if all(change.operation == SNAPSHOT for _, change in candidates) else (),
        records=tuple(member.record.key for member in members),
    )


def _candidates(member: Member) -> list[tuple[Candidate, Change]]:
    """One candidate a change: what it says of the fields that are compared."""
    record = member.record
    fields: dict[Stamp, dict[str, Value]] = {}
    changes: dict[Stamp, Change] = {}
    for field in dict.fromkeys(field for rule in member.rules for field in rule.rule.fields):
        for change, value in _told(record, field):
            changes[change.stamp] = change
            if value is not UNKNOWN:
                fields.setdefault(change.stamp, {})[field] = value
    return [(_candidate(record.key, changes[stamp], told), changes[stamp]) for stamp, told in sorted(fields.items())]


def has_duplicate_rows(record: Record) -> bool:
    """Whether a source holds several rows under the record's key."""
    return any(row.duplicates for row in record.rows.values()) and not ended(record)


def _rows(record: Record) -> Iterator[tuple[Candidate, Change]]:
    """The rows of every source that has several, the one that the record follows first."""
    for source in record.present if has_duplicate_rows(record) else ():
        row = record.rows[source]
        if not row.duplicates:
            continue
        leading = row.by or _latest(record, source)
        rows = [DuplicateRow(leading, view(record, source).values)] if leading is not None else []
        for change, values in (*rows, *row.duplicates.values()):
            told = {field: value for field, value in values.items() if value is not UNKNOWN}
            yield _candidate(record.key, change, told), change


def _latest(record: Record, source: str) -> Change | None:
    """The last change of a row that no change has brought: it was there before anything was read of it."""
    changes = [cell.sides[source].by for cell in record.cells.values() if source in cell.sides]
    return max((change for change in changes if change is not None), key=lambda change: change.stamp, default=None)


def _candidate(key: str, change: Change, value: Mapping[str, Value]) -> Candidate:
    source = change.stamp.source.partition("/")[0]
    return Candidate(source, value, change.stamp, change.committed_us, change.actor, change.place, key=key)


def _told(record: Record, field: str) -> Iterator[tuple[Change, MaybeValue]]:
    """The changes that gave the field its merged value, as far as they stand."""
    for name, cell in record.cells.items():
        unit = record.unit_of[name]
        if field != unit.owner and field not in unit.plan.members:
            continue
        merged = unit.keyed(value_of(record, unit, cell))
        front = [write for write in effective(record, unit, cell) if write.kind != BASELINE]
        told = [(write.change, write.value) for write in front] or [*_held(record, unit, cell)]
        for change, value in [(change, value) for change, value in told if unit.keyed(value) == merged] or told:
            yield change, _of_field(unit, field, value)


def _held(record: Record, unit: Unit, cell: UnitState) -> Iterator[tuple[Change, MaybeValue]]:
    for source in record.holders(unit):
        change = cell.sides[source].by if source in cell.sides else None
        if change is not None and cell.view(source) is not UNKNOWN:
            yield change, cell.view(source)


def _of_field(unit: Unit, field: str, value: MaybeValue) -> MaybeValue:
    return members_of(unit.plan, value).get(field, UNKNOWN) if unit.plan.members else value


# ---------------------------------------------------------------- the queue


def without_duplicates(known: dict[ConflictIdentity, Conflict]) -> dict[ConflictIdentity, Conflict]:
    """What is known of one record by itself: a duplicate is several records' concern."""
    if not any(conflict.detected.kind == KIND for conflict in known.values()):
        return known
    return {identity: conflict for identity, conflict in known.items() if conflict.detected.kind != KIND}


def duplicate_transitions(
    known: Iterable[Conflict],
    found: Iterable[DetectedConflict],
    moment: LifecycleContext,
    *,
    is_decided: Callable[[Conflict], bool],
) -> Iterator[Conflict]:
    """The duplicates that change: new ones settling, known ones revised, moved or closed. A known one goes on as the set
    that holds its key, or else the first that holds one of its records; sets that come together are one question.
    `is_decided`: people decided what it asks."""
    free = {
        detected_duplicate.key: detected_duplicate
        for detected_duplicate in sorted(found, key=lambda detected_duplicate: detected_duplicate.key)
    }
    taken: list[DetectedConflict] = []
    for conflict in sorted(known, key=lambda each: (each.raised_us, each.id)):
        heir = _heir(conflict.detected, free.values())
        if heir is None:
            joined = _heir(conflict.detected, taken) is not None
            ended = "superseded" if joined else "decided" if is_decided(conflict) else "converged"
            yield replace(conflict, status="closed", resolution=ended, closed_us=moment.now_us)
            continue
        taken.append(free.pop(heir.key))
        if heir != conflict.detected:
            revision = conflict.revision + 1
            yield replace(conflict, detected=heir, revision=revision, labels=heir.labels, policy=moment.policy)
    for detected_duplicate in free.values():
        yield Conflict(
            id=moment.new_id(),
            detected=detected_duplicate,
            status="settling",
            revision=1,
            raised_us=moment.now_us,
            labels=detected_duplicate.labels,
            policy=moment.policy,
        )


def _heir(asked: DetectedConflict, found: Iterable[DetectedConflict]) -> DetectedConflict | None:
    """The set that goes on with what was asked."""
    records = frozenset(asked.records)
    heirs = [detected_duplicate for detected_duplicate in found if not records.isdisjoint(detected_duplicate.records)]
    return next(
        (detected_duplicate for detected_duplicate in heirs if asked.key in detected_duplicate.records),
        heirs[0] if heirs else None,
    )


def is_dismissed(detected_duplicate: DetectedConflict, told: Iterable[Conflict]) -> bool:
    """People have said of these candidates that they are no duplicates, or what to do about them."""
    places = {candidate.place for candidate in detected_duplicate.candidates}
    answered = [conflict for conflict in told if conflict.resolution in ("dismissed", "decided")]
    return any(
        conflict.detected.kind == KIND and {c.place for c in conflict.detected.candidates} == places
        for conflict in answered
    )
