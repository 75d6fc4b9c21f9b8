"""The dashboards as pictures for the documentation, drawn from what a real Prometheus answers.

`python -m grafana.pictures http://127.0.0.1:9090 docs/dashboards` asks every query over the last minutes and writes one SVG for
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
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from grafana.__main__ import DASHBOARDS
from grafana.drawing import HEIGHT
from grafana.panels import BARS, HEATMAP, LINES, STAT, TABLE, Board, Panel, Query

COLUMN, LINE = 50, 26  # pixels of one of 24 columns, and of one unit of height
SPAN_S, STEP_S = 90, 1
MOST_ROWS: Final = 8
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
VALUES: Final = {"$__rate_interval": "8s", "$__range": f"{SPAN_S}s"}


class Series(NamedTuple):
    """`points` are (seconds since 1970, value)."""

    name: str
    labels: Mapping[str, str]
    points: list[tuple[float, float]]


class Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float


def asked(address: str, query: Query, now_s: float) -> list[Series]:
    """The range on display, with every variable at All."""
    expr = re.sub(r'=~"\$\w+"', '=~".+"', query.expr)
    for name, value in VALUES.items():
        expr = expr.replace(name, value)
    asked_for = {"query": expr, "start": now_s - SPAN_S, "end": now_s, "step": STEP_S}
    with urllib.request.urlopen(
        f"{address}/api/v1/query_range?{urllib.parse.urlencode(asked_for)}", timeout=30
    ) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return [_series(query, each["metric"], each["values"]) for each in found]


def _series(query: Query, labels: Mapping[str, str], values: list[tuple[float, str]]) -> Series:
    name = re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), query.legend)
    numbers = [(at_s, float(value)) for at_s, value in values]
    return Series(name, labels, [(at_s, value) for at_s, value in numbers if math.isfinite(value)])


# ---------------------------------------------------------------- words and marks


def shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit in ("bytes", "Bps") and abs(value) >= 1024:
        power = min(3, int(math.log(abs(value), 1024)))
        return f"{value / 1024**power:.3g} {('', 'Ki', 'Mi', 'Gi')[power]}B"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g}{' s' if unit == 's' else ''}"


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{escape(words)}</text>'


def _lines(panel: Panel, box: Box, found: list[Series], now_s: float) -> Iterator[str]:
    top = max((value for each in found for _, value in each.points), default=0) or 1
    yield text(box.x, box.y + 8, shown(top, panel.unit), 'class="small"')
    height = box.height - 34
    for number, each in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{box.x + box.width * (1 - (now_s - at_s) / SPAN_S):.1f},{box.y + 14 + height * (1 - max(0, value) / top):.1f}"
            for at_s, value in each.points
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    names = ((COLOURS[number % len(COLOURS)], each.name) for number, each in enumerate(found[:MOST_ROWS]))
    spans = "  ".join(f'<tspan fill="{colour}">{escape(name)} </tspan>' for colour, name in names)
    yield f'<text x="{box.x:.0f}" y="{box.y + box.height - 4:.0f}" class="small">{spans}</text>'


def _last(found: list[Series]) -> list[tuple[Series, float]]:
    return sorted(((each, each.points[-1][1]) for each in found if each.points), key=lambda pair: -pair[1])


def _stat(panel: Panel, box: Box, found: list[Series], now_s: float) -> Iterator[str]:
    last = _last(found)
    words = shown(last[0][1], panel.unit) if last else ("∞" if found else "–")
    yield text(box.x + box.width / 2, box.y + box.height / 2 + 12, words, 'class="big" text-anchor="middle"')


def _rows(panel: Panel, box: Box, found: list[Series], now_s: float) -> Iterator[str]:
    for number, (each, value) in enumerate(_last(found)[:MOST_ROWS]):
        y = box.y + 12 + number * 19
        words = each.name or " · ".join(label for name, label in sorted(each.labels.items()) if name != "instance")
        yield text(box.x, y, words)
        yield text(box.x + box.width, y, shown(value, panel.unit), 'text-anchor="end"')


def _bars(panel: Panel, box: Box, found: list[Series], now_s: float) -> Iterator[str]:
    last = _last(found)[:MOST_ROWS]
    for number, (_, value) in enumerate(last):
        width = (box.width - 60) * value / (last[0][1] or 1)
        yield f'<rect x="{box.x:.0f}" y="{box.y + number * 19:.0f}" width="{width:.0f}" height="15" fill="#9ecae1"/>'
    yield from _rows(panel, box, found, now_s)


def _heatmap(panel: Panel, box: Box, found: list[Series], now_s: float) -> Iterator[str]:
    ordered = sorted(found, key=lambda each: float(each.labels["le"]))
    height = (box.height - 10) / max(1, len(ordered))
    below: dict[float, float] = {}
    most = max((value for _, value in ordered[-1].points), default=0) if ordered else 0
    for number, each in enumerate(ordered):
        y = box.y + box.height - 10 - (number + 1) * height
        yield text(box.x, y + height, each.labels["le"], 'class="small"')
        for at_s, value in each.points:
            share = (value - below.get(at_s, 0)) / (most or 1)
            x = box.x + 40 + (box.width - 40) * (1 - (now_s - at_s) / SPAN_S)
            if share > 0:
                yield f'<rect x="{x:.1f}" y="{y:.1f}" width="5" height="{height:.1f}" fill="#d62728" opacity="{share:.2f}"/>'
        below = dict(each.points)


Mark = Callable[[Panel, Box, list[Series], float], Iterator[str]]
MARKS: Final[Mapping[str, Mark]] = {LINES: _lines, STAT: _stat, TABLE: _rows, BARS: _bars, HEATMAP: _heatmap}


# ---------------------------------------------------------------- a whole dashboard


def picture(board: Board, address: str) -> str:
    """The board as SVG."""
    now_s = time.time()
    marks: list[str] = []
    y = 40.0
    for row in board.rows:
        marks.append(text(8, y + 18, row.title, 'class="row"'))
        y += LINE
        x = 0.0
        for panel in row.panels:
            width, height = panel.width * COLUMN, HEIGHT[panel.kind] * LINE
            if x + width > 24 * COLUMN:
                x, y = 0.0, y + height
            marks += _framed(panel, Box(x + 4, y + 4, width - 8, height - 8), address, now_s)
            x += width
        y += HEIGHT[row.panels[-1].kind] * LINE
    style = "text{font:12px sans-serif}.small{font-size:10px;fill:#555}.big{font-size:26px}.row,.name{font-weight:600}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{24 * COLUMN}" height="{y:.0f}"><style>{style}</style>'
    ground = f'<rect width="100%" height="100%" fill="#fff"/>{text(8, 26, f"cdc_merge / {board.title}", "class=row")}'
    return "\n".join((head, ground.replace("class=row", 'class="row"'), *marks, "</svg>\n"))


def _framed(panel: Panel, frame: Box, address: str, now_s: float) -> Iterator[str]:
    """The panel in a picture of its own, which cuts off what is too long."""
    x, y, width, height = frame
    yield f'<svg x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}">'
    yield '<rect width="100%" height="100%" fill="none" stroke="#d0d7de" stroke-width="2"/>'
    yield text(8, 17, panel.title, 'class="name"')
    found = [series for query in panel.queries for series in asked(address, query, now_s)]
    yield from MARKS[panel.kind](panel, Box(8, 30, width - 16, height - 34), found, now_s)
    yield "</svg>"


def main(arguments: list[str]) -> int:
    address, directory = arguments[0], Path(arguments[1])
    directory.mkdir(parents=True, exist_ok=True)
    for board in DASHBOARDS:
        (directory / f"{board.uid}.svg").write_text(picture(board, address), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
