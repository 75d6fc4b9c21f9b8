"""Divergence clock of one unit: since when each source has held its value, for fields with a `tolerance` (§5, divergence).

It also keeps since when the merged value is what it is, and when sources replaced a value that another one still holds. Times
are stamps; the clock has no idea of the present time.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import Change, Stamp

# Replaced values that no source holds are remembered for a source that takes one late; as many as `agreement: past` keeps.
REMEMBERED: Final = 100


class DivergenceClock:
    """`held_since`: source → its value's key and the change that brought it. `replaced`: key → source → when it gave the
    value up. `merged`: the merged value's key, and since when."""

    __slots__ = ("held_since", "merged", "replaced")

    def __init__(self) -> None:
        self.held_since: dict[str, tuple[object, Change]] = {}
        self.replaced: dict[object, dict[str, Stamp]] = {}
        self.merged: tuple[object, Stamp] | None = None

    def since(self, source: str, *, alone: bool) -> Stamp | None:
        """Since when the source has held a value that another one replaced or, with `alone`, a value that is not the merged
        one while neither changes. None while it holds the merged value, or an unknown one."""
        assert self.merged is not None, "noted with the first change"
        key, change = self.held_since.get(source, (MISSING, None))
        merged, merged_since = self.merged
        if change is None or key is MISSING or key == merged:
            return None
        others = [at for other, at in self.replaced.get(key, {}).items() if other != source]
        starts = [min(others)] if others else []
        starts += [merged_since] if alone else []
        return max(min(starts), change.stamp) if starts else None

    def note(self, state: UnitState, merged_key: object, change: Change) -> None:
        """Time what the change has moved: the sources' values and the merged value."""
        for source, at_source in state.by_source.items():
            before = self.held_since.get(source)
            if at_source.key is MISSING if before is None else before[0] == at_source.key:
                continue
            if before is not None and before[0] is not MISSING and at_source.key is not MISSING:
                self.replaced.setdefault(before[0], {})[source] = change.stamp
            self._forget_replacement(source, at_source.key)
            self.held_since[source] = (at_source.key, at_source.set_by or change)
        self._limit_replaced()
        if self.merged is None or self.merged[0] != merged_key:
            self.merged = (merged_key, change.stamp)

    def _forget_replacement(self, source: str, key: object) -> None:
        """The source holds the value again: it is no longer replaced there."""
        replaced_at = self.replaced.get(key)
        if replaced_at is not None and replaced_at.pop(source, None) is not None and not replaced_at:
            del self.replaced[key]

    def _limit_replaced(self) -> None:
        if len(self.replaced) > REMEMBERED:
            current = {key for key, _ in self.held_since.values()}
            oldest = next((key for key in self.replaced if key not in current), None)
            self.replaced.pop(oldest, None)
