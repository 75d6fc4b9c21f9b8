"""The fold goes on from a base: a record is what its base holds and the changes that are later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdc_merge.history.order import ordered
from cdc_merge.merge.base import restored
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record import Record
from cdc_merge.merge.units import Units
from cdc_merge.model import Base, Change
from cdc_merge.plan import Plan

# Raise it when the fold itself answers differently than before: bases that it made then are not used any more.
FOLD: Final = 1


def policy_of(plan: Plan) -> str:
    """All that a base depends on beside the history."""
    return f"{FOLD}/{plan.max_ahead_us}/{plan.policy}"


def folded(
    units: Units,
    key: str,
    known: tuple[Base | None, Iterable[Change]],
    *,
    max_ahead_us: int,
    compacts: bool = True,
) -> Record:
    """A record from its base, if it has one, and the changes later than it. Without `compacts` the cells forget nothing
    of these changes, as `explain` needs it."""
    base, changes = known
    if base is None:
        record = Record(units, key, max_ahead_us=max_ahead_us, compacts=compacts)
    else:
        record = restored(units, base.tree, key=key, max_ahead_us=max_ahead_us)
        record.compacts = compacts
    for change in ordered(changes):
        advance(record, change)
    return record
