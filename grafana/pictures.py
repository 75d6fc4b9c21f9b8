"""The dashboards as pictures for the documentation, drawn from what a real Prometheus answers.

`python -m grafana.pictures http://127.0.0.1:9090 docs/dashboards` asks every query over the last minutes and writes one PNG for
each dashboard. It is a drawing of the data in the dashboard's layout, not of Grafana.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from grafana.__main__ import DASHBOARDS
from grafana.drawing import HEIGHT
from grafana.panels import BARS, HEATMAP, LINES, STAT, TABLE, Board, Panel, Query

# Pixels of one of 24 columns, of one unit of height, of a row's title; and of what surrounds a panel's plot.
COLUMN, UNIT, TITLE = 58, 27, 36
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 22
LEGEND_LINE, LETTER = 15, 6.3
DPI: Final = 100
SPAN_S, STEP_S = 90, 1
MOST_ROWS, MOST_NAMES = 8, 9
INK, FAINT, EDGE = "#24292f", "#6e7781", "#d0d7de"
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#bcbd22")
LIGHTS: Final = {"green": "#1a7f37", "yellow": "#9a6700", "red": "#cf222e"}
VALUES: Final = {"$__rate_interval": "8s", "$__range": f"{SPAN_S}s"}


class Series(NamedTuple):
    """`points` are (seconds since 1970, value); `is_infinite` where its last value is."""

    name: str
    labels: Mapping[str, str]
    points: list[tuple[float, float]]
    is_infinite: bool = False


class Box(NamedTuple):
    """Pixels from the upper left."""

    x: float
    y: float
    width: float
    height: float


class Drawn(NamedTuple):
    """A panel's place on the picture, and what was found for it."""

    figure: Figure
    box: Box
    panel: Panel
    found: list[Series]
    now_s: float


def queried(address: str, query: Query, now_s: float) -> list[Series]:
    """The range on display, with every variable at All."""
    expr = re.sub(r'=~"\$\w+"', '=~".+"', query.expr)
    for name, value in VALUES.items():
        expr = expr.replace(name, value)
    request = {"query": expr, "start": now_s - SPAN_S, "end": now_s, "step": STEP_S}
    url = f"{address}/api/v1/query_range?{urllib.parse.urlencode(request)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return [_series(query, each["metric"], each["values"]) for each in found]


def _series(query: Query, labels: Mapping[str, str], values: list[tuple[float, str]]) -> Series:
    name = re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), query.legend)
    numbers = [(at_s, float(value)) for at_s, value in values]
    finite = [(at_s, value) for at_s, value in numbers if math.isfinite(value)]
    return Series(name, labels, finite, bool(numbers) and math.isinf(numbers[-1][1]))


# ---------------------------------------------------------------- words


def shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit in ("bytes", "Bps"):
        return _bytes(value) + ("/s" if unit == "Bps" else "")
    if unit == "s":
        return _seconds(value)
    return _counted(value) + {"ops": "/s", "cps": "/s", "rowsps": "/s"}.get(unit, "")


def _counted(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g} k"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 10 else f"{value:.3g}"


def _bytes(value: float) -> str:
    power = min(3, int(math.log(abs(value), 1024))) if abs(value) >= 1 else 0
    return f"{value / 1024**power:.3g} {('', 'Ki', 'Mi', 'Gi')[power]}B"


def _seconds(value: float) -> str:
    if 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(value) >= 2 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} s"


def light(panel: Panel, value: float) -> str:
    """The colour that the panel's thresholds give to a value."""
    reached = [colour for colour, least in panel.steps if least is None or value >= least]
    return LIGHTS[reached[-1]]


def _last(found: list[Series]) -> list[tuple[Series, float]]:
    return sorted(((each, each.points[-1][1]) for each in found if each.points), key=lambda pair: -pair[1])


# ---------------------------------------------------------------- marks


def _text(drawn: Drawn, x: float, y: float, words: str, **style: Any) -> None:  # matplotlib's own styles
    """Words at pixels of the panel."""
    figure, box = drawn.figure, drawn.box
    width, height = figure.get_size_inches() * DPI
    given = {"fontsize": 8.5, "color": INK, "va": "center", **style}
    figure.text((box.x + x) / width, 1 - (box.y + y) / height, words, **given)


def _axes(drawn: Drawn, below: float = 0) -> Axes:
    """The plot of a panel; `below` are pixels kept free for its legend."""
    box = drawn.box
    width, height = drawn.figure.get_size_inches() * DPI
    plot = (box.width - LEFT - RIGHT, box.height - TOP - BOTTOM - below)
    lower = box.y + TOP + plot[1]
    at = ((box.x + LEFT) / width, 1 - lower / height, plot[0] / width, plot[1] / height)
    axes = drawn.figure.add_axes(at)
    axes.tick_params(labelsize=7.5, colors=FAINT, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(EDGE)
    axes.set_xlim(-SPAN_S, 0)
    axes.set_xticks([-90, -60, -30, 0], ["−90 s", "−60 s", "−30 s", "now"])
    axes.xaxis.get_majorticklabels()[0].set_horizontalalignment("left")
    axes.xaxis.get_majorticklabels()[-1].set_horizontalalignment("right")
    return axes


def _lines(drawn: Drawn) -> None:
    named = [(each, COLOURS[number % len(COLOURS)]) for number, each in enumerate(drawn.found)]
    legend = list(
        _legend(
            [(each.name.strip() or "(whole row)", colour) for each, colour in named[:MOST_NAMES]],
            drawn.box.width - 2 * RIGHT,
        )
    )
    axes = _axes(drawn, LEGEND_LINE * len(legend))
    for each, colour in named:
        axes.plot([at_s - drawn.now_s for at_s, _ in each.points], [v for _, v in each.points], color=colour, lw=1.4)
    most = max((value for each in drawn.found for _, value in each.points), default=0.0)
    axes.set_ylim(0, most * 1.08 or 1)
    axes.grid(axis="y", color=EDGE, lw=0.6)
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, drawn.panel.unit))
    for number, line in enumerate(legend):
        y = drawn.box.height - LEGEND_LINE * (len(legend) - number) + 3
        for x, name, colour in line:
            _text(drawn, x, y, "■ " + name, color=colour, fontsize=7.5)


def _legend(names: list[tuple[str, str]], width: float) -> Iterator[list[tuple[float, str, str]]]:
    """Lines of (x, name, colour), each as wide as there is room."""
    line: list[tuple[float, str, str]] = []
    x = float(RIGHT)
    for name, colour in names:
        room = LETTER * (len(name) + 3)
        if line and x + room > width:
            yield line
            line, x = [], float(RIGHT)
        line.append((x, name, colour))
        x += room
    if line:
        yield line


def _stat(drawn: Drawn) -> None:
    last, box = _last(drawn.found)[:3], drawn.box
    middle = box.width / 2, box.height / 2 + 10
    big: dict[str, Any] = {"ha": "center", "fontsize": 21, "fontweight": "bold"}
    if not last:
        is_infinite = any(each.is_infinite for each in drawn.found)
        colour = light(drawn.panel, math.inf) if is_infinite else FAINT
        _text(drawn, *middle, "∞" if is_infinite else "no value", **{**big, "color": colour})
    elif last[0][0].name:
        _text(drawn, *middle, " · ".join(f"{each.name}: {shown(v, drawn.panel.unit)}" for each, v in last), ha="center")
    else:
        value = last[0][1]
        _text(drawn, *middle, shown(value, drawn.panel.unit), **{**big, "color": light(drawn.panel, value)})


def _rows(drawn: Drawn) -> None:
    for number, (words, value) in enumerate(_named(drawn)):
        y = TOP + 12 + number * 20
        _text(drawn, RIGHT, y, words)
        _text(drawn, drawn.box.width - RIGHT, y, shown(value, drawn.panel.unit), ha="right")


def _named(drawn: Drawn) -> Iterator[tuple[str, float]]:
    """The largest, with a name that has room."""
    letters = int((drawn.box.width - 2 * RIGHT - 60) / LETTER)
    for each, value in _last(drawn.found)[:MOST_ROWS]:
        name = each.name or " · ".join(label for key, label in sorted(each.labels.items()) if key != "instance")
        yield (name if len(name) <= letters else f"{name[: letters - 1]}…"), value


def _bars(drawn: Drawn) -> None:
    axes = _axes(drawn)
    named = list(_named(drawn))[::-1]
    axes.barh([name for name, _ in named], [value for _, value in named], color="#9ecae1", height=0.62)
    axes.set_xlim(0, max((value for _, value in named), default=1.0) * 1.15)
    axes.set_xticks([])
    axes.tick_params(axis="y", direction="in", pad=-6, labelsize=8.5, colors=INK)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    for number, (_, value) in enumerate(named):
        axes.annotate(
            shown(value, drawn.panel.unit),
            (value, number),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )


def _heatmap(drawn: Drawn) -> None:
    axes = _axes(drawn)
    ordered = sorted(drawn.found, key=lambda each: float(each.labels["le"]))
    grown = [dict(each.points) for each in ordered]
    counts = [
        {at_s: value - (grown[number - 1].get(at_s, 0.0) if number else 0.0) for at_s, value in each.items()}
        for number, each in enumerate(grown)
    ]
    most = max((value for each in counts for value in each.values()), default=0.0) or 1.0
    for number, each in enumerate(counts):
        for at_s, value in each.items():
            if value > 0:
                cell = Rectangle(
                    (at_s - drawn.now_s, number),
                    1.05,
                    1,
                    color=mpl.colormaps["YlOrRd"](0.15 + 0.85 * value / most),
                    lw=0,
                )
                axes.add_patch(cell)
    axes.set_ylim(0, max(1, len(ordered)))
    edges = [
        shown(float(each.labels["le"]), drawn.panel.unit) if each.labels["le"] != "+Inf" else "more" for each in ordered
    ]
    step = 2 if len(edges) > 8 else 1
    axes.set_yticks([number + 0.5 for number in range(len(edges))][::step], edges[::step])


MARKS: Final[Mapping[str, Callable[[Drawn], None]]] = {
    LINES: _lines,
    STAT: _stat,
    TABLE: _rows,
    BARS: _bars,
    HEATMAP: _heatmap,
}


# ---------------------------------------------------------------- a whole dashboard


def placed(board: Board) -> Iterator[tuple[Box, Panel | str]]:
    """Each row's title and each panel, with its place."""
    y = float(TITLE)
    for row in board.rows:
        yield Box(0, y, 24 * COLUMN, TITLE), row.title
        y += TITLE
        x = row_height = 0.0
        for panel in row.panels:
            width, height = panel.width * COLUMN, HEIGHT[panel.kind] * UNIT
            if x + width > 24 * COLUMN:
                x, y, row_height = 0.0, y + row_height, 0.0
            yield Box(x + 4, y + 4, width - 8, height - 8), panel
            x, row_height = x + width, max(row_height, height)
        y += row_height


def picture(board: Board, ask: Callable[[Query], list[Series]], now_s: float) -> Figure:
    """The board, its data from `ask`."""
    places = list(placed(board))
    height = max(box.y + box.height for box, _ in places) + 8
    figure = Figure((24 * COLUMN / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for box, panel in [(Box(0, 0, 24 * COLUMN, TITLE), f"cdc_merge / {board.title}"), *places]:
        if isinstance(panel, str):
            size = 13 if box.y == 0 else 11
            _text(
                Drawn(figure, box, board.rows[0].panels[0], [], now_s),
                10,
                box.height / 2 + 3,
                panel,
                fontsize=size,
                fontweight="bold",
            )
            continue
        drawn = Drawn(figure, box, panel, [series for query in panel.queries for series in ask(query)], now_s)
        frame = Rectangle(
            (box.x / (24 * COLUMN), 1 - (box.y + box.height) / height),
            box.width / (24 * COLUMN),
            box.height / height,
            transform=figure.transFigure,
            fill=False,
            edgecolor=EDGE,
            lw=1,
        )
        figure.add_artist(frame)
        _text(drawn, RIGHT - 2, 16, panel.title, fontweight="bold", fontsize=9)
        if drawn.found or panel.kind == STAT:
            MARKS[panel.kind](drawn)
        else:
            _text(drawn, box.width / 2, box.height / 2 + 8, "nothing to show", ha="center", color=FAINT)
    return figure


def main(arguments: list[str]) -> int:
    address, directory = arguments[0], Path(arguments[1])
    directory.mkdir(parents=True, exist_ok=True)
    for board in DASHBOARDS:
        now_s = time.time()
        figure = picture(board, partial(queried, address, now_s=now_s), now_s)
        figure.savefig(directory / f"{board.uid}.png", metadata={"Software": None})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
