"""Everything that is asked about a record: what the merge may not settle, and what checks and rules say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from cdc_merge.decision.queue import Asked, asked
from cdc_merge.decision.rules import RULES, business, divergence
from cdc_merge.decision.rules.rulebook import Rulebook, Stage
from cdc_merge.merge.auto import answers
from cdc_merge.merge.maps import plan_at
from cdc_merge.merge.questions import NO_RECORDS, questions
from cdc_merge.merge.reading import ended
from cdc_merge.merge.record import Record
from cdc_merge.merge.units import Units
from cdc_merge.model import Question


class Answers(NamedTuple):
    """`answered`: those that a rule answers by itself, by what is asked. `due_us`: the stamp time that changes the
    questions when the watermark has passed it; None when only a change can."""

    questions: tuple[Question, ...]
    due_us: int | None
    answered: frozenset[Asked] = frozenset()


# Most records of most batches: no object is made for them.
NOTHING_ASKED: Final = Answers((), None)


def all_questions(
    record: Record, rulebook: Rulebook, watermark_us: int, targets: Mapping[str, Record] = NO_RECORDS
) -> Answers:
    """What is open at present, in a stable order. Of a record that has ended only what
    a business rule caught is asked. `targets`: the
    records of its rows' new keys, as far as they are known."""
    found = questions(record, targets)
    if rulebook.is_silent:
        return Answers(found, None) if found else NOTHING_ASKED
    stage = Stage(found, watermark_us)
    if ended(record):
        return Answers(_graded((*found, *business.ask(record, rulebook, stage)), rulebook), None)
    more = (question for ask in RULES for question in ask(record, rulebook, stage))
    return Answers(
        questions=_graded((*found, *more), rulebook),
        due_us=divergence.due_us(record, rulebook, stage),
        answered=frozenset(asked(q) for q in found if answers_itself(record.units, q)),
    )


def answers_itself(units: Units, question: Question) -> bool:
    """Whether a rule answers the question, so that nobody is asked."""
    name = question.group or question.field or ""
    unit, owner = units.by_name.get(name), units.entity.fields.get(name.partition(".")[0])
    if unit is not None:
        return answers(unit.plan, question)
    return owner is not None and owner.merge == "map" and answers(plan_at(owner, name), question)


def _graded(found: tuple[Question, ...], rulebook: Rulebook) -> tuple[Question, ...]:
    """What concerns the whole record is as grave as the rule about the entity says."""
    severity = rulebook.record_severity
    if severity is None:
        return found
    return tuple(replace(q, severity=severity) if (q.group or q.field or q.rule) is None else q for q in found)
