"""`cdc-merge schema NAME`: the JSON Schema of the configuration or of a JSON document."""

from __future__ import annotations

import json

import click

from cdc_merge.cli.schema_export import SCHEMAS, schema


@click.command("schema")
@click.argument("name", type=click.Choice(sorted(SCHEMAS)), metavar="NAME")
def command(name: str) -> None:
    """Print the JSON Schema NAME: config, change, record, conflict or demo-summary."""
    click.echo(json.dumps(schema(name), indent=2, ensure_ascii=False))
