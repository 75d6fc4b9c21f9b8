"""What a merge type is: a few functions in a fixed order, gathered in one value. `types.TYPES` is the table of them.

A type reads a cell; the rules of causality (cell.py) are the same for all. Types that keep more than writes (sets, logs)
bring functions of their own for the steps; the others take those of steps.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Insert, Traits, Write
from cdc_merge.model import UNKNOWN, Change, MaybeValue, Stamp
from cdc_merge.model.plan import FieldPlan


class Event:
    """One change as far as one unit (field, group or map key) is concerned. Reused from unit to unit: nobody keeps it.

    `holders` are the sources that hold the record and map the unit, after the change's effect on presence.
    `born` is set when the source's row begins with this change (a genuine insert). `deletes`: those its writer had seen.
    `rivals`: another source maps the entity too, so that first-snapshot values may become candidates. `max_ahead_us`: how long copies wait.
    `returned`: the row was away for its source only and comes again (`deletes: local`).
    """

    __slots__ = (
        "after",
        "before",
        "inserted",
        "change",
        "deletes",
        "holders",
        "max_ahead_us",
        "returned",
        "rivals",
        "source",
    )

    def __init__(self, source: str, change: Change, born: Insert | None, deletes: frozenset[Stamp]) -> None:
        self.source = source
        self.change = change
        self.inserted = born
        self.deletes = deletes
        self.rivals = False
        self.returned = False
        self.max_ahead_us = 0
        self.before: MaybeValue = UNKNOWN
        self.after: MaybeValue = UNKNOWN
        self.holders: tuple[str, ...] = ()


Views = Sequence[tuple[str, MaybeValue]]


def extra_itself(cell: UnitState) -> Any:
    """For types whose `extra` is a plain value."""
    return cell.extra


def as_saved(cell: UnitState, plan: FieldPlan) -> None:
    """For types whose `extra` is a plain value."""


class MergeType(NamedTuple):
    """`zero` prepares a new cell; `apply`, `copy`, `snapshot`, `decide` take one event each and answer its outcome (contract
    §5, `merges_total`); `witness` and `end` follow a delete and a new life; `read` is the value of a non-empty frontier,
    `start` that of a record nobody has written (views in the order of `from:`); `asks` the writes that need a decision. `saved`
    is the cell's `extra` as plain values; `restored` finds that in its place, beside all else, and makes the state of it again."""

    name: str
    traits: Traits
    keyed: Callable[[FieldPlan], Callable[[Any], object]]
    zero: Callable[[UnitState, FieldPlan], None]
    apply: Callable[[UnitState, FieldPlan, Event], str]
    copy: Callable[[UnitState, FieldPlan, Event], str]
    snapshot: Callable[[UnitState, FieldPlan, Event], str]
    decide: Callable[[UnitState, FieldPlan, Event], str]
    record_delete_context: Callable[[UnitState, Stamp, str, bool], None]
    end: Callable[[UnitState, Stamp, str, bool], None]
    read: Callable[[UnitState, FieldPlan, list[Write]], MaybeValue]
    start: Callable[[UnitState, FieldPlan, Views], MaybeValue]
    conflicting_writes: Callable[[UnitState, FieldPlan, list[Write]], list[Write]]
    dump_state: Callable[[UnitState], Any] = extra_itself
    load_state: Callable[[UnitState, FieldPlan], None] = as_saved
