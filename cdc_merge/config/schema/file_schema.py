"""The schema of the file: every key with its type, its default and a description that editors show.

Structure only: relations between keys are checked in config/checks. The JSON Schema is generated from this module.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from cdc_merge.config.durations import Listen, listen_address
from cdc_merge.config.schema.entity_schema import EntityShape
from cdc_merge.config.schema.rule_schema import RuleShape
from cdc_merge.config.schema.schema_types import Duration, Number, OneOrMany, Shape, duration_field
from cdc_merge.config.settings import PostgresStore, SqliteStoreSettings, store_of

ListenAddress: TypeAlias = Annotated[
    Listen,
    PlainValidator(listen_address),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8787", "[::1]:8787"]}),
]

Store: TypeAlias = Annotated[
    SqliteStoreSettings | PostgresStore,
    PlainValidator(store_of),
    WithJsonSchema({"type": "string", "examples": ["sqlite:///var/lib/cdc-merge/state.db"]}),
]


class CopiesShape(Shape):
    """Changes that only repeat a write of another source (semantics: copy)."""

    origins: list[str] = Field(default=[], description="Replication origins whose transactions are copies.")
    actors: list[str] = Field(
        default=[],
        description="Actors whose changes are copies, such as a sync job's user. Needs actor messages, or an actor"
        " column with always_written: true.",
    )


class ActorShape(Shape):
    """The actor of a change."""

    column: str = Field(description="The column with the actor of the row's last change.")
    always_written: bool = Field(
        default=False,
        description="Set it to true if every application writes this column with every change. Otherwise the column gives"
        " the actor only of a change that writes it.",
    )


class WriteBackShape(Shape):
    """Writing merged values into this source."""

    enabled: bool = Field(
        default=False, description="Whether merged values and decisions are written into this source."
    )
    dry_run: bool = Field(default=False, description="Log the statements instead of executing them.")
    entities: dict[str, OneOrMany] = Field(
        default={}, description="Entity → the fields that may be written; all when absent."
    )
    max_changes_per_minute: int | None = Field(default=None, ge=1, description="More than this stops the write-back.")
    max_share: Number | None = Field(
        default=None, gt=0, le=1, description="A larger share of an entity's records than this stops the write-back."
    )


class SourceShape(Shape):
    """The settings of every source type."""

    copies: CopiesShape = Field(
        default_factory=CopiesShape, description="How copies are distinguished from genuine writes."
    )
    actor: ActorShape | None = Field(default=None, description="The actor of a change.")
    write_back: WriteBackShape = Field(default_factory=WriteBackShape, description="Off by default.")


class PostgresShape(SourceShape):
    """A PostgreSQL database, read by logical replication (pgoutput)."""

    type: Literal["postgres"] = Field(description="The kind of source.")
    dsn: str | None = Field(default=None, description="Connection string or URI; usually ${NAME} from the environment.")
    dsn_file: str | None = Field(default=None, description="A file with the connection string, instead of dsn.")
    slot: str | None = Field(
        default=None,
        pattern="^[a-z0-9_]{1,63}$",
        description="The replication slot. Default: cdc_merge_ and the source's name.",
    )
    publication: str = Field(
        default="cdc_merge", description="The publication of the mapped tables; the sidecar never creates or alters it."
    )
    snapshot: Literal["initial", "never"] = Field(
        default="initial",
        description="initial: create a missing slot and take an initial snapshot; never: refuse when the slot is missing.",
    )
    snapshot_workers: int = Field(
        default=2,
        ge=1,
        le=8,
        description="How many tables the initial snapshot copies in parallel, each over its own connection.",
    )
    on_lost_position: Literal["stop", "resnapshot"] = Field(
        default="stop",
        description="When the stream cannot continue (slot lost, dropped or recreated, server restored, failover): stop with"
        " a problem, or create a new slot and take a new initial snapshot; the history is kept.",
    )
    failover: bool = Field(
        default=False,
        description="Create a failover slot (PostgreSQL 17 and later): the stream continues after a failover. List all servers"
        " in the dsn (host=a,b target_session_attrs=read-write).",
    )
    heartbeat: Duration | None = Field(
        default=None,
        ge=1_000_000,
        description="The interval of heartbeats: small logical messages written into this source that measure the delay of the"
        " whole path and detect losses. They touch no table. Without it nothing is written.",
    )


class DebeziumShape(SourceShape):
    """A database whose changes Debezium writes to Kafka."""

    type: Literal["debezium"] = Field(description="The kind of source.")
    bootstrap_servers: list[str] = Field(min_length=1, description="Kafka brokers, host:port.")
    topics: list[str] = Field(min_length=1, description="The topics of the mapped tables.")
    grace: Duration = duration_field("5s", "How long after its last message an idle partition holds back merging.")


class HttpShape(SourceShape):
    """A system that pushes its changes to POST /api/v1/sources/NAME/changes."""

    type: Literal["http"] = Field(description="The kind of source.")


AnySource: TypeAlias = Annotated[PostgresShape | DebeziumShape | HttpShape, Field(discriminator="type")]


class HttpSideShape(Shape):
    """Console, API, metrics and health."""

    listen: ListenAddress = Field(
        default_factory=lambda: Listen("127.0.0.1", 8787), description="host:port; 127.0.0.1:8787 when absent."
    )
    metrics: Literal["token", "open"] = Field(
        default="token", description="Whether /metrics needs a token as every read does, or answers without one."
    )


class ClockShape(Shape):
    """The limits of source clocks."""

    max_ahead: Duration = duration_field(
        "5s", "A commit time further ahead of the sidecar's clock is reduced to this bound."
    )


class HistoryShape(Shape):
    """How long histories are kept."""

    keep_folded: Duration = duration_field("10m", "Younger history is never folded into a checkpoint.")
    retention: Duration = duration_field("90d", "How long the history is kept.")


class AccessShape(Shape):
    """Who may do what over HTTP."""

    tokens_file: str | None = Field(default=None, description="A file of API tokens.")
    roles: dict[str, OneOrMany] = Field(default={}, description="Role → who has it.")


class NotifyShape(Shape, extra="allow"):
    """One notification channel for conflicts; the keys beside `type` are the channel's own."""

    type: str = Field(description="The kind of channel.")


class LogShape(Shape):
    """The log on stderr."""

    level: Literal["debug", "info", "warning", "error"] | None = Field(
        default=None, description="The lowest level that is logged; info when absent. --log-level overrides it."
    )


class TelemetryShape(Shape):
    """Traces for OpenTelemetry; needs the package extra otel."""

    otlp: str | None = Field(
        default=None,
        pattern="^https?://[^/?#@]+(/[^?#]*)?$",
        description="The OTLP/HTTP endpoint of traces, such as http://127.0.0.1:4318; no traces when absent.",
    )
    share: Number = Field(default=1, gt=0, le=1, description="The share of batches that are traced.")


class ConfigShape(Shape):
    """The configuration of cdc-merge (YAML 1.2)."""

    store: Store | None = Field(
        default=None,
        description="The store of histories, conflicts and positions: sqlite:///ABSOLUTE/PATH or postgresql://…."
        " Default: state.db in the state directory.",
    )
    http: HttpSideShape = Field(default_factory=HttpSideShape, description="Console, API, metrics and health.")
    settle: Duration = duration_field("2s", "How long a conflict waits for the sources to resolve it before it opens.")
    clock: ClockShape = Field(default_factory=ClockShape, description="The limits of source clocks.")
    history: HistoryShape = Field(default_factory=HistoryShape, description="How long histories are kept.")
    sources: dict[str, AnySource] = Field(min_length=1, description="The business systems whose changes are read.")
    entities: dict[str, EntityShape] = Field(
        min_length=1, description="The kinds of business objects that sources store."
    )
    rules: list[RuleShape] = Field(default=[], description="Rules for conflicts; the first that matches decides.")
    notify: list[NotifyShape] = Field(default=[], description="Notification channels for conflicts.")
    access: AccessShape = Field(default_factory=AccessShape, description="Who may do what over HTTP.")
    log: LogShape = Field(default_factory=LogShape, description="The log on stderr.")
    telemetry: TelemetryShape = Field(default_factory=TelemetryShape, description="Traces for OpenTelemetry.")
