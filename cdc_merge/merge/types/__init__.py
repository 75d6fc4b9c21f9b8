"""One module per merge type; `TYPES` is the table that names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc_merge.merge.merge_type import MergeType
from cdc_merge.merge.types import append, counter, extremum, flag, immutable, lattice, lww, mv, priority, set_

TYPES: Final[Mapping[str, MergeType]] = {
    "mv": mv.TYPE,
    "lww": lww.TYPE,
    "priority": priority.TYPE,
    "counter": counter.TYPE,
    "max": extremum.MAX,
    "min": extremum.MIN,
    "set": set_.TYPE,
    "append": append.TYPE,
    "flag": flag.TYPE,
    "lattice": lattice.TYPE,
    "immutable": immutable.TYPE,
}
