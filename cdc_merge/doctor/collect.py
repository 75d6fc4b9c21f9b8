"""Collects the facts of one source: each query of `sql/` once, over a plain connection as the sidecar's own role.

Read-only; only the probes (`probe.py`) change something. A query that the server refuses becomes FactUnavailable with
its reason; a lost connection ends the examination.
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
    EventTrigger,
    Facts,
    FactUnavailable,
    IdentityFacts,
    LoginProcess,
    PublicationFacts,
    PublishedTables,
    ReplicationLogin,
    RoleFacts,
    RoleSetting,
    ServerFacts,
    Setting,
    SlotFacts,
    StandbyFacts,
    Subject,
    TableFacts,
    WalDirectory,
    WritePrivileges,
)
from cdc_merge.errors import CdcMergeError
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.slot_monitor import MonitorTarget, health_of
from cdc_merge.sources.postgres.sqlstates import query_refusal
from cdc_merge.sql_files import query

CLOCK_SAMPLES: Final = 5


class CatalogQuery(NamedTuple):
    """The row type of the result, the query's name, and its parameters."""

    kind: type[Any]
    name: str
    parameters: Callable[[Subject], list[object]]


def _no_parameters(subject: Subject) -> list[object]:
    return []


class _Standby(NamedTuple):
    """`StandbyFacts` without its host."""

    syncs_slots: str | None
    feedback: str | None
    physical_slot: str | None
    has_dbname: bool | None
    has_slot: bool
    is_ready: bool


CATALOG_QUERIES: Final = (
    CatalogQuery(ServerFacts, "server", lambda subject: [subject.publication, subject.slot]),
    CatalogQuery(IdentityFacts, "identity", _no_parameters),
    CatalogQuery(Setting, "settings", _no_parameters),
    CatalogQuery(RoleFacts, "role", _no_parameters),
    CatalogQuery(RoleSetting, "role_settings", _no_parameters),
    CatalogQuery(CapacityFacts, "capacity", lambda subject: [subject.slot]),
    CatalogQuery(WalDirectory, "wal_directory", _no_parameters),
    CatalogQuery(PublicationFacts, "publication", lambda subject: [subject.publication]),
    CatalogQuery(TableFacts, "tables", lambda subject: [subject.publication, list(subject.tables)]),
    CatalogQuery(ColumnFacts, "columns", lambda subject: [list(subject.tables)]),
    CatalogQuery(SlotFacts, "slots", _no_parameters),
    CatalogQuery(Blocker, "blockers", _no_parameters),
    CatalogQuery(EventTrigger, "event_triggers", _no_parameters),
    CatalogQuery(WritePrivileges, "write_power", lambda subject: [list(subject.written)]),
)


def collect_facts(subject: Subject, dsn: str, now_us: Callable[[], int]) -> Facts:
    """The facts of a source. SourceUnavailable or SourceRefused when it cannot be queried at all."""
    connection = connect(subject.source, dsn)
    try:
        # The login and the queries are answered by different processes behind a pooler (SRV08).
        connection.execute(query(__package__, "no_jit").encode())
        answers: dict[type[Any], object] = {LoginProcess: (LoginProcess(connection.info.backend_pid),)}
        answers |= {each.kind: _run_query(subject, connection, each) for each in CATALOG_QUERIES}
        answers[ClockFacts] = (_measure_clock(connection, now_us),)
        answers[PublishedTables] = _published_tables(subject, connection)
    finally:
        connection.close()
    answers[ReplicationLogin] = (_try_replication_login(subject, dsn),)
    answers[StandbyFacts] = _query_standbys(subject, dsn)
    return Facts(subject, answers)


def _run_query(subject: Subject, connection: Connection, catalog_query: CatalogQuery) -> object:
    parameters = catalog_query.parameters(subject)
    try:
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query(__package__, catalog_query.name).encode(), parameters or None).fetchall()
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise query_refusal(subject.source, error) from None
        return FactUnavailable(f"The server refuses the query: {error.diag.message_primary}.")
    # Arrays become tuples: facts are immutable.
    frozen = [{name: tuple(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows]
    return tuple(catalog_query.kind(**row) for row in frozen)


def _query_standbys(subject: Subject, dsn: str) -> object:
    """Every standby among the hosts of the DSN."""
    standbys: list[StandbyFacts] = []
    for host, port in hosts_of(dsn):
        one = make_conninfo(dsn, host=host, port=port, target_session_attrs="standby")
        try:
            connection = connect(subject.source, one)
        except CdcMergeError:
            continue  # a primary, or unreachable: whether the source answers is another check
        try:
            rows = _run_query(subject, connection, CatalogQuery(_Standby, "standby", lambda subject: [subject.slot]))
        finally:
            connection.close()
        if isinstance(rows, tuple):
            standbys += [StandbyFacts(host, *row) for row in rows]
    return tuple(standbys)


def hosts_of(dsn: str) -> list[tuple[str, str | None]]:
    """Host and port of each server of a connection string with several hosts; empty otherwise."""
    parts = conninfo_to_dict(dsn)
    hosts = str(parts.get("host") or "").split(",")
    ports = str(parts.get("port") or "").split(",")
    if len(hosts) < 2:
        return []
    return [(host, (ports if len(ports) > 1 else ports * len(hosts))[n] or None) for n, host in enumerate(hosts)]


def _published_tables(subject: Subject, connection: Connection) -> object:
    target = MonitorTarget(subject.slot, subject.publication, tuple(subject.tables))
    try:
        return (PublishedTables(health_of(connection, target).membership),)
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise query_refusal(subject.source, error) from None
        return FactUnavailable(f"The server refuses the query: {error.diag.message_primary}.")


def _measure_clock(connection: Connection, now_us: Callable[[], int]) -> ClockFacts:
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


def _try_replication_login(subject: Subject, dsn: str) -> ReplicationLogin:
    """The result of IDENTIFY_SYSTEM over a replication connection, which pg_hba.conf may treat differently."""
    try:
        sender = WalSender(subject.source, dsn)
        try:
            return ReplicationLogin(sender.identify())
        finally:
            sender.close()
    except CdcMergeError as error:
        return ReplicationLogin(None, str(error), error.hint)
