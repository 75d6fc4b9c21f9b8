"""SLT11 and SLT12: end-to-end probes of the path. The only checks that change something at the source.

SLT11 creates a temporary slot (the server drops it with its session), streams from it with the sidecar's options, and
waits for its own logical message. SLT12 sends one message and waits until the running sidecar has confirmed it. Each
costs a few hundred bytes of WAL.
"""

from __future__ import annotations

import secrets
import select
import time
from contextlib import closing, suppress
from typing import Final

import psycopg
from psycopg import sql

from cdc_merge.doctor.source_facts import CapacityFacts, Facts, FactUnavailable, PathProbe, SidecarProbe, Subject
from cdc_merge.errors import CdcMergeError, ProtocolError
from cdc_merge.sources.postgres.connection import connect
from cdc_merge.sources.postgres.protocol.copy_data import XLOG_DATA, XLOG_DATA_HEADER_BYTES
from cdc_merge.sources.postgres.protocol.pgoutput import LogicalMessage, decode
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query

PREFIX: Final = "cdc_merge.probe"
LIMIT_S: Final = 10.0  # a new slot waits for open transactions: SLT10 reports longer ones
LEAVING_LIMIT_S: Final = 5.0
FINISH_LIMIT_S: Final = 0.5
CANARY_LIMIT_S: Final = 10.0  # an idle sidecar confirms within a second


class TemporarySlot(WalSender):
    """A replication connection with a slot that the server drops with it."""

    def create_temporary(self, slot: str, limit_s: float) -> bool:
        """Whether the slot was created within the time."""
        is_old = self._connection.info.server_version < 150000
        create = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput {}").format(
            sql.Identifier(slot), sql.SQL("NOEXPORT_SNAPSHOT" if is_old else "(SNAPSHOT 'nothing')")
        )
        return self._command(create.as_bytes(self._connection), limit_s, _never) is not None


def _never() -> bool:
    return False


def probe_path(subject: Subject, dsn: str, facts: Facts, limit_s: float = LIMIT_S) -> PathProbe:
    """Probe the whole path once. Never raises: an error is the result."""
    try:
        room = facts.one(CapacityFacts)
    except FactUnavailable as missing:
        return PathProbe("skipped", 0.0, str(missing))
    if room.free_slots < 1 or room.free_senders < 1:
        return PathProbe("skipped", 0.0, "No slot or WAL sender is free for the probe.")
    began, token = time.monotonic(), secrets.token_hex(8)
    step, refusal = _run_steps(subject, dsn, token, began + limit_s)
    took_s = time.monotonic() - began
    if not _slot_is_dropped(subject, dsn, f"cdc_merge_probe_{token}"):
        return PathProbe("leave", took_s, f"slot cdc_merge_probe_{token} is still there; it ends with its session.")
    return PathProbe(step, took_s, refusal)


def _slot_is_dropped(subject: Subject, dsn: str, slot: str) -> bool:
    """Whether the server has dropped the slot: it does so a moment after the client has disconnected."""
    deadline = time.monotonic() + LEAVING_LIMIT_S
    with suppress(CdcMergeError, psycopg.Error), closing(connect(subject.source, dsn)) as connection:
        while time.monotonic() < deadline:
            if connection.execute(query(__package__, "confirmed").encode(), [slot]).fetchone() is None:
                return True
            time.sleep(0.02)
    return False


def _run_steps(subject: Subject, dsn: str, token: str, deadline: float) -> tuple[str, str]:
    """The last step, `done` at the end, and the error that stopped it."""
    step = "create"
    try:
        sender = TemporarySlot(subject.source, dsn)
        try:
            if not sender.create_temporary(f"cdc_merge_probe_{token}", deadline - time.monotonic()):
                return step, "it waited too long for open transactions."
            step = "start"
            sender.start(f"cdc_merge_probe_{token}", subject.publication, 0)
            step = "message"
            emit(subject, dsn, token)
            step = "receive"
            arrived = _receive_message(sender, token, deadline)
            sender.finish(FINISH_LIMIT_S)
        finally:
            sender.close()
    except CdcMergeError as error:
        return step, f"{error} {error.hint}"
    return ("done", "") if arrived else (step, "it did not arrive in time.")


def emit(subject: Subject, dsn: str, token: str) -> int:
    """Send one message; the LSN after it."""
    connection = connect(subject.source, dsn)
    try:
        with server_errors(subject.source):
            connection.execute("SET synchronous_commit = on")
            row = connection.execute(query(__package__, "emit").encode(), [token]).fetchone()
    finally:
        connection.close()
    assert row is not None
    return int(row[0])


def _receive_message(sender: TemporarySlot, token: str, deadline: float) -> bool:
    while time.monotonic() < deadline:
        select.select([sender.socket], [], [], min(0.2, max(0.0, deadline - time.monotonic())))
        if any(_is_ours(frame, token) for frame in sender.receive()):
            return True
    return False


def _is_ours(frame: memoryview, token: str) -> bool:
    if frame[0] != XLOG_DATA:
        return False
    try:
        message = decode(frame, XLOG_DATA_HEADER_BYTES)
    except ProtocolError:
        return False
    return isinstance(message, LogicalMessage) and message.prefix == PREFIX and message.content == token.encode()


def probe_sidecar(subject: Subject, dsn: str, limit_s: float = CANARY_LIMIT_S) -> SidecarProbe | FactUnavailable:
    """Whether the running sidecar confirms a new message."""
    began = time.monotonic()
    try:
        lsn = emit(subject, dsn, secrets.token_hex(8))
        connection = connect(subject.source, dsn)
        try:
            while time.monotonic() < began + limit_s:
                row = connection.execute(query(__package__, "confirmed").encode(), [subject.slot]).fetchone()
                if row is not None and row[0] is not None and row[0] >= lsn:
                    return SidecarProbe(confirmed=True, seconds=time.monotonic() - began)
                time.sleep(0.1)
        finally:
            connection.close()
    except (CdcMergeError, psycopg.Error) as error:
        return FactUnavailable(f"The message could not be sent or followed ({type(error).__name__}).")
    return SidecarProbe(confirmed=False, seconds=limit_s)
