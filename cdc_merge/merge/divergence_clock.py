"""How long sources have held what they hold, for fields whose rule has a `tolerance` (semantics §5, divergence).

Kept beside the cells, and only for such fields: since when each source holds its value, since when the merged value
is what it is, and which values other sources replaced when. Times are stamps; nothing here knows what time it is.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import value_of
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import UNKNOWN, Change, Stamp

# Replaced values that nobody holds any more are remembered for a source that takes one late; as many as `agreement:
# past` remembers.
REMEMBERED: Final = 100


class DivergenceClock:
    """`taken`: per source its value's key and the change that brought it. `replaced`: key → source → when that source
    gave it up.
    `merged`: the merged value's key, and since when."""

    __slots__ = ("merged", "replaced", "taken")

    def __init__(self) -> None:
        self.taken: dict[str, tuple[object, Change]] = {}
        self.replaced: dict[object, dict[str, Stamp]] = {}
        self.merged: tuple[object, Stamp] | None = None

    def since(self, source: str, *, alone: bool) -> Stamp | None:
        """Since when the source holds a value that another one replaced or, with `alone`, one that is not the merged
        one while neither changes. None while it holds the merged value, or nothing that is known."""
        assert self.merged is not None, "noted with the first change"
        key, change = self.taken.get(source, (MISSING, None))
        merged, settled = self.merged
        if change is None or key is MISSING or key == merged:
            return None
        others = [at for other, at in self.replaced.get(key, {}).items() if other != source]
        starts = [min(others)] if others else []
        starts += [settled] if alone else []
        return max(min(starts), change.stamp) if starts else None


def note(record: Record, change: Change) -> None:
    """A change was folded into the record: what it moved is timed."""
    for name, cell in record.cells.items():
        unit = record.unit_of[name]
        if unit.owner in record.units.timed:
            drift = record.divergence_clocks.get(name)
            if drift is None:
                drift = record.divergence_clocks[name] = DivergenceClock()
            _note_sources(drift, cell, change)
            _note_merged(drift, record, (unit, cell), change)


def _note_sources(drift: DivergenceClock, cell: UnitState, change: Change) -> None:
    for source, side in cell.sides.items():
        before = drift.taken.get(source)
        if side.key is MISSING if before is None else before[0] == side.key:
            continue
        if before is not None and before[0] is not MISSING and side.key is not MISSING:
            drift.replaced.setdefault(before[0], {})[source] = change.stamp
        _taken_again(drift, source, side.key)
        drift.taken[source] = (side.key, side.by or change)
    if len(drift.replaced) > REMEMBERED:
        held = {key for key, _ in drift.taken.values()}
        oldest = next((key for key in drift.replaced if key not in held), None)
        drift.replaced.pop(oldest, None)


def _taken_again(drift: DivergenceClock, source: str, key: object) -> None:
    """What a source holds once more is no longer replaced by it."""
    replacing = drift.replaced.get(key)
    if replacing is not None and replacing.pop(source, None) is not None and not replacing:
        del drift.replaced[key]


def _note_merged(drift: DivergenceClock, record: Record, what: tuple[Unit, UnitState], change: Change) -> None:
    unit, cell = what
    value = value_of(record, unit, cell)
    key = MISSING if value is UNKNOWN else cell.keyed(value)
    if drift.merged is None or drift.merged[0] != key:
        drift.merged = (key, change.stamp)
