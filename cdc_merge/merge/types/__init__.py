"""The merge types: one module a type, which says what it adds to mv, the plain register. `TYPES` is the table of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc_merge.merge.merge_type import MergeType
from cdc_merge.merge.types import append, counter, flag, immutable, lattice, lww, max_min, mv, orset, priority

TYPES: Final[Mapping[str, MergeType]] = {
    "mv": mv.TYPE,
    "lww": lww.TYPE,
    "priority": priority.TYPE,
    "counter": counter.TYPE,
    "max": max_min.MAX,
    "min": max_min.MIN,
    "set": orset.TYPE,
    "append": append.TYPE,
    "flag": flag.TYPE,
    "lattice": lattice.TYPE,
    "immutable": immutable.TYPE,
}
