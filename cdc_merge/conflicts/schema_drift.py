"""`schema_drift`: a mapped column is missing, or its type cannot be read for its field. Pure.

It concerns a whole table, so it stands under the empty key, one conflict per field and column; `rule` names the column
as `source table.column`. The other fields are merged as before. It closes when the source announces a readable column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from cdc_merge.conflicts.lifecycle import LifecycleContext, raised
from cdc_merge.mapping.relation import ColumnDrift, RelationColumns
from cdc_merge.model import UNKNOWN, Candidate, Conflict, DetectedConflict, Place, Stamp
from cdc_merge.model.plan import EntityPlan

KIND: Final = "schema_drift"
WHOLE_TABLE: Final = ""
"""The key of a conflict about a table: no record has it."""


class AnnouncedColumns(NamedTuple):
    """The columns of a table as its source announced them, and where in its stream. `place` names the table."""

    source: str
    columns: RelationColumns
    stamp: Stamp
    place: Place


def schema_drift_transitions(
    entity: EntityPlan, announced: AnnouncedColumns, unfinished: Iterable[Conflict], context: LifecycleContext
) -> Iterator[Conflict]:
    """The conflicts that a table's columns raise or close. `unfinished`: the entity's conflicts under the empty key."""
    prefix = f"{announced.source} {announced.columns.table}."
    drifts = {f"{prefix}{drift.column}\x1f{drift.field}": drift for drift in announced.columns.drifts}
    conflicts = {
        f"{c.detected.rule}\x1f{c.detected.field}": c
        for c in unfinished
        if c.detected.kind == KIND and (c.detected.rule or "").startswith(prefix)
    }
    for name, drift in drifts.items():
        if name not in conflicts:
            yield raised(_detected(entity, announced, drift, f"{prefix}{drift.column}"), context)
    for name, conflict in conflicts.items():
        if name not in drifts:
            yield replace(conflict, status="closed", resolution="converged", closed_us=context.now_us)


def _detected(entity: EntityPlan, announced: AnnouncedColumns, drift: ColumnDrift, rule: str) -> DetectedConflict:
    plan = entity.fields.get(drift.field or "")
    severity = "high" if plan is None else plan.severity
    stamp = announced.stamp
    candidate = Candidate(announced.source, UNKNOWN, stamp, stamp.wall_us, None, announced.place)
    return DetectedConflict(entity.name, WHOLE_TABLE, drift.field, None, KIND, severity, (candidate,), rule=rule)
