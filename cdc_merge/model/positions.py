"""HLC stamps order changes, places identify them, positions are the checkpoints of a source.

Times are integers: microseconds since 1970-01-01 UTC. LSNs are integers; `lsn_text` writes them as Postgres does.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DECISION_SOURCE: Final = "cdc_merge"


class Stamp(NamedTuple):
    """A hybrid logical clock (HLC) stamp; the tuple order is the total order of semantics §2.

    `wall_us` is the source's commit time, or the HLC's larger one; `counter` orders changes with one `wall_us`; `source`
    breaks ties between sources.
    """

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
    """The identity of a change, the same on every delivery: its position in the source's WAL.

    `system` is the server's system identifier, `timeline` the one that wrote `lsn`, which is the end of the commit; `ordinal`
    counts the row changes of `table` within the transaction.
    """

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
    """The checkpoint of a source: everything up to `lsn` is merged and on disk. `slot` is its replication slot; `passed_us` is
    the source's watermark, the stamp time up to which every change has arrived.

    `snapshot` is none or done; while a snapshot is not finished it is running (an initial one) or again (one into an existing
    history), and `copied` are the tables that are complete. `membership` are the publication members at that point (`Idle`),
    "" when unknown.
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
        """Whether a snapshot is not finished: nothing may be confirmed to the slot."""
        return self.snapshot in ("running", "again")
