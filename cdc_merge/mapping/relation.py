"""RelationMapping: the columns of one relation, compiled to readers for one entity. Compiled once per relation, used for
every row.

A mapped column that the relation does not have is an absent field, reported once; a missing key column makes the whole
table unreadable. A field has one value type (contract §7): a column of another type is converted, if that is lossless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.model import Column, RawValue, Relation, Value
from cdc_merge.model.plan import EntityPlan, Plan, TableMap
from cdc_merge.values.json_text import plain
from cdc_merge.values.keys import KeyReader, key_reader, value_text
from cdc_merge.values.postgres_text import Reader, reader, value_type

FieldReader: TypeAlias = tuple[str, int, Reader]


@dataclass(frozen=True, slots=True)
class RelationMapping:
    """One relation as one entity reads it.

    `label` is the namespace of its remembered identities: the table, or `table#entity` when it feeds several entities.
    `key` and `identity` read business key and replica identity; `identifying_values` picks the raw values of both.
    `has_own_identity`: the replica identity is not the business key. `needs_lookup`: it does not even contain the business
    key, which is then remembered per identity. `tracked` are the fields and, under the name "", the actor column.
    """

    table: TableMap
    label: str
    key: KeyReader
    identity: KeyReader
    identity_columns: frozenset[int]
    identifying_values: Callable[[tuple[RawValue, ...]], object]
    has_own_identity: bool
    needs_lookup: bool
    fields: tuple[FieldReader, ...]
    tracked: tuple[FieldReader, ...]
    actor: tuple[int, Reader] | None


ACTOR_FIELD: Final = ""
_NUMBERS: Final = frozenset({"integer", "decimal", "float"})
_ONLY: Final[Mapping[str, frozenset[str]]] = {"counter": _NUMBERS, "flag": frozenset({"boolean"})}
"""Merge type → the only value types it can read, whatever the other sources' columns are."""


class ColumnDrift(NamedTuple):
    """Schema drift: a mapped column that is missing or has an unreadable type. `field` is None for a key column."""

    field: str | None
    column: str


class RelationColumns(NamedTuple):
    """The last Relation message of a table, checked for one entity: its drifted columns."""

    entity: str
    table: str
    drifts: tuple[ColumnDrift, ...]


def relation_columns(table: TableMap, relation: Relation, plan: Plan) -> RelationColumns:
    """Compare a relation with its mapping: columns that are missing or have a type their field cannot be read from."""
    columns = {column.name: column for column in relation.columns}
    keys = [ColumnDrift(None, column) for column in table.key if column not in columns]
    entity = plan.entities.get(table.entity)
    fields = [
        ColumnDrift(field, column)
        for field, column in table.fields.items()
        if column not in columns or not _readable(columns[column], field, entity)
    ]
    return RelationColumns(table.entity, table.table, (*keys, *fields))


def _readable(column: Column, field: str, entity: EntityPlan | None) -> bool:
    """Sets and maps read several types; a field without a type of its own reads any."""
    wanted, has = _wanted_type(field, entity), value_type(column.type_oid, column.type_name)
    planned = entity.fields.get(field) if entity else None
    if planned is not None and planned.merge in _ONLY:
        return has in _ONLY[planned.merge]
    if not wanted or has == wanted or planned is None or planned.merge in ("set", "map"):
        return True
    return (has, wanted) in _CONVERSIONS or {has, wanted} <= _NUMBERS


def missing_columns(table: TableMap, relation: Relation) -> tuple[str, ...]:
    """The mapped columns that this relation does not have, in the order of the mapping."""
    columns = {column.name for column in relation.columns}
    mapped = [*table.key, *table.fields.values(), *([table.actor_column] if table.actor_column else [])]
    return tuple(dict.fromkeys(name for name in mapped if name not in columns))


def relation_mapping(table: TableMap, relation: Relation, plan: Plan, label: str) -> RelationMapping | None:
    """Compile the mapping of a relation; None when a key column is missing, so that no row has a record key."""
    index_of = {column.name: index for index, column in enumerate(relation.columns)}
    if any(name not in index_of for name in table.key):
        return None
    key = [index_of[name] for name in table.key]
    identity = _identity_indexes(relation, key)
    fields = tuple(
        (
            field,
            index_of[column],
            _field_reader(relation.columns[index_of[column]], field, plan.entities.get(table.entity)),
        )
        for field, column in table.fields.items()
        if column in index_of and _readable(relation.columns[index_of[column]], field, plan.entities.get(table.entity))
    )
    actor_index = index_of.get(table.actor_column or "")
    actor = None if actor_index is None else (actor_index, _reader(relation.columns[actor_index]))
    return RelationMapping(
        table=table,
        label=label,
        key=key_reader([(index, _reader(relation.columns[index])) for index in key]),
        identity=key_reader([(index, _reader(relation.columns[index])) for index in identity]),
        identity_columns=frozenset(identity),
        identifying_values=itemgetter(*dict.fromkeys([*key, *identity])),
        has_own_identity=set(identity) != set(key),
        needs_lookup=not set(key) <= set(identity),
        fields=fields,
        tracked=fields if actor is None else (*fields, (ACTOR_FIELD, *actor)),
        actor=actor,
    )


def _identity_indexes(relation: Relation, key: list[int]) -> list[int]:
    """The columns of the replica identity. Under REPLICA IDENTITY FULL pgoutput flags every column: then the business key."""
    flagged = [index for index, column in enumerate(relation.columns) if column.is_identity]
    if not flagged or (relation.identity == "f" and len(flagged) == len(relation.columns)):
        return key
    return flagged


def _reader(column: Column) -> Reader:
    return reader(column.type_oid, column.type_name, column.name)


def _to_decimal(value: Value) -> Value:
    return Decimal(plain(Decimal(repr(value)))) if isinstance(value, int | float) else value


def _to_timestamp(value: Value) -> Value:
    """A date as its midnight; Postgres's infinite dates become infinite timestamps."""
    if not isinstance(value, str) or value.endswith("infinity"):
        return value
    day, space, era = value.partition(" ")
    return f"{day}T00:00:00.000000{space}{era}"


_CONVERSIONS: Final[Mapping[tuple[str, str], Callable[[Value], Value]]] = {
    ("integer", "decimal"): _to_decimal,
    ("float", "decimal"): _to_decimal,
    ("date", "timestamp"): _to_timestamp,
    ("integer", "text"): value_text,
    ("decimal", "text"): value_text,
    ("float", "text"): value_text,
    ("boolean", "text"): value_text,
}


def _field_reader(column: Column, field: str, entity: EntityPlan | None) -> Reader:
    read = _reader(column)
    wanted = _wanted_type(field, entity)
    convert = _CONVERSIONS.get((value_type(column.type_oid, column.type_name), wanted))
    if convert is None:
        return read
    return lambda cell: convert(read(cell))


def _wanted_type(field: str, entity: EntityPlan | None) -> str:
    planned = entity.fields.get(field) if entity else None
    return planned.value_type if planned else ""
