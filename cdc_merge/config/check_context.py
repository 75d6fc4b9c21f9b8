"""The input of the checks: the validated schema object and the raw values of the file.

Names come from the raw values: an entry that failed validation still has its name, so that one mistake is not reported
again wherever the name is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc_merge.config.problems import Path
from cdc_merge.config.schema.file_schema import ConfigShape
from cdc_merge.config.table_names import parse


@dataclass(frozen=True, slots=True)
class CheckContext:
    """One configuration under check."""

    shape: ConfigShape
    values: Mapping[str, Any]

    def given(self, *path: str) -> Any:
        """The file's value at a path; None when there is none."""
        here: Any = self.values
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        return here

    def names(self, *path: str) -> list[str]:
        """The keys in the file at a path."""
        here = self.given(*path)
        return list(here) if isinstance(here, dict) else []

    def mapped(self, entity: str) -> list[str]:
        """The mapped fields of an entity over all sources, in file order."""
        fields: dict[str, None] = {}
        for source in self.names("entities", entity, "from"):
            fields |= dict.fromkeys(self.names("entities", entity, "from", source, "fields"))
        return list(fields)

    def units(self, entity: str) -> list[str]:
        """The fields and groups of an entity: what a rule may select."""
        return [*self.mapped(entity), *self.names("entities", entity, "groups")]


def entity_path(entity: str, *rest: str | int) -> Path:
    return ("entities", entity, *rest)


def table_name(table: str) -> str:
    """`schema.table`; the schema defaults to public."""
    name = parse(table)
    return table if name is None else name.plain
