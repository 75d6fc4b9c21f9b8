"""The change that a decision writes into the history (semantics §6): one of the source `cdc_merge` per record. Pure.

A decision of a field or group is a write that has seen all candidates. In a conflict about a whole record (`update_delete`)
people choose the delete, which then has seen everything, or the update, which keeps the record; where the row has moved to
another key, the update is written there: the old key ends, and the record of the new one gets the edit. A dismissal writes
nothing. A map is decided as a whole: the value is that of the field, not of one key in it.
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
    """Time and actor of a decision. `after`: the latest stamp of all records that it writes to; `number` is unique to it."""

    now_us: int
    after: Stamp
    number: int
    actor: str | None = None

    @property
    def stamp(self) -> Stamp:
        return Stamp(max(self.now_us, self.after.wall_us + 1), 0, DECISION_SOURCE)


def choose(conflict: DetectedConflict, chosen: Candidate, at: DecisionContext) -> tuple[Change, ...]:
    """The changes of the decision that this candidate is right."""
    if conflict.kind != UPDATE_DELETE:
        return override(conflict, chosen.value, at)
    if not isinstance(chosen.value, Mapping):
        return (_change(conflict, conflict.key, DELETE, {}, at),)
    new_key = moved_to(conflict)
    if new_key is None:
        return (_change(conflict, conflict.key, DECISION, {}, at),)
    return (
        _change(conflict, conflict.key, DELETE, {}, at)._replace(moved_to=new_key),
        _change(conflict, new_key, DECISION, chosen.value, at),
    )


def override(
    conflict: DetectedConflict, value: MaybeValue | Mapping[str, Value], at: DecisionContext
) -> tuple[Change, ...]:
    """The changes of the decision that a field or group has this value, independent of the candidates."""
    name = conflict.group or conflict.field
    assert name is not None, "a conflict without a field or group has no value to set"
    fields = value if isinstance(value, Mapping) else {name: value}
    return (_change(conflict, conflict.key, DECISION, fields, at),)


def moved_to(conflict: DetectedConflict) -> str | None:
    """The key to which the record moved, where its delete is a key change; the latest one."""
    keys = [c.value for c in sorted(conflict.candidates, key=lambda c: c.stamp) if isinstance(c.value, str)]
    return keys[-1] if conflict.kind == UPDATE_DELETE and keys else None


def written_to(conflict: DetectedConflict, chosen: Candidate) -> tuple[str, ...]:
    """The keys of the records that choosing this candidate writes to."""
    new_key = moved_to(conflict) if isinstance(chosen.value, Mapping) else None
    return (conflict.key,) if new_key is None else (conflict.key, new_key)


def _change(
    conflict: DetectedConflict, key: str, operation: str, values: Mapping[str, MaybeValue], at: DecisionContext
) -> Change:
    fields = {name: (UNKNOWN, value) for name, value in values.items()}
    place = Place(DECISION_SOURCE, 0, at.number, conflict.entity, 0)
    return Change(conflict.entity, key, at.stamp, place, operation, fields, at.actor, committed_us=at.now_us)
