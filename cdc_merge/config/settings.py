"""The configuration as the rest of the program sees it: frozen, checked, with the plan for the core inside.

Times are microseconds. Connection strings are `Secret`: they have to be asked for, and show in no repr and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cdc_merge.config.durations import Listen
from cdc_merge.model.plan import Plan


class Secret:
    """A text that must not be shown; `reveal()` is for whoever opens the connection."""

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
    """A store in one file; its directory may not exist yet."""

    path: Path


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """A store in a PostgreSQL database, shared by several workers."""

    url: Secret


StoreSettings: TypeAlias = "SqliteStoreSettings | PostgresStore"


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Writing into a source. `entities` names the fields per entity; empty is all."""

    enabled: bool = False
    dry_run: bool = False
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_changes_per_minute: int | None = None
    max_share: float | None = None


@dataclass(frozen=True, slots=True)
class PostgresSourceSettings:
    """A PostgreSQL database. `snapshot` is initial or never; `tables` are those that some entity maps.

    `heartbeat_us`: how often a message is written into it; None: never. `failover`: its slot is kept on standbys, too.
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


@dataclass(frozen=True, slots=True)
class DebeziumSource:
    """Kafka topics that Debezium fills."""

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
    """One channel that is told about conflicts, with its own settings as the file gave them."""

    type: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where traces go (OTLP over HTTP), None for nowhere; `share` of the batches are traced."""

    otlp: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One configuration file, checked. `warnings` are worth knowing and stop nothing; `lines` finds a path's line.

    `plan` holds what the core needs, `settle` and `clock.max_ahead` included.
    """

    file: Path
    store: StoreSettings
    listen: Listen
    keep_folded_us: int
    retention_us: int
    sources: Mapping[str, SourceSettings]
    plan: Plan
    access: AccessSettings = AccessSettings()
    notify: tuple[Channel, ...] = ()
    log_level: str | None = None
    telemetry: Telemetry = Telemetry()
    warnings: tuple[str, ...] = ()
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)


def default_slot(source: str) -> str:
    """`cdc_merge_<name>` in the characters that a slot's name may have."""
    return f"cdc_merge_{source}".lower().replace("-", "_")[:63]


def store_of(text: object) -> StoreSettings:
    """A store's URL; ValueError says how one is written."""
    if isinstance(text, str) and text.startswith(("postgresql://", "postgres://")):
        return PostgresStore(Secret(text))
    path = text.removeprefix("sqlite://") if isinstance(text, str) and text.startswith("sqlite://") else ""
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("a store is sqlite:///ABSOLUTE/PATH or postgresql://…")
    return SqliteStoreSettings(Path(path))
