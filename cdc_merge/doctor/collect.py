"""Asking one source everything: each question of `sql/` once, over a plain connection as the sidecar's own role.

Nothing is changed, but for the probes (`probe.py`) when they are wanted. A question that the server refuses is kept as
NotAnswered with its reason; a connection that is lost ends the examination.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from cdc_merge.doctor.source_facts import (
    Blocker,
    CapacityFacts,
    ClockFacts,
    ColumnFacts,
    Connected,
    EventTrigger,
    Facts,
    Identified,
    IdentityFacts,
    NotAnswered,
    PublicationFacts,
    Published,
    RoleFacts,
    RoleSetting,
    ServerFacts,
    Setting,
    SlotFacts,
    StandbyFacts,
    Subject,
    TableFacts,
    WalDirectory,
    WritePower,
)
from cdc_merge.errors import CdcMergeError
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.slot_monitor import Watched, health_of
from cdc_merge.sources.postgres.sqlstates import answered
from cdc_merge.sql_files import query

CLOCK_SAMPLES: Final = 5


class CatalogQuery(NamedTuple):
    """The answer's kind, the query's name, and its parameters."""

    kind: type[Any]
    name: str
    parameters: Callable[[Subject], list[object]]


def _none(subject: Subject) -> list[object]:
    return []


class _Standby(NamedTuple):
    """`StandbyFacts` without its host."""

    syncs_slots: str | None
    feedback: str | None
    physical_slot: str | None
    has_dbname: bool | None
    has_slot: bool
    is_ready: bool


QUESTIONS: Final = (
    CatalogQuery(ServerFacts, "server", lambda subject: [subject.publication, subject.slot]),
    CatalogQuery(IdentityFacts, "identity", _none),
    CatalogQuery(Setting, "settings", _none),
    CatalogQuery(RoleFacts, "role", _none),
    CatalogQuery(RoleSetting, "role_settings", _none),
    CatalogQuery(CapacityFacts, "capacity", lambda subject: [subject.slot]),
    CatalogQuery(WalDirectory, "wal_directory", _none),
    CatalogQuery(PublicationFacts, "publication", lambda subject: [subject.publication]),
    CatalogQuery(TableFacts, "tables", lambda subject: [subject.publication, list(subject.tables)]),
    CatalogQuery(ColumnFacts, "columns", lambda subject: [list(subject.tables)]),
    CatalogQuery(SlotFacts, "slots", _none),
    CatalogQuery(Blocker, "blockers", _none),
    CatalogQuery(EventTrigger, "event_triggers", _none),
    CatalogQuery(WritePower, "write_power", lambda subject: [list(subject.written)]),
)


def ask(subject: Subject, dsn: str, now_us: Callable[[], int]) -> Facts:
    """Every answer of a source. SourceUnavailable or SourceRefused when it cannot be asked at all."""
    connection = connect(subject.source, dsn)
    try:
        # A login answered by another process than the questions are: something stands in between.
        connection.execute(query(__package__, "no_jit").encode())
        answers: dict[type[Any], object] = {Connected: (Connected(connection.info.backend_pid),)}
        answers |= {question.kind: _answer(subject, connection, question) for question in QUESTIONS}
        answers[ClockFacts] = (_clock(subject, connection, now_us),)
        answers[Published] = _published(subject, connection)
    finally:
        connection.close()
    answers[Identified] = (_identified(subject, dsn),)
    answers[StandbyFacts] = _standbys(subject, dsn)
    return Facts(subject, answers)


def _answer(subject: Subject, connection: Connection, question: CatalogQuery) -> object:
    parameters = question.parameters(subject)
    try:
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query(__package__, question.name).encode(), parameters or None).fetchall()
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise answered(subject.source, error) from None
        return NotAnswered(f"The server does not tell: {error.diag.message_primary}.")
    return tuple(question.kind(**{name: _frozen(value) for name, value in row.items()}) for row in rows)


def _standbys(subject: Subject, dsn: str) -> object:
    """Every standby among the hosts that the DSN names."""
    found: list[StandbyFacts] = []
    for host, port in hosts_of(dsn):
        one = make_conninfo(dsn, host=host, port=port, target_session_attrs="standby")
        try:
            connection = connect(subject.source, one)
        except CdcMergeError:
            continue  # a primary, or nobody: whether the source answers at all is another check
        try:
            answer = _answer(subject, connection, CatalogQuery(_Standby, "standby", lambda subject: [subject.slot]))
        finally:
            connection.close()
        if isinstance(answer, tuple):
            found += [StandbyFacts(host, *each) for each in answer]
    return tuple(found)


def hosts_of(dsn: str) -> list[tuple[str, str | None]]:
    """Host and port of each server that a connection string names, when it names several."""
    parts = conninfo_to_dict(dsn)
    hosts = str(parts.get("host") or "").split(",")
    ports = str(parts.get("port") or "").split(",")
    if len(hosts) < 2:
        return []
    return [(host, (ports if len(ports) > 1 else ports * len(hosts))[n] or None) for n, host in enumerate(hosts)]


def _published(subject: Subject, connection: Connection) -> object:
    watched = Watched(subject.slot, subject.publication, tuple(subject.tables))
    try:
        return (Published(health_of(connection, watched).membership),)
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise answered(subject.source, error) from None
        return NotAnswered(f"The server does not tell: {error.diag.message_primary}.")


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _clock(subject: Subject, connection: Connection, now_us: Callable[[], int]) -> ClockFacts:
    """The sample with the shortest round trip: its server time lies somewhere within it."""
    samples = []
    for _ in range(CLOCK_SAMPLES):
        began, before_us = time.monotonic(), now_us()
        row = connection.execute(query(__package__, "clock").encode()).fetchone()
        trip_s = time.monotonic() - began
        assert row is not None
        samples.append((trip_s, (row[0] - before_us) / 1e6 - trip_s / 2))
    trip_s, ahead_s = min(samples)
    return ClockFacts(ahead_s, trip_s / 2)


def _identified(subject: Subject, dsn: str) -> Identified:
    """What IDENTIFY_SYSTEM says over a replication connection, which pg_hba.conf may treat differently."""
    try:
        sender = WalSender(subject.source, dsn)
        try:
            return Identified(sender.identify())
        finally:
            sender.close()
    except CdcMergeError as error:
        return Identified(None, str(error), error.hint)
