"""The facts about one source as typed rows: one row type per query in `sql/`. Pure.

The fields of a class are the query's columns. A value that the role may not see is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

from cdc_merge.model import Position
from cdc_merge.sources.postgres.resume_checks import Server

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of findings. `outage_s`: how long the sidecar may be down without losing its slot."""

    outage_s: float = 4 * 3600.0
    downtime_s: float = 24 * 3600.0
    skew_s: float = 5.0
    abandoned_bytes: int = GIB
    retained_bytes: int = GIB
    xid_age: int = 200_000_000
    inactive_s: float = 3600.0
    blocker_s: float = 60.0
    expiry_s: float = 30 * 86400.0
    spill_share: float = 0.1
    large_bytes: int = 10 * GIB


@dataclass(frozen=True, slots=True)
class Subject:
    """One source under examination, with its requirements from the configuration.

    `tables` maps `schema.table` → the mapped columns, `keys` entity → (table, columns of the business key). `written` are
    the tables that write-back may change; `failover`: the slot must be a failover slot. `position` is the position in the
    store, None when nothing of this source is on disk; `position_is_known`: the store could be read. `schemas`: the schema
    of each table whose schema holds a dot.
    """

    source: str
    slot: str
    publication: str
    snapshot: str = "initial"
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    position: Position | None = None
    position_is_known: bool = True
    written: tuple[str, ...] = ()
    failover: bool = False
    limits: Thresholds = Thresholds()
    schemas: Mapping[str, str] = field(default_factory=dict)


class FactUnavailable(Exception):  # noqa: N818 - no error: the fact is missing, and the check is unknown
    """A fact that the server did not provide, with the reason."""


class ServerFacts(NamedTuple):
    version: int
    standby: bool
    wal_level: str
    effective_wal_level: str | None
    encoding: str
    backend_pid: int
    now_us: int
    platform: str
    publication_sql: str
    slot_sql: str
    role_sql: str
    database_sql: str
    database: str
    origins: int
    subscriptions: int


class IdentityFacts(NamedTuple):
    system: str
    timeline: int


class Setting(NamedTuple):
    """`number` is in bytes or milliseconds, where the setting has a unit."""

    name: str
    setting: str
    unit: str | None
    pending_restart: bool
    number: float | None


class RoleFacts(NamedTuple):
    name: str
    is_super: bool
    can_login: bool
    may_replicate: bool
    bypasses_rls: bool
    creates_databases: bool
    creates_roles: bool
    connection_limit: int
    expires_in_s: float | None
    member_of: tuple[str, ...]
    sees_all: bool
    message_function: str | None
    may_emit: bool | None


class RoleSetting(NamedTuple):
    """A setting of the sidecar's role or database; the one that takes precedence. `scope`: where it is set."""

    name: str
    value: str
    scope: str


class CapacityFacts(NamedTuple):
    free_slots: int
    free_senders: int
    free_connections: int
    role_connections: int
    database_limit: int
    wal_bytes_per_s: float | None
    wal_lsn: int
    spill_bytes: int | None
    decoded_bytes: int | None


class WalDirectory(NamedTuple):
    wal_bytes: int


class PublicationFacts(NamedTuple):
    publishes_insert: bool
    publishes_update: bool
    publishes_delete: bool
    publishes_truncate: bool
    via_root: bool
    all_tables: bool
    sends_generated: bool
    owner: str
    is_ours: bool


class TableFacts(NamedTuple):
    """A mapped or published table, or a leaf of one. `published_as`: the member of the publication, if any.

    `identity_columns` are the columns of the replica identity; empty when unusable. `best_index`: a unique index that
    could be the identity. `is_listed`: the publication lists the table itself. `listed` (None: no column list) and
    `filter_columns` use this table's own column names.
    """

    table: str
    sql: str
    kind: str
    persistence: str
    published_as: str | None
    has_row_security: bool
    owns: bool
    owner_sql: str
    may_select: bool
    may_use_schema: bool
    schema_sql: str
    identity: str
    identity_columns: tuple[str, ...]
    has_primary_key: bool
    primary_key_is_deferrable: bool
    best_index: str | None
    is_listed: bool
    listed: tuple[str, ...] | None
    filter_columns: tuple[str, ...]
    row_filter: str | None
    generated_stored: tuple[str, ...]
    generated_virtual: tuple[str, ...]
    expected_rows: int
    bytes: int
    triggers: tuple[str, ...]


class ColumnFacts(NamedTuple):
    table: str
    column: str
    sql: str
    type_oid: int
    type_name: str
    declared: str
    is_domain: bool
    extension: str | None
    toastable: bool
    nondeterministic: bool
    default: str | None
    may_select: bool


class SlotFacts(NamedTuple):
    name: str
    sql: str
    is_physical: bool
    plugin: str | None
    is_here: bool
    temporary: bool
    active: bool
    holder: str | None
    holder_is_hidden: bool
    active_pid: int | None
    wal_status: str | None
    safe_bytes: int | None
    retained_bytes: int | None
    unconfirmed_bytes: int | None
    confirmed_lsn: str | None
    xid_age: int | None
    invalidation_reason: str | None
    conflicting: bool | None
    inactive_s: float | None
    failover: bool | None
    synced: bool | None
    restart_lsn: str | None = None


class Blocker(NamedTuple):
    who: str
    age_s: float | None
    prepared: bool
    end_sql: str


class EventTrigger(NamedTuple):
    name: str
    event: str
    enabled: str


class ClockFacts(NamedTuple):
    """How far the server's clock is ahead of the sidecar's, with its error: half of the round trip."""

    ahead_s: float
    error_s: float


class LoginProcess(NamedTuple):
    """The process that answered the login; `ServerFacts.backend_pid` is the one that answers queries."""

    login_pid: int


class ReplicationLogin(NamedTuple):
    """The server's identity over a replication connection; `refusal` and `hint` when the login failed."""

    server: Server | None
    refusal: str = ""
    hint: str = ""


class PathProbe(NamedTuple):
    """The probe with a temporary slot: the last step (`create`, `start`, `message`, `done`), and the error that ended it."""

    step: str
    seconds: float
    refusal: str = ""


class StandbyFacts(NamedTuple):
    """One standby of the DSN's hosts: its settings (None: the role may not see them), and its copy of the slot."""

    host: str
    syncs_slots: str | None
    feedback: str | None
    physical_slot: str | None
    has_dbname: bool | None
    has_slot: bool
    is_ready: bool


class PublishedTables(NamedTuple):
    """The mapped tables in the publication, as the reader compares them (sources/postgres/publication_members.py)."""

    membership: str


class WritePrivileges(NamedTuple):
    """The role's privileges for write-back on a table. `ungranted`: those missing of INSERT, UPDATE and DELETE."""

    table: str
    sql: str
    ungranted: tuple[str, ...]
    rewriting: tuple[str, ...]


class StoredPosition(NamedTuple):
    """The position in the store, read after all other facts: a running sidecar confirms only what is in the store, so that
    this position, and not the earlier `Subject.position`, may be compared with the slot."""

    position: Position | None


class SidecarProbe(NamedTuple):
    """Whether the running sidecar confirmed a message that was committed at the source."""

    confirmed: bool
    seconds: float


Row = TypeVar("Row", bound=tuple[Any, ...])  # one of the rows above


class Facts:
    """The facts of one source by row type. A missing fact raises FactUnavailable on access."""

    def __init__(self, subject: Subject, answers: Mapping[type[Any], object]) -> None:
        self.subject = subject
        self._answers = answers

    def rows(self, kind: type[Row]) -> tuple[Row, ...]:
        answer = self._answers.get(kind, FactUnavailable("This was not queried."))
        if isinstance(answer, FactUnavailable):
            raise answer
        return cast("tuple[Row, ...]", answer)

    def one(self, kind: type[Row]) -> Row:
        rows = self.rows(kind)
        if not rows:
            raise FactUnavailable("The server shows nothing about this.")
        return rows[0]

    def maybe(self, kind: type[Row]) -> Row | None:
        return next(iter(self.rows(kind)), None)

    def has(self, kind: type[Row]) -> bool:
        return kind in self._answers

    # ---------------------------------------------------------------- shared by several families

    def setting(self, name: str) -> Setting | None:
        return next((setting for setting in self.rows(Setting) if setting.name == name), None)

    def our_slot(self) -> SlotFacts | None:
        return next((slot for slot in self.rows(SlotFacts) if slot.name == self.subject.slot), None)

    def table(self, name: str) -> TableFacts | None:
        return next((table for table in self.rows(TableFacts) if table.table == name), None)

    def published(self) -> frozenset[str]:
        """The names of the published tables and of the partitions behind them; empty when they were not read."""
        answer = self._answers.get(TableFacts)
        return frozenset(table.table for table in answer) if isinstance(answer, tuple) else frozenset()

    def needed_columns(self) -> list[ColumnFacts]:
        """The columns that the configuration maps."""
        wanted = {(table, column) for table, columns in self.subject.tables.items() for column in columns}
        return [column for column in self.rows(ColumnFacts) if (column.table, column.column) in wanted]

    def also(self, answers: Mapping[type[Any], object]) -> Facts:
        """With additional facts."""
        return Facts(self.subject, {**self._answers, **answers})
