"""The composition of conflict detection for one record: what the merge cannot settle, then every rule kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from cdc_merge.conflicts.lifecycle import ConflictIdentity, conflict_identity
from cdc_merge.conflicts.rules import RULES, business, divergence
from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.auto_resolution import resolves
from cdc_merge.merge.conflict_detection import NO_TARGETS, merge_conflicts
from cdc_merge.merge.map_fields import plan_at
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import ended
from cdc_merge.model import DetectedConflict


class Detection(NamedTuple):
    """`auto_resolved`: the conflicts that a rule resolves. `due_us`: the stamp time after which the watermark alone changes
    the conflicts; None when only a change can."""

    conflicts: tuple[DetectedConflict, ...]
    due_us: int | None
    auto_resolved: frozenset[ConflictIdentity] = frozenset()


# Most records of most batches: no object is made for them.
NOTHING_DETECTED: Final = Detection((), None)


def detect(
    record: Record, rulebook: Rulebook, watermark_us: int, targets: Mapping[str, Record] = NO_TARGETS
) -> Detection:
    """The record's conflicts at present, in a stable order. A record that has ended has only those that a business rule
    found in its writes. `targets`: the records under the keys to which its rows moved, as far as they are loaded."""
    conflicts = merge_conflicts(record, targets)
    if rulebook.has_no_rules:
        return Detection(conflicts, None) if conflicts else NOTHING_DETECTED
    context = RuleContext(conflicts, watermark_us)
    if ended(record):
        of_writes = business.detect(record, rulebook, context)
        return Detection(_with_record_severity((*conflicts, *of_writes), rulebook), None)
    by_rules = (detected for rule_kind in RULES for detected in rule_kind(record, rulebook, context))
    return Detection(
        conflicts=_with_record_severity((*conflicts, *by_rules), rulebook),
        due_us=divergence.due_us(record, rulebook, context),
        auto_resolved=frozenset(conflict_identity(each) for each in conflicts if is_auto_resolved(record.units, each)),
    )


def is_auto_resolved(units: Units, detected: DetectedConflict) -> bool:
    """Whether a rule resolves the conflict, so that it needs no decision."""
    name = detected.group or detected.field or ""
    unit, owner = units.by_name.get(name), units.entity.fields.get(name.partition(".")[0])
    if unit is not None:
        return resolves(unit.plan, detected)
    return owner is not None and owner.merge == "map" and resolves(plan_at(owner, name), detected)


def _with_record_severity(conflicts: tuple[DetectedConflict, ...], rulebook: Rulebook) -> tuple[DetectedConflict, ...]:
    """Conflicts about the whole record have the severity of the entity's rule."""
    severity = rulebook.record_severity
    if severity is None:
        return conflicts
    return tuple(replace(c, severity=severity) if (c.group or c.field or c.rule) is None else c for c in conflicts)
