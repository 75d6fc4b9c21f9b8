"""`cdc-merge run`: the sidecar, until it is told to stop."""

from __future__ import annotations

import os
import sys

import click

from cdc_merge.cli.check_config import looked_at
from cdc_merge.cli.invocation import Invocation
from cdc_merge.config import load
from cdc_merge.config.settings import SqliteStore
from cdc_merge.errors import CdcMergeError
from cdc_merge.observers import log_lines

ROLES = ("all", "read", "merge", "console")
LEVELS = ("debug", "info", "warning", "error")


@click.command("run")
@click.option("--role", type=click.Choice(ROLES), default="all", show_default=True, help="What this process does.")
@click.option(
    "--log-format",
    type=click.Choice([*log_lines.FORMS]),
    help="How the log on stderr is written. [default: console on a terminal, else json]",
)
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="The least that is logged."
)
@click.pass_obj
def command(invocation: Invocation, role: str, log_format: str | None, log_level: str) -> int:
    """Run the sidecar: read the sources, merge, serve console, API and metrics. SIGTERM and Ctrl-C end it in order."""
    if role != "all":
        hint = "Run it without --role: one process does everything."
        raise CdcMergeError(f"The role {role} cannot run by itself in this version.", hint=hint)
    settings = load(invocation.config, os.environ)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    store = settings.store
    settings = looked_at(settings, has_run=isinstance(store, SqliteStore) and store.path.exists())
    log_lines.configure(log_format or ("console" if sys.stderr.isatty() else "json"), log_level.upper())
    # Imported when it runs: the sources' and stores' packages would slow down every other command.
    from cdc_merge import app  # noqa: PLC0415

    return app.run(settings, on_ready=_listening)


def _listening(address: str) -> None:
    click.echo(f"cdc-merge listens on http://{address}", err=True)
