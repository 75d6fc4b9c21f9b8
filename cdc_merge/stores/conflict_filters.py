"""The filters of a list of conflicts: one table for every store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from cdc_merge.model import Conflict

# Each filter returns the values that match the conflict. A group's conflict also matches the group's name as field, a
# conflict about several records the key of each of them.
FILTERS: Final[Mapping[str, Callable[[Conflict], Collection[str | None]]]] = {
    "status": lambda conflict: (conflict.status,),
    "entity": lambda conflict: (conflict.detected.entity,),
    "key": lambda conflict: (conflict.detected.key, *conflict.detected.records),
    "field": lambda conflict: (conflict.detected.field, conflict.detected.group),
    "kind": lambda conflict: (conflict.detected.kind,),
    "severity": lambda conflict: (conflict.detected.severity,),
    "source": lambda conflict: {candidate.source for candidate in conflict.detected.candidates},
}

CLOSED: Final = "closed"
OPEN: Final = "open"


def matches(conflict: Conflict, where: Mapping[str, str]) -> bool:
    """Whether the conflict matches every filter of `where`; KeyError for a filter that does not exist."""
    return all(wanted in FILTERS[name](conflict) for name, wanted in where.items())
