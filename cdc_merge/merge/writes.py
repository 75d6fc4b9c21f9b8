"""The data of one unit's state: writes, the value and causal context of each source, waiting copies, the traits of a type.

Data only; the rules are in unit_state.py, baselines.py and late_copies.py.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

from cdc_merge.model import UNKNOWN, Change, MaybeValue, Stamp

MISSING = object()


class Absent(Enum):
    """The value of a key that a map does not have; different from NULL."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final[Any] = Absent.ABSENT


class CompactionLimits(NamedTuple):
    """When a unit's state is compacted.

    `writes`: beyond so many kept writes. Small, so that masks stay machine words; large enough to be rare.
    `inserts`: a row that is deleted and inserted again and again goes back to many inserts; beyond so many they are
    compacted too. `dumped`: a state with at most so many writes goes into a checkpoint as it is."""

    writes: int = 8
    inserts: int = 4
    dumped: int = 3


LIMITS: Final = CompactionLimits()

WRITE, BASELINE, DECIDED = 0, 1, 2


class Insert(NamedTuple):
    """An insert that values descend from. `baseline`: a first-snapshot value, which counts as an insert against a first
    insert at another source (§4)."""

    stamp: Stamp
    first: bool
    baseline: bool


NO_INSERTS: frozenset[Insert] = frozenset()
NO_DELETES: frozenset[Stamp] = frozenset()
# Shared by the many units without deletes or past values; never written to.
NO_DELETE_CONTEXTS: dict[Stamp, int] = {}
NO_PAST: dict[tuple[str, str], list[tuple[object, int]]] = {}

# How far back `agreement: past` looks (semantics §2 rule 3).
PAST_VALUES = 100


# More digits than any numeric column may have (131072 before the point, 16383 after), so that sums never round.
EXACT = Context(prec=150_000)


def plus(left: Decimal | int, right: Decimal | int) -> Decimal | int:
    """The exact sum."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return EXACT.add(Decimal(left), Decimal(right))


class Write:
    """A write of one unit: a genuine edit, a decision or a first-snapshot value (`kind`). `bit`: its dot in the masks.

    `seen`: its causal context, the mask of writes that its source had seen before it; `after`: the same right after it,
    agreement included. `delta`: what it adds to a counter or log; `is_reset`: it replaces the whole value instead;
    `delta_unknown`: it adds an amount that the log does not show. `deletes`: the deletes that its writer had seen."""

    __slots__ = (
        "after",
        "before",
        "bit",
        "change",
        "deletes",
        "inserts",
        "delta_unknown",
        "is_reset",
        "key",
        "kind",
        "delta",
        "seen",
        "source",
        "value",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - made millions of times: positional, and no builder in between
        self, bit: int, source: str, change: Change, value: MaybeValue, key: object, seen: int
    ) -> None:
        self.bit = bit
        self.source = source
        self.change = change
        self.value = value
        self.key = key
        self.seen = seen
        self.after = seen | bit
        self.kind = WRITE
        self.inserts = NO_INSERTS
        self.deletes = NO_DELETES
        self.before: MaybeValue = UNKNOWN
        self.delta: Any = None
        self.is_reset = False
        self.delta_unknown = False

    @property
    def stamp(self) -> Stamp:
        return self.change.stamp


class WaitingCopy:
    """A copy whose original has not arrived; it waits `max_ahead` of stamp time for it (§2 rule 2).

    `replaced`: the bit of its source's own write that it replaced; `written`: what its source has written since."""

    __slots__ = ("change", "key", "replaced", "source", "written")

    def __init__(self, source: str, change: Change, key: object, replaced: int) -> None:
        self.source = source
        self.change = change
        self.key = key
        self.replaced = replaced
        self.written = 0

    def is_for(self, write: Write) -> bool:
        """A copy that names writes waits for these; one that names none waits for a write of its value."""
        places = self.change.copy.of if self.change.copy is not None else ()
        return write.change.place in places if places else self.key == write.key


class SourceState:
    """The value of one unit at one source, with the causal context of that value.

    `key`: the value's comparison key, MISSING while the value is unknown. `seen`: the writes that the value reflects.
    `inserts`: the inserts that these writes descend from. `set_by`: the change that brought the value.
    `snapshot_value`: the source's first snapshot value; `untouched`: the source still holds it; `baseline`: that value
    as an insert; `baseline_ended`: a new incarnation has ended it. `before_delete`: (value, key) before the source's row
    was deleted. `overruled`: the writes of its value that a consensus overwrote while its row was deleted locally."""

    __slots__ = (
        "baseline",
        "baseline_ended",
        "before_delete",
        "inserts",
        "key",
        "overruled",
        "seen",
        "set_by",
        "snapshot_key",
        "snapshot_value",
        "untouched",
        "value",
    )

    def __init__(self) -> None:
        self.value: MaybeValue = UNKNOWN
        self.key: object = MISSING
        self.set_by: Change | None = None
        self.seen = 0
        self.overruled = 0
        self.untouched = False
        self.before_delete: tuple[MaybeValue, object] | None = None
        self.baseline: Insert | None = None
        self.baseline_ended = False
        self.inserts = NO_INSERTS
        self.snapshot_value: MaybeValue = UNKNOWN
        self.snapshot_key: object = MISSING


class Traits(NamedTuple):
    """How a merge type takes part in the rules of causality.

    `agrees`: equal values at two sources join their contexts (§2 rule 3). `settles`: the value that all holders share
    overwrites the others (rule 4). `overwrites`: a copy overwrites its source's own concurrent write.
    `snapshot_candidates`: a first-snapshot value is an insert against a first insert elsewhere (§4). `binds`: the first
    value stays the value. `combine`: two deltas as one."""

    agrees: bool
    settles: bool
    overwrites: bool
    snapshot_candidates: bool = True
    binds: bool = False
    combine: Callable[[Any, Any], Any] = plus
