"""The plan of restoring a record to its meaning at an earlier stamp: a plan, never a write (semantics §8). Pure.

It names, field by field, the present and the earlier value; source by source, what would have to be written; and every edit
since then, those that the restore would undo and those that it would leave. A source that held no row then gets none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import PRESENT, Record
from cdc_merge.merge.views import merged, source_view
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
    """The plan of bringing the record back to its meaning at `to`, which it has as it is given. `later`: its changes after
    that, in stamp order; they are folded in. `fields`: only these; all of them when there are none."""
    entity = record.units.entity
    before = merged(record)
    edits = [edit for change in later if (edit := _edit(record, change)) is not None]
    present = merged(record)
    names = dict.fromkeys((*before.values, *present.values))
    wanted = [name for name in names if not fields or name in fields]
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
    """Fold in a change; what it genuinely wrote, or None. Copies and snapshot reads write nothing of their own, and a source
    that sends every column has not written those whose value stays."""
    source = change.stamp.source.partition("/")[0]
    earlier = source_view(record, source).values if source in record.rows else {}
    advance(record, change)
    if change.copy is not None or change.operation == SNAPSHOT:
        return None
    entity = record.units.entity
    wrote = {
        name: (earlier.get(name, was), after)
        for name, (was, after) in change.fields.items()
        if change.operation != UPDATE or _differ(entity, name, earlier.get(name, was), after)
    }
    return LaterEdit(change._replace(fields=wrote), ()) if wrote or change.operation != UPDATE else None


def _writes(
    entity: EntityPlan, before: MergedRecord, present: MergedRecord, wanted: Sequence[str]
) -> Iterator[RestoreWrite]:
    for source in entity.sources:
        present_view, earlier = present.sources.get(source), before.sources.get(source)
        holds = present_view is not None and present_view.presence == PRESENT
        mapped = [name for name in wanted if name in entity.mapped[source]]
        target = {name: before.values[name] for name in mapped if name in before.values}
        if before.deleted:
            if holds:
                yield RestoreWrite(source, DELETE, {})
        elif present_view is not None and holds:
            now = {name: present_view.values.get(name, UNKNOWN) for name in target}
            changed = {n: (now[n], value) for n, value in target.items() if _differ(entity, n, now[n], value)}
            if changed:
                yield RestoreWrite(source, UPDATE, changed)
        elif earlier is not None and earlier.presence == PRESENT:
            yield RestoreWrite(source, INSERT, {name: (UNKNOWN, value) for name, value in target.items()})


def _differ(entity: EntityPlan, field: str, one: MaybeValue, other: MaybeValue) -> bool:
    """Values are compared as the merge compares them."""
    if one is UNKNOWN or other is UNKNOWN:
        return one is not other
    plan = entity.fields.get(field)
    normal = normalizer(plan.normalize) if plan is not None and plan.normalize else None
    return bool(normal(one) != normal(other)) if normal is not None else one != other
