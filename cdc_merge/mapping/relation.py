"""How the columns of one relation are read for one entity: worked out once per relation, used for every row.

A mapped column that the relation does not have is a field that is absent, reported once; a missing key column makes
the whole table unreadable. A field has one value type (contract §7): where the plan names another than this source's
column has, the value is turned into it, if that loses nothing.
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
    """One relation read for one entity.

    `label` names the table of identities (the table itself, unless it feeds several entities). `locating` picks the
    cells of key and identity out of a row. `distinct`: the replica identity is not the business key, so rows have a
    name of their own; `looked_up`: it does not even contain it, so the key must be remembered. `tracked` are the
    fields and, under the name "", the actor column.
    """

    table: TableMap
    label: str
    key: KeyReader
    identity: KeyReader
    identity_columns: frozenset[int]
    locating: Callable[[tuple[RawValue, ...]], object]
    distinct: bool
    looked_up: bool
    fields: tuple[FieldReader, ...]
    tracked: tuple[FieldReader, ...]
    actor: tuple[int, Reader] | None


ACTOR_FIELD: Final = ""
_NUMBERS: Final = frozenset({"integer", "decimal", "float"})
_ONLY: Final[Mapping[str, frozenset[str]]] = {"counter": _NUMBERS, "flag": frozenset({"boolean"})}
"""Merge types that can read nothing else, whatever is known of the other sources' columns."""


class ColumnDrift(NamedTuple):
    """A mapped column that cannot be read as it was mapped; `field` is None for a column of the key."""

    field: str | None
    column: str


class RelationColumns(NamedTuple):
    """A table as it was last announced, as far as one entity is concerned."""

    entity: str
    table: str
    drifts: tuple[ColumnDrift, ...]


def relation_columns(table: TableMap, relation: Relation, plan: Plan) -> RelationColumns:
    """Which mapped columns are gone, or have a type that their field cannot be read from."""
    there = {column.name: column for column in relation.columns}
    keys = [ColumnDrift(None, column) for column in table.key if column not in there]
    entity = plan.entities.get(table.entity)
    fields = [
        ColumnDrift(field, column)
        for field, column in table.fields.items()
        if column not in there or not _readable(there[column], field, entity)
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
    there = {column.name for column in relation.columns}
    mapped = [*table.key, *table.fields.values(), *([table.actor_column] if table.actor_column else [])]
    return tuple(dict.fromkeys(name for name in mapped if name not in there))


def relation_mapping(table: TableMap, relation: Relation, plan: Plan, label: str) -> RelationMapping | None:
    """None when a key column is missing, so that no row can be given to a record."""
    index_of = {column.name: index for index, column in enumerate(relation.columns)}
    if any(name not in index_of for name in table.key):
        return None
    key = [index_of[name] for name in table.key]
    identity = _identity(relation, key)
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
        locating=itemgetter(*dict.fromkeys([*key, *identity])),
        distinct=set(identity) != set(key),
        looked_up=not set(key) <= set(identity),
        fields=fields,
        tracked=fields if actor is None else (*fields, (ACTOR_FIELD, *actor)),
        actor=actor,
    )


def _identity(relation: Relation, key: list[int]) -> list[int]:
    """The columns that name a row. Under REPLICA IDENTITY FULL pgoutput flags every column, which names nothing."""
    flagged = [index for index, column in enumerate(relation.columns) if column.is_identity]
    if not flagged or (relation.identity == "f" and len(flagged) == len(relation.columns)):
        return key
    return flagged


def _reader(column: Column) -> Reader:
    return reader(column.type_oid, column.type_name, column.name)


def _to_decimal(value: Value) -> Value:
    return Decimal(plain(Decimal(repr(value)))) if isinstance(value, int | float) else value


def _to_timestamp(value: Value) -> Value:
    """The midnight that a day begins with; Postgres's infinite days are infinite moments."""
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
