"""Questions of concurrent writes that a rule answers by itself: `auto: latest | earliest | prefer | max | min |
provisional`.

An outcome is no write: it is read from the frontier like a merge type's value, and changes when the frontier does
(semantics §6). It answers `concurrent_*` only, never where a decision by people is a candidate, and of counters, logs
and immutable fields only with `provisional`. A chain is tried in order; where no step has an answer the question
stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import BASELINE, DECIDED, Write
from cdc_merge.model import DECISION_SOURCE, DetectedConflict, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan

ONLY_PROVISIONAL: Final = frozenset({"counter", "append", "immutable"})


class Candidate(Protocol):
    """A write, or a candidate of a question."""

    @property
    def source(self) -> str: ...
    @property
    def stamp(self) -> Stamp: ...
    @property
    def value(self) -> Any: ...


Candidates: TypeAlias = Sequence[Candidate]
PROVISIONAL: Final = object()
"""Answers with what the merge type says."""


def _latest(candidates: Candidates) -> object:
    return max(candidates, key=lambda c: c.stamp, default=None)


def _earliest(candidates: Candidates) -> object:
    return min(candidates, key=lambda c: c.stamp, default=None)


def _greatest(candidates: Candidates) -> object:
    return max(_ordered(candidates), key=lambda c: c.value, default=None)


def _least(candidates: Candidates) -> object:
    return min(_ordered(candidates), key=lambda c: c.value, default=None)


def _ordered(candidates: Candidates) -> Candidates:
    """Those that have a value, where all such values can be compared: numbers, or texts."""
    known = [c for c in candidates if c.value is not None]
    numbers = all(type(c.value) in (int, float, Decimal) and c.value == c.value for c in known)
    return known if numbers or all(type(c.value) is str for c in known) else ()


def _provisional(candidates: Candidates) -> object:
    return PROVISIONAL


STEPS: Final[Mapping[str, Callable[[Candidates], object]]] = {
    "latest": _latest,
    "earliest": _earliest,
    "max": _greatest,
    "min": _least,
    "provisional": _provisional,
}


def _preferred(candidates: Candidates, sources: tuple[str, ...]) -> object:
    """The latest of the first of these sources that has one."""
    for source in sources:
        own = [c for c in candidates if c.source == source]
        if own:
            return _latest(own)
    return None


def chosen(plan: FieldPlan, candidates: Candidates, writes: Candidates) -> object:
    """The candidate that the field's chain chooses, PROVISIONAL, or None when no step has an answer. `writes` are the
    candidates that somebody wrote: a first-snapshot value has no time."""
    for step in plan.auto:
        if plan.merge in ONLY_PROVISIONAL and step != "provisional":
            continue
        if isinstance(step, tuple):
            found = _preferred(candidates, step)
        else:
            found = STEPS[step](writes if step in ("latest", "earliest") else candidates)
        if found is not None:
            return found
    return None


def outcome(cell: UnitState, plan: FieldPlan, asked: list[Write]) -> object:
    """The write whose value stands, PROVISIONAL, or None where nothing is asked or nothing answers."""
    if not plan.auto or not asked or any(write.kind == DECIDED for write in (*cell.of(cell.frontier), *asked)):
        return None
    return chosen(plan, asked, [write for write in asked if write.kind != BASELINE])


def read(cell: UnitState, plan: FieldPlan, asked: list[Write], provisional: MaybeValue) -> MaybeValue:
    """The value of a field whose rule may answer: the outcome's, else what the merge type says."""
    found = outcome(cell, plan, asked)
    return found.value if isinstance(found, Write) else provisional


def answers(plan: FieldPlan, question: DetectedConflict) -> bool:
    """Whether the rule answers this question by itself."""
    if not plan.auto or not question.kind.startswith("concurrent_"):
        return False
    if any(candidate.source == DECISION_SOURCE for candidate in question.candidates):
        return False
    return chosen(plan, question.candidates, question.candidates) is not None
