"""The 17 rules of grafana's dashboard-linter, written anew over the dashboards' JSON, with some of its gaps closed.

Each rule takes a dashboard and yields sentences about what breaks it. Differences from the original: a raw counter is
recognised by its name also when it has labels; tables, heatmaps and stats are looked at like all panels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import promql_parser

from tests.system.observability.vocabulary import COUNTER, metric_types, recorded_names, selectors

Board = Mapping[str, Any]  # Grafana's JSON
SOURCE: Final = "${datasource}"
UNITS: Final = {"short", "s", "bytes", "Bps", "ops", "cps", "rowsps", "percentunit"}
# Longest first: one name may begin another.
VALUES: Final = {
    "$__rate_interval": "5m",
    "$__interval": "1m",
    "$__range": "1h",
}


def substituted(expr: str, values: Mapping[str, str] = VALUES) -> str:
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(name, values[name])
    return expr


def panels(board: Board) -> Iterator[Mapping[str, Any]]:
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def targets(board: Board) -> Iterator[tuple[str, str]]:
    """(panel title, expression)"""
    for panel in panels(board):
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets") or ())


def variables(board: Board) -> dict[str, Mapping[str, Any]]:
    return {each["name"]: each for each in board["templating"]["list"]}


# ---------------------------------------------------------------- variables


def template_datasource(board: Board) -> Iterator[str]:
    found = variables(board).get("datasource", {})
    if (found.get("type"), found.get("query"), found.get("label")) != ("datasource", "prometheus", "Data source"):
        yield "there is no variable datasource of Prometheus, labelled Data source"


def _query_variable(board: Board, name: str) -> Iterator[str]:
    found = variables(board).get(name)
    if found is None:
        yield f"there is no variable {name}"
        return
    wanted = {"type": "query", "multi": True, "includeAll": True, "allValue": ".+", "label": name.capitalize()}
    yield from (f"variable {name}: {key} is {found.get(key)!r}" for key in wanted if found.get(key) != wanted[key])
    if found["datasource"]["uid"] != SOURCE:
        yield f"variable {name} uses another data source"


def template_job(board: Board) -> Iterator[str]:
    yield from _query_variable(board, "job")


def template_instance(board: Board) -> Iterator[str]:
    yield from _query_variable(board, "instance")


def template_label_promql(board: Board) -> Iterator[str]:
    for name, each in variables(board).items():
        if each["type"] == "query" and (said := re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"])):
            yield from _unreadable(f"variable {name}", said[1])
        elif each["type"] == "query":
            yield f"variable {name} is no label_values(metric, label)"


def template_on_time_change_reload(board: Board) -> Iterator[str]:
    queries = (each for each in board["templating"]["list"] if each["type"] == "query")
    yield from (f"variable {each['name']} is not read again with the time" for each in queries if each["refresh"] != 2)


# ---------------------------------------------------------------- panels


def panel_datasource(board: Board) -> Iterator[str]:
    for panel in panels(board):
        datasources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        if any(each["uid"] != SOURCE for each in datasources):
            yield f"panel {panel['title']} has a data source of its own"


def panel_title_description(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description", "").endswith("."):
            yield f"panel {panel.get('id')} {panel.get('title')!r} has no title, or no sentence that describes it"


def panel_units(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield f"panel {panel['title']} has no unit that Grafana knows"


def panel_no_targets(board: Board) -> Iterator[str]:
    yield from (f"panel {panel['title']} has no query" for panel in panels(board) if not panel.get("targets"))


# ---------------------------------------------------------------- expressions


def _unreadable(where: str, expr: str) -> Iterator[str]:
    try:
        promql_parser.parse(substituted(expr))
    except ValueError as error:
        yield f"{where}: {error}"


def target_promql(board: Board) -> Iterator[str]:
    for title, expr in targets(board):
        yield from _unreadable(f"panel {title}", expr)


def target_logql(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if any(target["datasource"]["type"] != "prometheus" for target in panel["targets"]):
            yield f"panel {panel['title']} queries something other than Prometheus"


def target_logql_auto(board: Board) -> Iterator[str]:
    yield from (
        f"panel {title} uses $__auto, which PromQL has not" for title, expr in targets(board) if "$__auto" in expr
    )


def target_rate_interval(board: Board) -> Iterator[str]:
    for title, expr in targets(board):
        for function, window in re.findall(r"\b(i?rate)\([^\[]*\[([^\]]*)\]", expr):
            if window != "$__rate_interval":
                yield f"panel {title}: {function} over {window}"


def _without(board: Board, label: str) -> Iterator[str]:
    for title, expr in targets(board):
        for selector in selectors(substituted(expr)):
            if f'{label}=~"${label}"' not in re.sub(r"\s", "", str(selector.matchers) + substituted(expr)):
                yield f"panel {title}: {selector.name} is not narrowed by ${label}"
        wanted = len(list(selectors(substituted(expr))))
        if expr.count(f'{label}=~"${label}"') != wanted:
            yield f"panel {title}: not every selector is narrowed by ${label}"


def target_job(board: Board) -> Iterator[str]:
    yield from _without(board, "job")


def target_instance(board: Board) -> Iterator[str]:
    yield from _without(board, "instance")


def target_counter_agg(board: Board) -> Iterator[str]:
    for title, expr in targets(board):
        bare = re.sub(r"\b(rate|irate|increase)\([^()]*\)", "", expr)
        for name in re.findall(r"\b(\w+_(?:total|bucket|count|sum))\b(?=\{)", bare):
            if metric_types().get(name) in (COUNTER, "histogram"):
                yield f"panel {title} shows the counter {name} itself"


def uneditable_dashboard(board: Board) -> Iterator[str]:
    if board["editable"]:
        yield "the dashboard can be edited"


RULES: Final[tuple[Callable[[Board], Iterator[str]], ...]] = (
    template_datasource,
    template_job,
    template_instance,
    template_label_promql,
    template_on_time_change_reload,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    target_promql,
    target_logql,
    target_logql_auto,
    target_rate_interval,
    target_job,
    target_instance,
    target_counter_agg,
    uneditable_dashboard,
)


# ---------------------------------------------------------------- beyond the original


def unique_ids(board: Board) -> Iterator[str]:
    ids = [panel["id"] for panel in board["panels"]]
    yield from (f"two panels have the id {each}" for each in {*ids} if ids.count(each) > 1)


def no_overlap(board: Board) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        if at["x"] + at["w"] > 24 or any(cell in taken for cell in cells):
            yield f"panel {panel['title']} lies over another or beyond the edge"
        taken.update(dict.fromkeys(cells, panel["title"]))


def lines_have_legends(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if panel["type"] == "timeseries" and not all(target["legendFormat"] for target in panel["targets"]):
            yield f"panel {panel['title']} does not name its lines"


def exposed_metrics(board: Board) -> Iterator[str]:
    known = {*metric_types(), *recorded_names(), "up", "ALERTS"}
    for title, expr in targets(board):
        for selector in selectors(substituted(expr)):
            if selector.name not in known:
                yield f"panel {title} queries {selector.name}, which is not exposed"


def no_rate_of_gauges(board: Board) -> Iterator[str]:
    for title, expr in targets(board):
        for name in re.findall(r"\b(?:rate|irate|increase)\((\w+)", expr):
            if metric_types().get(name) not in (COUNTER, "histogram"):
                yield f"panel {title} takes the rate of {name}, which is no counter"


MORE_RULES: Final = (unique_ids, no_overlap, lines_have_legends, exposed_metrics, no_rate_of_gauges)
