"""The entry: the meaning of a set of changes of one record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdc_merge.model import UNKNOWN, Change, Place, Stamp
from cdc_merge.model.plan import EntityPlan
from tests.laws.oracle import counters, reading
from tests.laws.oracle.frontiers import frontier, has_ended, live_deletes, opposers
from tests.laws.oracle.maps import ABSENT, NO_MAP
from tests.laws.oracle.rows import apply
from tests.laws.oracle.words import PRESENT, Record, Unit, Write, record_for


@dataclass(frozen=True)
class OpenConflict:
    """A question. A candidate is (source, value); an absent base is UNKNOWN."""

    field: str | None
    group: str | None
    kind: str
    candidates: frozenset[tuple[str, Any]]
    base: Any = UNKNOWN
    provisional: Any = UNKNOWN
    labels: frozenset[str] = frozenset()
    rule: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a history means. `views` is (presence, values) of each source; `traces` are closed `overwrote` conflicts as
    (field or group, source, value overwritten)."""

    deleted: bool
    merged: Mapping[str, Any]
    views: Mapping[str, tuple[str, Mapping[str, Any]]]
    conflicts: frozenset[OpenConflict]
    lost_updates: frozenset[tuple[str, str, Any]] = frozenset()
    frontiers: Mapping[str, frozenset[Stamp]] = field(default_factory=dict)


def answer(entity: EntityPlan, changes: Iterable[Change], max_ahead_us: int = 5_000_000) -> Answer:
    history = in_order(changes)
    record = record_for(entity, max_ahead_us, history)
    for change in history:
        apply(record, change)
    return Answer(
        deleted=has_ended(record),
        merged=_merged(record),
        views={source: _view(record, source) for source in entity.sources},
        conflicts=frozenset(_questions(record)),
        lost_updates=frozenset(record.lost_updates),
        frontiers={unit.name: frozenset(write.id for write in frontier(unit)) for unit in record.units},
    )


def in_order(changes: Iterable[Change]) -> list[Change]:
    """§2: "Stamps decide order, places decide identity"; of two stamps for one place "the smaller stays"."""
    by_place: dict[Place, Change] = {}
    for change in changes:
        known = by_place.get(change.place)
        if known is None or change.stamp < known.stamp:
            by_place[change.place] = change
    ordered = sorted(by_place.values(), key=lambda change: change.stamp)
    stamps = [change.stamp for change in ordered]
    assert len(stamps) == len(set(stamps)), "equal stamps are impossible by construction (§2)"
    return ordered


def _spread(unit: Unit, value: Any) -> dict[str, Any]:
    """A group appears as its member fields; what is unknown is left out."""
    if unit.path or not unit.members:
        return {} if value in (UNKNOWN, NO_MAP) else {unit.name: value}
    parts = value if isinstance(value, tuple) else (value,) * len(unit.members)
    return {member: part for member, part in zip(unit.members, parts, strict=True) if part is not UNKNOWN}


def _merged(record: Record) -> dict[str, Any]:
    return {name: v for unit in record.units for name, v in _spread(unit, reading.value(record, unit)).items()}


def _view(record: Record, source: str) -> tuple[str, Mapping[str, Any]]:
    presence = record.presence[source]
    if presence != PRESENT:
        return presence, {}
    values = {k: v for unit in record.units for k, v in _spread(unit, unit.view.get(source, UNKNOWN)).items()}
    return presence, values


def _questions(record: Record) -> Iterable[OpenConflict]:
    yield from _key_changes(record)
    if has_ended(record):
        return
    yield from _update_deletes(record)
    for unit in record.units:
        yield from _of_unit(record, unit)


def _of_unit(record: Record, unit: Unit) -> Iterable[OpenConflict]:
    writes = reading.candidates(record, unit)
    field_name, group = (None, unit.name) if unit.members else (unit.name, None)
    value = _without_absent(reading.value(record, unit))
    if writes:
        standing = frontier(unit)
        baseline = any(write.kind == "baseline" for write in writes if write in standing)
        labels = frozenset({"baseline"}) if baseline else frozenset()
        yield OpenConflict(
            field_name,
            group,
            reading.kind(unit, writes),
            _pairs(writes),
            _without_absent(reading.base(unit, writes)),
            value,
            labels,
        )
    else:
        apart = reading.diverging(record, unit)
        if apart:
            held = frozenset((source, unit.view[source]) for source in apart)
            yield OpenConflict(field_name, group, "divergence", held, UNKNOWN, value, frozenset({"baseline"}))
    if unit.plan.merge == "counter":
        yield from _of_counter(record, unit, value)


def _of_counter(record: Record, unit: Unit, value: Any) -> Iterable[OpenConflict]:
    if counters.out_of_bounds(record, unit):
        yield OpenConflict(unit.name, None, "bound", _pairs(counters.candidates_of_bound(unit)), UNKNOWN, value)
    unknown = counters.base_unknown(unit)
    if unknown:
        yield OpenConflict(unit.name, None, "unknown_base", _pairs(unknown), UNKNOWN, value)


def _pairs(writes: Iterable[Write]) -> frozenset[tuple[str, Any]]:
    return frozenset((write.source, _without_absent(write.value)) for write in writes)


def _without_absent(value: Any) -> Any:
    """An absent map key is left out of its candidate (contract §7)."""
    return UNKNOWN if value in (ABSENT, NO_MAP) else value


def _update_deletes(record: Record) -> Iterable[OpenConflict]:
    """§4, `deletes: review`; contract §7: "a candidate's value is null for a delete, the changed fields as an
    object for an update, the new key for a move"."""
    if record.entity.deletes in ("update_wins", "delete_wins"):
        return
    candidates: set[tuple[str, Any]] = set()
    updates: dict[Stamp, dict[str, Any]] = {}
    for delete in live_deletes(record):
        against = opposers(record, delete)
        if against:
            candidates.add((delete.source, delete.moved_to))
        for unit, write in against:
            updates.setdefault(write.id, {}).update(_spread(unit, write.value))
    for stamp, fields in updates.items():
        candidates.add((stamp.source, frozenset(fields.items())))
    if candidates:
        yield OpenConflict(None, None, "update_delete", frozenset(candidates))


def _key_changes(record: Record) -> Iterable[OpenConflict]:
    """§4: "Concurrent re-keys of one record → key_change"."""
    moves = [delete for delete in live_deletes(record) if delete.moved_to is not None]
    if len({delete.moved_to for delete in moves}) > 1:
        yield OpenConflict(None, None, "key_change", frozenset((delete.source, delete.moved_to) for delete in moves))
