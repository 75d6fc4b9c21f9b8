"""Everything that is asked about a record: what the merge may not settle, and what checks and rules say. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from cdc_merge.decision.rules import RULES, divergence
from cdc_merge.decision.rules.rulebook import Rulebook, Stage
from cdc_merge.merge.questions import questions
from cdc_merge.merge.reading import ended
from cdc_merge.merge.record import Record
from cdc_merge.model import Question


class Answers(NamedTuple):
    """`due_us`: the stamp time that changes the questions when the watermark has passed it; None when only a change
    can."""

    questions: tuple[Question, ...]
    due_us: int | None


def all_questions(record: Record, rulebook: Rulebook, watermark_us: int) -> Answers:
    """What is open at present, in a stable order. A record that has ended asks nothing."""
    asked = questions(record)
    if ended(record):
        return Answers(_graded(asked, rulebook), None)
    stage = Stage(asked, watermark_us)
    found = (*asked, *(question for ask in RULES for question in ask(record, rulebook, stage)))
    return Answers(_graded(found, rulebook), divergence.due_us(record, rulebook, stage))


def _graded(found: tuple[Question, ...], rulebook: Rulebook) -> tuple[Question, ...]:
    """What concerns the whole record is as grave as the rule about the entity says."""
    severity = rulebook.record_severity
    if severity is None:
        return found
    return tuple(replace(q, severity=severity) if (q.group or q.field or q.rule) is None else q for q in found)
