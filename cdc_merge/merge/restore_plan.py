"""What would bring a record back to what it meant at an earlier stamp: a plan, never a write (semantics §8). Pure.

The plan says field by field what the record means now and meant then, source by source what would have to be written,
and every edit since then: those that the restore would undo and those that it would leave. A source that held no row
then gets none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import PRESENT, Record
from cdc_merge.merge.views import merged, view
from cdc_merge.model import (
    DELETE,
    INSERT,
    SNAPSHOT,
    UNKNOWN,
    UPDATE,
    Change,
    LaterEdit,
    MaybeValue,
    MergedRecord,
    RestorePlan,
    RestoreWrite,
    Stamp,
)
from cdc_merge.model.plan import EntityPlan
from cdc_merge.values.normalizers import normalizer


def restore_plan(record: Record, later: Iterable[Change], to: Stamp, fields: Sequence[str] = ()) -> RestorePlan:
    """The plan of bringing the record back to what it means as it is given: at `to`. `later`: its changes after that, in
    stamp order; they are folded in. `fields`: only these; all of them when there are none."""
    entity = record.units.entity
    before = merged(record)
    edits = [edit for change in later if (edit := _edit(record, change)) is not None]
    present = merged(record)
    named = [*dict.fromkeys((*before.values, *present.values))]
    wanted = [name for name in named if not fields or name in fields]
    differing = {
        name: (present.values.get(name, UNKNOWN), before.values.get(name, UNKNOWN))
        for name in wanted
        if _differ(entity, name, present.values.get(name, UNKNOWN), before.values.get(name, UNKNOWN))
    }
    over = {*present.values} if before.deleted and not present.deleted else {*differing}
    return RestorePlan(
        entity=entity.name,
        key=record.key,
        to=to,
        deleted=(present.deleted, before.deleted),
        fields=differing,
        writes=tuple(_writes(entity, before, present, wanted)),
        later=tuple(replace(edit, undone=tuple(name for name in edit.change.fields if name in over)) for edit in edits),
    )


def _edit(record: Record, change: Change) -> LaterEdit | None:
    """Fold in a change; what it genuinely wrote, or None. A copy and a snapshot read are nobody's work, and a source that
    sends every column has not written those that it held."""
    source = change.stamp.source.partition("/")[0]
    held = view(record, source).values if source in record.rows else {}
    advance(record, change)
    if change.copy is not None or change.operation == SNAPSHOT:
        return None
    entity = record.units.entity
    wrote = {
        name: (held.get(name, was), after)
        for name, (was, after) in change.fields.items()
        if change.operation != UPDATE or _differ(entity, name, held.get(name, was), after)
    }
    return LaterEdit(change._replace(fields=wrote), ()) if wrote or change.operation != UPDATE else None


def _writes(
    entity: EntityPlan, before: MergedRecord, present: MergedRecord, wanted: Sequence[str]
) -> Iterator[RestoreWrite]:
    for source in entity.sources:
        view, earlier = present.sources.get(source), before.sources.get(source)
        holds = view is not None and view.presence == PRESENT
        mapped = [name for name in wanted if name in entity.mapped[source]]
        target = {name: before.values[name] for name in mapped if name in before.values}
        if before.deleted:
            if holds:
                yield RestoreWrite(source, DELETE, {})
        elif view is not None and holds:
            held = {name: view.values.get(name, UNKNOWN) for name in target}
            moved = {n: (held[n], value) for n, value in target.items() if _differ(entity, n, held[n], value)}
            if moved:
                yield RestoreWrite(source, UPDATE, moved)
        elif earlier is not None and earlier.presence == PRESENT:
            yield RestoreWrite(source, INSERT, {name: (UNKNOWN, value) for name, value in target.items()})


def _differ(entity: EntityPlan, field: str, one: MaybeValue, other: MaybeValue) -> bool:
    """Values are compared as the merge compares them."""
    if one is UNKNOWN or other is UNKNOWN:
        return one is not other
    plan = entity.fields.get(field)
    normal = normalizer(plan.normalize) if plan is not None and plan.normalize else None
    return bool(normal(one) != normal(other)) if normal is not None else one != other
