"""unauthorized: a write in the frontier by a source or an actor that may not write the field (`writers:`).

Where actors are listed, an unknown actor may not. Copies write nothing, decisions are always allowed.
"""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.decision.rules.rulebook import Rulebook, Stage
from cdc_merge.merge.questions import About, base_of, question_of
from cdc_merge.merge.reading import effective
from cdc_merge.merge.record import Record
from cdc_merge.merge.writes import WRITE, Write
from cdc_merge.model import Question
from cdc_merge.plan import FieldPlan


def ask(record: Record, rulebook: Rulebook, stage: Stage) -> Iterator[Question]:
    if not rulebook.writers:
        return
    for name in sorted(record.cells):
        unit = record.unit_of[name]
        plan = rulebook.writers.get(unit.owner)
        if plan is None:
            continue
        cell = record.cells[name]
        caught = [write for write in effective(record, unit, cell) if not may_write(plan, write)]
        if caught:
            yield question_of(About(record, unit, cell), caught, kind="unauthorized", base=base_of(cell, caught))


def may_write(plan: FieldPlan, write: Write) -> bool:
    """Whether the plan allows this write of its field."""
    if write.kind != WRITE:
        return True
    if plan.writer_sources is not None and write.source not in plan.writer_sources:
        return False
    return plan.writer_actors is None or write.change.actor in plan.writer_actors
