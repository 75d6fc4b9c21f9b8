"""What the group's options say to every command: which file, which kind of output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before the command. `output` is table or json. Commands get it with `@click.pass_obj`."""

    config: Path
    output: str

    @property
    def as_json(self) -> bool:
        return self.output == "json"


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout, as `--output json` promises."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
