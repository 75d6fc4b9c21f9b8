"""A conflict in words, for people who watch: who says what, and what the question is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cdc_merge.demo.desk import brief
from cdc_merge.model import Candidate, Conflict, DetectedConflict, Unknown

PAIR: Final = 2
TITLES: Final[Mapping[str, str]] = {"crm": "CRM", "erp": "ERP", "finance": "finance"}


def said(candidate: Candidate) -> str:
    """`CRM (wang) says 138…`."""
    who = TITLES.get(candidate.source, candidate.source)
    if candidate.actor:
        who = f"{who} ({candidate.actor})"
    return f"{who} says {value_in_words(candidate.value)}"


def value_in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {brief(each)}" for name, each in value.items())
    return "nothing" if isinstance(value, Unknown) else brief(value)


def _each(question: DetectedConflict) -> str:
    return ", ".join(said(candidate) for candidate in question.candidates)


def _concurrent(question: DetectedConflict) -> str:
    blind = "neither had seen the other" if len(question.candidates) <= PAIR else "none had seen the others"
    return f"{_each(question)}; {blind}"


def _inserted(question: DetectedConflict) -> str:
    return f"{_each(question)}; both created it without knowing of the other"


def _row(question: DetectedConflict) -> str:
    parts = [
        f"{TITLES.get(candidate.source, candidate.source)} "
        + ("deleted it" if candidate.value is None else f"changed {value_in_words(candidate.value)}")
        for candidate in question.candidates
    ]
    return " while ".join(parts)


def _bound(question: DetectedConflict) -> str:
    return f"together the bookings leave {value_in_words(question.provisional)}, which is out of bounds"


def _broken(question: DetectedConflict) -> str:
    return f"{_each(question)}; together they break {question.rule}"


def _divergence(question: DetectedConflict) -> str:
    first = "from the start" if "baseline" in question.labels else "for too long"
    return f"{_each(question)}; they differ {first}"


WORDS: Final[Mapping[str, Callable[[DetectedConflict], str]]] = {
    "concurrent_update": _concurrent,
    "concurrent_insert": _inserted,
    "update_delete": _row,
    "bound": _bound,
    "divergence": _divergence,
    "invariant": _broken,
}


def sentence(conflict: Conflict) -> str:
    """`C0017 phone: CRM says 138…, ERP says 139…; neither had seen the other`."""
    question = conflict.detected
    subject = " ".join(part for part in (question.key, question.group or question.field) if part)
    return f"{subject}: {WORDS.get(question.kind, _each)(question)}"


def ending(conflict: Conflict) -> str:
    """How a question ended."""
    question = conflict.detected
    subject = " ".join(part for part in (question.key, question.group or question.field) if part)
    overwrote = "; an edit was overwritten" if "overwrote" in (*conflict.labels, *question.labels) else ""
    return f"{subject}: {conflict.resolution or 'closed'}{overwrote}"
