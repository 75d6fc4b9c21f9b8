"""Tables on stdout: drawn on a terminal, plain aligned columns elsewhere. Control characters in values are escaped."""

from __future__ import annotations

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
    """One row per line; the lines of a cell stay on a terminal and are joined by `; ` in plain text."""
    if sys.stdout.isatty():
        Console(highlight=False).print(_drawn(headings, rows))
    else:
        for line in plain_lines(headings, rows):
            click.echo(line)


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table


def plain_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned by what a terminal shows: a Chinese character is two cells wide."""
    cells = [[*headings], *([printable(cell.replace("\n", "; ")) for cell in row] for row in rows)]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return [
        GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def printable(text: str) -> str:
    """The text with control characters escaped: a value could otherwise rewrite the terminal line that shows it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say(text: str) -> None:
    """One line on stdout."""
    click.echo(printable(text))
