"""duplicate: records of one entity that share what a unique rule forbids; one conflict per connected set (semantics §5).

It stands under the smallest key and names every record. Candidates are the effective writes of the fields that the
matching rules compare; for a record without writes, the values at the sources since their initial snapshots; and for two
rows of one source under one key each row as it is. Where all of that comes from initial snapshots, the conflict is labelled
`baseline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from cdc_merge.conflicts.lifecycle import ConflictIdentity, LifecycleContext, raised
from cdc_merge.conflicts.rules.rulebook import Rulebook
from cdc_merge.conflicts.rules.unique import CompiledUnique
from cdc_merge.merge.conflict_detection import highest_severity
from cdc_merge.merge.record_state import DuplicateRow, Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.merge.views import ended, readable_frontier, source_view, value_of
from cdc_merge.merge.writes import BASELINE
from cdc_merge.model import SNAPSHOT, UNKNOWN, Candidate, Change, Conflict, DetectedConflict, MaybeValue, Stamp, Value

KIND: Final = "duplicate"

# A set beyond it is a value that stands for "none" (tax number 0): the conflict names the first records by key.
MOST_RECORDS: Final = 500


class Member(NamedTuple):
    """One record of a connected set, and the rules by which it matches others."""

    record: Record
    rules: tuple[CompiledUnique, ...]


# ---------------------------------------------------------------- connected sets


class Index(Protocol):
    """The digests of one entity's records."""

    def digests_of(self, key: str) -> Iterable[bytes]: ...

    def keys_with(self, digest: bytes) -> Sequence[str]:
        """In a fixed order, the first `MOST_RECORDS` of them."""
        ...


def connected(key: str, index: Index) -> tuple[str, ...]:
    """The keys of the records that match the record, or match one that does, itself included, in order. Of a set that
    is too large the first ones, the same from whichever of them the search starts."""
    keys = _reached(key, index)
    while keys[0] != key and len(keys) == MOST_RECORDS:
        key = keys[0]
        keys = _reached(key, index)
    return keys


def _reached(key: str, index: Index) -> tuple[str, ...]:
    reached, seen, latest = {key}, set[bytes](), [key]
    while latest and len(reached) < MOST_RECORDS:
        digests = {digest for each in latest for digest in index.digests_of(each)} - seen
        seen |= digests
        matching = sorted({each for digest in digests for each in index.keys_with(digest)} - reached)
        latest = matching[: MOST_RECORDS - len(reached)]
        reached.update(latest)
    return tuple(sorted(reached))


# ---------------------------------------------------------------- detection


def detected_duplicate(members: Sequence[Member], rulebook: Rulebook) -> DetectedConflict | None:
    """The conflict of a connected set, its records in the order of their keys; None for one record alone whose sources have
    one row each."""
    if len(members) < 2 and not any(has_duplicate_rows(member.record) for member in members):
        return None
    candidates = [each for member in members for each in (*_compared_writes(member), *_duplicate_rows(member.record))]
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
        severity=rulebook.record_severity or highest_severity(severities),
        candidates=tuple(candidate for candidate, _ in candidates),
        provisional=None,
        labels=("baseline",) if all(change.operation == SNAPSHOT for _, change in candidates) else (),
        records=tuple(member.record.key for member in members),
    )


def _compared_writes(member: Member) -> list[tuple[Candidate, Change]]:
    """One candidate per change: its values of the compared fields."""
    record = member.record
    values_by_stamp: dict[Stamp, dict[str, Value]] = {}
    changes: dict[Stamp, Change] = {}
    for field in dict.fromkeys(field for rule in member.rules for field in rule.rule.fields):
        for change, value in _effective_changes(record, field):
            changes[change.stamp] = change
            if value is not UNKNOWN:
                values_by_stamp.setdefault(change.stamp, {})[field] = value
    in_order = sorted(values_by_stamp.items())
    return [(_candidate(record.key, changes[stamp], values), changes[stamp]) for stamp, values in in_order]


def has_duplicate_rows(record: Record) -> bool:
    """Whether a source holds several rows under the record's key."""
    return any(row.duplicates for row in record.rows.values()) and not ended(record)


def _duplicate_rows(record: Record) -> Iterator[tuple[Candidate, Change]]:
    """The rows of every source that has several; the row that the record follows comes first."""
    for source in record.present if has_duplicate_rows(record) else ():
        row = record.rows[source]
        if not row.duplicates:
            continue
        leading = row.entered_by or _latest_change(record, source)
        rows = [DuplicateRow(leading, source_view(record, source).values)] if leading is not None else []
        for change, values in (*rows, *row.duplicates.values()):
            readable = {field: value for field, value in values.items() if value is not UNKNOWN}
            yield _candidate(record.key, change, readable), change


def _latest_change(record: Record, source: str) -> Change | None:
    """The last change of a row without an insert: the row existed before the first change that was read."""
    changes = [state.by_source[source].set_by for state in record.unit_states.values() if source in state.by_source]
    return max((change for change in changes if change is not None), key=lambda change: change.stamp, default=None)


def _candidate(key: str, change: Change, value: Mapping[str, Value]) -> Candidate:
    source = change.stamp.source.partition("/")[0]
    return Candidate(source, value, change.stamp, change.committed_us, change.actor, change.place, key=key)


def _effective_changes(record: Record, field: str) -> Iterator[tuple[Change, MaybeValue]]:
    """The changes that gave the field its merged value, or all effective ones where none has exactly that value."""
    for name, state in record.unit_states.items():
        unit = record.unit_of[name]
        if field != unit.owner and field not in unit.plan.members:
            continue
        merged = unit.key_of(value_of(record, unit, state))
        writes = [write for write in readable_frontier(record, unit, state) if write.kind != BASELINE]
        changes = [(write.change, write.value) for write in writes] or [*_values_at_sources(record, unit, state)]
        with_merged_value = [(change, value) for change, value in changes if unit.key_of(value) == merged]
        for change, value in with_merged_value or changes:
            yield change, _member_value(unit, field, value)


def _values_at_sources(record: Record, unit: Unit, state: UnitState) -> Iterator[tuple[Change, MaybeValue]]:
    for source in record.holders(unit):
        change = state.by_source[source].set_by if source in state.by_source else None
        if change is not None and state.value_at(source) is not UNKNOWN:
            yield change, state.value_at(source)


def _member_value(unit: Unit, field: str, value: MaybeValue) -> MaybeValue:
    return members_of(unit.plan, value).get(field, UNKNOWN) if unit.plan.members else value


# ---------------------------------------------------------------- life cycle


def without_duplicates(unfinished: dict[ConflictIdentity, Conflict]) -> dict[ConflictIdentity, Conflict]:
    """The conflicts of one record alone: a duplicate concerns several records."""
    if not any(conflict.detected.kind == KIND for conflict in unfinished.values()):
        return unfinished
    return {identity: conflict for identity, conflict in unfinished.items() if conflict.detected.kind != KIND}


def duplicate_transitions(
    unfinished: Iterable[Conflict],
    duplicates: Iterable[DetectedConflict],
    context: LifecycleContext,
    *,
    is_decided: Callable[[Conflict], bool],
) -> Iterator[Conflict]:
    """The duplicates that change: those detected first settle, unfinished ones are revised, moved or closed. An unfinished
    one continues as the set with its key, or else the first with one of its records; sets that join are one conflict.
    `is_decided`: whether people decided the conflict."""
    remaining = {duplicate.key: duplicate for duplicate in sorted(duplicates, key=lambda duplicate: duplicate.key)}
    continued: list[DetectedConflict] = []
    for conflict in sorted(unfinished, key=lambda each: (each.raised_us, each.id)):
        successor = _successor(conflict.detected, remaining.values())
        if successor is None:
            is_joined = _successor(conflict.detected, continued) is not None
            resolution = "superseded" if is_joined else "decided" if is_decided(conflict) else "converged"
            yield replace(conflict, status="closed", resolution=resolution, closed_us=context.now_us)
            continue
        continued.append(remaining.pop(successor.key))
        if successor != conflict.detected:
            revision = conflict.revision + 1
            yield replace(
                conflict, detected=successor, revision=revision, labels=successor.labels, policy=context.policy
            )
    for duplicate in remaining.values():
        yield raised(duplicate, context)


def _successor(earlier: DetectedConflict, duplicates: Iterable[DetectedConflict]) -> DetectedConflict | None:
    """The set as which an earlier one continues."""
    records = frozenset(earlier.records)
    overlapping = [duplicate for duplicate in duplicates if not records.isdisjoint(duplicate.records)]
    with_key = (duplicate for duplicate in overlapping if earlier.key in duplicate.records)
    return next(with_key, overlapping[0] if overlapping else None)


def is_dismissed(duplicate: DetectedConflict, recorded: Iterable[Conflict]) -> bool:
    """Whether people dismissed or decided a duplicate with the same candidates."""
    places = {candidate.place for candidate in duplicate.candidates}
    by_people = [conflict for conflict in recorded if conflict.resolution in ("dismissed", "decided")]
    return any(
        conflict.detected.kind == KIND and {c.place for c in conflict.detected.candidates} == places
        for conflict in by_people
    )
