"""Commands to a source: to pause its stream, to resync tables. Values only; they are durable.

A *resync* is an incremental snapshot of one table: it is read in chunks while the stream continues. Its rows are views, not
edits. Records that the history has at this source and that no chunk contained are looked up by key (`MISSING`); those without
a row are deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from cdc_merge.model import Stamp

ROWS: Final = "rows"
MISSING: Final = "missing"
FAILED: Final = "failed"
PHASES: Final = (ROWS, MISSING, FAILED)

REQUESTED: Final = "asked"
INTERRUPTED: Final = "copy_interrupted"


class ChunkRequest(NamedTuple):
    """A request for one chunk of a table; `number` identifies it. Either the rows after the key `after`, in the order of the
    table's own key (None: from its beginning), or the rows with the business keys `keys`, in columns `key_columns`."""

    number: int
    table: str
    after: tuple[str, ...] | None = None
    key_columns: tuple[str, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()


class Resync(NamedTuple):
    """An unfinished resync. `since` is the source's clock at its start: records with a later change need no lookup. `cause` is
    `asked` (an operator's request), `copy_interrupted`, or the problem by which a position was lost.

    `phase` is rows, missing or failed (then with a `problem`). `after`: the key of the last row that was read. `entity`,
    `scanned`: progress of the lookup of missing records. `keys`: only these records. `gone`: records without a row.
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
    """The durable commands to one source. `paused`: its stream is not read. `accepts_loss`: a lost position is followed by a new
    snapshot, once. `resyncs` are processed in this order; `answers` counts all chunks that were read for them.

    Beside them, what outlives the process: `parked` is table → rows that could not be read since its last whole reading.
    """

    paused: bool = False
    accepts_loss: bool = False
    resyncs: tuple[Resync, ...] = ()
    answers: int = 0
    parked: Mapping[str, int] = {}


NO_ORDERS: Final = SourceOrders()
