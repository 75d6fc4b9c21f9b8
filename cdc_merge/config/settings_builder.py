"""The validated configuration → settings: defaults filled in, lists made tuples, relative files resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from cdc_merge.config.plan_builder import plan_of
from cdc_merge.config.schema.file_schema import ConfigShape, DebeziumShape, PostgresShape, WriteBackShape
from cdc_merge.config.settings import (
    AccessSettings,
    Channel,
    DebeziumSource,
    HttpSource,
    PostgresSourceSettings,
    Secret,
    Settings,
    SourceSettings,
    SqliteStoreSettings,
    Telemetry,
    WriteBack,
    default_slot,
)
from cdc_merge.config.table_names import parse
from cdc_merge.model.plan import Plan

Origin: TypeAlias = "tuple[Path, Mapping[tuple[str | int, ...], int], tuple[str, ...]]"
"""The file, its lines by path, and its warnings."""


def settings_of(
    shape: ConfigShape, secrets: Mapping[str, Secret], environment: Mapping[str, str], origin: Origin
) -> Settings:
    """The settings of a configuration without problems. `secrets` are the sources' connection strings."""
    file, lines, warnings = origin
    plan = plan_of(shape)
    tokens_file = shape.access.tokens_file
    return Settings(
        file=file,
        store=shape.store or default_store(environment),
        listen=shape.http.listen,
        open_metrics=shape.http.metrics == "open",
        keep_folded_us=shape.history.keep_folded,
        retention_us=shape.history.retention,
        sources={name: _source(name, shape, secrets[name], plan) for name in shape.sources},
        plan=plan,
        access=AccessSettings(
            tokens_file=file.parent / tokens_file if tokens_file else None,
            roles={role: tuple(who) for role, who in shape.access.roles.items()},
        ),
        notify=tuple(Channel(channel.type, dict(channel.model_extra or {})) for channel in shape.notify),
        log_level=shape.log.level,
        telemetry=Telemetry(shape.telemetry.otlp, float(shape.telemetry.share)),
        warnings=warnings,
        lines=lines,
    )


def default_store(environment: Mapping[str, str]) -> SqliteStoreSettings:
    """state.db in the state directory: systemd's, else the XDG one, else ./.cdc-merge."""
    if directory := environment.get("STATE_DIRECTORY", "").partition(":")[0]:
        return SqliteStoreSettings(Path(directory) / "state.db", is_default=True)
    if directory := environment.get("XDG_STATE_HOME", ""):
        return SqliteStoreSettings(Path(directory) / "cdc-merge" / "state.db", is_default=True)
    if directory := environment.get("HOME", ""):
        return SqliteStoreSettings(Path(directory) / ".local" / "state" / "cdc-merge" / "state.db", is_default=True)
    return SqliteStoreSettings(Path(".cdc-merge") / "state.db", is_default=True)


def _source(name: str, file: ConfigShape, dsn: Secret, plan: Plan) -> SourceSettings:
    shape = file.sources[name]
    tables = tuple(dict.fromkeys(table.table for table in plan.tables if table.source == name))
    write_back = _write_back(shape.write_back)
    if isinstance(shape, PostgresShape):
        slot = shape.slot or default_slot(name)
        source = PostgresSourceSettings(
            name, dsn, slot, shape.publication, shape.snapshot, tables, write_back, shape.heartbeat, shape.failover
        )
        return replace(
            source,
            snapshot_workers=shape.snapshot_workers,
            on_lost_position=shape.on_lost_position,
            schemas=_dotted_schemas(name, file),
        )
    if isinstance(shape, DebeziumShape):
        servers, topics = tuple(shape.bootstrap_servers), tuple(shape.topics)
        return DebeziumSource(name, servers, topics, shape.grace, tables, write_back)
    return HttpSource(name, tables, write_back)


def _dotted_schemas(source: str, file: ConfigShape) -> dict[str, str]:
    """Table → schema, where the first dot of `schema.table` does not end the schema."""
    origins = (entity.from_[source].table for entity in file.entities.values() if source in entity.from_)
    names = [name for origin in origins if (name := parse(origin)) is not None]
    return {name.plain: name.schema for name in names if "." in name.schema}


def _write_back(shape: WriteBackShape) -> WriteBack:
    return WriteBack(
        enabled=shape.enabled,
        dry_run=shape.dry_run,
        entities={entity: tuple(fields) for entity, fields in shape.entities.items()},
        max_changes_per_minute=shape.max_changes_per_minute,
        max_share=None if shape.max_share is None else float(shape.max_share),
    )
