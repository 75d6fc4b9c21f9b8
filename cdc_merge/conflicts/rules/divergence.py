"""divergence: a source holds something else than the others for longer than its rule's `tolerance` (semantics §5).

Stamp time up to the watermark is all the time there is: the question is a function of history, rules and watermark.
It is not asked beside a question of concurrent writes, nor of sources whose first snapshots are asked about
(`baseline`): that question tells their difference already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.auto_resolution import answers
from cdc_merge.merge.conflict_detection import About, made, shown
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import Candidate, DetectedConflict
from cdc_merge.model.plan import Rule


def detect(record: Record, rulebook: Rulebook, stage: RuleContext) -> Iterator[DetectedConflict]:
    for unit, rule, told in _quiet(record, rulebook, stage):
        if any(at_us < stage.watermark_us for at_us in _ends(record, unit, rule, told)):
            about = About(record, unit, record.cells[unit.name])
            question = made(about, tuple(_held(record, unit)), kind="divergence")
            yield replace(question, severity=rule.severity or question.severity, rule=rule.name)


def due_us(record: Record, rulebook: Rulebook, stage: RuleContext) -> int | None:
    """The next stamp time that makes a question when the watermark has passed it; None when time alone makes none."""
    ends = [at_us for quiet in _quiet(record, rulebook, stage) for at_us in _ends(record, *quiet)]
    return min((at_us for at_us in ends if at_us >= stage.watermark_us), default=None)


def _quiet(record: Record, rulebook: Rulebook, stage: RuleContext) -> Iterator[tuple[Unit, Rule, frozenset[str]]]:
    """The timed fields that no question of concurrent writes is open on; the sources whose difference at their first
    snapshot is told already."""
    if not record.divergence_clocks:
        return
    asked = {q.group or q.field: q for q in stage.found if q.kind.startswith("concurrent_") or q.kind == "divergence"}
    for name in sorted(record.divergence_clocks):
        unit, question = record.unit_of[name], asked.get(name)
        if unit.owner not in rulebook.divergence_clocks:
            continue
        rule = rulebook.divergence_clocks[unit.owner]
        if question is None or answers(unit.plan, question):
            yield unit, rule, frozenset()
        elif question.kind == "divergence":
            yield unit, rule, frozenset(candidate.source for candidate in question.candidates)


def _ends(record: Record, unit: Unit, rule: Rule, told: frozenset[str]) -> Iterator[int]:
    """When the tolerance of each source that holds something else ends, µs of stamp time."""
    assert rule.tolerance_us is not None, "only tolerant rules are among a rulebook's drifts"
    drift, cell = record.divergence_clocks[unit.name], record.cells[unit.name]
    for source in record.holders(unit):
        if source in told:
            continue
        since = drift.since(source, alone=not _first_null(cell, source))
        if since is not None:
            yield since.wall_us + rule.tolerance_us


def _first_null(cell: UnitState, source: str) -> bool:
    """A NULL of the first snapshot differs from nothing by itself; nor does what nobody knows of the source's row."""
    side = cell.sides.get(source)
    return side is None or (side.key is None and side.first_key is None)


def _held(record: Record, unit: Unit) -> Iterator[Candidate]:
    """What every source holds, with the change that brought it."""
    drift, cell = record.divergence_clocks[unit.name], record.cells[unit.name]
    for source in record.holders(unit):
        key, change = drift.taken.get(source, (MISSING, None))
        if change is not None and key is not MISSING:
            value = shown(unit, cell.view(source))
            yield Candidate(source, value, change.stamp, change.committed_us, change.actor, change.place)
