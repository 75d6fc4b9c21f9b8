"""The current status of a source (contract §7, `source`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The status that a reader reports of its source (contract §7, `source`). Unknown figures are None.

    `queued_bytes` of deliveries that were not taken, at most about `queue_limit_bytes`; `waited_s`: total time for which the
    source was not read because of that limit (back pressure); `waits`: it is not read at present for that reason.
    `received_lsn` is the LSN up to which everything was received, `server_lsn` the server's latest, `confirmed_lsn` the
    confirmed_flush_lsn that was sent to the slot. `last_received_us`: our clock at the latest transaction, whose commit time is
    `last_commit_us`. Of the slot: `retained_bytes` of WAL from its restart_lsn on, `safe_bytes` until it is lost;
    `invalidation`: why the server has invalidated it, "" while it is valid; `inactive_since_us`: since when it has no reader, by
    the server's clock; `server_spilled_bytes` were spilled while decoding, since the last reset of the statistics.
    `counts` are the capture counters (capture_counters.py). `open_bytes` are of a transaction without its commit.
    `copy_tables_left`, `copy_s`: unfinished tables of the initial snapshot, and the duration of the latest snapshot.
    """

    name: str
    type: str
    up: bool = False
    state: str = "connecting"
    received_lsn: int = 0
    server_lsn: int = 0
    last_commit_us: int | None = None
    last_message_us: int | None = None
    reconnects: int = 0
    slot: str | None = None
    slot_active: bool | None = None
    wal_status: str | None = None
    retained_bytes: int | None = None
    safe_bytes: int | None = None
    problem: str | None = None
    confirmed_lsn: int = 0
    queued_bytes: int = 0
    queue_limit_bytes: int = 0
    waited_s: float = 0.0
    heartbeats_sent: int = 0
    heartbeats_permitted: bool | None = None
    last_received_us: int | None = None
    invalidation: str | None = None
    inactive_since_us: int | None = None
    catalog_xmin_age: int | None = None
    server_spilled_bytes: int | None = None
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    open_bytes: int = 0
    waits: bool = False
    copy_tables_left: int = 0
    copy_s: float = 0.0
