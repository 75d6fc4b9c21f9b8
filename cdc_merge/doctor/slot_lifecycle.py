"""Creation and removal of the sidecar's slot on request, and what the sidecar has left at a source.

Rules: only the slot of the configuration, only if it is a pgoutput slot of this database, and never an active one; a
slot that cannot be created within the time is not created at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from psycopg.rows import dict_row

from cdc_merge.doctor.naming import literal
from cdc_merge.doctor.source_facts import Blocker, SlotFacts, Subject
from cdc_merge.errors import CdcMergeError, SourceUnavailable
from cdc_merge.sources.postgres.connection import Connection, connect
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query

PLUGIN: Final = "pgoutput"
CREATION_LIMIT_MS: Final = 60_000
CANCELLED: Final = "57014"


class SlotRefused(CdcMergeError):
    """The slot belongs to another application, or its state forbids the operation; nothing was changed."""


class Remnant(NamedTuple):
    """Something that the sidecar has left at a source: `what` it is, and the SQL that removes it."""

    what: str
    sql: str


@contextmanager
def connected(subject: Subject, dsn: str) -> Iterator[Connection]:
    connection = connect(subject.source, dsn)
    try:
        with server_errors(subject.source):
            yield connection
    finally:
        connection.close()


def slot_at(subject: Subject, connection: Connection) -> SlotFacts | None:
    """The slot of the configuration, if it exists."""
    return next((slot for slot in _slots(connection) if slot.name == subject.slot), None)


def _slots(connection: Connection) -> list[SlotFacts]:
    return [SlotFacts(**row) for row in _rows(connection, "slots")]


def _rows(connection: Connection, name: str, *parameters: object) -> list[dict[str, Any]]:  # columns as in the query
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(__package__, name).encode(), list(parameters) or None).fetchall()


def creation(subject: Subject) -> str:
    """The SQL that `create` runs."""
    options = ", false, false, true" if subject.failover else ""  # temporary, two_phase, failover (17 and later)
    return f"SELECT lsn::text FROM pg_create_logical_replication_slot({literal(subject.slot)}, '{PLUGIN}'{options});"


def removal(subject: Subject) -> str:
    """The SQL that `drop` runs."""
    return f"SELECT pg_drop_replication_slot({literal(subject.slot)});"


def create(subject: Subject, dsn: str, limit_ms: int = CREATION_LIMIT_MS) -> str:
    """Create the slot; the LSN from which it sends. SourceUnavailable, with the blockers, when that takes too long."""
    with connected(subject, dsn) as connection:
        if slot_at(subject, connection) is not None:
            raise SlotRefused(
                f"Source {subject.source}: slot {subject.slot} exists already.",
                hint="Check its state with `cdc-merge doctor`.",
            )
    try:
        with connected(subject, dsn) as connection:
            connection.execute("SELECT set_config('statement_timeout', $1, false)", [str(limit_ms)])
            row = connection.execute(creation(subject).removesuffix(";").encode()).fetchone()
    except CdcMergeError as error:
        if getattr(error, "sqlstate", None) != CANCELLED:
            raise
        raise _timed_out(subject, dsn, limit_ms) from None
    assert row is not None
    return str(row[0])


def _timed_out(subject: Subject, dsn: str, limit_ms: int) -> SourceUnavailable:
    with connected(subject, dsn) as connection:
        blockers = [Blocker(**row) for row in _rows(connection, "blockers")]
    sessions = "; ".join(f"{blocker.who} ({blocker.end_sql})" for blocker in blockers)
    return SourceUnavailable(
        f"Source {subject.source}: slot {subject.slot} was not created: it waited for open transactions for more than "
        f"{limit_ms / 1000:g} s.",
        hint=f"Terminate the blocking session: {sessions or 'none is visible to this role'}.",
    )


def check_droppable(subject: Subject, slot: SlotFacts | None) -> SlotFacts:
    """The slot, if it is the sidecar's own and not active; else SlotRefused."""
    if slot is None:
        raise SlotRefused(
            f"Source {subject.source}: there is no slot {subject.slot}.", hint="There is nothing to drop."
        )
    if slot.is_physical or slot.plugin != PLUGIN or not slot.is_here:
        raise SlotRefused(
            f"Source {subject.source}: slot {slot.name} belongs to another database or plugin ({slot.plugin or 'physical'}).",
            hint="It is not the sidecar's slot; fix `slot:` in the configuration.",
        )
    if slot.active:
        raise SlotRefused(
            f"Source {subject.source}: slot {slot.name} is active: {slot.holder or 'another role'} reads it.",
            hint="Stop the sidecar first.",
        )
    return slot


def drop(subject: Subject, dsn: str) -> None:
    """Drop the sidecar's slot. SlotRefused when it does not exist, is not the sidecar's, or is active."""
    with connected(subject, dsn) as connection:
        check_droppable(subject, slot_at(subject, connection))
        connection.execute(removal(subject).removesuffix(";").encode())


def remnants_at(subject: Subject, dsn: str) -> list[Remnant]:
    """Slots and sessions of the sidecar at the source. Publication and role belong to the DBA and are not listed."""
    with connected(subject, dsn) as connection:
        slots = [
            Remnant(
                f"slot {slot.name}" + (" (active)" if slot.active else ""),
                f"SELECT pg_drop_replication_slot({slot.sql});",
            )
            for slot in _slots(connection)
            if slot.name == subject.slot or slot.name.startswith("cdc_merge_probe_")
        ]
        sessions = [
            Remnant(row["who"], row["sql"]) for row in _rows(connection, "sessions", f"cdc_merge/{subject.source}")
        ]
    return [*slots, *sessions]
