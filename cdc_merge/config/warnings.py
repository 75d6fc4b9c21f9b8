"""Warnings: valid settings that probably do not do what was intended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cdc_merge.config.check_context import CheckContext, entity_path
from cdc_merge.config.merge_type_options import OPTIONS
from cdc_merge.config.problems import ConfigProblem, Path

ANY: Final = "*"
NOT_YET: Final = (
    ("rules", ANY, "threshold"),
    *(("rules", ANY, "decide", key) for key in ("approve", "votes", "four_eyes", "sla", "on_expiry", "when")),
    ("notify",),
    ("sources", ANY, "write_back", "enabled"),
)
"""Settings that are accepted and that this version does not act on."""

INACTIVE: Final[tuple[object, ...]] = (None, False, "ignore", [], {})
"""The values with which such a setting requests nothing."""


def warn_unmapped_sources(context: CheckContext) -> Iterator[ConfigProblem]:
    """The slot of an unmapped source still keeps WAL on its server."""
    mapped = {source for entity in context.shape.entities.values() for source in entity.from_}
    for source in context.shape.sources:
        if source not in mapped:
            yield ConfigProblem(
                ("sources", source),
                "no entity maps this source: its slot keeps WAL without use",
                "map it in an entity, or remove it",
            )


def warn_unmarked_copies(context: CheckContext) -> Iterator[ConfigProblem]:
    """Equality proves nothing for counters, sets and logs: an unmarked copy would count twice (semantics §2)."""
    sources = context.shape.sources
    for name, entity in context.shape.entities.items():
        if any(sources[source].copies.origins or sources[source].copies.actors for source in entity.from_):
            continue
        for field, shape in entity.fields.items():
            shared = [source for source, origin in entity.from_.items() if field in origin.fields]
            if OPTIONS[shape.merge].needs_marked_copies and len(shared) > 1:
                yield ConfigProblem(
                    entity_path(name, "fields", field, "merge"),
                    f"if a job copies this {shape.merge} between {', '.join(shared)}, its copies must be marked, or"
                    " they count as edits",
                    "list the job in copies.origins or copies.actors, or let it send a message cdc_merge.copy",
                )


def warn_not_yet(context: CheckContext) -> Iterator[ConfigProblem]:
    """A setting without effect must not be relied on unnoticed."""
    for pattern in NOT_YET:
        for path, given in _places(context.values, pattern):
            if given not in INACTIVE:
                yield ConfigProblem(path, "this version accepts this setting and does not act on it")


def _places(values: object, pattern: tuple[str, ...]) -> Iterator[tuple[Path, object]]:
    """The paths of the file that match a pattern, with their values."""
    if not pattern:
        yield (), values
        return
    entries: dict[str | int, object] = {}
    if isinstance(values, dict):
        entries = dict(values) if pattern[0] == ANY else {name: values[name] for name in values if name == pattern[0]}
    elif isinstance(values, list) and pattern[0] == ANY:
        entries = dict(enumerate(values))
    for name, inner in entries.items():
        for path, given in _places(inner, pattern[1:]):
            yield (name, *path), given


WARNINGS: Final[tuple[Callable[[CheckContext], Iterator[ConfigProblem]], ...]] = (
    warn_unmapped_sources,
    warn_unmarked_copies,
    warn_not_yet,
)
