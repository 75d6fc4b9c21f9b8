"""What the file may look like: every key with its type, its default and a description that editors show.

Shape only. What keys mean together is judged in checks.py; the JSON Schema of the configuration is generated from here.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from cdc_merge.config.durations import Listen, listen_address
from cdc_merge.config.schema.entity_schema import EntityShape
from cdc_merge.config.schema.rule_schema import RuleShape
from cdc_merge.config.schema.schema_types import Duration, Number, OneOrMany, Shape, lasting
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
    """Which changes only repeat somebody else's write (semantics: copy)."""

    origins: list[str] = Field(default=[], description="Replication origins whose transactions are copies.")
    actors: list[str] = Field(
        default=[],
        description="Actors whose changes are copies, such as a sync job's user. Needs actor messages, or an actor"
        " column with always_written: true.",
    )


class ActorShape(Shape):
    """Who changed a row."""

    column: str = Field(description="The column that names who changed the row.")
    always_written: bool = Field(
        default=False,
        description="A promise that every application writes this column with every change. Without it the column names"
        " the actor only of a change that wrote it.",
    )


class WriteBackShape(Shape):
    """Writing merged values into this source."""

    enabled: bool = Field(
        default=False, description="Whether merged values and decisions are written into this source."
    )
    dry_run: bool = Field(default=False, description="Show the statements instead of executing them.")
    entities: dict[str, OneOrMany] = Field(
        default={}, description="Entity → the fields that may be written; all when absent."
    )
    max_changes_per_minute: int | None = Field(default=None, ge=1, description="More than this stops the write-back.")
    max_share: Number | None = Field(
        default=None, gt=0, le=1, description="A larger share of an entity's records than this stops the write-back."
    )


class SourceShape(Shape):
    """What every kind of source has."""

    copies: CopiesShape = Field(default_factory=CopiesShape, description="How copies are told from genuine writes.")
    actor: ActorShape | None = Field(default=None, description="Who changed a row.")
    write_back: WriteBackShape = Field(default_factory=WriteBackShape, description="Off by default.")


class PostgresShape(SourceShape):
    """A PostgreSQL database, read by logical replication (pgoutput)."""

    type: Literal["postgres"] = Field(description="The kind of source.")
    dsn: str | None = Field(default=None, description="Connection string or URI; usually ${NAME} from the environment.")
    dsn_file: str | None = Field(default=None, description="A file that holds the connection string, instead of dsn.")
    slot: str | None = Field(
        default=None,
        pattern="^[a-z0-9_]{1,63}$",
        description="The replication slot. Default: cdc_merge_ and the source's name.",
    )
    publication: str = Field(
        default="cdc_merge", description="The publication of the mapped tables; never created or altered."
    )
    snapshot: Literal["initial", "never"] = Field(
        default="initial",
        description="initial: create a missing slot and read the tables once; never: refuse when the slot is missing.",
    )
    snapshot_workers: int = Field(
        default=2, ge=1, le=8, description="How many tables are copied at a time, each over a connection of its own."
    )
    on_lost_position: Literal["stop", "resnapshot"] = Field(
        default="stop",
        description="When the stream cannot be continued (slot lost, dropped or made anew, server restored, failover):"
        " stop and say so, or make a new slot and copy the tables anew, beside the history.",
    )
    failover: bool = Field(
        default=False,
        description="Create the slot so that standbys keep it, too (PostgreSQL 17 and later): after a failover the stream goes"
        " on. Name all servers in the dsn (host=a,b target_session_attrs=read-write).",
    )
    heartbeat: Duration | None = Field(
        default=None,
        ge=1_000_000,
        description="How often a small logical message is written into this source, to measure the whole way and to notice"
        " what is lost on it. Touches no table. Nothing is ever written when absent.",
    )


class DebeziumShape(SourceShape):
    """A database whose changes Debezium writes to Kafka."""

    type: Literal["debezium"] = Field(description="The kind of source.")
    bootstrap_servers: list[str] = Field(min_length=1, description="Kafka brokers, host:port.")
    topics: list[str] = Field(min_length=1, description="The topics of the mapped tables.")
    grace: Duration = lasting("5s", "How long after its end was read an idle partition passes a time.")


class HttpShape(SourceShape):
    """A system that pushes its changes to POST /api/v1/sources/NAME/changes."""

    type: Literal["http"] = Field(description="The kind of source.")


AnySource: TypeAlias = Annotated[PostgresShape | DebeziumShape | HttpShape, Field(discriminator="type")]


class HttpSideShape(Shape):
    """Console, API, metrics and health."""

    listen: ListenAddress = Field(
        default_factory=lambda: Listen("127.0.0.1", 8787), description="host:port; 127.0.0.1:8787 when absent."
    )


class ClockShape(Shape):
    """How far a source's clock is believed."""

    max_ahead: Duration = lasting("5s", "A commit time further ahead of our own clock is cut down to this bound.")


class HistoryShape(Shape):
    """How long histories are kept."""

    keep_folded: Duration = lasting("10m", "Younger history is never folded into a base.")
    retention: Duration = lasting("90d", "How long the log itself is kept.")


class AccessShape(Shape):
    """Who may do what over HTTP."""

    tokens_file: str | None = Field(default=None, description="A file of API tokens.")
    roles: dict[str, OneOrMany] = Field(default={}, description="Role → who has it.")


class NotifyShape(Shape, extra="allow"):
    """One channel that is told about conflicts; the keys beside `type` are the channel's own."""

    type: str = Field(description="The kind of channel.")


class LogShape(Shape):
    """The log on stderr."""

    level: Literal["debug", "info", "warning", "error"] | None = Field(
        default=None, description="The least that is logged; info when absent. --log-level goes before it."
    )


class TelemetryShape(Shape):
    """Traces for OpenTelemetry; needs the package extra otel."""

    otlp: str | None = Field(
        default=None,
        pattern="^https?://[^/?#@]+(/[^?#]*)?$",
        description="Where traces are sent by OTLP over HTTP, such as http://127.0.0.1:4318; none are made when absent.",
    )
    share: Number = Field(default=1, gt=0, le=1, description="The share of batches that are traced.")


class ConfigShape(Shape):
    """The configuration of cdc-merge (YAML 1.2)."""

    store: Store | None = Field(
        default=None,
        description="Where histories, conflicts and positions rest: sqlite:///ABSOLUTE/PATH or postgresql://…."
        " Default: state.db in the state directory.",
    )
    http: HttpSideShape = Field(default_factory=HttpSideShape, description="Console, API, metrics and health.")
    settle: Duration = lasting("2s", "How long a question waits for its own answer.")
    clock: ClockShape = Field(default_factory=ClockShape, description="How far a source's clock is believed.")
    history: HistoryShape = Field(default_factory=HistoryShape, description="How long histories are kept.")
    sources: dict[str, AnySource] = Field(min_length=1, description="The business systems whose changes are read.")
    entities: dict[str, EntityShape] = Field(
        min_length=1, description="The kinds of business objects that sources keep copies of."
    )
    rules: list[RuleShape] = Field(
        default=[], description="What to do about which conflicts; the first that matches decides."
    )
    notify: list[NotifyShape] = Field(default=[], description="Who is told about conflicts.")
    access: AccessShape = Field(default_factory=AccessShape, description="Who may do what over HTTP.")
    log: LogShape = Field(default_factory=LogShape, description="The log on stderr.")
    telemetry: TelemetryShape = Field(default_factory=TelemetryShape, description="Traces for OpenTelemetry.")
