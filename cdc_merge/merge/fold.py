"""The definition: merge(history) folds a history in stamp order. A pure function of the set of changes.

Any order of arrival, any duplication gives the same record. `fold` is the full fold; `resume` is the same fold whose
cells forget what can never matter again, so that one more change costs the same however long the history is. The law
suite compares them.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc_merge.history.order import ordered
from cdc_merge.merge.divergence_clock import note
from cdc_merge.merge.duplicate_rows import followed
from cdc_merge.merge.record_state import Outcomes, Record, apply
from cdc_merge.merge.rule_hits import note_rule_hits
from cdc_merge.merge.units import Units
from cdc_merge.model import TRUNCATE, Change
from cdc_merge.model.plan import EntityPlan

MAX_AHEAD_US = 5_000_000


def fold(
    entity: EntityPlan | Units, changes: Iterable[Change], *, max_ahead_us: int = MAX_AHEAD_US, compacts: bool = False
) -> Record:
    """The record that a set of changes means."""
    units = entity if isinstance(entity, Units) else Units(entity)
    history = ordered(changes)
    record = Record(units, history[0].key if history else "", max_ahead_us=max_ahead_us, compacts=compacts)
    for change in history:
        _take(record, change)
    return record


def advance(record: Record, change: Change, outcomes: Outcomes | None = None) -> bool:
    """The incremental path: fold one more change into the record. False when the change is late, and nothing was done:
    the record must then be folded again from its history."""
    if record.last is not None and change.stamp <= record.last:
        return False
    _take(record, change, outcomes)
    return True


def _take(record: Record, change: Change, outcomes: Outcomes | None = None) -> None:
    told = change if change.identity is None and change.operation != TRUNCATE else followed(record, change)
    if told is None:
        record.last = record.row(change.stamp.source.partition("/")[0]).last = change.stamp
        return
    apply(record, told, outcomes)
    if record.units.write_rules is not None:
        note_rule_hits(record, told)
    if record.units.timed:
        note(record, told)
