"""First-snapshot values: baselines that stand against a first insert at another source (semantics §4).

A baseline is a write of kind BASELINE outside the frontier. It becomes a candidate when a first insert elsewhere, which cannot
have seen it, arrives while its source still holds it.
"""

from __future__ import annotations

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import ABSENT, BASELINE, MISSING, Insert, Write
from cdc_merge.model import UNKNOWN, Change, MaybeValue


def read_snapshot(state: UnitState, source: str, change: Change, value: MaybeValue, *, candidate: bool) -> bool:
    """Note a snapshot value. `candidate`: it may stand against a first insert elsewhere. False when it is not the source's
    first."""
    key = state.key_of(value)
    at_source = state.set_value(source, change, value, key)
    if at_source.snapshot_key is not MISSING:
        state.retire_snapshot_value(source, key)
        return False
    at_source.snapshot_value, at_source.snapshot_key = value, key
    at_source.untouched, at_source.baseline_ended = True, False
    if candidate and value is not None and value is not UNKNOWN and value is not ABSENT:
        _add_baseline(state, source, change, value)
    return True


def promote_baselines(state: UnitState, source: str, holders: tuple[str, ...]) -> int:
    """A first insert arrived: the baselines that others still hold are inserts which nothing has seen, and join the
    frontier. The mask of those that did."""
    promoted = 0
    for baseline in state.writes_in(state.baselines & ~state.seen_by(source)):
        if baseline.source != source and baseline.source in holders:
            promoted |= baseline.bit
    state.baselines &= ~promoted
    state.frontier |= promoted
    return promoted


def see_baselines(state: UnitState, source: str) -> None:
    """A re-insert has seen every first-snapshot value."""
    at_source = state.at(source)
    for write in state.writes.values():
        if write.kind == BASELINE:
            at_source.seen |= write.bit


def remove_snapshot_of(state: UnitState, source: str) -> None:
    """Take back what was read of a source's row at its first snapshot."""
    state.by_source.pop(source, None)
    for write in state.writes_in(state.baselines):
        if write.source == source:
            state.baselines &= ~write.bit
    state.diverged = tuple([pair for pair in state.diverged if source not in pair])


def _add_baseline(state: UnitState, source: str, change: Change, value: MaybeValue) -> None:
    at_source = state.by_source[source]
    key, bit = at_source.key, state.next_bit
    state.next_bit = bit << 1
    write = Write(bit, source, change, value, key, at_source.seen)
    write.kind = BASELINE
    is_superseded = _has_been_written_over(state, key)
    at_source.baseline = Insert(change.stamp, first=True, baseline=True)
    write.inserts = frozenset((at_source.baseline,))
    state.writes[bit] = write
    at_source.seen |= bit
    at_source.inserts |= write.inserts
    for other in state.writes.values():
        if other.kind == BASELINE and other.key == key and other is not write:
            at_source.seen |= other.bit
            state.by_source[other.source].seen |= bit
    for equal in state.by_source.values():
        if equal.snapshot_key == key and equal.baseline is not None:
            at_source.inserts |= {equal.baseline}
            equal.inserts |= write.inserts
    equals = {s for s, equal in state.by_source.items() if equal.snapshot_key == key}
    for earlier in state.writes.values():
        if earlier.source in equals:
            earlier.inserts |= write.inserts
    if not is_superseded:
        state.baselines |= bit


def _has_been_written_over(state: UnitState, key: object) -> bool:
    """A source with the same first snapshot value has written since: that write has seen this value."""
    equals = {each.baseline for each in state.by_source.values() if each.snapshot_key == key} - {None}
    return any(write.inserts & equals for write in state.writes_in(state.frontier | state.overwritten))
