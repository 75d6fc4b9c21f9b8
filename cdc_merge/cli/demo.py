"""`cdc-merge demo`: real PostgreSQL servers, simulated users, the sidecar, and a comparison with the ground truth."""

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
from cdc_merge.demo.play import DemoOptions, Screen, play
from cdc_merge.demo.screen import LiveScreen, PlainScreen

VERIFICATION_FAILED = 4


@click.command(name="demo")
@click.option("--seconds", type=click.FloatRange(min=0), help="End after this time; without it, at Ctrl-C.")
@click.option("--output", type=click.Choice(["table", "json"]), help="How the summary is printed on stdout.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the data in this directory.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated edits.")
@click.pass_obj
def command(invocation: Invocation, seconds: float | None, output: str | None, keep: Path | None, seed: int) -> int:
    """Three real PostgreSQL servers with concurrent edits; watch the sidecar merge them and detect conflicts.

    Ends with a summary that compares every record and every conflict with the simulated edits; the exit code is 4 if
    anything deviates.
    """
    as_json = invocation.as_json if output is None else output == "json"
    with stop_event() as stop:
        summary = play(DemoOptions(seconds, keep, seed, stop), _screen(as_json=as_json))
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
def stop_event() -> Iterator[Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets; a second Ctrl-C interrupts at once."""
    stopped = Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
