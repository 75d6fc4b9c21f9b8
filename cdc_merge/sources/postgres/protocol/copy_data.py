"""The payloads of CopyData in both directions: XLogData, keepalive, standby status update (Postgres docs, "Streaming
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
    """A primary keepalive. `wal_lsn`: the LSN up to which the server has sent; inside a transaction it is not progress."""

    wal_lsn: int
    server_us: int
    wants_reply: bool


def read_keepalive(frame: bytes | memoryview) -> Keepalive:
    """ProtocolError when the frame is too short for a keepalive, or has an LSN that no server reaches."""
    try:
        lsn, time_us, reply = _KEEPALIVE.unpack_from(frame, 1)
    except struct.error:
        raise ProtocolError("A keepalive is cut short.", length=len(frame)) from None
    if lsn > MAX_LSN:
        raise ProtocolError("A keepalive names an impossible position.", length=len(frame))
    return Keepalive(lsn, time_us + POSTGRES_EPOCH_US, bool(reply))


def sent_us(frame: bytes | memoryview) -> int:
    """The send time of an XLogData frame, by the server's clock."""
    time_us: int = _SENT.unpack_from(frame, _SENT_AT)[0]
    return time_us + POSTGRES_EPOCH_US


def status_update(received: int, flushed: int, now_us: int, *, requests_reply: bool) -> bytes:
    """A standby status update. Only `flushed`, sent as both flushed and applied, moves the slot's confirmed_flush_lsn."""
    return _STATUS.pack(b"r", received, flushed, flushed, now_us - POSTGRES_EPOCH_US, requests_reply)
