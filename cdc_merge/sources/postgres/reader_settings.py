"""The settings of one reader: one value, from the composition (app) to the session that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc_merge.sources.postgres.reader_limits import DEFAULT_READER_LIMITS, ReaderLimits
from cdc_merge.sources.postgres.resume_checks import STOP


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """One source. Travels to its reader's process over a pipe, never on a command line.

    `tables` maps `schema.table` → its mapped columns; `snapshot` is initial or never. `max_queued_bytes` bounds the delivery
    queue, as the server sent it (in memory rows take about five times as much); a single transaction may be larger, and its
    rows are then spilled to `directory` (None: the system's directory for temporary files). `heartbeat_s`: interval of the
    heartbeat messages written into the source; None: none. `failover`: the slot is created with FAILOVER, for standbys.
    """

    name: str
    dsn: str = field(repr=False)
    slot: str
    publication: str
    snapshot: str
    tables: Mapping[str, tuple[str, ...]]
    max_queued_bytes: int
    directory: str | None = None
    on_lost_position: str = STOP
    snapshot_workers: int = 1
    heartbeat_s: float | None = None
    failover: bool = False
    slot_creation_limit_s: float = 60.0
    limits: ReaderLimits = DEFAULT_READER_LIMITS
