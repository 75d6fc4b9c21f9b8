"""What the merge may not settle by itself: the questions of a folded record. A pure function of history and plan.

Each kind is one entry of KINDS; `questions` asks them all. A record that has ended asks only where its rows went.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.merge.key_changes import key_change
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.types import counter
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.merge.views import counting, effective, ended, opposing, value_of
from cdc_merge.merge.writes import ABSENT, BASELINE, DECIDED, MISSING, SourceState, Write
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, Candidate, Change, DetectedConflict, MaybeValue, Value

SEVERITIES: Final = ("low", "medium", "high", "critical")
NO_RECORDS: Final[Mapping[str, Record]] = {}

Answer: TypeAlias = "MaybeValue | Mapping[str, Value]"


def merge_conflicts(record: Record, targets: Mapping[str, Record] = NO_RECORDS) -> tuple[DetectedConflict, ...]:
    """Every question that the record raises at present, in a stable order. `targets`: the records of its rows' new keys,
    as far as they are known (merge/key_changes.py)."""
    if not (record.unsettled or record.deletes or record.moves):
        return ()
    found = [*key_change(record, targets, highest(unit.plan.severity for unit in record.units.by_name.values()))]
    if ended(record):
        return tuple(found)
    found.extend(_row_questions(record))
    for name in sorted(record.unsettled):
        cell, unit = record.cells[name], record.unit_of[name]
        for ask in KINDS:
            found.extend(ask(record, unit, cell))
    return tuple(found)


# ---------------------------------------------------------------- concurrent_update, concurrent_insert


def _concurrent(record: Record, unit: Unit, cell: UnitState) -> Iterator[DetectedConflict]:
    front = effective(record, unit, cell)
    if not front:
        return
    asked = unit.type.conflicting_writes(cell, unit.plan, front) or _overruled(unit, front)
    if not asked:
        return
    yield detected_conflict(
        About(record, unit, cell),
        asked,
        kind=_kind(unit, asked),
        labels=("baseline",) if any(w.kind == BASELINE for w in asked if w.bit & cell.frontier) else (),
        base=base_of(cell, asked),
    )


def _overruled(unit: Unit, front: list[Write]) -> list[Write]:
    """A write that had not seen a decision in the frontier, in types that would otherwise settle it (§3, Decisions)."""
    decided = [w for w in front if w.kind == DECIDED]
    if not decided or unit.plan.merge == "set" or all(w.key == decided[0].key for w in front):
        return []
    return [] if any(w.is_reset or w.delta for w in front) else front


def _kind(unit: Unit, candidates: list[Write]) -> str:
    if unit.plan.merge in ("counter", "append"):
        return "concurrent_update"
    apart = any(_separate(a, b) for i, a in enumerate(candidates) for b in candidates[i + 1 :] if a.key != b.key)
    return "concurrent_insert" if apart else "concurrent_update"


def _separate(one: Write, other: Write) -> bool:
    """They go back to different inserts, neither of which had seen the other; first-snapshot values count against
    real ones."""
    if DECIDED in (one.kind, other.kind):
        return False  # people do not insert
    mine, theirs = one.inserts - other.inserts, other.inserts - one.inserts
    return bool(mine and theirs) and not all(insert.baseline for insert in mine | theirs)


def base_of(cell: UnitState, candidates: list[Write]) -> MaybeValue:
    """The latest write that all candidates have seen, else the first snapshot value that their sources shared."""
    common = cell.everything
    for write in candidates:
        common &= write.seen
    seen = [w for w in cell.of(common & sum(cell.writes)) if w.kind != BASELINE]
    if seen:
        return max(seen, key=lambda w: w.stamp).value
    sources = {w.source for w in candidates if w.source != DECISION_SOURCE}
    shared = [cell.sides[s].first if s in cell.sides else UNKNOWN for s in sorted(sources)]
    if shared and UNKNOWN not in shared and len({cell.keyed(v) for v in shared}) == 1:
        return shared[0]
    return UNKNOWN


# ---------------------------------------------------------------- bound, unknown_base, divergence


def _bound(record: Record, unit: Unit, cell: UnitState) -> Iterator[DetectedConflict]:
    if unit.plan.merge != "counter":
        return
    front = effective(record, unit, cell)
    if front and counter.outside(unit.plan, value_of(record, unit, cell)):
        yield detected_conflict(About(record, unit, cell), front, kind="bound", base=base_of(cell, front))


def _unknown_base(record: Record, unit: Unit, cell: UnitState) -> Iterator[DetectedConflict]:
    if unit.plan.merge != "counter":
        return
    settled = 0
    for chosen in cell.of(cell.sets):
        settled |= chosen.seen
    gaps = [w for w in cell.writes.values() if w.delta_unknown and not w.bit & settled]
    if gaps:
        yield detected_conflict(About(record, unit, cell), sorted(gaps, key=lambda w: w.stamp), kind="unknown_base")


def _diverged(record: Record, unit: Unit, cell: UnitState) -> Iterator[DetectedConflict]:
    """Sources that differed at their first snapshot and still do; not beside an open concurrent question."""
    if not cell.diverged or any(_concurrent(record, unit, cell)):
        return
    holders = [s for s in record.holders(unit) if cell.held(s) is not MISSING]
    open_pairs = [pair for pair in cell.diverged if _stand_apart(cell, pair, holders)]
    if not open_pairs:
        return
    apart = {source for pair in open_pairs for source in pair}
    candidates = [_held(unit, source, cell.sides[source]) for source in holders if source in apart]
    yield made(About(record, unit, cell), tuple(candidates), kind="divergence", labels=("baseline",))


def _stand_apart(cell: UnitState, pair: tuple[str, str], holders: list[str]) -> bool:
    """Both hold the record, differ, and one of them has held its first-snapshot value all the time."""
    one, other = pair
    if one not in holders or other not in holders or cell.held(one) == cell.held(other):
        return False
    return cell.sides[one].untouched or cell.sides[other].untouched


def _held(unit: Unit, source: str, side: SourceState) -> Candidate:
    change = side.by
    assert change is not None
    return Candidate(
        source=source,
        value=shown(unit, side.value),
        stamp=change.stamp,
        committed_us=change.committed_us,
        actor=change.actor,
        place=change.place,
    )


KINDS: Final[tuple[Callable[[Record, Unit, UnitState], Iterable[DetectedConflict]], ...]] = (
    _concurrent,
    _bound,
    _unknown_base,
    _diverged,
)

# ---------------------------------------------------------------- update_delete


def _row_questions(record: Record) -> Iterator[DetectedConflict]:
    if record.units.entity.deletes != "review":
        return
    deletes = [(d, opposing(record, d)) for d in counting(record)]
    opposed = [(d, writes) for d, writes in deletes if writes]
    if not opposed:
        return
    candidates = [_deleted(d.change, d.source) for d, _ in opposed]
    against = {(u.name, w.stamp): (u, w) for _, writes in opposed for u, w in writes}
    candidates += updates(list(against.values()))
    yield DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None,
        group=None,
        kind="update_delete",
        severity=highest(u.plan.severity for u, _ in against.values()),
        candidates=tuple(sorted(candidates, key=lambda c: c.stamp)),
    )


def _deleted(change: Change, source: str) -> Candidate:
    """A delete has no value; of a row that moved, the new key is it."""
    return Candidate(source, change.moved_to, change.stamp, change.committed_us, change.actor, change.place)


def updates(writes: list[tuple[Unit, Write]]) -> list[Candidate]:
    """One candidate a change: the fields that it wrote and that still stand."""
    fields: dict[Change, dict[str, Value]] = {}
    by_stamp: dict[object, Change] = {}
    for unit, write in writes:
        change = by_stamp.setdefault(write.stamp, write.change)
        fields.setdefault(_once(change), {}).update(_named_values(unit, write.value))
    return [
        Candidate(w.stamp.source.partition("/")[0], values, w.stamp, w.committed_us, w.actor, w.place)
        for w, values in fields.items()
    ]


def _once(change: Change) -> Change:
    """A change without its fields: it can be a key of a mapping."""
    return change._replace(fields=())  # type: ignore[arg-type]


def _named_values(unit: Unit, value: MaybeValue) -> dict[str, Value]:
    named = members_of(unit.plan, value) if unit.plan.members else {unit.name: value}
    return {name: v for name, v in named.items() if v is not UNKNOWN and v is not ABSENT}


def highest(severities: Iterable[str]) -> str:
    return max(severities, key=SEVERITIES.index, default="medium")


# ---------------------------------------------------------------- building questions


def shown(unit: Unit, value: MaybeValue) -> Answer:
    """A unit's value as people read it: a group by member, an absent key left out."""
    if value is ABSENT:
        return UNKNOWN
    if unit.plan.members:
        return _named_values(unit, value)
    return value


def candidate(cell: UnitState, unit: Unit, write: Write) -> Candidate:
    """A write as a candidate. `seen` names the latest write it had seen, which stands for all before it."""
    seen = [w.stamp for w in cell.of(write.seen & sum(cell.writes)) if w.kind != BASELINE]
    change = write.change
    return Candidate(
        source=write.source,
        value=shown(unit, write.value),
        stamp=change.stamp,
        committed_us=change.committed_us,
        actor=change.actor,
        place=change.place,
        seen=(max(seen),) if seen else (),
        delta=None if unit.plan.merge != "counter" or write.is_reset or write.delta_unknown else write.delta,
    )


class About(NamedTuple):
    """What a question of one field, group or map key is about."""

    record: Record
    unit: Unit
    cell: UnitState


def detected_conflict(
    about: About,
    writes: list[Write],
    *,
    kind: str,
    labels: tuple[str, ...] = (),
    base: MaybeValue = UNKNOWN,
) -> DetectedConflict:
    candidates = tuple(candidate(about.cell, about.unit, w) for w in writes)
    return made(about, candidates, kind=kind, labels=labels, base=base)


def made(
    about: About,
    candidates: tuple[Candidate, ...],
    *,
    kind: str,
    labels: tuple[str, ...] = (),
    base: MaybeValue = UNKNOWN,
) -> DetectedConflict:
    record, unit, cell = about
    group = unit.plan.name if unit.plan.members else None
    return DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None if group else unit.name,
        group=group,
        kind=kind,
        severity=unit.plan.severity,
        candidates=candidates,
        base=shown(unit, base),  # type: ignore[arg-type]  # a group's base is an object too
        provisional=shown(unit, value_of(record, unit, cell)),
        labels=labels,
    )
