"""A `Board` as Grafana's JSON, by way of grafana-foundation-sdk.

What the SDK leaves out and a reader needs is set here: panel ids, legends, the units and thresholds of every panel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Final

from grafana.panels import (
    BARS,
    FIRING,
    HEATMAP,
    JOB,
    LINES,
    RUNBOOKS,
    STAT,
    TABLE,
    Board,
    Link,
    Panel,
    Query,
    Steps,
    Variable,
)

# The SDK would rather make schema v2, which only the newest Grafana reads.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        bargauge,
        common,
        dashboard,
        heatmap,
        prometheus,
        stat,
        table,
        timeseries,
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as common_model
    from grafana_foundation_sdk.models import dashboard as model
    from grafana_foundation_sdk.models import prometheus as prometheus_model

SOURCE: Final = common_model.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT: Final = {STAT: 4, LINES: 8, TABLE: 8, HEATMAP: 8, BARS: 8}
TAG: Final = "cdc_merge"
REFRESH: Final = "30s"
Builder = Any  # the SDK's panel builders share their methods, but no type


def json_of(board: Board) -> str:
    """The dashboard's JSON, keys sorted, with a newline at its end."""
    text = JSONEncoder(sort_keys=True, indent=2).encode(_dashboard(board).build())
    return f"{text}\n"


def _dashboard(board: Board) -> dashboard.Dashboard:
    drawn = (
        dashboard.Dashboard(f"cdc_merge / {board.title}")
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .refresh(REFRESH)
        .time(board.span, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in _variables(board):
        drawn = drawn.with_variable(variable)
    for annotation in _annotations():
        drawn = drawn.annotation(annotation)
    for link in _links():
        drawn = drawn.link(link)
    ids = count(1)
    for row in board.rows:
        drawn = drawn.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            drawn = drawn.with_panel(_panel(panel).id(next(ids)))
    return drawn


def _variables(board: Board) -> Iterator[dashboard.QueryVariable]:
    metric = "cdc_merge_build_info"
    yield _variable("job", "Job", f"label_values({metric}, job)")
    yield _variable("instance", "Instance", f'label_values({metric}{{job=~"$job"}}, instance)')
    for each in board.variables:
        yield _of_label(each)


def _of_label(each: Variable) -> dashboard.QueryVariable:
    return _variable(each.name, each.label, f"label_values({each.metric}{{{JOB}}}, {each.name})")


def _variable(name: str, label: str, values: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)  # noqa: FBT003 the SDK's own signature
        .include_all(True)  # noqa: FBT003
        .all_value(".+")
    )


def _annotations() -> Iterator[dashboard.AnnotationQuery]:
    told = (
        ("Alerts", "red", FIRING),
        ("Restarts", "blue", f"changes(process_start_time_seconds{{{JOB}}}[1m]) > 0"),
        ("Reloads", "purple", f"changes(cdc_merge_config_last_reload_success_timestamp_seconds{{{JOB}}}[1m]) > 0"),
    )
    for name, colour, expr in told:
        yield dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(expr)  # noqa: FBT003


def _links() -> Iterator[dashboard.DashboardLink]:
    boards = dashboard.DashboardLink("cdc_merge").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    yield boards.as_dropdown(True).include_vars(True).keep_time(True).icon("external link")  # noqa: FBT003
    runbooks = dashboard.DashboardLink("Runbooks").type(model.DashboardLinkType.LINK).url(RUNBOOKS)
    yield runbooks.target_blank(True).icon("doc")  # noqa: FBT003


# ---------------------------------------------------------------- panels


def _stat() -> Builder:
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_model.BigValueGraphMode.NONE)
    )


def _lines() -> Builder:
    legend = common.VizLegendOptions().show_legend(True).display_mode(common_model.LegendDisplayMode.LIST)  # noqa: FBT003
    shown = legend.placement(common_model.LegendPlacement.BOTTOM)
    many = common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI)
    drawn = timeseries.Panel().legend(shown).tooltip(many).fill_opacity(10)
    return drawn.show_points(common_model.VisibilityMode.NEVER)


def _heatmap() -> Builder:
    return heatmap.Panel().calculate(False)  # noqa: FBT003


def _bars() -> Builder:
    return (
        bargauge.Panel()
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


KINDS: Final[Mapping[str, Callable[[], Builder]]] = {
    STAT: _stat,
    LINES: _lines,
    TABLE: table.Panel,
    HEATMAP: _heatmap,
    BARS: _bars,
}


def _panel(panel: Panel) -> Builder:
    drawn = (
        KINDS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
        .height(HEIGHT[panel.kind])
        .span(panel.width)
        .thresholds(_thresholds(panel.steps))
    )
    if panel.most is not None:
        drawn = drawn.max(panel.most)
    if panel.links:
        drawn = drawn.data_links([_data_link(link) for link in panel.links])
    for query, letter in zip(panel.queries, "ABCDEFGH", strict=False):
        drawn = drawn.with_target(_target(query, panel.kind).ref_id(letter))
    return drawn


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [model.Threshold(color=colour, value=value) for colour, value in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _data_link(link: Link) -> dashboard.DashboardLink:
    made = dashboard.DashboardLink(link.title).type(model.DashboardLinkType.LINK).url(link.url)
    return made.target_blank(True)  # noqa: FBT003


def _target(query: Query, kind: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().datasource(SOURCE).expr(query.expr).legend_format(query.legend)
    if kind == TABLE:
        return made.format(prometheus_model.PromQueryFormat.TABLE).instant()
    if kind == HEATMAP:
        return made.format(prometheus_model.PromQueryFormat.HEATMAP).range()
    return made.range() if kind == LINES else made.instant()
