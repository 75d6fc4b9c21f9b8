"""One entity's keys together: sources and tables, fields and how they merge, groups, checks, unique.

Each check yields (path within the entity, sentence, suggestion). To add one, write it and add a line to ENTITY_CHECKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from cdc_merge.config.check_context import CheckContext, table_name
from cdc_merge.config.checks.merge_checks import check_merge
from cdc_merge.config.problems import Path, did_you_mean
from cdc_merge.config.schema.entity_schema import EntityShape, WritersShape
from cdc_merge.values.normalizers import NORMALIZERS

Found: TypeAlias = "tuple[Path, str, str]"


def check_sources(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    known = subject.names("sources")
    for source in subject.names("entities", name, "from"):
        if source not in known:
            yield ("from", source), f"there is no source {source!r}", did_you_mean(source, known)


def check_tables(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    for source, origin in entity.from_.items():
        if origin.table.count(".") > 1:
            yield ("from", source, "table"), "a table is schema.table", "leave the database's name out"
        for other in list(subject.shape.entities)[: list(subject.shape.entities).index(name)]:
            theirs = subject.shape.entities[other].from_.get(source)
            if theirs is not None and table_name(theirs.table) == table_name(origin.table):
                yield ("from", source, "table"), f"this table of {source} is mapped by the entity {other} already", ""


def check_columns(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    for source, origin in entity.from_.items():
        if len(set(origin.key)) < len(origin.key):
            yield ("from", source, "key"), "a column is named twice", ""
    lengths = {len(origin.key) for origin in entity.from_.values()}
    if len(lengths) > 1:
        yield (
            ("from",),
            "the sources' keys have different numbers of columns",
            "a key has the same parts in every source",
        )


def check_fields(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    mapped = subject.mapped(name)
    for field in entity.fields:
        if field not in mapped:
            yield ("fields", field), f"no source maps the field {field!r}", did_you_mean(field, mapped)
    for field, shape in entity.fields.items():
        yield from check_merge(("fields", field), shape, subject.names("entities", name, "from"))
        yield from _writers(subject, name, ("fields", field), shape.writers)


def check_groups(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    mapped, owner = subject.mapped(name), dict[str, str]()
    for group, shape in entity.groups.items():
        path: Path = ("groups", group)
        if group in mapped:
            yield path, f"{group!r} is a field already", "name the group otherwise"
        for number, field in enumerate(shape.fields):
            here = (*path, "fields", number)
            if field not in mapped:
                yield here, f"no source maps the field {field!r}", did_you_mean(field, mapped)
            if owner.setdefault(field, group) != group:
                yield here, f"{field!r} belongs to the group {owner[field]} already", "a field is in one group at most"
        yield from _mapped_together(path, [field for field in shape.fields if field in mapped], entity)
        yield from check_merge(path, shape, subject.names("entities", name, "from"))
        yield from _writers(subject, name, path, shape.writers)


def _mapped_together(path: Path, fields: list[str], entity: EntityShape) -> Iterator[Found]:
    for source, origin in entity.from_.items():
        absent = [field for field in fields if field not in origin.fields]
        if absent and len(absent) < len(fields):
            sentence = f"{source} maps some fields of the group and not {', '.join(absent)}"
            yield (*path, "fields"), sentence, "a source maps all fields of a group or none"


def _writers(subject: CheckContext, name: str, path: Path, writers: WritersShape | None) -> Iterator[Found]:
    if writers is None:
        return
    origins = subject.names("entities", name, "from")
    for number, source in enumerate(writers.sources or []):
        if source not in origins:
            here = (*path, "writers", "sources", number)
            yield here, f"{name} does not come from a source {source!r}", did_you_mean(source, origins)
    for source in origins if writers.actors else []:
        shape = subject.shape.sources.get(source)
        if shape is not None and shape.actor is not None and not shape.actor.always_written:
            sentence = f"in {source} these rest on the column {shape.actor.column}, which may name an earlier writer"
            yield (*path, "writers", "actors"), sentence, f"promise sources.{source}.actor.always_written: true"


def check_normalize(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    for field, shape in entity.fields.items():
        yield from _normalizers(("fields", field, "normalize"), shape.normalize)
    for number, unique in enumerate(entity.unique):
        yield from _normalizers(("unique", number, "normalize"), unique.normalize)


def _normalizers(path: Path, names: Iterable[str]) -> Iterator[Found]:
    for number, word in enumerate(names):
        if word not in NORMALIZERS:
            yield (*path, number), f"there is no normalisation {word!r}", did_you_mean(word, NORMALIZERS)


def check_unique(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    mapped = subject.mapped(name)
    for number, unique in enumerate(entity.unique):
        for field in unique.fields:
            if field not in mapped:
                path = ("unique", number, "fields")
                yield path, f"no source maps the field {field!r}", did_you_mean(field, mapped)


def check_checks(subject: CheckContext, name: str, entity: EntityShape) -> Iterator[Found]:
    first: dict[str, int] = {}
    for number, check in enumerate(entity.checks):
        if first.setdefault(check.name, number) != number:
            yield ("checks", number, "name"), f"the name {check.name!r} is taken by checks[{first[check.name]}]", ""


ENTITY_CHECKS: Final[tuple[Callable[[CheckContext, str, EntityShape], Iterator[Found]], ...]] = (
    check_sources,
    check_tables,
    check_columns,
    check_fields,
    check_groups,
    check_normalize,
    check_unique,
    check_checks,
)
