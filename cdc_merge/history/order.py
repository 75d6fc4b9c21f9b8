"""A history is a set of changes: repeats are dropped by place, the order is that of HLC stamps (semantics §2, "The definition")."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_merge.model import Change, Place


def ordered(changes: Iterable[Change]) -> list[Change]:
    """The changes of one record in stamp order, each place once; where two stamps meet for one place the smaller stays."""
    by_place: dict[Place, Change] = {}
    for change in changes:
        earlier = by_place.get(change.place)
        if earlier is None or change.stamp < earlier.stamp:
            by_place[change.place] = change
    return sorted(by_place.values(), key=lambda change: change.stamp)
