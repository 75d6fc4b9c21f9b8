"""unauthorized: a write in the frontier by a source or an actor that may not write the field (`writers:`).

Where actors are listed, an unknown actor is refused. Copies are no writes; decisions are always allowed.
"""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.conflict_detection import ConflictSubject, base_of, build_write_conflict
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.views import readable_frontier
from cdc_merge.merge.writes import WRITE, Write
from cdc_merge.model import DetectedConflict
from cdc_merge.model.plan import FieldPlan


def detect(record: Record, rulebook: Rulebook, context: RuleContext) -> Iterator[DetectedConflict]:
    if not rulebook.writers:
        return
    for name in sorted(record.unit_states):
        unit = record.unit_of[name]
        plan = rulebook.writers.get(unit.owner)
        if plan is None:
            continue
        state = record.unit_states[name]
        violations = [write for write in readable_frontier(record, unit, state) if not may_write(plan, write)]
        if violations:
            yield build_write_conflict(
                ConflictSubject(record, unit, state), violations, kind="unauthorized", base=base_of(state, violations)
            )


def may_write(plan: FieldPlan, write: Write) -> bool:
    """Whether the plan allows this write of its field."""
    if write.kind != WRITE:
        return True
    if plan.writer_sources is not None and write.source not in plan.writer_sources:
        return False
    return plan.writer_actors is None or write.change.actor in plan.writer_actors
