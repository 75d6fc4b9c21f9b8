"""What a source was told to do beside following its stream: to rest, to read tables again. Values only; they are durable.

A *resync* reads one table again while the stream goes on, in pieces. What it finds are views, not edits. Records that the
source is said to hold and that no piece named are looked for one by one (`MISSING`); only those that are not there then
are gone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cdc_merge.model import Stamp

ROWS: Final = "rows"
MISSING: Final = "missing"
FAILED: Final = "failed"
PHASES: Final = (ROWS, MISSING, FAILED)

REQUESTED: Final = "asked"
INTERRUPTED: Final = "copy_interrupted"


class ChunkRequest(NamedTuple):
    """A piece of a table to be read again. `number` names the request. Either the rows behind `after` in the order of the
    table's own key (None: from its beginning), or those with the business keys `keys`, columns `key_columns`."""

    number: int
    table: str
    after: tuple[str, ...] | None = None
    key_columns: tuple[str, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()


class Resync(NamedTuple):
    """A resync that is not over. `since` is the source's clock at its beginning: records that it has told of later need
    not be looked for. `cause` is `asked`, `copy_interrupted`, or the problem for which a position was lost.

    `phase` is rows, missing or failed (then `problem` says why). `after`: the last row that was read. `entity`,
    `scanned`: where looking for what is missing stands. `keys`: only these records. `gone` of them are not there.
    """

    table: str
    since: Stamp
    asked_us: int
    cause: str = REQUESTED
    phase: str = ROWS
    after: tuple[str, ...] | None = None
    entity: int = 0
    scanned: str | None = None
    keys: tuple[str, ...] = ()
    rows: int = 0
    expected: int = 0
    gone: int = 0
    problem: str = ""


class SourceOrders(NamedTuple):
    """`paused`: its stream is not read. `accepts_loss`: should its position be lost, copy it anew once. `resyncs` are
    worked off in this order; `answers` counts the pieces that were ever read for them."""

    paused: bool = False
    accepts_loss: bool = False
    resyncs: tuple[Resync, ...] = ()
    answers: int = 0


NO_ORDERS: Final = SourceOrders()
