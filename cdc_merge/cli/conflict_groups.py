"""`cdc-merge conflicts list --group-by`: what the conflicts have in common, and the names that a filter may have."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import load_settings
from cdc_merge.cli.table_output import print_table
from cdc_merge.config.problems import did_you_mean
from cdc_merge.errors import NotFound
from cdc_merge.model import Conflict
from cdc_merge.queries.cell_text import ABSENT
from cdc_merge.queries.documents import Document, Fields, time_json
from cdc_merge.queries.port import QueryPort

PAGE: Final = 500
JOB: Final = "unknown actor"


def _sources(conflict: Conflict) -> str:
    return " + ".join(sorted({candidate.source for candidate in conflict.detected.candidates}))


def _actors(conflict: Conflict) -> list[str]:
    return sorted({candidate.actor or JOB for candidate in conflict.detected.candidates})


DIMENSIONS: Final[Mapping[str, Callable[[Conflict], Iterable[str]]]] = {
    "entity": lambda conflict: [conflict.detected.entity],
    "field": lambda conflict: [conflict.detected.group or conflict.detected.field or ABSENT],
    "pair": lambda conflict: [_sources(conflict)],
    "actor": _actors,
    "label": lambda conflict: conflict.detected.labels or (ABSENT,),
    "kind": lambda conflict: [conflict.detected.kind],
    "severity": lambda conflict: [conflict.detected.severity],
    "status": lambda conflict: [conflict.status],
    "rule": lambda conflict: [conflict.detected.rule or ABSENT],
}
"""Name → the groups of a conflict: one, or one for each of its actors and labels. `pair`: the sources of its candidates."""


@dataclass(slots=True)
class Group:
    """So many conflicts have these values. `latest` is the id of the newest one."""

    values: tuple[str, ...]
    count: int
    first_us: int
    last_us: int
    latest: str


def dimensions_of(text: str | None) -> tuple[str, ...]:
    """`field,pair` as names. BadParameter for one that does not exist."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text else ()
    for name in names:
        if name not in DIMENSIONS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(DIMENSIONS)}.", param_hint="--group-by")
    return names


def every_conflict(
    queries: QueryPort, where: Mapping[str, str], cursor: str | None, label: str | None
) -> Iterator[Conflict]:
    while True:
        page = queries.conflicts(where, cursor, PAGE)
        yield from (each for each in page.items if label is None or label in each.detected.labels)
        cursor = page.next_cursor
        if cursor is None:
            return


def groups_of(conflicts: Iterable[Conflict], dimensions: tuple[str, ...]) -> list[Group]:
    """The most frequent first; of equal ones the newest."""
    groups: dict[tuple[str, ...], Group] = {}
    for conflict in conflicts:
        for values in itertools.product(*(DIMENSIONS[name](conflict) for name in dimensions)):
            group = groups.setdefault(values, Group(values, 0, conflict.raised_us, conflict.raised_us, conflict.id))
            group.count += 1
            group.first_us = min(group.first_us, conflict.raised_us)
            if conflict.raised_us >= group.last_us:
                group.last_us, group.latest = conflict.raised_us, conflict.id
    return sorted(groups.values(), key=lambda group: (-group.count, -group.last_us))


def print_groups(invocation: Invocation, groups: list[Group], dimensions: tuple[str, ...], limit: int) -> None:
    shown = groups[:limit]
    if invocation.as_json:
        items: list[Document] = [_document(group, dimensions) for group in shown]
        print_json({"items": items, "next_cursor": None})
        return
    headings = ("COUNT", *(name.upper() for name in dimensions), "FIRST RAISED", "LAST RAISED", "LATEST")
    rows = [(str(g.count), *g.values, time_json(g.first_us), time_json(g.last_us), g.latest) for g in shown]
    print_table(headings, rows)
    if len(groups) > limit:
        click.echo(f"{len(groups) - limit} more groups: --limit {len(groups)}", err=True)


def _document(group: Group, dimensions: tuple[str, ...]) -> Fields:
    values: dict[str, Document] = {
        name: None if value == ABSENT else value for name, value in zip(dimensions, group.values, strict=True)
    }
    times = {"first_raised_at": time_json(group.first_us), "last_raised_at": time_json(group.last_us)}
    return {"count": group.count, **values, **times, "latest": group.latest}


def refuse_unknown_names(invocation: Invocation, queries: QueryPort, where: Mapping[str, str]) -> None:
    """NotFound for an entity or a source that neither the configuration nor a stored conflict has: a misspelt filter would
    look like an empty queue."""
    settings = load_settings(invocation)
    configured = {"entity": settings.plan.entities.keys(), "source": settings.sources.keys()}
    for name, names in configured.items():
        wanted = where.get(name)
        if wanted is None or wanted in names or queries.conflicts({name: wanted}, None, 1).items:
            continue
        raise NotFound(f"There is no {name} {wanted}.", hint=f"{did_you_mean(wanted, names).capitalize()}")
