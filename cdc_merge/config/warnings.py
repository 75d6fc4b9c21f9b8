"""What is no mistake and still worth knowing before the sidecar runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cdc_merge.config.merge_options import OPTIONS
from cdc_merge.config.problems import Problem
from cdc_merge.config.subject import Subject, entity_path

ANY: Final = "*"
NOT_YET: Final = (
    ("rules",),
    ("notify",),
    ("history",),
    ("sources", ANY, "write_back", "enabled"),
    ("entities", ANY, "checks"),
    ("entities", ANY, "unique"),
    ("entities", ANY, "on_missing"),
    ("entities", ANY, "fields", ANY, "writers"),
    ("entities", ANY, "groups", ANY, "writers"),
)
"""The settings that the file may hold and this version does not act on."""

SILENT: Final[tuple[object, ...]] = (None, False, "ignore", [], {})
"""What asks for nothing, where such a setting has it as its value."""


def warn_unmapped_sources(subject: Subject) -> Iterator[Problem]:
    """A slot that is read for nothing still keeps WAL on its server."""
    mapped = {source for entity in subject.shape.entities.values() for source in entity.from_}
    for source in subject.shape.sources:
        if source not in mapped:
            yield Problem(
                ("sources", source),
                "no entity maps this source: its slot would be read for nothing",
                "map or remove it",
            )


def warn_unmarked_copies(subject: Subject) -> Iterator[Problem]:
    """Equality proves nothing for counters, sets and logs: an unmarked copy would count twice (semantics §2)."""
    sources = subject.shape.sources
    for name, entity in subject.shape.entities.items():
        if any(sources[source].copies.origins or sources[source].copies.actors for source in entity.from_):
            continue
        for field, shape in entity.fields.items():
            shared = [source for source, origin in entity.from_.items() if field in origin.fields]
            if OPTIONS[shape.merge].needs_marked_copies and len(shared) > 1:
                yield Problem(
                    entity_path(name, "fields", field, "merge"),
                    f"if a job copies this {shape.merge} between {', '.join(shared)}, its copies must be marked, or"
                    " they count as edits",
                    "name the job in copies.origins or copies.actors, or let it send a message cdc_merge.copy",
                )


def warn_not_yet(subject: Subject) -> Iterator[Problem]:
    """Nobody shall rely unawares on a setting that is read and does nothing."""
    for pattern in NOT_YET:
        for path in _places(subject, pattern):
            if subject.given(*path) not in SILENT:
                yield Problem(path, "this version reads this and does not act on it")


def _places(subject: Subject, pattern: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The paths of the file that a pattern names."""
    places: list[tuple[str, ...]] = [()]
    for part in pattern:
        places = [(*place, name) for place in places for name in (subject.names(*place) if part == ANY else [part])]
    return places


WARNINGS: Final[tuple[Callable[[Subject], Iterator[Problem]], ...]] = (
    warn_unmapped_sources,
    warn_unmarked_copies,
    warn_not_yet,
)
