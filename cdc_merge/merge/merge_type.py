"""What a merge type is: a few functions in a fixed order, gathered in one value. `types.TYPES` is the table of them.

A type says only what it adds to the common rules of causality (unit_state.py). Types that keep more than writes (sets, logs)
bring functions of their own for the steps; the others take those of register_ops.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Insert, Traits, Write
from cdc_merge.model import UNKNOWN, Change, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan


class Event:
    """One change as far as one unit is concerned. Reused from unit to unit: never keep it.

    `inserted`: the insert, when the source's row begins with this change. `deletes`: those that its writer had seen.
    `before`, `after`: the unit's value. `holders`: the sources that hold the record and map the unit, after the change.
    `snapshot_candidates`: another source maps the entity too, so that first-snapshot values may become candidates.
    `max_ahead_us`: how long copies wait for their original. `returned`: an insert of a row that was deleted for its source
    only (`deletes: local`)."""

    __slots__ = (
        "after",
        "before",
        "change",
        "deletes",
        "holders",
        "inserted",
        "max_ahead_us",
        "returned",
        "snapshot_candidates",
        "source",
    )

    def __init__(self, source: str, change: Change, inserted: Insert | None, deletes: frozenset[Stamp]) -> None:
        self.source = source
        self.change = change
        self.inserted = inserted
        self.deletes = deletes
        self.snapshot_candidates = False
        self.returned = False
        self.max_ahead_us = 0
        self.before: MaybeValue = UNKNOWN
        self.after: MaybeValue = UNKNOWN
        self.holders: tuple[str, ...] = ()


Views = Sequence[tuple[str, MaybeValue]]
"""(source, its value), in the order of `from:`."""

Step = Callable[[UnitState, FieldPlan, Event], str]
"""Applies one event to a unit's state; answers its outcome, a label value of `merges_total` (contract §5)."""


def dump_plain_state(state: UnitState) -> Any:
    """For types whose `type_state` is a plain value."""
    return state.type_state


def keep_dumped_state(state: UnitState, plan: FieldPlan) -> None:
    """For types whose `type_state` is a plain value."""


class MergeType(NamedTuple):
    """The slots of a merge type, in the order in which a unit meets them."""

    name: str
    traits: Traits
    """How the type takes part in agreement, consensus and copies."""
    comparison_key: Callable[[FieldPlan], Callable[[Any], object]]
    """For a field: the function from a value to the key by which values are compared."""
    zero: Callable[[UnitState, FieldPlan], None]
    """Prepare a new unit state."""
    apply: Step
    """A genuine edit."""
    copy: Step
    """A marked change, which repeats another source's write."""
    snapshot: Step
    """A row read by a snapshot."""
    decide: Step
    """A decision by people."""
    record_delete_context: Callable[[UnitState, Stamp, str, bool], None]
    """A delete by a source: note what it had seen (True: everything)."""
    end: Callable[[UnitState, Stamp, str, bool], None]
    """A source starts a new incarnation that has seen the delete: end the old values (True: all of them)."""
    read: Callable[[UnitState, FieldPlan, list[Write]], MaybeValue]
    """The value of a frontier that is not empty."""
    start: Callable[[UnitState, FieldPlan, Views], MaybeValue]
    """The value before the first write."""
    conflicting_writes: Callable[[UnitState, FieldPlan, list[Write]], list[Write]]
    """The writes of a frontier that need a decision."""
    dump_state: Callable[[UnitState], Any] = dump_plain_state
    """`type_state` as plain values, for a checkpoint."""
    load_state: Callable[[UnitState, FieldPlan], None] = keep_dumped_state
    """Make `type_state` again from the plain values that stand in its place."""
