"""Checks of one entity: sources and tables, fields and their merge types, groups, checks, unique.

Each check yields (path within the entity, sentence, suggestion). To add one, write it and add a line to ENTITY_CHECKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from cdc_merge.config.check_context import CheckContext, table_name
from cdc_merge.config.checks.merge_checks import check_merge
from cdc_merge.config.problems import Path, did_you_mean
from cdc_merge.config.schema.entity_schema import EntityShape, WritersShape
from cdc_merge.config.table_names import parse
from cdc_merge.values.normalizers import NORMALIZERS

Finding: TypeAlias = "tuple[Path, str, str]"


def check_sources(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    sources = context.names("sources")
    for source in context.names("entities", name, "from"):
        if source not in sources:
            yield ("from", source), f"there is no source {source!r}", did_you_mean(source, sources)


def check_tables(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    for source, origin in entity.from_.items():
        own = parse(origin.table)
        if own is None:
            hint = "remove the database's name, or quote a name that holds a dot as in SQL: '\"my.schema\".table'"
            yield ("from", source, "table"), "a table is schema.table", hint
        for other in list(context.shape.entities)[: list(context.shape.entities).index(name)]:
            theirs = context.shape.entities[other].from_.get(source)
            if theirs is None or table_name(theirs.table) != table_name(origin.table):
                continue
            if parse(theirs.table) == own:
                yield ("from", source, "table"), f"this table of {source} is mapped by the entity {other} already", ""
            else:
                sentence = f"without quotes it has the name of the table that the entity {other} maps"
                yield (
                    ("from", source, "table"),
                    sentence,
                    "rename one of the two schemas, or map one of the tables only",
                )


def check_columns(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    for source, origin in entity.from_.items():
        if len(set(origin.key)) < len(origin.key):
            yield ("from", source, "key"), "a column is listed twice", ""
    lengths = {len(origin.key) for origin in entity.from_.values()}
    if len(lengths) > 1:
        yield (
            ("from",),
            "the sources' keys have different numbers of columns",
            "list the same number of key columns for every source",
        )


def check_fields(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    mapped = context.mapped(name)
    for field in entity.fields:
        if field not in mapped:
            yield ("fields", field), f"no source maps the field {field!r}", did_you_mean(field, mapped)
    for field, shape in entity.fields.items():
        yield from check_merge(("fields", field), shape, context.names("entities", name, "from"))
        yield from _writers(context, name, ("fields", field), shape.writers)


def check_groups(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    mapped, owner = context.mapped(name), dict[str, str]()
    for group, shape in entity.groups.items():
        path: Path = ("groups", group)
        if group in mapped:
            yield path, f"{group!r} is a field already", "choose another name for the group"
        for number, field in enumerate(shape.fields):
            here = (*path, "fields", number)
            if field not in mapped:
                yield here, f"no source maps the field {field!r}", did_you_mean(field, mapped)
            if owner.setdefault(field, group) != group:
                yield here, f"{field!r} belongs to the group {owner[field]} already", "a field is in one group at most"
        yield from _mapped_together(path, [field for field in shape.fields if field in mapped], entity)
        yield from check_merge(path, shape, context.names("entities", name, "from"))
        yield from _writers(context, name, path, shape.writers)


def _mapped_together(path: Path, fields: list[str], entity: EntityShape) -> Iterator[Finding]:
    for source, origin in entity.from_.items():
        absent = [field for field in fields if field not in origin.fields]
        if absent and len(absent) < len(fields):
            sentence = f"{source} maps some fields of the group and not {', '.join(absent)}"
            yield (*path, "fields"), sentence, "a source maps all fields of a group or none"


def _writers(context: CheckContext, name: str, path: Path, writers: WritersShape | None) -> Iterator[Finding]:
    if writers is None:
        return
    origins = context.names("entities", name, "from")
    for number, source in enumerate(writers.sources or []):
        if source not in origins:
            here = (*path, "writers", "sources", number)
            yield here, f"{name} does not come from a source {source!r}", did_you_mean(source, origins)
    for source in origins if writers.actors else []:
        shape = context.shape.sources.get(source)
        if shape is not None and shape.actor is not None and not shape.actor.always_written:
            sentence = f"in {source} the actor is the column {shape.actor.column}, which may name an earlier writer"
            suggestion = f"set sources.{source}.actor.always_written: true if every change writes the column"
            yield (*path, "writers", "actors"), sentence, suggestion


def check_normalize(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    for field, shape in entity.fields.items():
        yield from _normalizers(("fields", field, "normalize"), shape.normalize)
    for number, unique in enumerate(entity.unique):
        yield from _normalizers(("unique", number, "normalize"), unique.normalize)


def _normalizers(path: Path, names: Iterable[str]) -> Iterator[Finding]:
    for number, word in enumerate(names):
        if word not in NORMALIZERS:
            yield (*path, number), f"there is no normalisation {word!r}", did_you_mean(word, NORMALIZERS)


def check_unique(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    mapped = context.mapped(name)
    for number, unique in enumerate(entity.unique):
        for field in unique.fields:
            if field not in mapped:
                path = ("unique", number, "fields")
                yield path, f"no source maps the field {field!r}", did_you_mean(field, mapped)


def check_checks(context: CheckContext, name: str, entity: EntityShape) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for number, check in enumerate(entity.checks):
        if first.setdefault(check.name, number) != number:
            yield ("checks", number, "name"), f"the name {check.name!r} is taken by checks[{first[check.name]}]", ""


ENTITY_CHECKS: Final[tuple[Callable[[CheckContext, str, EntityShape], Iterator[Finding]], ...]] = (
    check_sources,
    check_tables,
    check_columns,
    check_fields,
    check_groups,
    check_normalize,
    check_unique,
    check_checks,
)
