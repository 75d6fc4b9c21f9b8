"""`cdc-merge init`: a first configuration proposed from the catalogs of the sources, to be reviewed by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import click

from cdc_merge.cli.context import Invocation
from cdc_merge.cli.table_output import printable
from cdc_merge.doctor.proposal.catalog_sample import TableSeen
from cdc_merge.doctor.proposal.matching import propose
from cdc_merge.doctor.proposal.sampling import sample_tables
from cdc_merge.doctor.proposal.yaml_writer import config_text, variable
from cdc_merge.errors import CdcMergeError

PROGRESS_S: Final = 3.0


@click.command("init")
@click.option("--source", "given", multiple=True, required=True, metavar="NAME=DSN", help="A source; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Print the configuration instead of writing it.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.pass_obj
def command(invocation: Invocation, given: tuple[str, ...], *, dry_run: bool, force: bool) -> None:
    """Read the catalogs of the sources and propose entities, keys and fields in a commented configuration.

    Small samples of values are compared where the role may read them; neither values nor connection strings are
    written.
    """
    sources = parse_sources(given)
    file = invocation.config
    if not dry_run and not force and file.exists():
        raise CdcMergeError(
            f"{file} exists already.", hint="Choose another file with --config FILE, or overwrite it with --force."
        )
    tables: list[TableSeen] = []
    for name, dsn in sources.items():
        own = sample_tables(name, dsn)
        click.echo(f"{name}: {len(own)} tables are read.", err=True)
        tables += own
    entities, left_out = propose(tables, _report_progress())
    for sentence in left_out:
        click.echo(f"Left out: {printable(sentence)}", err=True)
    if not entities:
        raise CdcMergeError(
            f"No tables of {', '.join(sources)} match each other ({len(tables)} tables were read).",
            hint="Check that the role may see the tables and that each has a key; else write the entities by hand.",
        )
    text = config_text(sources, entities, left_out)
    if dry_run:
        click.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    variables = ", ".join(map(variable, sources))
    click.echo(
        f"{file} has {len(entities)} entities. Review it, set {variables}, then run: cdc-merge check-config", err=True
    )


def _report_progress() -> Callable[[int, int], None]:
    """Reports on stderr every few seconds."""
    last_s = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= PROGRESS_S:
            last_s = time.monotonic()
            click.echo(f"{done} of {total} pairs of tables are compared.", err=True)

    return report


def parse_sources(given: Sequence[str]) -> dict[str, str]:
    """name → DSN. No error repeats the DSN: it may contain a password."""
    sources: dict[str, str] = {}
    for text in given:
        name, equals, dsn = text.partition("=")
        if not equals or not name.replace("_", "").replace("-", "").isalnum() or name in sources:
            raise click.UsageError("--source takes NAME=DSN, each name once: --source crm=postgresql://…")
        sources[name] = dsn
    return sources
