"""What the checks of meaning look at: the shape, and beside it the names that the file itself uses.

Names come from the file's values, not from the shape: an entry that could not be read still has its name, so that one
mistake is not reported again wherever the name is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc_merge.config.problems import Path
from cdc_merge.config.schema.file_schema import ConfigShape


@dataclass(frozen=True, slots=True)
class CheckContext:
    """A configuration under examination."""

    shape: ConfigShape
    values: Mapping[str, Any]

    def given(self, *path: str) -> Any:
        """What the file says at a path; None when it says nothing."""
        here: Any = self.values
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        return here

    def names(self, *path: str) -> list[str]:
        """The keys that the file has at a path."""
        here = self.given(*path)
        return list(here) if isinstance(here, dict) else []

    def mapped(self, entity: str) -> list[str]:
        """The fields of an entity that some source maps, in file order."""
        found: dict[str, None] = {}
        for source in self.names("entities", entity, "from"):
            found |= dict.fromkeys(self.names("entities", entity, "from", source, "fields"))
        return list(found)

    def units(self, entity: str) -> list[str]:
        """Everything of an entity that a rule may select: fields and groups."""
        return [*self.mapped(entity), *self.names("entities", entity, "groups")]


def entity_path(entity: str, *rest: str | int) -> Path:
    return ("entities", entity, *rest)


def table_name(table: str) -> str:
    """`schema.table`; the schema is public when the file does not say."""
    return table if "." in table else f"public.{table}"
