"""The JSON of sources: the reader's state, the durable state and the commands of each (contract §7). Pure."""

from __future__ import annotations

from typing import NamedTuple

from cdc_merge.model import Position, SourceStatus, lsn_text
from cdc_merge.model.source_commands import NO_ORDERS, Resync, SourceOrders
from cdc_merge.queries.documents import Fields, maybe_time_json, time_json


class SourceReport(NamedTuple):
    """One source: the state of its reader, and the durable state. Times in microseconds since 1970.

    `position` is None while nothing of the source is on disk, `watermark_us` None before its first watermark. `parked`: the
    number of quarantined changes.
    """

    status: SourceStatus
    position: Position | None
    watermark_us: int | None
    orders: SourceOrders = NO_ORDERS
    snapshot_rows: int = 0
    snapshot_expected: int = 0
    parked: int = 0


def source_json(source: SourceReport, now_us: int) -> Fields:
    """`now_us` is our clock: `lag_seconds` is the age of the watermark, 0.0 when the source is merged completely."""
    status, position = source.status, source.position
    durable_lsn = durable_lsn_of(position)
    # Before the server reports its LSN, the lag is unknown.
    lag_bytes = max(0, status.server_lsn - durable_lsn) if status.server_lsn else None
    return {
        "name": status.name,
        "type": status.type,
        "up": status.up,
        "state": status.state,
        "paused": source.orders.paused,
        "received_lsn": lsn_text(status.received_lsn),
        "durable_lsn": lsn_text(durable_lsn),
        "lag_bytes": lag_bytes,
        "lag_seconds": _lag_seconds(status.up and lag_bytes == 0, source.watermark_us, now_us),
        "last_commit_at": maybe_time_json(status.last_commit_us),
        "watermark": maybe_time_json(source.watermark_us),
        "snapshot": {
            "state": _snapshot_state(position),
            "rows": source.snapshot_rows,
            "expected": source.snapshot_expected,
        },
        "resyncs": [_resync_json(resync) for resync in source.orders.resyncs],
        "slot": None if status.slot is None else _slot_json(status),
        "parked": source.parked + sum(source.orders.parked.values()),
        "reconnects": status.reconnects,
        "problem": status.problem,
    }


def orders_json(source: str, orders: SourceOrders) -> Fields:
    """The commands of a source; `resyncs` in the order of execution."""
    return {"source": source, "paused": orders.paused, "resyncs": [_resync_json(resync) for resync in orders.resyncs]}


def _resync_json(resync: Resync) -> Fields:
    return {
        "table": resync.table,
        "record": bool(resync.keys),
        "state": resync.phase,
        "cause": resync.cause,
        "asked_at": time_json(resync.asked_us),
        "rows": resync.rows,
        "expected": resync.expected,
        "gone": resync.gone,
        "problem": resync.problem or None,
    }


def _snapshot_state(position: Position | None) -> str:
    if position is None:
        return "none"
    return "running" if position.is_copying else position.snapshot


def durable_lsn_of(position: Position | None) -> int:
    """The LSN up to which everything is on disk: 0 until a running initial snapshot is complete."""
    return 0 if position is None or position.is_copying else position.lsn


def _lag_seconds(is_level: bool, watermark_us: int | None, now_us: int) -> float | None:  # noqa: FBT001 one caller, one word
    if is_level:
        return 0.0
    return None if watermark_us is None else max(0, now_us - watermark_us) / 1e6


def _slot_json(status: SourceStatus) -> Fields:
    return {
        "name": status.slot,
        "active": status.slot_active,
        "wal_status": status.wal_status,
        "retained_bytes": status.retained_bytes,
        "safe_bytes": status.safe_bytes,
    }
