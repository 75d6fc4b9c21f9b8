"""The validated configuration → the plan that mapping, merge and rules use."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cdc_merge.config.check_context import table_name
from cdc_merge.config.merge_type_options import KEYS
from cdc_merge.config.schema.entity_schema import EntityShape, FieldShape, GroupShape, MergeShape
from cdc_merge.config.schema.file_schema import ConfigShape, SourceShape
from cdc_merge.config.schema.rule_schema import RuleShape
from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, Rule, TableMap, Unique


def plan_of(shape: ConfigShape) -> Plan:
    """The plan of a configuration without problems; the value types are filled in from the catalogs later."""
    entities = {name: _entity(name, entity) for name, entity in shape.entities.items()}
    tables = tuple(
        _table(shape.sources[source], source, name, entity)
        for name, entity in shape.entities.items()
        for source in entity.from_
    )
    rules = tuple(_rule(rule) for rule in shape.rules)
    plan = Plan(
        entities=entities,
        tables=tables,
        rules=rules,
        settle_us=shape.settle,
        max_ahead_us=shape.clock.max_ahead,
        policy=policy(entities, tables, shape.rules),
        retention_us=shape.history.retention,
        keep_folded_us=shape.history.keep_folded,
    )
    return ruled(plan)


def policy(entities: Mapping[str, EntityPlan], tables: tuple[TableMap, ...], rules: list[RuleShape]) -> str:
    """`sha256:…` of entities, mappings and rules; independent of the file's layout."""
    content = {
        "entities": {name: dataclasses.asdict(entity) for name, entity in entities.items()},
        "tables": [dataclasses.asdict(table) for table in tables],
        "rules": [rule.model_dump(mode="json") for rule in rules],
    }
    text = json.dumps(content, sort_keys=True, default=_json_default)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _json_default(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset | set) else str(value)


def _entity(name: str, shape: EntityShape) -> EntityPlan:
    mapped = {source: frozenset(origin.fields) for source, origin in shape.from_.items()}
    grouped = {field for group in shape.groups.values() for field in group.fields}
    fields = dict.fromkeys(field for origin in shape.from_.values() for field in origin.fields)
    return EntityPlan(
        name=name,
        sources=tuple(shape.from_),
        mapped=mapped,
        fields={f: _field(f, shape.fields.get(f, FieldShape())) for f in fields if f not in grouped},
        groups={g: _group(g, group, shape.fields) for g, group in shape.groups.items()},
        checks=tuple(Check(check.name, check.expr, check.severity) for check in shape.checks),
        unique=tuple(Unique(tuple(u.fields), tuple(u.normalize), u.when, u.severity) for u in shape.unique),
        deletes=shape.deletes,
        on_missing=shape.on_missing,
    )


def _field(name: str, shape: FieldShape) -> FieldPlan:
    return FieldPlan(
        name=name,
        merge=shape.merge,
        options=_options(shape),
        normalize=tuple(shape.normalize),
        agreement=shape.agreement,
        severity=shape.severity,
        writer_sources=_maybe_tuple(shape.writers.sources) if shape.writers else None,
        writer_actors=_maybe_tuple(shape.writers.actors) if shape.writers else None,
    )


def _group(name: str, shape: GroupShape, fields: Mapping[str, FieldShape]) -> FieldPlan:
    """`options["normalize"]` has each member's own list: only `merge` of a member is ignored."""
    normalize = {field: tuple(fields[field].normalize) for field in shape.fields if field in fields}
    options: dict[str, Any] = {"normalize": {field: names for field, names in normalize.items() if names}}
    if isinstance(shape.order, list):
        options["order"] = tuple(shape.order)
    return FieldPlan(
        name=name,
        merge=shape.merge,
        options=options,
        agreement=shape.agreement,
        severity=shape.severity,
        members=tuple(shape.fields),
        writer_sources=_maybe_tuple(shape.writers.sources) if shape.writers else None,
        writer_actors=_maybe_tuple(shape.writers.actors) if shape.writers else None,
    )


def _options(shape: MergeShape) -> dict[str, Any]:
    """The merge type's own options in the file, as plain values."""
    given = {key: getattr(shape, key) for key in KEYS if getattr(shape, key) is not None}
    if "keys" in given:
        given["keys"] = {key: _map_key(shape) for key, shape in given["keys"].items()}
    order = given.get("order")
    if isinstance(order, dict):
        given["order"] = {value: tuple(after) for value, after in order.items()}
    elif order is not None:
        given["order"] = tuple(order)
    return given


def _map_key(shape: MergeShape) -> dict[str, Any]:
    """The merge options of one key of a map; severity and agreement default to the map's own."""
    given = {key: getattr(shape, key) for key in ("severity", "agreement") if key in shape.model_fields_set}
    return {"merge": shape.merge, "normalize": tuple(shape.normalize)} | given | _options(shape)


def _table(source: SourceShape, name: str, entity: str, shape: EntityShape) -> TableMap:
    origin = shape.from_[name]
    return TableMap(
        source=name,
        entity=entity,
        table=table_name(origin.table),
        key=tuple(origin.key),
        fields=dict(origin.fields),
        actor_column=source.actor.column if source.actor else None,
        actor_always_written=source.actor.always_written if source.actor else False,
        copy_origins=frozenset(source.copies.origins),
        copy_actors=frozenset(source.copies.actors),
    )


def _rule(shape: RuleShape) -> Rule:
    decide = shape.decide
    return Rule(
        name=shape.name,
        on=shape.on,
        when=shape.when,
        severity=shape.severity,
        tolerance_us=shape.tolerance,
        auto=decide.auto if decide and not (decide.when or decide.approve) else (),
        approve=tuple(tuple(level) for level in decide.approve) if decide else (),
        threshold=None if shape.threshold is None else Decimal(shape.threshold),
    )


def _maybe_tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
