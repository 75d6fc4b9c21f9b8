"""`cdc-merge init`: a first configuration from the catalogs of the sources, for people to read and correct."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cdc_merge.cli.context import Invocation
from cdc_merge.doctor.proposal.catalog_sample import TableSeen
from cdc_merge.doctor.proposal.matching import proposed
from cdc_merge.doctor.proposal.sampling import survey
from cdc_merge.doctor.proposal.yaml_writer import config_text, variable
from cdc_merge.errors import CdcMergeError


@click.command("init")
@click.option("--source", "given", multiple=True, required=True, metavar="NAME=DSN", help="A source; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Print the configuration instead of writing it.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_obj
def command(invocation: Invocation, given: tuple[str, ...], *, dry_run: bool, force: bool) -> None:
    """Read the catalogs of the sources and propose entities, keys and fields, in a commented configuration.

    Values of small samples are compared where the role may read them; neither they nor connection strings are written.
    """
    sources = named(given)
    file = invocation.config
    if not dry_run and not force and file.exists():
        raise CdcMergeError(
            f"{file} exists already.", hint="Write elsewhere with --config FILE, or over it with --force."
        )
    tables: list[TableSeen] = [table for name, dsn in sources.items() for table in survey(name, dsn)]
    entities = proposed(tables)
    if not entities:
        raise CdcMergeError(
            f"No tables of {', '.join(sources)} look as if they were about the same things ({len(tables)} were seen).",
            hint="Check that the role may see them; a key is needed in each. Otherwise write the entities by hand.",
        )
    text = config_text(sources, entities)
    if dry_run:
        click.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    variables = ", ".join(map(variable, sources))
    click.echo(f"{file} has {len(entities)} entities. Set {variables}, read it, then: cdc-merge check-config", err=True)


def named(given: Sequence[str]) -> dict[str, str]:
    """name → DSN. The DSN is never repeated in an error: it may hold a password."""
    sources: dict[str, str] = {}
    for text in given:
        name, equals, dsn = text.partition("=")
        if not equals or not name.replace("_", "").replace("-", "").isalnum() or name in sources:
            raise click.UsageError("--source takes NAME=DSN, each name once: --source crm=postgresql://…")
        sources[name] = dsn
    return sources
