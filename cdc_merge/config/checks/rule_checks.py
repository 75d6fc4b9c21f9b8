"""Checks of rules: each has a unique name and selects something that exists."""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.config.check_context import CheckContext
from cdc_merge.config.problems import ConfigProblem, did_you_mean

ANY = "*"


def check_rules(context: CheckContext) -> Iterator[ConfigProblem]:
    first: dict[str, int] = {}
    for number, rule in enumerate(context.shape.rules):
        if first.setdefault(rule.name, number) != number:
            yield ConfigProblem(
                ("rules", number, "name"), f"the name {rule.name!r} is taken by rules[{first[rule.name]}]"
            )
        yield from _selection(context, number, rule.on)
        for step in rule.decide.auto if rule.decide is not None else ():
            for source in step if isinstance(step, tuple) else ():
                if source not in context.names("sources"):
                    path = ("rules", number, "decide", "auto")
                    yield ConfigProblem(
                        path, f"there is no source {source!r}", did_you_mean(source, context.names("sources"))
                    )


def selected(context: CheckContext, on: str) -> bool:
    """Whether `on` (entity.field, entity.*, *.field, entity) selects anything. A field may continue into a map's keys."""
    entity, _, field = on.partition(".")
    entities = context.names("entities") if entity == ANY else [entity]
    existing = [name for name in entities if name in context.names("entities")]
    if not field or field == ANY:
        return bool(existing)
    return any(field.partition(".")[0] in context.units(name) or field in context.units(name) for name in existing)


def _selection(context: CheckContext, number: int, on: str) -> Iterator[ConfigProblem]:
    if selected(context, on):
        return
    path = ("rules", number, "on")
    entity, _, field = on.partition(".")
    names = context.names("entities")
    if entity != ANY and entity not in names:
        yield ConfigProblem(path, f"this selects nothing: there is no entity {entity!r}", did_you_mean(entity, names))
        return
    units = [unit for name in (names if entity == ANY else [entity]) for unit in context.units(name)]
    yield ConfigProblem(
        path, f"this selects nothing: there is no field {field!r}", did_you_mean(field, dict.fromkeys(units))
    )
