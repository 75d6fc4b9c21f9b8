"""Where and when: HLC stamps order changes, places identify them, positions say how far a source is durable.

Times are integers: microseconds since 1970-01-01 UTC. LSNs are integers; `lsn_text` writes them as Postgres does.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DECISION_SOURCE: Final = "cdc_merge"


class Stamp(NamedTuple):
    """A hybrid-logical-clock reading; the tuple order is the total order of semantics §2."""

    wall_us: int
    counter: int
    source: str

    def __str__(self) -> str:
        return f"{self.wall_us}.{self.counter}@{self.source}"


def stamp_from_text(text: str) -> Stamp:
    """Read `<wall_us>.<counter>@<source>`; ValueError when it is anything else."""
    clock, _, source = text.partition("@")
    wall_us, _, counter = clock.partition(".")
    if not source:
        raise ValueError("a stamp reads <wall_us>.<counter>@<source>")
    return Stamp(int(wall_us), int(counter), source)


class Place(NamedTuple):
    """The identity of a change: where it stands in its source, whatever was delivered how often."""

    system: str
    timeline: int
    lsn: int
    table: str
    ordinal: int


def lsn_text(lsn: int) -> str:
    """An LSN as Postgres writes it, `0/16B3748`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_from_text(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


class Position(NamedTuple):
    """How far a source is merged and on disk. `slot` names the slot it belongs to; `passed_us` is the stamp time that
    the source has passed.

    `snapshot` is none or done, and while a copy is not finished running (a first one) or again (one into a history that
    exists); `copied` are then the tables that it has finished. `membership` is what was sent of which tables at that point
    (`Idle`), "" when that is not known.
    """

    system: str
    timeline: int
    lsn: int
    snapshot: str
    slot: str
    passed_us: int = 0
    copied: tuple[str, ...] = ()
    membership: str = ""

    @property
    def is_copying(self) -> bool:
        """The picture is not complete, and nothing may be confirmed."""
        return self.snapshot in ("running", "again")
