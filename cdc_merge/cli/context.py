"""The options of the command group that every command receives: configuration file and output format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from cdc_merge.queries.documents import Document, json_text


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before the command. `output` is table or json. Commands get it with `@click.pass_obj`."""

    config: Path
    output: str

    @property
    def as_json(self) -> bool:
        return self.output == "json"


def print_json(document: Document) -> None:
    """One JSON document on one line of stdout, as `--output json` promises."""
    click.echo(json_text(document))
