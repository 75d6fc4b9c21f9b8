"""A rulebook: one entity's checks and rules from the configuration, compiled once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cdc_merge.conflicts.expression_port import Compile, Expression
from cdc_merge.conflicts.rules.business import BusinessRules
from cdc_merge.conflicts.rules.selection import first, has_auto_resolution, untriggered, with_tolerance
from cdc_merge.conflicts.rules.unique import CompiledUnique, compiled
from cdc_merge.merge.units import Units
from cdc_merge.model import DetectedConflict
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, Rule


class CompiledCheck(NamedTuple):
    check: Check
    test: Expression


class RuleContext(NamedTuple):
    """The conflicts of the record that the merge detects, and the watermark (µs of stamp time)."""

    conflicts: tuple[DetectedConflict, ...]
    watermark_us: int


@dataclass(frozen=True, slots=True)
class Rulebook:
    """`writers`: the fields and groups with restricted writers. `divergence_clocks`: those with a tolerance, each with its
    rule. `unique`: the rules between records; `business`: the rules about writes. `record_severity` replaces that of
    conflicts about the whole record. `tally` counts the outcomes of expressions, (check or rule, true | false | unknown |
    error), until they are published. `has_no_rules`: no rule detects or resolves a conflict of one record."""

    checks: tuple[CompiledCheck, ...] = ()
    writers: Mapping[str, FieldPlan] = field(default_factory=dict)
    divergence_clocks: Mapping[str, Rule] = field(default_factory=dict)
    unique: tuple[CompiledUnique, ...] = ()
    business: BusinessRules | None = None
    record_severity: str | None = None
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    has_no_rules: bool = True

    @property
    def has_any_rule(self) -> bool:
        """Some rule may detect or resolve a conflict, of one record or between records."""
        return not self.has_no_rules or bool(self.unique)


def rulebooks(plan: Plan, compile_text: Compile) -> dict[str, Rulebook]:
    """The rulebook of every entity. ExpressionError for a check that does not compile."""
    return {name: _rulebook(entity, plan.rules, compile_text) for name, entity in plan.entities.items()}


def _rulebook(entity: EntityPlan, rules: tuple[Rule, ...], compile_text: Compile) -> Rulebook:
    units = {**entity.fields, **entity.groups}
    tolerant = with_tolerance(rules)
    clocks = {name: rule for name in units if (rule := first(tolerant, entity.name, name)) is not None}
    record_rule = first(untriggered(rules), entity.name, None)
    variables = {"record": record_types(entity)}
    writers = {name: unit for name, unit in units.items() if has_restricted_writers(unit)}
    tally = Counter[tuple[str, str]]()
    business = BusinessRules(entity, rules, compile_text, tally)
    is_ruled = entity.checks or writers or clocks or record_rule or business.owners
    has_rules = bool(is_ruled) or any(map(has_auto_resolution, units.values()))
    return Rulebook(
        checks=tuple(CompiledCheck(check, compile_text(check.expr, variables)) for check in entity.checks),
        writers=writers,
        divergence_clocks=clocks,
        unique=compiled(entity, compile_text, record_types(entity)),
        business=business if business.owners else None,
        tally=tally,
        record_severity=record_rule.severity if record_rule is not None else None,
        has_no_rules=not has_rules,
    )


def attach_write_rules(units: Mapping[str, Units], books: Mapping[str, Rulebook]) -> None:
    """From here on the folds of these entities apply the rules about writes."""
    for name, of_entity in units.items():
        of_entity.write_rules = books[name].business


def has_restricted_writers(unit: FieldPlan) -> bool:
    """Whether only some sources or actors may write the field."""
    return unit.writer_sources is not None or unit.writer_actors is not None


def record_types(entity: EntityPlan) -> dict[str, str]:
    """The fields of a record, group members included, with their value types; "" where the type is unknown."""
    types = {name: plan.value_type for name, plan in entity.fields.items()}
    for group in entity.groups.values():
        types |= dict.fromkeys(group.members, "")
    return types
