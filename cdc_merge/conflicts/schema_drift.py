"""`schema_drift`: a mapped column that is gone or has a type that its field cannot be read from. Pure.

It concerns a whole table, so it stands under the empty key, one conflict per field and column; `rule` names the column
as `source table.column`. The other fields go on. It closes when the table is announced with a readable column again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from cdc_merge.conflicts.lifecycle import LifecycleContext
from cdc_merge.mapping.relation import ColumnDrift, RelationColumns
from cdc_merge.model import UNKNOWN, Candidate, Conflict, DetectedConflict, Place, Stamp
from cdc_merge.model.plan import EntityPlan

KIND: Final = "schema_drift"
WHOLE_TABLE: Final = ""
"""The key under which a question about a table stands: no record has it."""


class AnnouncedColumns(NamedTuple):
    """A table's shape, and where in its source it was met. `place` names the table."""

    source: str
    shape: RelationColumns
    stamp: Stamp
    place: Place


def schema_drift_transitions(
    entity: EntityPlan, seen: AnnouncedColumns, known: Iterable[Conflict], moment: LifecycleContext
) -> Iterator[Conflict]:
    """The conflicts that a table's shape raises or ends. `known`: the entity's unfinished ones under the empty key."""
    about = f"{seen.source} {seen.shape.table}."
    wanted = {f"{about}{drift.column}\x1f{drift.field}": drift for drift in seen.shape.drifts}
    found = {f"{c.detected.rule}\x1f{c.detected.field}": c for c in known if _is_about(c.detected, about)}
    for name, drift in wanted.items():
        if name not in found:
            yield _raised(_question(entity, seen, drift, f"{about}{drift.column}"), moment)
    for name, conflict in found.items():
        if name not in wanted:
            yield replace(conflict, status="closed", resolution="converged", closed_us=moment.now_us)


def _is_about(question: DetectedConflict, about: str) -> bool:
    return question.kind == KIND and (question.rule or "").startswith(about)


def _question(entity: EntityPlan, seen: AnnouncedColumns, drift: ColumnDrift, rule: str) -> DetectedConflict:
    plan = entity.fields.get(drift.field or "")
    severity = "high" if plan is None else plan.severity
    candidate = Candidate(seen.source, UNKNOWN, seen.stamp, seen.stamp.wall_us, None, seen.place)
    return DetectedConflict(entity.name, WHOLE_TABLE, drift.field, None, KIND, severity, (candidate,), rule=rule)


def _raised(question: DetectedConflict, moment: LifecycleContext) -> Conflict:
    return Conflict(moment.new_id(), question, "settling", 1, moment.now_us, policy=moment.policy)
