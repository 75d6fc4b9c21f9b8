"""What a decision writes into the history (semantics §6): one change of the source `cdc_merge` per record. Pure.

A decision of a field or group is a write that has seen all candidates. Of a question about a whole record (`update_delete`)
people choose the delete, which then has seen everything, or the update, which keeps the record; where the row has
moved to another key, the update is carried there: the old key ends, and the record of the new one gets the edit.
A dismissal writes nothing. Of a map the whole is decided: a value names the field, not a key in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from cdc_merge.model import (
    DECISION,
    DECISION_SOURCE,
    DELETE,
    UNKNOWN,
    Candidate,
    Change,
    DetectedConflict,
    MaybeValue,
    Place,
    Stamp,
    Value,
)

UPDATE_DELETE: Final = "update_delete"


class DecisionContext(NamedTuple):
    """When and by whom is decided. `after`: the latest stamp of every record that the decision writes to; `number` is
    given to no other decision."""

    now_us: int
    after: Stamp
    number: int
    actor: str | None = None

    @property
    def stamp(self) -> Stamp:
        return Stamp(max(self.now_us, self.after.wall_us + 1), 0, DECISION_SOURCE)


def choose(question: DetectedConflict, chosen: Candidate, at: DecisionContext) -> tuple[Change, ...]:
    """The changes of the decision that this candidate is right."""
    if question.kind != UPDATE_DELETE:
        return override(question, chosen.value, at)
    if not isinstance(chosen.value, Mapping):
        return (_change(question, question.key, DELETE, {}, at),)
    new_key = moved_to(question)
    if new_key is None:
        return (_change(question, question.key, DECISION, {}, at),)
    return (
        _change(question, question.key, DELETE, {}, at)._replace(moved_to=new_key),
        _change(question, new_key, DECISION, chosen.value, at),
    )


def override(
    question: DetectedConflict, value: MaybeValue | Mapping[str, Value], at: DecisionContext
) -> tuple[Change, ...]:
    """The changes of the decision that a field or group has this value, whoever wrote what."""
    name = question.group or question.field
    assert name is not None, "only a field or group has a value that people may set"
    fields = value if isinstance(value, Mapping) else {name: value}
    return (_change(question, question.key, DECISION, fields, at),)


def moved_to(question: DetectedConflict) -> str | None:
    """The key that the record has moved to, where its delete is a move; the latest one."""
    keys = [c.value for c in sorted(question.candidates, key=lambda c: c.stamp) if isinstance(c.value, str)]
    return keys[-1] if question.kind == UPDATE_DELETE and keys else None


def written_to(question: DetectedConflict, chosen: Candidate) -> tuple[str, ...]:
    """The keys of the records that choosing this candidate writes to."""
    new_key = moved_to(question) if isinstance(chosen.value, Mapping) else None
    return (question.key,) if new_key is None else (question.key, new_key)


def _change(
    question: DetectedConflict, key: str, row: str, values: Mapping[str, MaybeValue], at: DecisionContext
) -> Change:
    fields = {name: (UNKNOWN, value) for name, value in values.items()}
    place = Place(DECISION_SOURCE, 0, at.number, question.entity, 0)
    return Change(question.entity, key, at.stamp, place, row, fields, at.actor, committed_us=at.now_us)
