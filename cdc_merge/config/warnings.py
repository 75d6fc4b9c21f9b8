"""What is no mistake and still worth knowing before the sidecar runs."""

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
"""The settings that the file may hold and this version does not act on."""

SILENT: Final[tuple[object, ...]] = (None, False, "ignore", [], {})
"""What asks for nothing, where such a setting has it as its value."""


def warn_unmapped_sources(subject: CheckContext) -> Iterator[ConfigProblem]:
    """A slot that is read for nothing still keeps WAL on its server."""
    mapped = {source for entity in subject.shape.entities.values() for source in entity.from_}
    for source in subject.shape.sources:
        if source not in mapped:
            yield ConfigProblem(
                ("sources", source),
                "no entity maps this source: its slot would be read for nothing",
                "map or remove it",
            )


def warn_unmarked_copies(subject: CheckContext) -> Iterator[ConfigProblem]:
    """Equality proves nothing for counters, sets and logs: an unmarked copy would count twice (semantics §2)."""
    sources = subject.shape.sources
    for name, entity in subject.shape.entities.items():
        if any(sources[source].copies.origins or sources[source].copies.actors for source in entity.from_):
            continue
        for field, shape in entity.fields.items():
            shared = [source for source, origin in entity.from_.items() if field in origin.fields]
            if OPTIONS[shape.merge].needs_marked_copies and len(shared) > 1:
                yield ConfigProblem(
                    entity_path(name, "fields", field, "merge"),
                    f"if a job copies this {shape.merge} between {', '.join(shared)}, its copies must be marked, or"
                    " they count as edits",
                    "name the job in copies.origins or copies.actors, or let it send a message cdc_merge.copy",
                )


def warn_not_yet(subject: CheckContext) -> Iterator[ConfigProblem]:
    """Nobody shall rely unawares on a setting that is read and does nothing."""
    for pattern in NOT_YET:
        for path, given in _places(subject.values, pattern):
            if given not in SILENT:
                yield ConfigProblem(path, "this version reads this and does not act on it")


def _places(values: object, pattern: tuple[str, ...]) -> Iterator[tuple[Path, object]]:
    """The paths of the file that a pattern names, and what the file says there."""
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
