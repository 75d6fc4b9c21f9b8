"""The requirements of the configuration for each source, as the doctor checks them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from cdc_merge.config.settings import PostgresSourceSettings
from cdc_merge.doctor.source_facts import Subject, Thresholds
from cdc_merge.model import Position
from cdc_merge.model.plan import Plan

Positions: TypeAlias = "Mapping[str, Position] | None"
"""The stored position by source; None when the store could not be read."""


def subject_of(source: PostgresSourceSettings, plan: Plan, positions: Positions) -> Subject:
    columns: dict[str, tuple[str, ...]] = {}
    keys: dict[str, tuple[str, tuple[str, ...]]] = {}
    for table in plan.tables:
        if table.source != source.name:
            continue
        actor = (table.actor_column,) if table.actor_column else ()
        wanted = (*columns.get(table.table, ()), *table.key, *table.fields.values(), *actor)
        columns[table.table] = tuple(dict.fromkeys(wanted))
        keys[table.entity] = (table.table, table.key)
    return Subject(
        source=source.name,
        slot=source.slot,
        publication=source.publication,
        snapshot=source.snapshot,
        tables=columns,
        keys=keys,
        position=positions.get(source.name) if positions is not None else None,
        position_is_known=positions is not None,
        written=_written(source, plan),
        failover=source.failover,
        schemas=source.schemas,
        limits=Thresholds(skew_s=plan.max_ahead_us / 1e6),
    )


def _written(source: PostgresSourceSettings, plan: Plan) -> tuple[str, ...]:
    """The tables that write-back may change."""
    if not source.write_back.enabled:
        return ()
    mapped = (table for table in plan.tables if table.source == source.name)
    wanted = source.write_back.entities
    return tuple(dict.fromkeys(table.table for table in mapped if not wanted or table.entity in wanted))


def subjects(sources: Mapping[str, object], plan: Plan, positions: Positions) -> list[tuple[Subject, str]]:
    """(subject, DSN) of every source that is a PostgreSQL database, in the order of the file."""
    return [
        (subject_of(source, plan, positions), source.dsn.reveal())
        for source in sources.values()
        if isinstance(source, PostgresSourceSettings)
    ]
