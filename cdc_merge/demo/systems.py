"""The mappings of the demo's three systems for its workload: tables and columns of each field and entity.

Read from the demo's own configuration, so that the workload and the sidecar use the same mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple, TypeAlias

from ruamel.yaml import YAML

from cdc_merge.sql_files import query

SOURCES: Final = ("crm", "erp", "finance")
FactValue: TypeAlias = "None | str | int | Decimal | frozenset[str]"
"""A field's value in the ground truth: dates as ISO text, sets as frozensets, all else unchanged."""

SEPARATOR: Final = ";"


class Table(NamedTuple):
    """One table of one system. `columns` maps field → column, `key` is the business key's column."""

    source: str
    entity: str
    name: str
    key: str
    columns: Mapping[str, str]


class Entity(NamedTuple):
    """`tables` are in the order of the configuration's `from:`; `merges` maps field → merge type."""

    name: str
    tables: Mapping[str, Table]
    merges: Mapping[str, str]

    def sources_with(self, field: str) -> tuple[str, ...]:
        """The sources that map a field, in order."""
        return tuple(name for name, table in self.tables.items() if field in table.columns)


def template() -> str:
    """The demo's configuration with its variables."""
    return (files("cdc_merge.demo") / "cdc-merge.yaml").read_text(encoding="utf-8")


def schema(source: str) -> str:
    """The SQL that creates one system's tables and publication."""
    return query(__package__, source)


@cache
def entities() -> Mapping[str, Entity]:
    parsed = YAML(typ="safe").load(template())["entities"]
    return {name: _entity(name, described) for name, described in parsed.items()}


def _entity(name: str, described: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Entity:
    tables = {source: _table(source, name, part) for source, part in described["from"].items()}
    return Entity(name, tables, {field: plan["merge"] for field, plan in described["fields"].items()})


def _table(source: str, entity: str, part: Mapping[str, object]) -> Table:
    fields = part["fields"]
    assert isinstance(fields, dict)
    return Table(source, entity, str(part["table"]), str(part["key"]), dict(fields))


def column_value(value: FactValue) -> None | str | int | Decimal:
    """A value as a system stores it: sets as text between separators."""
    return SEPARATOR.join(sorted(value)) if isinstance(value, frozenset) else value
