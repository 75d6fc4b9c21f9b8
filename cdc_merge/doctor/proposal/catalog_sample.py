"""Tables and columns of a source's catalog with small samples of values, and proposed entities. Pure."""

from __future__ import annotations

from typing import NamedTuple

from cdc_merge.config.table_names import TableName
from cdc_merge.values.postgres_text import value_type


class ColumnSeen(NamedTuple):
    """`is_made`: the database generates the value (sequence, identity, generated, uuid). `sample`: some values."""

    name: str
    type_oid: int
    type_name: str
    is_made: bool
    sample: frozenset[str] = frozenset()

    @property
    def value_type(self) -> str:
        return value_type(self.type_oid, self.type_name)


class TableSeen(NamedTuple):
    source: str
    name: str
    columns: tuple[ColumnSeen, ...]
    primary_key: tuple[str, ...]
    unique_keys: tuple[tuple[str, ...], ...]
    rows: int
    schema: str = ""

    @property
    def schema_and_name(self) -> TableName:
        """`name` is `schema.table` without quotes."""
        schema = self.schema or self.name.partition(".")[0]
        return TableName(schema, self.name[len(schema) + 1 :])

    def column(self, name: str) -> ColumnSeen:
        return next(column for column in self.columns if column.name == name)


class FieldProposed(NamedTuple):
    """`columns`: source → column. `confidence`: 0 to 1, of the weakest match."""

    name: str
    columns: dict[str, str]
    confidence: float
    value_type: str


class EntityProposed(NamedTuple):
    """`keys`: source → columns. `doubts` are sentences for the reviewer."""

    name: str
    tables: dict[str, TableSeen]
    keys: dict[str, tuple[str, ...]]
    fields: tuple[FieldProposed, ...]
    confidence: float
    doubts: tuple[str, ...]

    def unmapped(self, source: str) -> list[str]:
        """Columns of a source without a counterpart."""
        taken = {*self.keys[source], *(field.columns[source] for field in self.fields if source in field.columns)}
        return [column.name for column in self.tables[source].columns if column.name not in taken]
