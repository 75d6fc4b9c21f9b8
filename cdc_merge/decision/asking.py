"""Everything that is asked about a record: what the merge may not settle, and what checks and rules say. Pure."""

from __future__ import annotations

from dataclasses import replace

from cdc_merge.decision.rules import RULES
from cdc_merge.decision.rules.rulebook import Rulebook
from cdc_merge.merge.questions import questions
from cdc_merge.merge.reading import ended
from cdc_merge.merge.record import Record
from cdc_merge.model import Question


def all_questions(record: Record, rulebook: Rulebook) -> tuple[Question, ...]:
    """The questions that are open at present, in a stable order. A record that has ended asks nothing."""
    found = questions(record)
    if not ended(record):
        found = (*found, *(question for ask in RULES for question in ask(record, rulebook)))
    if rulebook.record_severity is None:
        return found
    severity = rulebook.record_severity
    return tuple(replace(q, severity=severity) if (q.group or q.field or q.rule) is None else q for q in found)
