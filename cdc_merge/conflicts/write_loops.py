"""Whether two sources write the same values to and fro: jobs that undo what the other has done, again and again.

A notice only: nothing is merged or asked differently for it. A turn is a change by another source than the last one that
changed the record, shortly after it in stamp time, which sets a field to a value that an earlier turn set. People do
that once; a loop does it until somebody ends it. Fields that join (counters, sets, logs, maps) and flags are left out:
their values come back by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc_merge.model import UPDATE, Change, LoopDetected
from cdc_merge.model.plan import Plan

# Two changes that lie further apart are no turn; a job that runs every minute still counts.
TURN_WITHIN_US: Final = 120_000_000
# So many turns are a loop: two people who correct each other stop before.
TURNS: Final = 10
# Values of a field that are remembered, as hashes: a loop has two, or a few more where sources rewrite them.
VALUES: Final = 4
# Records that are watched; the one watched for longest goes first.
RECORDS: Final = 10_000
WATCHED: Final = frozenset({"mv", "lww", "priority", "immutable", "lattice"})


class _Course:
    """Who changed a record last and when, how often that turned, and to which values. Once per change, hence no value
    of its own each time."""

    __slots__ = ("source", "turns", "values", "wall_us")

    def __init__(self, source: str, wall_us: int) -> None:
        self.source = source
        self.wall_us = wall_us
        self.turns = 0
        self.values: dict[str, tuple[int, ...]] = {}


class WriteLoops:
    """Told every change once, about in the order of stamps."""

    def __init__(self, plan: Plan) -> None:
        self._watched = watched(plan)
        self._courses: dict[tuple[str, str], _Course] = {}

    def note(self, change: Change) -> LoopDetected | None:
        """The loop that this change makes certain; it is told again after as many turns."""
        if change.operation != UPDATE or change.entity not in self._watched:
            return None
        key, stamp = (change.entity, change.key), change.stamp
        course = self._courses.get(key)
        if course is None or not 0 <= stamp.wall_us - course.wall_us <= TURN_WITHIN_US:
            self._begin(key, _Course(stamp.source, stamp.wall_us))
            return None
        before, course.source, course.wall_us = course.source, stamp.source, stamp.wall_us
        if before == stamp.source or not self._turned(course, change):
            return None
        course.turns += 1
        if course.turns < TURNS:
            return None
        course.turns = 0
        return LoopDetected(change.entity, change.key, (before, stamp.source))

    def _begin(self, key: tuple[str, str], course: _Course) -> None:
        self._courses[key] = course
        if len(self._courses) > RECORDS:
            del self._courses[next(iter(self._courses))]

    def _turned(self, course: _Course, change: Change) -> bool:
        """Whether some field is set to a value that a turn has set before; its values are remembered."""
        watched = self._watched.get(change.entity, frozenset())
        has_turned = False
        for field, (_, after) in change.fields.items():
            if field in watched:
                had, value = course.values.get(field, ()), hash(after)
                if had[-1:] != (value,):  # what only repeats the other's value is a copy
                    has_turned = has_turned or value in had
                    course.values[field] = (*had, value)[-VALUES:]
        return has_turned


def watched(plan: Plan) -> Mapping[str, frozenset[str]]:
    """entity → the fields of which a value that comes back says something; not of entities that one source has alone."""
    return {
        name: frozenset(
            [field.name for field in entity.fields.values() if field.merge in WATCHED]
            + [member for group in entity.groups.values() for member in group.members]
        )
        for name, entity in plan.entities.items()
        if len(entity.sources) > 1
    }
