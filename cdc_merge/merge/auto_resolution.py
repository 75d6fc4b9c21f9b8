"""Conflicts of concurrent writes that a rule answers by itself: `auto: latest | earliest | prefer | max | min |
provisional`.

An automatic answer is no write: it is read from the frontier like a merge type's value, and changes when the frontier does
(semantics §6). It answers `concurrent_*` only, never where a decision by people is a candidate, and of counters, logs
and immutable fields only with `provisional`. The steps of a chain are tried in order; where none has an answer the
conflict stays open.
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


class AutoCandidate(Protocol):
    """A write, or a candidate of a conflict."""

    @property
    def source(self) -> str: ...
    @property
    def stamp(self) -> Stamp: ...
    @property
    def value(self) -> Any: ...


Candidates: TypeAlias = Sequence[AutoCandidate]
PROVISIONAL: Final = object()
"""The answer is the value of the merge type."""


def _latest(candidates: Candidates) -> object:
    return max(candidates, key=lambda c: c.stamp, default=None)


def _earliest(candidates: Candidates) -> object:
    return min(candidates, key=lambda c: c.stamp, default=None)


def _greatest(candidates: Candidates) -> object:
    return max(_ordered(candidates), key=lambda c: c.value, default=None)


def _least(candidates: Candidates) -> object:
    return min(_ordered(candidates), key=lambda c: c.value, default=None)


def _ordered(candidates: Candidates) -> Candidates:
    """Those that have a value, where all values can be compared: numbers, or texts."""
    written = [c for c in candidates if c.value is not None]
    numbers = all(type(c.value) in (int, float, Decimal) and c.value == c.value for c in written)
    return written if numbers or all(type(c.value) is str for c in written) else ()


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
    """The latest candidate of the first of these sources that has one."""
    for source in sources:
        own = [c for c in candidates if c.source == source]
        if own:
            return _latest(own)
    return None


def choose(plan: FieldPlan, candidates: Candidates, writes: Candidates) -> object:
    """The candidate that the field's chain chooses, PROVISIONAL, or None when no step has an answer. `writes` are the
    candidates without first-snapshot values, which have no time."""
    for step in plan.auto:
        if plan.merge in ONLY_PROVISIONAL and step != "provisional":
            continue
        if isinstance(step, tuple):
            answer = _preferred(candidates, step)
        else:
            answer = STEPS[step](writes if step in ("latest", "earliest") else candidates)
        if answer is not None:
            return answer
    return None


def automatic_answer(state: UnitState, plan: FieldPlan, conflicting: list[Write]) -> object:
    """The write whose value stands, PROVISIONAL, or None where nothing conflicts or no step has an answer."""
    if not plan.auto or not conflicting:
        return None
    if any(write.kind == DECIDED for write in (*state.writes_in(state.frontier), *conflicting)):
        return None
    return choose(plan, conflicting, [write for write in conflicting if write.kind != BASELINE])


def value_with_answer(
    state: UnitState, plan: FieldPlan, conflicting: list[Write], provisional: MaybeValue
) -> MaybeValue:
    """The automatic answer's value, else the provisional one of the merge type."""
    answer = automatic_answer(state, plan, conflicting)
    return answer.value if isinstance(answer, Write) else provisional


def resolves(plan: FieldPlan, conflict: DetectedConflict) -> bool:
    """Whether the rule answers this conflict by itself."""
    if not plan.auto or not conflict.kind.startswith("concurrent_"):
        return False
    if any(candidate.source == DECISION_SOURCE for candidate in conflict.candidates):
        return False
    return choose(plan, conflict.candidates, conflict.candidates) is not None
