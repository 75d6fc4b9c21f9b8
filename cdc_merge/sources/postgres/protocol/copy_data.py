"""The frames of a replication connection: what is inside CopyData, in both directions (Postgres docs, "Streaming
Replication Protocol"). Pure.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cdc_merge.errors import ProtocolError
from cdc_merge.sources.postgres.protocol.pgoutput import POSTGRES_EPOCH_US

XLOG_DATA: Final = ord("w")
KEEPALIVE: Final = ord("k")
XLOG_DATA_HEADER_BYTES: Final = 25

_KEEPALIVE: Final = struct.Struct("!QqB")
MAX_LSN: Final = (1 << 63) - 1  # no server writes so much, and no store's integers hold more

_SENT: Final = struct.Struct("!q")
_SENT_AT: Final = 17  # behind the kind and two LSNs
_STATUS: Final = struct.Struct("!cQQQqB")


class Keepalive(NamedTuple):
    """`wal_lsn`: how far the server has sent. Inside a transaction it is not progress."""

    wal_lsn: int
    server_us: int
    wants_reply: bool


def read_keepalive(frame: bytes | memoryview) -> Keepalive:
    """ProtocolError when the frame is too short to be one, or names a place that no server reaches."""
    try:
        lsn, time_us, reply = _KEEPALIVE.unpack_from(frame, 1)
    except struct.error:
        raise ProtocolError("A keepalive is cut short.", length=len(frame)) from None
    if lsn > MAX_LSN:
        raise ProtocolError("A keepalive names an impossible position.", length=len(frame))
    return Keepalive(lsn, time_us + POSTGRES_EPOCH_US, bool(reply))


def sent_us(frame: bytes | memoryview) -> int:
    """When the server sent a frame of XLogData, by its own clock."""
    time_us: int = _SENT.unpack_from(frame, _SENT_AT)[0]
    return time_us + POSTGRES_EPOCH_US


def status_update(received: int, durable: int, now_us: int, *, asks_reply: bool) -> bytes:
    """Standby status update. Only `durable` moves the slot: it is both flushed and applied."""
    return _STATUS.pack(b"r", received, durable, durable, now_us - POSTGRES_EPOCH_US, asks_reply)
