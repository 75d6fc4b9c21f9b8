"""Checks across the keys of a configuration: names that must exist, settings that require others.

Each check yields all its problems; none stops at the first. To add one, write it and add its line to CHECKS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from cdc_merge.config.check_context import CheckContext, entity_path
from cdc_merge.config.checks.entity_checks import ENTITY_CHECKS
from cdc_merge.config.checks.expression_checks import check_business_rules, check_expressions
from cdc_merge.config.checks.rule_checks import check_rules
from cdc_merge.config.problems import ConfigProblem, did_you_mean
from cdc_merge.config.schema.file_schema import PostgresShape
from cdc_merge.config.settings import PostgresStore, default_slot
from cdc_merge.model import DECISION_SOURCE

SOURCE_TYPES: Final = ("postgres",)
"""The source types that this version can read."""

# Names become metric labels, parts of stamps and of URLs.
NAME: Final = re.compile(r"[^\W\d][\w-]{0,62}")


def check_names(context: CheckContext) -> Iterator[ConfigProblem]:
    paths: list[tuple[str, ...]] = [("sources",), ("entities",)]
    paths += [("entities", entity, kind) for entity in context.shape.entities for kind in ("fields", "groups")]
    for path in paths:
        for name in context.names(*path):
            if not NAME.fullmatch(name):
                allowed = "use letters, digits, _ and -, the first a letter or _, at most 63"
                yield ConfigProblem((*path, name), "this is not a valid name", allowed)
    if DECISION_SOURCE in context.names("sources"):
        yield ConfigProblem(
            ("sources", DECISION_SOURCE), "the name cdc_merge is reserved for decisions", "choose another name"
        )


def check_available(context: CheckContext) -> Iterator[ConfigProblem]:
    """Settings that the schema accepts and this version does not implement."""
    if isinstance(context.shape.store, PostgresStore):
        yield ConfigProblem(
            ("store",), "a store in PostgreSQL is not part of this version", "use sqlite:///ABSOLUTE/PATH"
        )
    for name, source in context.shape.sources.items():
        if source.type not in SOURCE_TYPES:
            sentence = f"sources of type {source.type} are not part of this version"
            yield ConfigProblem(("sources", name, "type"), sentence, f"one of: {', '.join(SOURCE_TYPES)}")


def check_connection(context: CheckContext) -> Iterator[ConfigProblem]:
    for name, source in context.shape.sources.items():
        if not isinstance(source, PostgresShape):
            continue
        given = [key for key in ("dsn", "dsn_file") if key in context.names("sources", name)]
        if not given:
            yield ConfigProblem(
                ("sources", name, "dsn"), "this key is missing", "dsn: ${NAME}, or dsn_file: a file that contains it"
            )
        if len(given) > 1:
            yield ConfigProblem(("sources", name, "dsn_file"), "dsn and dsn_file are both given", "keep one of them")


def check_slots(context: CheckContext) -> Iterator[ConfigProblem]:
    used: dict[tuple[str | None, str], str] = {}
    for name, source in context.shape.sources.items():
        if not isinstance(source, PostgresShape):
            continue
        slot = source.slot or default_slot(name)
        first = used.setdefault((source.dsn or source.dsn_file, slot), name)
        if first != name:
            yield ConfigProblem(
                ("sources", name, "slot"), f"the slot {slot} of the same server belongs to the source {first}"
            )


def check_copies(context: CheckContext) -> Iterator[ConfigProblem]:
    for name, source in context.shape.sources.items():
        if source.copies.actors and source.actor is not None and not source.actor.always_written:
            yield ConfigProblem(
                ("sources", name, "copies", "actors"),
                f"the actor is the column {source.actor.column}, which keeps its old value when a change does not"
                " write it: the next user's edit would count as a copy",
                "set actor.always_written: true if every change writes the column, or mark copies by origin or message",
            )


def check_write_back(context: CheckContext) -> Iterator[ConfigProblem]:
    for name, source in context.shape.sources.items():
        for entity, fields in source.write_back.entities.items():
            path = ("sources", name, "write_back", "entities", entity)
            if entity not in context.names("entities"):
                yield ConfigProblem(
                    path, f"there is no entity {entity!r}", did_you_mean(entity, context.names("entities"))
                )
                continue
            for field in fields:
                mapped = context.names("entities", entity, "from", name, "fields")
                if field not in mapped:
                    yield ConfigProblem(path, f"{name} does not map the field {field!r}", did_you_mean(field, mapped))


def check_entities(context: CheckContext) -> Iterator[ConfigProblem]:
    for name, entity in context.shape.entities.items():
        for check in ENTITY_CHECKS:
            for path, sentence, suggestion in check(context, name, entity):
                yield ConfigProblem(entity_path(name, *path), sentence, suggestion)


CHECKS: Final[tuple[Callable[[CheckContext], Iterator[ConfigProblem]], ...]] = (
    check_names,
    check_available,
    check_connection,
    check_slots,
    check_copies,
    check_write_back,
    check_entities,
    check_expressions,
    check_business_rules,
    check_rules,
)
