"""The demo's display: on a terminal three systems side by side with the latest conflicts, elsewhere plain lines."""

from __future__ import annotations

import time
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cdc_merge.demo.conflict_tally import Line
from cdc_merge.demo.play import Scene
from cdc_merge.demo.sentences import TITLES
from cdc_merge.demo.systems import SOURCES
from cdc_merge.demo.truth import OPEN

COLOURS: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}
MARKS: Final = {"raised": "!", "closed": "✓", "source": "·"}
SPAN_S: Final = 5.0  # the rate of changes is over this time
HEADER_LINES: Final = 5
FOOTER_LINES: Final = 3


def addresses(scene: Scene) -> list[str]:
    """The addresses of console, API, metrics and databases."""
    return [
        f"console        {scene.address}/",
        f"conflicts      {scene.address}/api/v1/conflicts",
        f"metrics        {scene.address}/metrics",
        f"configuration  {scene.config}",
        *(f"{TITLES[source]:14} {dsn}" for source, dsn in scene.dsns.items()),
    ]


class PlainScreen:
    """Lines of text; for pipes, logs and `--output json`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._printed = 0

    def say(self, sentence: str) -> None:
        self._stream.write(f"{sentence}\n")
        self._stream.flush()

    def open(self, scene: Scene) -> None:
        for line in addresses(scene):
            self.say(f"  {line}")

    def tick(self, scene: Scene) -> None:
        self._printed, lines = scene.tally.lines_after(self._printed)
        for line in lines:
            if line.tone != "closed":
                self.say(f"{MARKS[line.tone]} {line.kind}: {line.text}")

    def close(self) -> None:
        self._stream.flush()


class LiveScreen:
    """A full terminal, repainted four times a second; the terminal's content is restored at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._past: list[tuple[float, dict[str, int]]] = []
        self._message = ""

    def say(self, sentence: str) -> None:
        self._message = sentence
        if self._live is None:
            self._console.print(sentence, style="dim")

    def open(self, scene: Scene) -> None:
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._live.start()
        self._message = "Ctrl-C ends the demo with a summary."

    def tick(self, scene: Scene) -> None:
        if self._live is not None:
            self._live.update(self._paint(scene), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # ------------------------------------------------------------ painting

    def _paint(self, scene: Scene) -> Layout:
        height = self._console.size.height
        middle = max(6, (height - HEADER_LINES - FOOTER_LINES) // 2)
        layout = Layout()
        layout.split_column(
            Layout(self._header(scene), size=HEADER_LINES),
            Layout(name="systems", size=middle),
            Layout(self._conflicts(scene, height - HEADER_LINES - FOOTER_LINES - middle - 2)),
            Layout(self._footer(scene), size=FOOTER_LINES),
        )
        rates = self._rates(scene)
        layout["systems"].split_row(*(self._system(scene, source, rates, middle - 3) for source in SOURCES))
        return layout

    def _header(self, scene: Scene) -> RenderableType:
        left = "until Ctrl-C" if scene.left_s is None else f"{scene.left_s:.0f} s left"
        places = Table.grid(padding=(0, 2))
        places.add_row("console", f"{scene.address}/", "metrics", f"{scene.address}/metrics")
        places.add_row("config", str(scene.config), "psql", f"psql '{scene.dsns['crm']}'")
        title = "cdc-merge: three PostgreSQL servers with the same customers, orders and contracts"
        return Panel(Group(places, Text(self._message, style="dim")), title=title, subtitle=left)

    def _rates(self, scene: Scene) -> dict[str, float]:
        now = dict(scene.journal.rows)
        at = time.monotonic()
        self._past = [(when, rows) for when, rows in self._past if at - when <= SPAN_S] + [(at, now)]
        since, before = self._past[0]
        span = max(at - since, 1e-3)
        return {source: (now[source] - before[source]) / span for source in now}

    def _system(self, scene: Scene, source: str, rates: dict[str, float], lines: int) -> Layout:
        edits = list(scene.journal.edits[source])[-lines:]
        body = Table.grid(padding=(0, 1))
        for edit in edits:
            style = "dim" if edit.who in ("etl", "importer") else ""
            body.add_row(Text(edit.who, style="cyan"), Text(edit.sentence, style=style, no_wrap=True))
        status = scene.sources.get(source, {})
        lag = status.get("lag_seconds")
        up = "up" if status.get("up") else "connecting"
        behind = "" if lag is None else f", {lag:.1f} s behind"
        state = f"{scene.journal.rows[source]} changes, {rates[source]:.0f}/s, {up}{behind}"
        return Layout(Panel(body, title=TITLES[source], subtitle=state))

    def _conflicts(self, scene: Scene, lines: int) -> RenderableType:
        _, latest = scene.tally.lines_after(0)
        shown = [_coloured(line) for line in latest[-max(1, lines) :]]
        return Panel(Group(*shown), title="latest conflicts")

    def _footer(self, scene: Scene) -> RenderableType:
        planned = list(scene.world.expected_conflicts().values())
        detection = scene.tally.detection()
        text = (
            f"expected conflicts {len(planned)}, open {planned.count(OPEN)}   "
            f"merged automatically {scene.tally.merged('merged')}   "
            f"commit → on disk p50 {detection['p50'] * 1000:.0f} ms, p99 {detection['p99'] * 1000:.0f} ms"
        )
        return Panel(Text(text, no_wrap=True))


def _coloured(line: Line) -> Text:
    style = "green" if line.tone == "closed" else COLOURS.get(line.severity, "dim")
    return Text(f"{MARKS[line.tone]} {line.kind:17} {line.text}", style=style, no_wrap=True, overflow="ellipsis")
