"""divergence: a source's value differs from the others' for longer than its rule's `tolerance` (semantics §5).

Time is stamp time up to the watermark: the conflict is a function of history, rules and watermark. It is not raised beside a
conflict of concurrent writes, nor for sources whose initial snapshots are in conflict (`baseline`): that conflict shows
their difference already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.auto_resolution import resolves
from cdc_merge.merge.conflict_detection import ConflictSubject, build_conflict, displayed
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import Candidate, DetectedConflict
from cdc_merge.model.plan import Rule


def detect(record: Record, rulebook: Rulebook, context: RuleContext) -> Iterator[DetectedConflict]:
    for unit, rule, excluded in _timed_units(record, rulebook, context):
        if any(at_us < context.watermark_us for at_us in _tolerance_ends(record, unit, rule, excluded)):
            subject = ConflictSubject(record, unit, record.unit_states[unit.name])
            detected = build_conflict(subject, tuple(_candidates(record, unit)), kind="divergence")
            yield replace(detected, severity=rule.severity or detected.severity, rule=rule.name)


def due_us(record: Record, rulebook: Rulebook, context: RuleContext) -> int | None:
    """The next stamp time after which the watermark alone raises a conflict; None when it raises none."""
    ends = [at_us for timed in _timed_units(record, rulebook, context) for at_us in _tolerance_ends(record, *timed)]
    return min((at_us for at_us in ends if at_us >= context.watermark_us), default=None)


def _timed_units(
    record: Record, rulebook: Rulebook, context: RuleContext
) -> Iterator[tuple[Unit, Rule, frozenset[str]]]:
    """The fields with a tolerance and no conflict of concurrent writes; with the sources whose difference at their initial
    snapshot is in conflict already."""
    if not record.divergence_clocks:
        return
    detected = {
        each.group or each.field: each
        for each in context.conflicts
        if each.kind.startswith("concurrent_") or each.kind == "divergence"
    }
    for name in sorted(record.divergence_clocks):
        unit, conflict = record.unit_of[name], detected.get(name)
        if unit.owner not in rulebook.divergence_clocks:
            continue
        rule = rulebook.divergence_clocks[unit.owner]
        if conflict is None or resolves(unit.plan, conflict):
            yield unit, rule, frozenset()
        elif conflict.kind == "divergence":
            yield unit, rule, frozenset(candidate.source for candidate in conflict.candidates)


def _tolerance_ends(record: Record, unit: Unit, rule: Rule, excluded: frozenset[str]) -> Iterator[int]:
    """The end of the tolerance (µs of stamp time) of each source whose value differs."""
    assert rule.tolerance_us is not None, "a divergence clock without a tolerance"
    clock, state = record.divergence_clocks[unit.name], record.unit_states[unit.name]
    for source in record.holders(unit):
        if source in excluded:
            continue
        since = clock.since(source, alone=not _is_snapshot_null(state, source))
        if since is not None:
            yield since.wall_us + rule.tolerance_us


def _is_snapshot_null(state: UnitState, source: str) -> bool:
    """A NULL from the initial snapshot alone is no difference; nor is an unknown value of the source's row."""
    at_source = state.by_source.get(source)
    return at_source is None or (at_source.key is None and at_source.snapshot_key is None)


def _candidates(record: Record, unit: Unit) -> Iterator[Candidate]:
    """The value at every source, with the change that set it."""
    clock, state = record.divergence_clocks[unit.name], record.unit_states[unit.name]
    for source in record.holders(unit):
        key, change = clock.held_since.get(source, (MISSING, None))
        if change is not None and key is not MISSING:
            value = displayed(unit, state.value_at(source))
            yield Candidate(source, value, change.stamp, change.committed_us, change.actor, change.place)
