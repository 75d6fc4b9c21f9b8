"""`cdc-merge demo`: real PostgreSQL servers, people who edit them, the sidecar, and a comparison with the truth."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType

import click
from rich.console import Console

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.demo.play import Screen, Wish, play
from cdc_merge.demo.screen import LiveScreen, PlainScreen

VERIFICATION_FAILED = 4


@click.command(name="demo")
@click.option("--seconds", type=click.FloatRange(min=0), help="End after this time; without it, at Ctrl-C.")
@click.option("--output", type=click.Choice(["table", "json"]), help="How the summary is printed on stdout.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the data in this directory.")
@click.option("--seed", type=int, default=1, show_default=True, help="Other people, other edits.")
@click.pass_obj
def command(invocation: Invocation, seconds: float | None, output: str | None, keep: Path | None, seed: int) -> int:
    """Three real PostgreSQL servers disagree; watch the sidecar understand them.

    Ends with a summary that compares every record and conflict with what the demo's people really did; the exit code
    is 4 if anything deviates.
    """
    as_json = invocation.as_json if output is None else output == "json"
    with stopping() as enough:
        summary = play(Wish(seconds, keep, seed, enough), _screen(as_json=as_json))
    if as_json:
        print_json(summary.document())
    else:
        for line in summary.lines():
            click.echo(line)
    return 0 if summary.is_verified else VERIFICATION_FAILED


def _screen(*, as_json: bool) -> Screen:
    if as_json:
        return PlainScreen(sys.stderr)
    return LiveScreen(Console()) if sys.stdout.isatty() else PlainScreen(sys.stdout)


@contextmanager
def stopping() -> Iterator[Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets; a second Ctrl-C interrupts at once."""
    enough = Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if enough.is_set():
            raise KeyboardInterrupt
        enough.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield enough
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
