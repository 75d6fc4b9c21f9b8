"""`cdc-merge run`: the sidecar, until it is told to stop."""

from __future__ import annotations

import logging
import os
import sys

import click

from cdc_merge.cli.check_config import looked_at
from cdc_merge.cli.invocation import Invocation
from cdc_merge.config import load
from cdc_merge.config.settings import Settings, SqliteStore
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
    "--log-level", type=click.Choice(LEVELS), help="The least that is logged. [default: log.level of the file, or info]"
)
@click.pass_obj
def command(invocation: Invocation, role: str, log_format: str | None, log_level: str | None) -> int:
    """Run the sidecar: read the sources, merge, serve console, API and metrics. SIGTERM and Ctrl-C end it in order,
    SIGHUP reads the configuration again."""
    if role != "all":
        hint = "Run it without --role: one process does everything."
        raise CdcMergeError(f"The role {role} cannot run by itself in this version.", hint=hint)
    settings = load(invocation.config, os.environ)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    store = settings.store
    settings = looked_at(settings, has_run=isinstance(store, SqliteStore) and store.path.exists())

    def level_of(current: Settings) -> str:
        return (log_level or current.log_level or "info").upper()

    log_lines.configure(log_format or ("console" if sys.stderr.isatty() else "json"), level_of(settings))
    # Imported when it runs: the sources' and stores' packages would slow down every other command.
    from cdc_merge import app  # noqa: PLC0415

    return app.run(
        settings, on_ready=_listening, on_reload=lambda current: logging.getLogger().setLevel(level_of(current))
    )


def _listening(address: str) -> None:
    click.echo(f"cdc-merge listens on http://{address}", err=True)
