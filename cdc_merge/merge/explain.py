"""Why a field has its value: every write, what its writer had seen, and what became of it (contract §7, `explain`).

`explain` is the definition: it reads a full fold, one whose cells have forgotten nothing. `explained` says the same in
one pass over however long a history, with the fates that fates.py notes; of what a writer had seen it names the
latest writes and counts the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cdc_merge.errors import NotFound
from cdc_merge.merge import auto_resolution, map_fields
from cdc_merge.merge.conflict_detection import shown
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import effective, value_of
from cdc_merge.merge.write_outcomes import WriteOutcome, watch_outcomes
from cdc_merge.merge.writes import BASELINE, DECIDED, Write
from cdc_merge.model import UNKNOWN, Change, Explained, Explanation, Json, MaybeValue, Stamp


def explain(record: Record, field: str) -> Explanation:
    """The explanation of one field, group member's group or map key. NotFound when the entity has no such field."""
    unit = _unit(record, field)
    cell = record.cells.get(unit.name)
    if cell is None:
        return _explained(record, unit, UNKNOWN, (), ())
    front = effective(record, unit, cell)
    asked = unit.type.conflicting_writes(cell, unit.plan, front) if front else []
    writes = sorted((w for w in cell.writes.values() if w.kind != BASELINE), key=lambda w: w.stamp)
    told = tuple(_write(cell, unit, w, (front, asked)) for w in writes)
    return _explained(record, unit, value_of(record, unit, cell), tuple(w.stamp for w in front), told)


def explained(record: Record, changes: Iterable[Change], field: str) -> Explanation:
    """Fold the changes (in stamp order) into a record that does not compact, and explain one of its fields as `explain`
    does. NotFound when the entity has no such field."""
    group = record.units.group_of.get(field)
    fates = watch_outcomes(record, changes, group.name if group else field)
    unit = _unit(record, field)
    cell = record.cells.get(unit.name)
    if cell is None:
        return _explained(record, unit, UNKNOWN, (), ())
    front = effective(record, unit, cell)
    asked = unit.type.conflicting_writes(cell, unit.plan, front) if front else []
    told = tuple(_noted(cell, unit, fate, (front, asked)) for fate in fates)
    return _explained(record, unit, value_of(record, unit, cell), tuple(w.stamp for w in front), told)


def _noted(cell: UnitState, unit: Unit, fate: WriteOutcome, standing: tuple[list[Write], list[Write]]) -> Explained:
    write = fate.write
    is_kept = cell.writes.get(write.bit) is write
    outcome, because = _kept(cell, unit, write, standing) if is_kept else (None, "")
    if outcome is None:
        outcome, because = _past(unit, fate.by)
    return _told(unit, write, (fate.saw or (), fate.earlier), (outcome, because))


def _explained(
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


def _unit(record: Record, field: str) -> Unit:
    units = record.units
    group = units.group_of.get(field)
    known = record.unit_of.get(field) or units.by_name.get(group.name if group else field)
    if known is None:
        raise NotFound(
            f"Entity {units.entity.name} has no field {field}.",
            hint="Its fields: " + ", ".join(sorted({*units.by_name, *units.group_of, *units.entity.fields})),
        )
    return known


def _write(cell: UnitState, unit: Unit, write: Write, standing: tuple[list[Write], list[Write]]) -> Explained:
    saw = tuple(sorted(w.stamp for w in cell.of(write.seen) if w.kind != BASELINE))
    outcome, because = _kept(cell, unit, write, standing)
    if outcome is None:
        by = [w for w in cell.writes.values() if w.seen & write.bit and w.kind != BASELINE]
        outcome, because = _past(unit, min(by, key=lambda w: w.stamp, default=None))
    return _told(unit, write, (saw, 0), (outcome, because))


def _told(unit: Unit, write: Write, saw: tuple[tuple[Stamp, ...], int], fate: tuple[str, str]) -> Explained:
    return Explained(
        stamp=write.stamp,
        source=write.source,
        kind="decision" if write.kind == DECIDED else "write",
        before=_plain(unit, write.before),
        after=_plain(unit, write.value),
        saw=saw[0],
        saw_earlier=saw[1],
        outcome=fate[0],
        because=fate[1],
    )


def _kept(
    cell: UnitState, unit: Unit, write: Write, standing: tuple[list[Write], list[Write]]
) -> tuple[str, str] | tuple[None, str]:
    """The outcome of a write that still counts, or was overwritten; None for one that is past."""
    front, asked = standing
    if write.bit & cell.overwritten:
        return "overwritten", "A copy of a concurrent write replaced it before anybody had seen it."
    if write not in front:
        return None, ""
    answer = auto_resolution.outcome(cell, unit.plan, asked) if write in asked else None
    return _standing(unit, write, front, asked) if answer is None else _answered(write, answer)


def _past(unit: Unit, by: Write | None) -> tuple[str, str]:
    """A write that later ones have seen; `by` is the earliest of them."""
    if unit.plan.merge in ("counter", "set", "append"):
        return "merged", "Later writes build on it; its part is in the value."
    if by is not None:
        return "lost", f"{by.source} had seen it and wrote again at {by.stamp}."
    return "lost", "A delete that had seen it, or the record's next life, ended it."


def _answered(write: Write, answer: object) -> tuple[str, str]:
    if answer is write:
        return "won", "Concurrent with others; the rule's automatic answer is this write."
    if isinstance(answer, Write):
        return "lost", f"Concurrent with others; the rule's automatic answer is the write of {answer.stamp}."
    return "merged", "Concurrent with others; the rule leaves the answer to the merge type."


def _standing(unit: Unit, write: Write, front: list[Write], asked: list[Write]) -> tuple[str, str]:
    if write in asked:
        others = ", ".join(str(w.stamp) for w in front if w is not write)
        return "candidate", f"Concurrent with {others}: neither had seen the other."
    if len(front) == 1:
        return "won", "No other write of this field is concurrent with it."
    if unit.plan.merge in ("counter", "set", "append"):
        return "merged", "Its part was merged with concurrent writes."
    same = all(w.key == write.key for w in front)
    if same:
        return "won", "Concurrent writes say the same."
    winner = unit.plan.merge
    return "merged", f"Concurrent with others; {winner} settles them."


def _plain(unit: Unit, value: MaybeValue) -> MaybeValue:
    """A unit's value as one value: a group as a JSON object of its members."""
    plain = shown(unit, value)
    return Json(map_fields.text_of(plain)) if isinstance(plain, Mapping) else plain
