"""Tables on stdout: drawn on a terminal, plain aligned columns elsewhere. Control characters in values are escaped."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP: Final = "  "
INDENT: Final = "    "
WIDTH: Final = 100
"""The columns of a terminal or a ticket that every table fits."""
Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(command: Command) -> Command:
    """`--output`, accepted after the command as well as before it."""
    return click.option(
        "--output",
        type=click.Choice(["table", "json"]),
        expose_value=False,
        callback=_choose_output,
        help="How data is printed on stdout.",
    )(command)


def _choose_output(context: click.Context, _: click.Parameter, output: str | None) -> None:
    if output is not None:
        context.obj = replace(context.obj, output=output)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One row per line, drawn on a terminal that is wide enough; the lines of a cell are joined by `; ` in plain text."""
    console = Console(highlight=False)
    width = console.width if sys.stdout.isatty() else WIDTH
    drawn = _drawn(headings, rows)
    if sys.stdout.isatty() and console.measure(drawn).maximum <= width:
        console.print(drawn)
        return
    for line in plain_lines(headings, rows, width):
        click.echo(line)


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table


def plain_lines(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[str]:
    """Columns aligned by what a terminal shows: a Chinese character is two cells wide.

    Columns beyond `width` follow below their row, indented and labelled: no cell is cut, so that an id can be copied.
    """
    cells = [[*headings], *([printable(cell.replace("\n", "; ")) for cell in row] for row in rows)]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]
    beside = _fitting(widths, width)
    lines = []
    for number, row in enumerate(cells):
        padded = (cell + " " * (own - cell_len(cell)) for cell, own in zip(row[:beside], widths, strict=False))
        lines.append(GAP.join(padded).rstrip())
        if number and beside < len(row):
            labelled = [f"{name.lower()}: {cell}" for name, cell in zip(headings[beside:], row[beside:], strict=True)]
            lines += _wrapped(GAP.join(labelled), width)
    return lines


def _fitting(widths: Sequence[int], width: int) -> int:
    """How many columns fit into one line, at least one."""
    ends = itertools.accumulate(own + len(GAP) for own in widths)
    return max(1, sum(end - len(GAP) <= width for end in ends))


def _wrapped(text: str, width: int) -> list[str]:
    """Indented lines that break at spaces; a longer word stays whole."""
    lines = [INDENT]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] != INDENT else INDENT + word
        if cell_len(longer) > width and lines[-1] != INDENT:
            longer = INDENT + word
            lines.append("")
        lines[-1] = longer
    return lines


def printable(text: str) -> str:
    """The text with control characters escaped: a value could otherwise rewrite the terminal line that shows it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say(text: str) -> None:
    """One line on stdout."""
    click.echo(printable(text))
