"""SLT11 and SLT12: proving the path by walking it. These are the only checks that do something at the source.

SLT11 makes a temporary slot (it ends with its session, whatever happens to us), streams from it with our options, and
waits for a logical message of its own. SLT12 sends one message and waits until the running sidecar has confirmed it.
Both cost a few hundred bytes of WAL.
"""

from __future__ import annotations

import secrets
import select
import time
from contextlib import closing, suppress
from typing import Final

import psycopg
from psycopg import sql

from cdc_merge.doctor.source_facts import Canary, CapacityFacts, Facts, NotAnswered, Probed, Subject
from cdc_merge.errors import CdcMergeError, ProtocolError
from cdc_merge.sources.postgres.connection import connect
from cdc_merge.sources.postgres.protocol.copy_data import XLOG_DATA, XLOG_DATA_HEADER_BYTES
from cdc_merge.sources.postgres.protocol.pgoutput import LogicalMessage, decode
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query

PREFIX: Final = "cdc_merge.probe"
LIMIT_S: Final = 10.0  # a new slot waits for open transactions: longer ones are named by SLT10
LEAVING_LIMIT_S: Final = 5.0
FINISH_LIMIT_S: Final = 0.5
CANARY_LIMIT_S: Final = 10.0  # an idle sidecar confirms within a second


class TemporarySlot(WalSender):
    """A replication connection with a slot that ends with it."""

    def create_temporary(self, slot: str, limit_s: float) -> bool:
        """Whether the slot could be made within the time."""
        create = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput {}").format(
            sql.Identifier(slot), sql.SQL(self._without_snapshot())
        )
        return self._command(create.as_bytes(self._connection), limit_s, _never) is not None

    def _without_snapshot(self) -> str:
        return "(SNAPSHOT 'nothing')" if self._connection.info.server_version >= 150000 else "NOEXPORT_SNAPSHOT"


def _never() -> bool:
    return False


def probed(subject: Subject, dsn: str, facts: Facts, limit_s: float = LIMIT_S) -> Probed:
    """Walk the whole path once. Never raises: what went wrong is the answer."""
    try:
        room = facts.one(CapacityFacts)
    except NotAnswered as missing:
        return Probed("skipped", 0.0, str(missing))
    if room.free_slots < 1 or room.free_senders < 1:
        return Probed("skipped", 0.0, "No slot or WAL sender is free for the probe.")
    began, token = time.monotonic(), secrets.token_hex(8)
    step, refusal = _walk(subject, dsn, token, began + limit_s)
    took_s = time.monotonic() - began
    if not _is_gone(subject, dsn, f"cdc_merge_probe_{token}"):
        return Probed("leave", took_s, f"slot cdc_merge_probe_{token} is still there; it ends with its session.")
    return Probed(step, took_s, refusal)


def _is_gone(subject: Subject, dsn: str, slot: str) -> bool:
    """Whether the server has ended the session that had the slot: it does so a moment after we have."""
    deadline = time.monotonic() + LEAVING_LIMIT_S
    with suppress(CdcMergeError, psycopg.Error), closing(connect(subject.source, dsn)) as connection:
        while time.monotonic() < deadline:
            if connection.execute(query(__package__, "confirmed").encode(), [slot]).fetchone() is None:
                return True
            time.sleep(0.02)
    return False


def _walk(subject: Subject, dsn: str, token: str, deadline: float) -> tuple[str, str]:
    step = "create"
    try:
        sender = TemporarySlot(subject.source, dsn)
        try:
            if not sender.create_temporary(f"cdc_merge_probe_{token}", deadline - time.monotonic()):
                return step, "it had to wait for open transactions for too long."
            step = "start"
            sender.start(f"cdc_merge_probe_{token}", subject.publication, 0)
            step = "message"
            emit(subject, dsn, token)
            step = "receive"
            arrived = _received(sender, token, deadline)
            sender.finish(FINISH_LIMIT_S)
        finally:
            sender.close()
    except CdcMergeError as error:
        return step, f"{error} {error.hint}"
    return ("done", "") if arrived else (step, "it did not come in time.")


def emit(subject: Subject, dsn: str, token: str) -> int:
    """Send one message; the LSN behind it."""
    connection = connect(subject.source, dsn)
    try:
        with server_errors(subject.source):
            connection.execute("SET synchronous_commit = on")
            row = connection.execute(query(__package__, "emit").encode(), [token]).fetchone()
    finally:
        connection.close()
    assert row is not None
    return int(row[0])


def _received(sender: TemporarySlot, token: str, deadline: float) -> bool:
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


def canary(subject: Subject, dsn: str, limit_s: float = CANARY_LIMIT_S) -> Canary | NotAnswered:
    """Whether the sidecar that reads our slot confirms a message sent now."""
    began = time.monotonic()
    try:
        lsn = emit(subject, dsn, secrets.token_hex(8))
        connection = connect(subject.source, dsn)
        try:
            while time.monotonic() < began + limit_s:
                row = connection.execute(query(__package__, "confirmed").encode(), [subject.slot]).fetchone()
                if row is not None and row[0] is not None and row[0] >= lsn:
                    return Canary(came_back=True, seconds=time.monotonic() - began)
                time.sleep(0.1)
        finally:
            connection.close()
    except (CdcMergeError, psycopg.Error) as error:
        return NotAnswered(f"The message could not be sent or watched ({type(error).__name__}).")
    return Canary(came_back=False, seconds=limit_s)
