"""What a cell is made of: writes, what each source holds, copies that wait, and how a type takes part in the rules.

No rules here; cell.py has them.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

from cdc_merge.model import UNKNOWN, Change, MaybeValue, Stamp

MISSING = object()


class Absent(Enum):
    """A key that a map does not have: held like a value, different from NULL."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final[Any] = Absent.ABSENT

# Beyond this many kept writes a cell is compacted. Small, so that masks stay machine words; large enough to be rare.
COMPACT_AT = 8

# A row that was deleted and inserted again and again goes back to many inserts; beyond so many they are compacted too.
MANY_INSERTS = 4

WRITE, BASELINE, DECIDED = 0, 1, 2


class Insert(NamedTuple):
    """An insert that values go back to. `baseline`: a first-snapshot value, which counts as one against a first insert (§4)."""

    stamp: Stamp
    first: bool
    baseline: bool


NO_INSERTS: frozenset[Insert] = frozenset()
NO_DELETES: frozenset[Stamp] = frozenset()
# Shared by the many cells that no delete has witnessed; never written to.
NOTHING: dict[Stamp, int] = {}
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
    """A genuine edit (or decision, or first-snapshot value) of one cell. `seen`: what its source had seen before it;
    `after`: just after it, agreement included. `part`: what it adds to a counter or log; `is_set`: it rewrites that; `is_gap`: a delta
    nobody knows."""

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
    """A copy that repeated no write known at its stamp; it waits `max_ahead` of stamp time for one (§2 rule 2)."""

    __slots__ = ("change", "key", "replaced", "source", "written")

    def __init__(self, source: str, change: Change, key: object, replaced: int) -> None:
        self.source = source
        self.change = change
        self.key = key
        self.replaced = replaced
        self.written = 0

    def is_for(self, write: Write) -> bool:
        """A copy that names writes waits for these; one that names none for a write of its value."""
        named = self.change.copy.of if self.change.copy is not None else ()
        return write.change.place in named if named else self.key == write.key


class SourceState:
    """What one source holds of a cell. `key` is MISSING while nothing is known; `seen`: the writes its value reflects, `inserts`: the
    inserts these go back to; `by`: the change that brought the value; `first`: its first snapshot value; `untouched`: it still holds
    that, `baseline` is that value as an insert, `over`: a new life has ended it; `gone`: (value, key) before its row was deleted;
    `overruled`: the writes of its value that rule 4 overwrote while its row was away (`deletes: local`)."""

    __slots__ = (
        "baseline",
        "by",
        "first",
        "first_key",
        "gone",
        "inserts",
        "key",
        "over",
        "overruled",
        "seen",
        "untouched",
        "value",
    )

    def __init__(self) -> None:
        self.value: MaybeValue = UNKNOWN
        self.key: object = MISSING
        self.by: Change | None = None
        self.seen = 0
        self.over = False
        self.overruled = 0
        self.untouched = False
        self.gone: tuple[MaybeValue, object] | None = None
        self.baseline: Insert | None = None
        self.inserts = NO_INSERTS
        self.first: MaybeValue = UNKNOWN
        self.first_key: object = MISSING


class Traits(NamedTuple):
    """How a merge type takes part in the rules. `agrees`: §2 rule 3. `settles`: rule 4. `overwrites`: copies overwrite. `rivals`: a
    first-snapshot value counts as an insert against a first insert elsewhere (§4). `binds`: the first value matters for ever.
    `together`: two parts as one."""

    agrees: bool
    settles: bool
    overwrites: bool
    rivals: bool = True
    binds: bool = False
    together: Callable[[Any, Any], Any] = plus
