"""What a reader knows about its source at this moment (contract §7, `source`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a reader knows about its source right now (contract §7, `source`). Unknown figures are None.

    `queued_bytes` wait to be merged, at most about `queue_limit_bytes`; `waited_s`: for how long, all in all, the source
    was not read because that was reached. `confirmed_lsn`: what the server was told that it may forget. `last_received_us`: our
    clock at the newest transaction. `invalidation`: why the server has given the slot up, "" while it has not.
    `inactive_since_us`: since when nobody reads it, by the server's clock. `server_spilled_bytes`: what the server wrote aside
    while decoding large transactions, since its statistics were reset. `counts`: what was counted of it (capture.py).
    `open_bytes`: of a transaction whose commit has not come. `waits`: it is not read at present, as too much is queued.
    `copy_tables_left`, `copy_s`: tables that its first copy has not finished, and how long the latest copy took so far.
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
