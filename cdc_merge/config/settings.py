"""The configuration as frozen, validated values, with the plan of mapping, merge and rules.

Times are microseconds. Connection strings are `Secret`: only `reveal()` returns them, and no repr or error shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cdc_merge.config.durations import Listen
from cdc_merge.model.plan import Plan


class Secret:
    """A text that must not be shown; `reveal()` is for the code that opens the connection."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class SqliteStoreSettings:
    """A store in one file; its directory may not exist yet. `is_default`: the file has no `store:`."""

    path: Path
    is_default: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """A store in a PostgreSQL database, shared by several workers."""

    url: Secret


StoreSettings: TypeAlias = "SqliteStoreSettings | PostgresStore"


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Writing into a source. `entities`: the fields per entity; empty means all."""

    enabled: bool = False
    dry_run: bool = False
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_changes_per_minute: int | None = None
    max_share: float | None = None


@dataclass(frozen=True, slots=True)
class PostgresSourceSettings:
    """A PostgreSQL database. `snapshot` is initial or never; `tables` are the mapped tables.

    `heartbeat_us`: the interval of heartbeat messages; None: none. `failover`: the slot is synchronised to standbys.
    `schemas`: the schema of each table whose schema holds a dot.
    """

    name: str
    dsn: Secret
    slot: str
    publication: str
    snapshot: str
    tables: tuple[str, ...]
    write_back: WriteBack = WriteBack()
    heartbeat_us: int | None = None
    failover: bool = False
    type: str = "postgres"
    snapshot_workers: int = 2
    on_lost_position: str = "stop"
    schemas: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DebeziumSource:
    """Kafka topics that Debezium writes."""

    name: str
    bootstrap_servers: tuple[str, ...]
    topics: tuple[str, ...]
    grace_us: int
    tables: tuple[str, ...]
    write_back: WriteBack = WriteBack()
    type: str = "debezium"


@dataclass(frozen=True, slots=True)
class HttpSource:
    """A system that pushes its changes."""

    name: str
    tables: tuple[str, ...]
    write_back: WriteBack = WriteBack()
    type: str = "http"


SourceSettings: TypeAlias = "PostgresSourceSettings | DebeziumSource | HttpSource"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may do what over HTTP."""

    tokens_file: Path | None = None
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Channel:
    """One notification channel for conflicts, with its own settings from the file."""

    type: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The OTLP endpoint of traces, None for no traces; `share` of the batches are traced."""

    otlp: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One validated configuration file. `warnings` stop nothing; `lines` maps a path to its line.

    `plan` includes `settle` and `clock.max_ahead`.
    """

    file: Path
    store: StoreSettings
    listen: Listen
    keep_folded_us: int
    retention_us: int
    sources: Mapping[str, SourceSettings]
    plan: Plan
    access: AccessSettings = AccessSettings()
    open_metrics: bool = False
    notify: tuple[Channel, ...] = ()
    log_level: str | None = None
    telemetry: Telemetry = Telemetry()
    warnings: tuple[str, ...] = ()
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)


def default_slot(source: str) -> str:
    """`cdc_merge_<name>` in the characters that Postgres allows in a slot name."""
    return f"cdc_merge_{source}".lower().replace("-", "_")[:63]


def store_of(text: object) -> StoreSettings:
    """The store of a URL; the ValueError explains the format."""
    if isinstance(text, str) and text.startswith(("postgresql://", "postgres://")):
        return PostgresStore(Secret(text))
    path = text.removeprefix("sqlite://") if isinstance(text, str) and text.startswith("sqlite://") else ""
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("a store is sqlite:///ABSOLUTE/PATH or postgresql://…")
    return SqliteStoreSettings(Path(path))
