"""What is asked of one entity's records beyond what the merge asks: the checks and rules of the file, compiled once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cdc_merge.conflicts.expression_port import Compile, Expression
from cdc_merge.conflicts.rules.business import BusinessRules
from cdc_merge.conflicts.rules.selection import answers_some, first, untriggered, with_tolerance
from cdc_merge.conflicts.rules.unique import CompiledUnique, compiled
from cdc_merge.merge.units import Units
from cdc_merge.model import DetectedConflict
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, Rule


class CompiledCheck(NamedTuple):
    check: Check
    test: Expression


class RuleContext(NamedTuple):
    """What has been asked about a record so far, and how far stamp time has come (the watermark, µs)."""

    found: tuple[DetectedConflict, ...]
    watermark_us: int


@dataclass(frozen=True, slots=True)
class Rulebook:
    """`writers`: the fields and groups that not everybody may write. `drifts`: those that sources may hold differently
    only for a while, each with its rule. `unique`: what no two records may share; `business`: the rules that look at
    writes. `record_severity` replaces that of questions about the whole record. `tally` counts what expressions gave,
    (check or rule, true | false | unknown | error), until somebody takes the counts. `is_silent`: nothing in the file
    adds to what the merge asks of one record, or answers it."""

    checks: tuple[CompiledCheck, ...] = ()
    writers: Mapping[str, FieldPlan] = field(default_factory=dict)
    divergence_clocks: Mapping[str, Rule] = field(default_factory=dict)
    unique: tuple[CompiledUnique, ...] = ()
    business: BusinessRules | None = None
    record_severity: str | None = None
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    has_no_rules: bool = True

    @property
    def is_calm(self) -> bool:
        """Nothing in the file asks more than the merge does, of one record or of several."""
        return self.has_no_rules and not self.unique


def rulebooks(plan: Plan, compile_text: Compile) -> dict[str, Rulebook]:
    """The rulebook of every entity. ExpressionError for a check that cannot be read."""
    return {name: _rulebook(entity, plan.rules, compile_text) for name, entity in plan.entities.items()}


def _rulebook(entity: EntityPlan, rules: tuple[Rule, ...], compile_text: Compile) -> Rulebook:
    units = {**entity.fields, **entity.groups}
    tolerant = with_tolerance(rules)
    drifts = {name: rule for name in units if (rule := first(tolerant, entity.name, name)) is not None}
    whole = first(untriggered(rules), entity.name, None)
    variables = {"record": record_types(entity)}
    writers = {name: unit for name, unit in units.items() if guarded(unit)}
    tally = Counter[tuple[str, str]]()
    business = BusinessRules(entity, rules, compile_text, tally)
    speaks = entity.checks or writers or drifts or whole or business.owners or any(map(answers_some, units.values()))
    return Rulebook(
        checks=tuple(CompiledCheck(check, compile_text(check.expr, variables)) for check in entity.checks),
        writers=writers,
        divergence_clocks=drifts,
        unique=compiled(entity, compile_text, record_types(entity)),
        business=business if business.owners else None,
        tally=tally,
        record_severity=whole.severity if whole is not None else None,
        has_no_rules=not speaks,
    )


def attach_write_rules(units: Mapping[str, Units], books: Mapping[str, Rulebook]) -> None:
    """From here on the folds of these entities ask the rules that look at writes."""
    for name, its in units.items():
        its.write_rules = books[name].business


def guarded(unit: FieldPlan) -> bool:
    """Not everybody may write it."""
    return unit.writer_sources is not None or unit.writer_actors is not None


def record_types(entity: EntityPlan) -> dict[str, str]:
    """The fields of a record, group members included, with their value types; "" where that is not known."""
    found = {name: plan.value_type for name, plan in entity.fields.items()}
    for group in entity.groups.values():
        found |= dict.fromkeys(group.members, "")
    return found
