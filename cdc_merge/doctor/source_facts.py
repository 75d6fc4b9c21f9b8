"""What one source says about itself, as typed rows: one kind of row per question in `sql/`. Pure.

Each class is one question's answer; its fields are the query's columns. A figure that the role may not see is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

from cdc_merge.model import Position
from cdc_merge.sources.postgres.resume_checks import Server

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a figure is told. `outage_s`: how long the sidecar may be away without losing its slot."""

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
    """Which source is asked about, and what is wanted of it.

    `tables` maps `schema.table` → the columns needed, `keys` entity → (table, business key's columns).
    `written` are the tables that write-back may change; `failover`: standbys are to keep the slot, too. `position` is what
    the store has, None when nothing of this source is on disk; whether the store could be asked is `position_is_known`.
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
    limits: Limits = Limits()


class NotAnswered(Exception):  # noqa: N818 - no error: the source did not tell this, and the check is unknown
    """A fact that the server did not tell, with the reason."""


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
    """`number` is in the unit's base: bytes or milliseconds, where it has one."""

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
    """A setting attached to our role or database; the strongest of those with the same name. `scope` says where."""

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
    """A table that is mapped or published, or a leaf of one. `published_as`: the member of the publication, if any.

    `identity_columns` is what Postgres itself would use; empty when unusable. `best_index`: a unique index that could
    be the identity. `is_listed`: named by the publication itself. `listed` (None: no column list) and `filter_columns`
    are under this table's own column names.
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
    """How far the server's clock is ahead of ours, and how sure that is: half of the round trip."""

    ahead_s: float
    error_s: float


class Connected(NamedTuple):
    """The process that answered the login; `ServerFacts.backend_pid` is the one that answers questions."""

    login_pid: int


class Identified(NamedTuple):
    """What the replication connection said; `refusal` and `hint` when it could not be had."""

    server: Server | None
    refusal: str = ""
    hint: str = ""


class Probed(NamedTuple):
    """The temporary slot: which step was reached (`create`, `start`, `message`, `done`), and what ended it."""

    step: str
    seconds: float
    refusal: str = ""


class StandbyFacts(NamedTuple):
    """What a standby of the DSN's hosts shows: its settings (None: our role may not see it), and its copy of our slot."""

    host: str
    syncs_slots: str | None
    feedback: str | None
    physical_slot: str | None
    has_dbname: bool | None
    has_slot: bool
    is_ready: bool


class Published(NamedTuple):
    """What the publication sends of the mapped tables, as the reader compares it (sources/postgres/publication_members.py)."""

    membership: str


class WritePower(NamedTuple):
    """Whether our role may write a table. `ungranted` is what it may not do, of INSERT, UPDATE and DELETE."""

    table: str
    sql: str
    ungranted: tuple[str, ...]
    rewriting: tuple[str, ...]


class Stored(NamedTuple):
    """What the store had of the source after all else was asked: a running sidecar confirms behind the store, so only
    this may be compared with where the slot stands. `Subject.position` was read before."""

    position: Position | None


class Canary(NamedTuple):
    """Whether what was committed at the source came back as confirmed by the sidecar that reads our slot."""

    came_back: bool
    seconds: float


Row = TypeVar("Row", bound=tuple[Any, ...])  # one of the rows above


class Facts:
    """The answers of one source by kind of row. What was not answered raises NotAnswered when it is needed."""

    def __init__(self, subject: Subject, answers: Mapping[type[Any], object]) -> None:
        self.subject = subject
        self._answers = answers

    def rows(self, kind: type[Row]) -> tuple[Row, ...]:
        answer = self._answers.get(kind, NotAnswered("This was not asked."))
        if isinstance(answer, NotAnswered):
            raise answer
        return cast("tuple[Row, ...]", answer)

    def one(self, kind: type[Row]) -> Row:
        rows = self.rows(kind)
        if not rows:
            raise NotAnswered("The server shows nothing about this.")
        return rows[0]

    def maybe(self, kind: type[Row]) -> Row | None:
        return next(iter(self.rows(kind)), None)

    def asked(self, kind: type[Row]) -> bool:
        return kind in self._answers

    # ---------------------------------------------------------------- what several families need

    def setting(self, name: str) -> Setting | None:
        return next((found for found in self.rows(Setting) if found.name == name), None)

    def our_slot(self) -> SlotFacts | None:
        return next((slot for slot in self.rows(SlotFacts) if slot.name == self.subject.slot), None)

    def table(self, name: str) -> TableFacts | None:
        return next((table for table in self.rows(TableFacts) if table.table == name), None)

    def needed_columns(self) -> list[ColumnFacts]:
        """The columns that the configuration maps."""
        wanted = {(table, column) for table, columns in self.subject.tables.items() for column in columns}
        return [column for column in self.rows(ColumnFacts) if (column.table, column.column) in wanted]

    def also(self, answers: Mapping[type[Any], object]) -> Facts:
        """With further answers."""
        return Facts(self.subject, {**self._answers, **answers})
