"""What a dashboard consists of, in the words of its tables. Values only; `drawing` knows Grafana.

Every selector is written `{SELECT}` or `{SELECT, …}`: job and instance come from the dashboard's variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# The matchers that every selector has.
JOB: Final = 'job=~"$job", instance=~"$instance"'
FIRING: Final = f'ALERTS{{alertname=~"CdcMerge.+", alertname!="CdcMergeWatchdog", alertstate="firing", {JOB}}}'
ENTITY: Final = f'{JOB}, entity=~"$entity"'
SOURCE: Final = f'{JOB}, source=~"$source"'

STAT, LINES, TABLE, HEATMAP, BARS = "stat", "lines", "table", "heatmap", "bars"
GREEN, YELLOW, RED = "green", "yellow", "red"
# (colour, from this value on); the first has no lower end.
Steps = tuple[tuple[str, float | None], ...]
NEUTRAL: Final[Steps] = ((GREEN, None),)
NONE_WANTED: Final[Steps] = ((GREEN, None), (RED, 1))
ALL_WANTED: Final[Steps] = ((RED, None), (GREEN, 1))


@dataclass(frozen=True, slots=True)
class Query:
    """`instant` queries ask for now, the others for the range on display."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a panel. `url` may use `${__data.fields.…}` and `${__field.labels.…}`."""

    title: str
    url: str


RUNBOOKS: Final = "docs/runbooks/"


def runbook(alert: str) -> Link:
    """The page of an alert."""
    return Link(f"Runbook {alert}", f"{RUNBOOKS}{alert}.md")


@dataclass(frozen=True, slots=True)
class Panel:
    """`width` is of 24 columns. `description` says what is seen and what to do about it."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    steps: Steps = NEUTRAL
    links: tuple[Link, ...] = ()
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A list that narrows the dashboard; its values are those of one label."""

    name: str
    label: str
    metric: str


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    span: str = "now-6h"


BY_ENTITY: Final = Variable("entity", "Entity", "cdc_merge_merges_total")
BY_SOURCE: Final = Variable("source", "Source", "cdc_merge_source_up")
