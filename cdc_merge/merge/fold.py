"""The definition: merge(history) folds a history in stamp order. A pure function of the set of changes.

Any order of arrival and any duplication give the same record. `fold` is the full fold; `advance` is the incremental path, whose
unit states forget what cannot matter again, so that one more change costs the same however long the history is. The law
suite compares them.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc_merge.history.order import ordered
from cdc_merge.merge.apply import apply
from cdc_merge.merge.divergence_clock import DivergenceClock
from cdc_merge.merge.duplicate_rows import follow_first_row
from cdc_merge.merge.record_state import Outcomes, Record
from cdc_merge.merge.rule_hits import note_rule_hits
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import value_of
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import TRUNCATE, UNKNOWN, Change
from cdc_merge.model.plan import EntityPlan

MAX_AHEAD_US = 5_000_000


def fold(
    entity: EntityPlan | Units, changes: Iterable[Change], *, max_ahead_us: int = MAX_AHEAD_US, compacts: bool = False
) -> Record:
    """The record of a set of changes."""
    units = entity if isinstance(entity, Units) else Units(entity)
    history = ordered(changes)
    record = Record(units, history[0].key if history else "", max_ahead_us=max_ahead_us, compacts=compacts)
    for change in history:
        _fold_change(record, change)
    return record


def advance(record: Record, change: Change, outcomes: Outcomes | None = None) -> bool:
    """The incremental path: fold one more change into the record. False when the change is late, and the record is as it
    was: it must then be folded again from its history."""
    if record.last is not None and change.stamp <= record.last:
        return False
    _fold_change(record, change, outcomes)
    return True


def _fold_change(record: Record, change: Change, outcomes: Outcomes | None = None) -> None:
    followed = change
    if change.identity is not None or change.operation == TRUNCATE:
        own = follow_first_row(record, change)
        if own is None:
            record.last = record.row(change.stamp.source.partition("/")[0]).last = change.stamp
            return
        followed = own
    apply(record, followed, outcomes)
    if record.units.write_rules is not None:
        note_rule_hits(record, followed)
    if record.units.with_tolerance:
        _note_divergence(record, followed)


def _note_divergence(record: Record, change: Change) -> None:
    for name, state in record.unit_states.items():
        unit = record.unit_of[name]
        if unit.owner in record.units.with_tolerance:
            clock = record.divergence_clocks.get(name)
            if clock is None:
                clock = record.divergence_clocks[name] = DivergenceClock()
            value = value_of(record, unit, state)
            clock.note(state, MISSING if value is UNKNOWN else state.key_of(value), change)
