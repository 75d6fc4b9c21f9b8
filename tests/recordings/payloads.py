"""pgoutput payloads: written by hand after the protocol's documentation, and the recorded ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from cdc_merge.model import UNCHANGED, RawValue
from cdc_merge.sources.postgres.protocol.copy_data import XLOG_DATA, XLOG_DATA_HEADER_BYTES
from tests.recordings.recording import read_recording

FOLDER = Path(__file__).parent
RECORDINGS = sorted(FOLDER.glob("*.stream"))
PG_EPOCH_S = 946_684_800


def pg_us(unix_us: int) -> int:
    return unix_us - PG_EPOCH_S * 1_000_000


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def cell(value: RawValue) -> bytes:
    if value is None:
        return b"n"
    if value is UNCHANGED:
        return b"u"
    return b"t" + struct.pack("!I", len(value)) + value


def row(cells: Sequence[RawValue]) -> bytes:
    return struct.pack("!H", len(cells)) + b"".join(cell(value) for value in cells)


def begin(commit_lsn: int, commit_us: int = PG_EPOCH_S * 1_000_000, xid: int = 7) -> bytes:
    return b"B" + struct.pack("!QqI", commit_lsn, pg_us(commit_us), xid)


def commit(commit_lsn: int, end_lsn: int, commit_us: int = PG_EPOCH_S * 1_000_000) -> bytes:
    return b"C\0" + struct.pack("!QQq", commit_lsn, end_lsn, pg_us(commit_us))


def origin(name: str) -> bytes:
    return b"O" + struct.pack("!Q", 1) + text(name)


def relation(oid: int, table: str, columns: Sequence[tuple[str, int, bool]], identity: str = "d") -> bytes:
    """`columns` are (name, type oid, is part of the identity)."""
    namespace, _, name = table.partition(".")
    head = b"R" + struct.pack("!I", oid) + text(namespace) + text(name) + identity.encode()
    parts = [bytes([flag]) + text(column) + struct.pack("!Ii", type_oid, -1) for column, type_oid, flag in columns]
    return head + struct.pack("!H", len(columns)) + b"".join(parts)


def type_name(oid: int, namespace: str, name: str) -> bytes:
    return b"Y" + struct.pack("!I", oid) + text(namespace) + text(name)


def insert(oid: int, new: Sequence[RawValue]) -> bytes:
    return b"I" + struct.pack("!I", oid) + b"N" + row(new)


def update(oid: int, new: Sequence[RawValue], old: Sequence[RawValue] | None = None, kind: bytes = b"O") -> bytes:
    before = b"" if old is None else kind + row(old)
    return b"U" + struct.pack("!I", oid) + before + b"N" + row(new)


def delete(oid: int, old: Sequence[RawValue], kind: bytes = b"K") -> bytes:
    return b"D" + struct.pack("!I", oid) + kind + row(old)


def truncate(oids: Sequence[int], flags: int = 0) -> bytes:
    return b"T" + struct.pack("!IB", len(oids), flags) + struct.pack(f"!{len(oids)}I", *oids)


def message(prefix: str, content: bytes, transactional: bool = True) -> bytes:
    head = b"M" + struct.pack("!BQ", transactional, 9) + text(prefix)
    return head + struct.pack("!I", len(content)) + content


def recorded_payloads() -> list[bytes]:
    """The pgoutput payloads of every recording."""
    return [payload for path in RECORDINGS for payload in payloads_of(path)]


def payloads_of(path: Path) -> list[bytes]:
    """The pgoutput payloads of one recording, in order."""
    with path.open("rb") as file:
        _, frames = read_recording(file)
        return [frame.payload[XLOG_DATA_HEADER_BYTES:] for frame in frames if frame.payload[0] == XLOG_DATA]
