"""A conflict as one sentence for the viewer: who wrote what, and why it is a conflict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cdc_merge.demo.editor import brief
from cdc_merge.model import Candidate, Conflict, DetectedConflict, Unknown

PAIR: Final = 2
TITLES: Final[Mapping[str, str]] = {"crm": "CRM", "erp": "ERP", "finance": "finance"}


def candidate_text(candidate: Candidate) -> str:
    """`CRM (wang) wrote 138…`."""
    source = TITLES.get(candidate.source, candidate.source)
    actor = f" ({candidate.actor})" if candidate.actor else ""
    return f"{source}{actor} wrote {value_text(candidate.value)}"


def value_text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {brief(each)}" for name, each in value.items())
    return "nothing" if isinstance(value, Unknown) else brief(value)


def _candidates(detected: DetectedConflict) -> str:
    return ", ".join(candidate_text(candidate) for candidate in detected.candidates)


def _concurrent(detected: DetectedConflict) -> str:
    reason = "neither had seen the other" if len(detected.candidates) <= PAIR else "none had seen the others"
    return f"{_candidates(detected)}; {reason}"


def _inserted(detected: DetectedConflict) -> str:
    return f"{_candidates(detected)}; both inserted it concurrently"


def _row(detected: DetectedConflict) -> str:
    parts = [
        f"{TITLES.get(candidate.source, candidate.source)} "
        + ("deleted it" if candidate.value is None else f"changed {value_text(candidate.value)}")
        for candidate in detected.candidates
    ]
    return " while ".join(parts)


def _bound(detected: DetectedConflict) -> str:
    return f"the merged counter is {value_text(detected.provisional)}, out of bounds"


def _invariant(detected: DetectedConflict) -> str:
    return f"{_candidates(detected)}; the merged record violates {detected.rule}"


def _divergence(detected: DetectedConflict) -> str:
    since = "since the initial snapshot" if "baseline" in detected.labels else "for too long"
    return f"{_candidates(detected)}; they differ {since}"


SENTENCES: Final[Mapping[str, Callable[[DetectedConflict], str]]] = {
    "concurrent_update": _concurrent,
    "concurrent_insert": _inserted,
    "update_delete": _row,
    "bound": _bound,
    "divergence": _divergence,
    "invariant": _invariant,
}


def conflict_sentence(conflict: Conflict) -> str:
    """`C0017 phone: CRM wrote 138…, ERP wrote 139…; neither had seen the other`."""
    detected = conflict.detected
    return f"{_subject(detected)}: {SENTENCES.get(detected.kind, _candidates)(detected)}"


def closing_sentence(conflict: Conflict) -> str:
    """`C0017 phone: superseded`: how a conflict was closed."""
    detected = conflict.detected
    overwrote = "; an edit was overwritten" if "overwrote" in (*conflict.labels, *detected.labels) else ""
    return f"{_subject(detected)}: {conflict.resolution or 'closed'}{overwrote}"


def _subject(detected: DetectedConflict) -> str:
    return " ".join(part for part in (detected.key, detected.group or detected.field) if part)
