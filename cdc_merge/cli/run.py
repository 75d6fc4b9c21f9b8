"""`cdc-merge run`: the sidecar, until a signal stops it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Final

import click

from cdc_merge import __version__
from cdc_merge.cli.check_config import apply_catalogs
from cdc_merge.cli.context import Invocation
from cdc_merge.cli.store_directory import make_default_directory
from cdc_merge.config import load
from cdc_merge.config.settings import Settings, SqliteStoreSettings
from cdc_merge.errors import CdcMergeError, ConfigError
from cdc_merge.observers.log_format import FORMS, capture_uncaught, configure, logger

ROLES = ("all", "read", "merge", "console")
LEVELS = ("debug", "info", "warning", "error")
LOG: Final = logger("cdc_merge")


@click.command("run")
@click.option("--role", type=click.Choice(ROLES), default="all", show_default=True, help="What this process does.")
@click.option(
    "--log-format",
    type=click.Choice([*FORMS]),
    help="How the log on stderr is written. [default: console on a terminal, else json]",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    help="The lowest level that is logged. [default: log.level of the file, or info]",
)
@click.pass_obj
def command(invocation: Invocation, role: str, log_format: str | None, log_level: str | None) -> int:
    """Run the sidecar: read the sources, merge, serve console, API and metrics. SIGTERM and Ctrl-C stop it cleanly,
    SIGHUP reloads the configuration."""
    if role != "all":
        hint = "Run without --role: one process does everything."
        raise CdcMergeError(f"The role {role} is not part of this version.", hint=hint)
    settings = load(invocation.config, os.environ)

    def level_of(current: Settings) -> str:
        return (log_level or current.log_level or "info").upper()

    # From here on everything on stderr is the log.
    configure(log_format or ("console" if sys.stderr.isatty() else "json"), level_of(settings))
    capture_uncaught()
    for warning in settings.warnings:
        LOG.warning(warning, code="config_warning")
    try:
        return _run(settings, lambda current: logging.getLogger().setLevel(level_of(current)))
    except CdcMergeError as error:
        return _log_failure(error)
    except Exception:  # noqa: BLE001 the process entry is a named edge: the log shows type and places, no message
        LOG.exception("A bug of cdc-merge ended the sidecar.", code="sidecar_failed")
        return 1


def _run(settings: Settings, on_reload: Callable[[Settings], None]) -> int:
    store = settings.store
    make_default_directory(store)
    settings = apply_catalogs(settings, has_run=isinstance(store, SqliteStoreSettings) and store.path.exists())
    # Imported on use: the sources' and stores' packages would slow down every other command.
    from cdc_merge.app import sidecar  # noqa: PLC0415

    def listening(address: str) -> None:
        attributes = {"version": __version__, "policy": settings.plan.policy}
        LOG.info(f"cdc-merge listens on http://{address}", code="sidecar_started", **attributes)  # noqa: G004

    exit_code = sidecar.run(settings, on_ready=listening, on_reload=on_reload)
    LOG.info("The sidecar stopped cleanly after a signal.", code="sidecar_stopped")
    return exit_code


def _log_failure(error: CdcMergeError) -> int:
    problems = " | ".join(map(str, error.problems)) if isinstance(error, ConfigError) else ""
    attributes = {"hint": error.hint, "problems": problems}
    LOG.error(str(error), code="sidecar_failed", **{name: text for name, text in attributes.items() if text})
    return error.exit_code
