"""§3 immutable: what the field is bound to."""

from __future__ import annotations

from typing import Any

from cdc_merge.model import UNKNOWN
from tests.laws.oracle.words import Record, Unit, Write


def bound(record: Record, unit: Unit) -> Any:
    """The value of the write that binds; UNKNOWN while nothing does."""
    found = binding(record, unit)
    return UNKNOWN if found is None else found.value


def binding(record: Record, unit: Unit) -> Write | None:
    """ "bound to the latest decision, else to the first value that is not NULL, a snapshot's included (of several first
    snapshots: the first source in `from:` that has one)"."""
    lasting = [write for write in {**unit.baselines, **unit.writes}.values() if write.id not in unit.ended]
    decisions = [write for write in lasting if write.kind == "decision"]
    if decisions:
        return max(decisions, key=lambda write: write.id)
    valued = [write for write in lasting if not unit.is_null(write.value)]
    if not valued:
        return None
    first = min(valued, key=lambda write: write.id)
    return _first_snapshot(record, valued) if first.kind == "baseline" else first


def _first_snapshot(record: Record, valued: list[Write]) -> Write:
    snapshots = [write for write in valued if write.kind == "baseline"]
    return min(snapshots, key=lambda write: record.entity.sources.index(write.source))
