"""Selection of a conflict's rule: the first in the file whose `on:` names it (semantics §6).

`entity.field` names a field or group (and the keys of a map), `entity.*` all of them, `*.field` that field of every
entity, `entity` the record as a whole. A rule with a trigger of its own (`when`, `tolerance`, `threshold`) applies to the
conflicts that it raises itself, and to no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, Rule

ANY = "*"


def matches(on: str, entity: str, unit: str | None) -> bool:
    """Whether `on` names a unit (field, group or `map.key`) of the entity, or with None the record as a whole."""
    wanted, dot, field = on.partition(".")
    if wanted not in (ANY, entity):
        return False
    if unit is None or not dot:
        return unit is None and not dot
    return field == ANY or unit == field or unit.startswith(f"{field}.")


def first(rules: Iterable[Rule], entity: str, unit: str | None) -> Rule | None:
    """The first of the rules that names the unit."""
    return next((rule for rule in rules if matches(rule.on, entity, unit)), None)


def untriggered(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules that apply to conflicts of any kind."""
    return tuple(r for r in rules if r.when is None and r.tolerance_us is None and r.threshold is None)


def with_tolerance(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules that limit how long sources may differ."""
    return tuple(rule for rule in rules if rule.tolerance_us is not None)


def ruled(plan: Plan) -> Plan:
    """The plan with the rules applied to its fields and groups: severity, automatic resolution, tolerance."""
    if not plan.rules:
        return plan
    return replace(plan, entities={name: _ruled_entity(entity, plan.rules) for name, entity in plan.entities.items()})


Keys = tuple[str, Mapping[str, Any], str]
"""A map: its path, its settings, and the default severity of its keys."""


def _ruled_keys(of: Keys, rules: tuple[str, tuple[Rule, ...]]) -> dict[str, Any]:
    """A map's settings, each key with the first rule that names it. A key that only a rule names gets an entry; the others
    inherit from the map."""
    (path, settings, severity), (entity, untriggered_rules) = of, rules
    keys = {key: dict(own or {}) for key, own in (settings.get("keys") or {}).items()}
    for rule in untriggered_rules:
        field = rule.on.partition(".")[2]
        if field.startswith(f"{path}.") and rule.on.partition(".")[0] in (ANY, entity):
            keys.setdefault(_key_of(field[len(path) + 1 :], keys), {})
    for key, own in keys.items():
        key_path, key_severity = f"{path}.{key}", own.get("severity", severity)
        applicable = first(untriggered_rules, entity, key_path)
        if applicable is not None:
            keys[key] = own = {**own, "severity": applicable.severity or key_severity, "auto": applicable.auto}
        if own.get("merge") == "map":
            keys[key] = _ruled_keys((key_path, own, key_severity), rules)
    return {**settings, "keys": keys} if keys else dict(settings)


def _key_of(rest: str, keys: Mapping[str, Mapping[str, Any]]) -> str:
    """The key that the rest of a path begins with: a map nested in this one, or all of it."""
    nested = (key for key, own in keys.items() if rest.startswith(f"{key}.") and own.get("merge") == "map")
    return next(nested, rest)


def has_auto_resolution(field: FieldPlan) -> bool:
    """Whether a rule resolves conflicts of the field, or of one of its keys."""
    return bool(field.auto) or _has_auto_resolved_key(field.options)


def _has_auto_resolved_key(settings: Mapping[str, Any]) -> bool:
    nested = [own for own in (settings.get("keys") or {}).values() if own]
    return any(own.get("auto") or _has_auto_resolved_key(own) for own in nested)


def _ruled_entity(entity: EntityPlan, rules: tuple[Rule, ...]) -> EntityPlan:
    untriggered_rules, tolerant = untriggered(rules), with_tolerance(rules)

    def ruled_field(field: FieldPlan) -> FieldPlan:
        rule, tolerance = first(untriggered_rules, entity.name, field.name), first(tolerant, entity.name, field.name)
        if tolerance is not None:
            field = replace(field, tolerance_us=tolerance.tolerance_us)
        if field.merge == "map":
            own = (field.name, field.options, field.severity)
            field = replace(field, options=_ruled_keys(own, (entity.name, untriggered_rules)))
        return field if rule is None else replace(field, severity=rule.severity or field.severity, auto=rule.auto)

    return replace(
        entity,
        fields={name: ruled_field(field) for name, field in entity.fields.items()},
        groups={name: ruled_field(group) for name, group in entity.groups.items()},
    )
