"""`agreement: past`: an unmarked edit to a value that another source held a while ago is a late copy of it (§2 rule 3)."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import NO_PAST, PAST_VALUES
from cdc_merge.model import Change, MaybeValue


def remember_value(state: UnitState, source: str, holders: Iterable[str], *, is_new: bool) -> None:
    """Note the value at a source (`is_new`: by an edit or a copy). Two sources that hold one value start afresh."""
    if state.past_values is NO_PAST:
        state.past_values = {}
    at_source = state.by_source[source]
    for other in state.order:
        if is_new and other != source:
            values = state.past_values.setdefault((other, source), [])
            values.append((at_source.key, at_source.seen))
            del values[:-PAST_VALUES]
    for other in holders:
        if other != source and state.key_at(other) == at_source.key:
            if is_new:
                _remember_shared_value(state, other, source)
            state.past_values.pop((other, source), None)
            state.past_values.pop((source, other), None)


def _remember_shared_value(state: UnitState, holder: str, source: str) -> None:
    """A source that holds the value already has held this write of it too."""
    at_holder = state.by_source[holder]
    for other in state.order:
        values = state.past_values.setdefault((other, holder), []) if other not in (holder, source) else []
        if not values or values[-1][0] != at_holder.key:
            values.append((at_holder.key, at_holder.seen))
            del values[:-PAST_VALUES]


def apply_late_copy(state: UnitState, source: str, change: Change, value: MaybeValue, holders: Iterable[str]) -> bool:
    """Join the contexts of the past values that the edit repeats: values that another holder has had since the two last
    agreed, and has no longer. False when it repeats none."""
    key = state.key_of(value)
    others = [t for t in holders if t != source and state.key_at(t) != key]
    repeated = [(t, seen) for t in others for k, seen in state.past_values.get((source, t), ()) if k == key]
    if not repeated:
        return False
    replaced = state.own_frontier_write(source, key)
    at_source = state.set_value(source, change, value, key)
    state.retire_snapshot_value(source, key)
    learned = 0
    for other, seen in repeated:
        learned |= seen
        at_source.inserts |= state.by_source[other].inserts
    at_source.seen |= learned
    originals = [w for w in state.writes_in((state.frontier | state.overwritten) & learned) if w.key == key]
    if originals:
        original = max(originals, key=lambda w: w.stamp)
        state.overwrite_if_concurrent(replaced, original)
        state.return_to_frontier(original)
    return True
