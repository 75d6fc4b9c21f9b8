"""Checks of a merge type and its options: the type exists, the options belong to it and are consistent."""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.config.merge_type_options import KEYS, OPTIONS, Options
from cdc_merge.config.problems import Path, did_you_mean
from cdc_merge.config.schema.entity_schema import GroupShape, MergeShape
from cdc_merge.merge.types import TYPES

Finding = tuple[Path, str, str]

# A map has no line in TYPES: the fold splits it into its keys (merge/map_fields.py), which have merge types of their own.
AVAILABLE = frozenset(TYPES) | {"map"}


def check_merge(path: Path, shape: MergeShape | GroupShape, sources: list[str]) -> Iterator[Finding]:
    """The problems of one `merge:` and its options. `sources` are the entity's, for `order:`."""
    options = OPTIONS.get(shape.merge)
    if options is None:
        yield (*path, "merge"), f"there is no merge type {shape.merge!r}", did_you_mean(shape.merge, OPTIONS)
        return
    if shape.merge not in AVAILABLE:
        available = ", ".join(sorted(AVAILABLE))
        yield (*path, "merge"), f"the merge type {shape.merge} is not part of this version", f"one of: {available}"
    if isinstance(shape, GroupShape) and not options.groups:
        groups = [name for name, other in OPTIONS.items() if other.groups]
        yield (*path, "merge"), f"{shape.merge} does not merge a group", f"one of: {', '.join(groups)}"
    yield from _own_keys(path, shape, options)
    yield from _order(path, shape, sources)
    if isinstance(shape, MergeShape):
        if shape.min is not None and shape.max is not None and shape.min > shape.max:
            yield (*path, "min"), "min is greater than max", ""
        for key, leaf in (shape.keys or {}).items():
            yield from check_merge((*path, "keys", key), leaf, sources)


def _own_keys(path: Path, shape: MergeShape | GroupShape, options: Options) -> Iterator[Finding]:
    given = [key for key in KEYS if getattr(shape, key, None) is not None]
    for key in given:
        if key not in options.allowed:
            owners = [name for name, other in OPTIONS.items() if key in other.allowed]
            yield (
                (*path, key),
                f"{key} does not belong to merge: {shape.merge}",
                f"it belongs to {' and '.join(owners)}",
            )
    for key in sorted(options.required - set(given)):
        yield (*path, key), f"merge: {shape.merge} needs this key", ""
    if "agreement" in shape.model_fields_set and not options.agrees:
        sentence = f"equal values prove nothing for merge: {shape.merge}, so it has no agreement"
        yield (*path, "agreement"), sentence, "mark the copies instead: copies, or a message cdc_merge.copy"
    wins = getattr(shape, "wins", None)
    if wins is not None and options.wins and wins not in options.wins:
        words = [str(word).lower() for word in options.wins]
        yield (*path, "wins"), f"wins is {' or '.join(words)} for merge: {shape.merge}", ""


def _order(path: Path, shape: MergeShape | GroupShape, sources: list[str]) -> Iterator[Finding]:
    if shape.merge != "priority" or shape.order is None:
        return
    if not isinstance(shape.order, list):
        yield (*path, "order"), "merge: priority ranks sources", "write a list, highest first"
        return
    for number, source in enumerate(shape.order):
        if source not in sources:
            yield (*path, "order", number), f"the entity has no source {source!r}", did_you_mean(source, sources)
