"""Settings that a reload may change while the sidecar runs, and settings that need a restart.

Rules, severities, writers, checks, `settle`, retention and log level may change between two batches: they decide which
conflicts are raised, not what a record is. Sources, mappings and merge types may not: readers, mapped changes and all
folded state depend on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from cdc_merge.config.check_context import entity_path
from cdc_merge.config.load import config_error
from cdc_merge.config.problems import ConfigProblem, Path
from cdc_merge.config.settings import Settings, SourceSettings
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap

SENTENCE: Final = "this cannot change while the sidecar runs"
SUGGESTION: Final = "restart the sidecar to apply it, or restore the old setting"

FIXED: Final[tuple[tuple[Path, Callable[[Settings], object]], ...]] = (
    (("store",), lambda settings: settings.store),
    (("http", "listen"), lambda settings: settings.listen),
    (("http", "metrics"), lambda settings: settings.open_metrics),
    (("clock", "max_ahead"), lambda settings: settings.plan.max_ahead_us),
    (("access",), lambda settings: settings.access),
    (("notify",), lambda settings: settings.notify),
    (("telemetry",), lambda settings: settings.telemetry),
)
ENTITY_FIXED: Final = ("deletes", "on_missing", "unique")
FIELD_FIXED: Final = ("merge", "normalize", "agreement")

Entry = TypeVar("Entry")


def refuse_restarts(old: Settings, new: Settings) -> None:
    """ConfigError with the line of every changed setting that needs a restart."""
    paths = dict.fromkeys(_differing(old, new))
    if paths:
        raise config_error(new.file, new.lines, [ConfigProblem(path, SENTENCE, SUGGESTION) for path in paths])


def copy_value_types(plan: Plan, typed: Plan) -> Plan:
    """The plan with the value types of another plan of the same mappings: no catalog query is needed."""
    entities = {}
    for name, entity in plan.entities.items():
        types = {field: typed.entities[name].fields[field].value_type for field in entity.fields}
        fields = {key: dataclasses.replace(field, value_type=types[key]) for key, field in entity.fields.items()}
        entities[name] = dataclasses.replace(entity, fields=fields)
    return dataclasses.replace(plan, entities=entities)


def _differing(old: Settings, new: Settings) -> Iterator[Path]:
    yield from (path for path, setting in FIXED if setting(old) != setting(new))
    yield from _each(("sources",), old.sources, new.sources, _source)
    yield from _mappings(_by_entity_and_source(old.plan), _by_entity_and_source(new.plan))
    yield from _each(("entities",), old.plan.entities, new.plan.entities, _entity)


def _each(
    place: Path,
    old: Mapping[str, Entry],
    new: Mapping[str, Entry],
    differing: Callable[[Path, Entry, Entry], Iterator[Path]],
) -> Iterator[Path]:
    """The paths of added and removed entries, and of differences within the entries of both."""
    yield from ((*place, name) for name in (*new, *old) if name not in old or name not in new)
    for name in new:
        if name in old:
            yield from differing((*place, name), old[name], new[name])


def _source(place: Path, old: SourceSettings, new: SourceSettings) -> Iterator[Path]:
    if type(old) is not type(new):
        yield (*place, "type")
        return
    # Its tables follow from the entities, which are compared by themselves.
    names = [field.name for field in dataclasses.fields(old) if field.name != "tables"]
    yield from ((*place, name) for name in names if getattr(old, name) != getattr(new, name))


def _by_entity_and_source(plan: Plan) -> dict[tuple[str, str], TableMap]:
    return {(table.entity, table.source): table for table in plan.tables}


def _mappings(old: Mapping[tuple[str, str], TableMap], new: Mapping[tuple[str, str], TableMap]) -> Iterator[Path]:
    for (entity, source), table in new.items():
        before = old.get((entity, source))
        if before is None or before == table:
            continue
        if (before.table, before.key, before.fields) != (table.table, table.key, table.fields):
            yield entity_path(entity, "from", source)
        if (before.actor_column, before.actor_always_written) != (table.actor_column, table.actor_always_written):
            yield ("sources", source, "actor")
        if (before.copy_origins, before.copy_actors) != (table.copy_origins, table.copy_actors):
            yield ("sources", source, "copies")


def _entity(place: Path, old: EntityPlan, new: EntityPlan) -> Iterator[Path]:
    if old.sources != new.sources:
        yield (*place, "from")
    yield from ((*place, name) for name in ENTITY_FIXED if getattr(old, name) != getattr(new, name))
    yield from _each((*place, "fields"), old.fields, new.fields, _field)
    yield from _each((*place, "groups"), old.groups, new.groups, _field)


def _field(place: Path, old: FieldPlan, new: FieldPlan) -> Iterator[Path]:
    yield from ((*place, name) for name in FIELD_FIXED if getattr(old, name) != getattr(new, name))
    if old.members != new.members:
        yield (*place, "fields")
    before, after = _merge_options(old.options), _merge_options(new.options)
    yield from ((*place, name) for name in {**before, **after} if before.get(name) != after.get(name))


def _merge_options(options: Mapping[str, object]) -> dict[str, object]:
    """A merge type's options without the severity and automatic decision of a map's keys, which may change."""
    fixed = {
        name: _merge_options(option) if isinstance(option, Mapping) else option
        for name, option in options.items()
        if name not in ("severity", "auto")
    }
    return {name: option for name, option in fixed.items() if option != {}}
