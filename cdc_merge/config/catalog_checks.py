"""The configuration against the sources' catalogs: the mapped columns exist, and their types fit the merge type. Pure.

A field has one value type, derived from its mapped columns. Integers and decimals are both exact numbers. Any other
mixture cannot be compared, except in a set, whose elements may be an array, a JSON array or separated text. Columns of
one value type are compared by the table of type pairs (type_pairs.py), keys too.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from cdc_merge.config.check_context import entity_path
from cdc_merge.config.checks.expression_checks import business_rule_problems, expression_problems
from cdc_merge.config.merge_type_options import COLLECTIONS, NUMBERS, OPTIONS
from cdc_merge.config.problems import ConfigProblem, Path, did_you_mean
from cdc_merge.config.settings import Settings
from cdc_merge.config.type_pairs import (
    EQUAL,
    REFUSED,
    SAME,
    ColumnType,
    PairVerdict,
    column_type,
    compare,
    compare_keys,
    element_type,
)
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap

Columns: TypeAlias = Mapping[str, tuple[int, str]]
"""Column → (type OID, type name) from the source's catalog; a domain has its base type."""

CatalogColumns: TypeAlias = Mapping[tuple[str, str], Columns]
"""(source, schema.table) → the table's columns. A table that does not exist has no entry."""

BOOLEAN: Final = "boolean"


def catalog_problems(settings: Settings, facts: CatalogColumns, sources: frozenset[str]) -> list[ConfigProblem]:
    """Every contradiction between the file and the catalogs of these sources; other sources are not checked."""
    problems: list[ConfigProblem] = []
    for table in settings.plan.tables:
        if table.source in sources:
            problems += _missing_columns(table, facts.get((table.source, table.table)))
    for entity in settings.plan.entities.values():
        for field in _every_field(entity):
            problems += _type_problems(
                settings, entity, field, _column_types(settings.plan, facts, entity.name, field.name)
            )
    problems += [problem for kind, problem in _pair_findings(settings, facts) if kind == REFUSED]
    typed = with_value_types(settings.plan, facts)
    for entity in typed.entities.values():
        problems += expression_problems(entity)
    return [*problems, *business_rule_problems(typed)]


def catalog_warnings(settings: Settings, facts: CatalogColumns) -> list[ConfigProblem]:
    """Columns that are never equal, or in one notation only."""
    return [problem for kind, problem in _pair_findings(settings, facts) if kind != REFUSED]


def _pair_findings(settings: Settings, facts: CatalogColumns) -> Iterator[tuple[str, ConfigProblem]]:
    """Each field and key whose columns are not simply equal: the kind of the verdict, and its sentence."""
    for entity in settings.plan.entities.values():
        for field in _every_field(entity):
            columns = _columns_of(settings.plan, facts, entity.name, field.name)
            for one, other in itertools.combinations(columns.items(), 2):
                verdict = _field_verdict(field, one[1], other[1])
                if verdict.kind == EQUAL or verdict.normalize in _normalizers_of(entity, field):
                    continue
                place = _field_path(settings, entity, field.name)
                yield verdict.kind, _pair_problem(place, f"the field {field.name} ", (one, other), verdict)
        yield from _key_findings(settings, facts, entity)


def _field_verdict(field: FieldPlan, one: ColumnType, other: ColumnType) -> PairVerdict:
    """Value types that do not fit are `_type_problems`; a set also compares an array's elements with separated text."""
    kinds = frozenset((one.value_type, other.value_type))
    if not common_type(kinds, field.merge) or (len(kinds) > 1 and "json" in kinds):
        return SAME
    if one.is_array == other.is_array:
        return compare(one, other)
    elements = [column._replace(is_array=False, value_type=element_type(column)) for column in (one, other)]
    return compare(*elements)


def _normalizers_of(entity: EntityPlan, field: FieldPlan) -> frozenset[str]:
    """The normalisations of a field, or of a member of a group."""
    names = {*field.normalize}
    for group in entity.groups.values():
        names |= {*group.options.get("normalize", {}).get(field.name, ())}
    return frozenset(names)


def _key_findings(settings: Settings, facts: CatalogColumns, entity: EntityPlan) -> Iterator[tuple[str, ConfigProblem]]:
    maps = [table for table in settings.plan.tables if table.entity == entity.name]
    for one, other in itertools.combinations(maps, 2):
        for parts in zip(one.key, other.key, strict=False):
            columns = [
                facts.get((t.source, t.table), {}).get(part) for t, part in zip((one, other), parts, strict=True)
            ]
            types = [column_type(*column) for column in columns if column is not None]
            if len(types) < 2:
                continue
            verdict = compare_keys(*types)
            if verdict.kind != EQUAL:
                place = entity_path(entity.name, "from", other.source, "key")
                pair = ((one.source, types[0]), (other.source, types[1]))
                yield verdict.kind, _pair_problem(place, "the key ", pair, verdict)


def _pair_problem(
    place: Path, subject: str, pair: tuple[tuple[str, ColumnType], tuple[str, ColumnType]], verdict: PairVerdict
) -> ConfigProblem:
    listed = " and ".join(f"{kind.declared} in {source}" for source, kind in pair)
    hint = verdict.hint or "write it in one notation in both systems"
    if verdict.normalize and "field" in subject:
        hint = f"add normalize: [{verdict.normalize}]"
    return ConfigProblem(place, f"{subject}is {listed}: {verdict.reason}", hint)


def with_value_types(plan: Plan, facts: CatalogColumns) -> Plan:
    """The plan with every field's value type, as far as the catalogs determine it. The policy digest stays the same:
    it does not cover types."""
    entities = {
        name: dataclasses.replace(
            entity, fields={f: _with_type(plan, facts, name, field) for f, field in entity.fields.items()}
        )
        for name, entity in plan.entities.items()
    }
    return dataclasses.replace(plan, entities=entities)


def common_type(types: frozenset[str], merge: str) -> str:
    """The value type of a field whose columns have these types; "" when there is none or they cannot be compared."""
    if len(types) == 1:
        return next(iter(types))
    if types and types <= NUMBERS:
        return "decimal"
    if types and merge == "set" and types <= COLLECTIONS:
        return "array" if "array" in types else "json"
    return ""


def _with_type(plan: Plan, facts: CatalogColumns, entity: str, field: FieldPlan) -> FieldPlan:
    types = frozenset(_column_types(plan, facts, entity, field.name).values())
    return dataclasses.replace(field, value_type=common_type(types, field.merge))


def _column_types(plan: Plan, facts: CatalogColumns, entity: str, field: str) -> dict[str, str]:
    """Source → value type of the column that it maps to the field, for columns in the catalog."""
    return {source: column.value_type for source, column in _columns_of(plan, facts, entity, field).items()}


def _columns_of(plan: Plan, facts: CatalogColumns, entity: str, field: str) -> dict[str, ColumnType]:
    columns = {
        table.source: facts.get((table.source, table.table), {}).get(table.fields[field])
        for table in plan.tables
        if table.entity == entity and field in table.fields
    }
    return {source: column_type(*column) for source, column in columns.items() if column is not None}


def _every_field(entity: EntityPlan) -> Iterator[FieldPlan]:
    """The entity's fields, and the members of its groups, whose types only have to be comparable."""
    yield from entity.fields.values()
    for group in entity.groups.values():
        yield from (FieldPlan(name=member) for member in group.members)


def _missing_columns(table: TableMap, columns: Columns | None) -> Iterator[ConfigProblem]:
    path = entity_path(table.entity, "from", table.source)
    if columns is None:
        hint = "check the name, and write it as schema.table"
        yield ConfigProblem((*path, "table"), f"{table.source} has no table {table.table}", hint)
        return
    wanted: list[tuple[Path, str]] = [((*path, "key"), column) for column in table.key]
    wanted += [((*path, "fields", field), column) for field, column in table.fields.items()]
    if table.actor_column is not None:
        wanted.append((("sources", table.source, "actor", "column"), table.actor_column))
    for place, column in wanted:
        if column not in columns:
            yield ConfigProblem(place, f"{table.table} has no column {column!r}", did_you_mean(column, columns))


def _type_problems(
    settings: Settings, entity: EntityPlan, field: FieldPlan, types: Mapping[str, str]
) -> Iterator[ConfigProblem]:
    different = frozenset(types.values())
    place = entity_path(entity.name, "fields", field.name, "merge")
    wanted = OPTIONS[field.merge].value_types
    unfit = {source: kind for source, kind in types.items() if wanted is not None and kind not in wanted}
    if wanted is not None and unfit:
        listed = ", ".join(f"{source} ({kind})" for source, kind in unfit.items())
        sentence = f"merge: {field.merge} cannot read the column of {listed}"
        yield ConfigProblem(place, sentence, f"it reads {', '.join(sorted(wanted))}")
    elif different and not common_type(different, field.merge):
        listed = ", ".join(f"{source} has {kind}" for source, kind in types.items())
        yield ConfigProblem(_field_path(settings, entity, field.name), f"these columns cannot be compared: {listed}")
    if field.agreement == "past" and BOOLEAN in different:
        path = entity_path(entity.name, "fields", field.name, "agreement")
        yield ConfigProblem(path, "past values prove nothing for a boolean", "use agreement: true or false")


def _field_path(settings: Settings, entity: EntityPlan, field: str) -> Path:
    """The path of a field: under `fields:`, or else in the mapping of its last source."""
    listed = entity_path(entity.name, "fields", field)
    if listed in settings.lines:
        return listed
    source = next(source for source in reversed(entity.sources) if field in entity.mapped[source])
    return entity_path(entity.name, "from", source, "fields", field)
