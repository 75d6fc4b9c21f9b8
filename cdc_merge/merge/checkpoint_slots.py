"""The format of a checkpoint: which slots of which object it contains, by position.

Of every object only the slots that differ from a fresh one's are written, as number and value. The number is the position in the
tuples below: only ever append. A slot that is in none of them, and not in `REBUILT`, fails the law suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from cdc_merge.merge.record_state import Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import MISSING, Write

Tree: TypeAlias = Sequence[Any]
"""Nested lists of model values; after a store they may be tuples."""

Forms: TypeAlias = Mapping[str, Callable[[Any], Any]]
"""The functions that write or read the slots which are not plain values."""


def _slots(names: str) -> tuple[str, ...]:
    return tuple(names.split())


WRITE_SLOTS: Final = _slots("change value key seen after kind inserts deletes before delta is_reset delta_unknown")
SOURCE_SLOTS: Final = _slots(
    "value key set_by seen ended untouched baseline inserts snapshot_value snapshot_key before_delete delta_base "
    "overruled baseline_ended"
)
WAITING_SLOTS: Final = _slots("source change key replaced written")
UNIT_SLOTS: Final = _slots(
    "writes frontier overwritten baselines resets by_source deletes waiting_copies diverged always_checked type_state "
    "past_values delta_base"
)
ROW_SLOTS: Final = _slots("presence kept reinserted_by_copy inserted identity last entered_by duplicates deleted")
RECORD_SLOTS: Final = _slots(
    "last rows unit_states unsettled deletes waiting_deletes seen_deletes map_keys divergence_clocks rule_hits moves"
)

RETIRED: Final[Mapping[tuple[str, ...], frozenset[str]]] = {SOURCE_SLOTS: frozenset({"ended", "delta_base"})}
"""Slots that checkpoints of FOLD_VERSION 2 have and no object has any more; their places stay empty."""

REBUILT: Final[Mapping[type, frozenset[str]]] = {
    Write: frozenset({"bit", "source"}),
    UnitState: frozenset({"traits", "key_of", "order", "next_bit", "lost_updates"}),
    Record: frozenset({"units", "key", "max_ahead_us", "compacts", "present", "holders_by_owner", "unit_of"}),
}
"""What follows from the configuration or from other slots. Lost updates are reported in the batch that detects them."""


def sparse(owner: object, slots: tuple[str, ...], forms: Forms, fresh: object) -> Tree:
    """The slots that differ from a fresh object's: number, plain value, number, plain value …"""
    tree: list[Any] = []
    for number, slot in enumerate(slots):
        value = getattr(owner, slot, MISSING)
        usual = getattr(fresh, slot, MISSING)
        if value is not usual and (value.__class__ is not usual.__class__ or value != usual):
            form = forms.get(slot)
            tree += (number, value if form is None else form(value))
    return tree


def fill(owner: object, slots: tuple[str, ...], tree: Iterable[Any], forms: Forms) -> dict[str, Any]:
    """Set the slots that `sparse` wrote. The values of retired slots."""
    retired: dict[str, Any] = {}
    each = iter(tree)
    for number in each:
        slot, value = slots[number], next(each)
        form = forms.get(slot)
        value = value if form is None else form(value)
        if slot in RETIRED.get(slots, ()):
            retired[slot] = value
        else:
            setattr(owner, slot, value)
    return retired
