"""Everything that is asked about a record: what the merge may not settle, and what checks and rules say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from cdc_merge.conflicts.lifecycle import ConflictIdentity, conflict_identity
from cdc_merge.conflicts.rules import RULES, business, divergence
from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.auto_resolution import answers
from cdc_merge.merge.conflict_detection import NO_RECORDS, merge_conflicts
from cdc_merge.merge.map_fields import plan_at
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import ended
from cdc_merge.model import DetectedConflict


class Detection(NamedTuple):
    """`answered`: those that a rule answers by itself, by what is asked. `due_us`: the stamp time that changes the
    questions when the watermark has passed it; None when only a change can."""

    conflicts: tuple[DetectedConflict, ...]
    due_us: int | None
    answered: frozenset[ConflictIdentity] = frozenset()


# Most records of most batches: no object is made for them.
NOTHING_DETECTED: Final = Detection((), None)


def detect(
    record: Record, rulebook: Rulebook, watermark_us: int, targets: Mapping[str, Record] = NO_RECORDS
) -> Detection:
    """What is open at present, in a stable order. Of a record that has ended only what
    a business rule caught is asked. `targets`: the
    records of its rows' new keys, as far as they are known."""
    found = merge_conflicts(record, targets)
    if rulebook.has_no_rules:
        return Detection(found, None) if found else NOTHING_DETECTED
    stage = RuleContext(found, watermark_us)
    if ended(record):
        return Detection(_graded((*found, *business.detect(record, rulebook, stage)), rulebook), None)
    more = (question for ask in RULES for question in ask(record, rulebook, stage))
    return Detection(
        conflicts=_graded((*found, *more), rulebook),
        due_us=divergence.due_us(record, rulebook, stage),
        answered=frozenset(conflict_identity(q) for q in found if is_auto_resolved(record.units, q)),
    )


def is_auto_resolved(units: Units, question: DetectedConflict) -> bool:
    """Whether a rule answers the question, so that nobody is asked."""
    name = question.group or question.field or ""
    unit, owner = units.by_name.get(name), units.entity.fields.get(name.partition(".")[0])
    if unit is not None:
        return answers(unit.plan, question)
    return owner is not None and owner.merge == "map" and answers(plan_at(owner, name), question)


def _graded(found: tuple[DetectedConflict, ...], rulebook: Rulebook) -> tuple[DetectedConflict, ...]:
    """What concerns the whole record is as grave as the rule about the entity says."""
    severity = rulebook.record_severity
    if severity is None:
        return found
    return tuple(replace(q, severity=severity) if (q.group or q.field or q.rule) is None else q for q in found)
