"""Checks of expressions: grammar, fields and value types, with line and column within the expression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cdc_merge.cel import compile_expression
from cdc_merge.config.check_context import CheckContext, entity_path
from cdc_merge.config.problems import ConfigProblem, Path
from cdc_merge.config.schema.entity_schema import EntityShape
from cdc_merge.conflicts.expression_port import ExpressionError, Variables
from cdc_merge.conflicts.rules.business import is_about, variables
from cdc_merge.conflicts.rules.rulebook import record_types
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan


def check_expressions(context: CheckContext) -> Iterator[ConfigProblem]:
    """Without the catalogs: the fields' value types are unknown."""
    for name, entity in context.shape.entities.items():
        texts: dict[Path, str] = {("checks", n, "expr"): check.expr for n, check in enumerate(entity.checks)}
        texts |= {("unique", n, "when"): unique.when for n, unique in enumerate(entity.unique) if unique.when}
        yield from _problems(name, texts, dict.fromkeys(context.mapped(name), ""))


def check_business_rules(context: CheckContext) -> Iterator[ConfigProblem]:
    """A rule's `when` without the catalogs; compiled once for every field that the rule selects."""
    units = [(name, unit) for name, entity in context.shape.entities.items() for unit in _units(context, name, entity)]
    yield from _when_problems({n: (r.on, r.when) for n, r in enumerate(context.shape.rules) if r.when}, units)


def business_rule_problems(plan: Plan) -> Iterator[ConfigProblem]:
    """A rule's `when` with the value types of the sources' catalogs."""
    entities = plan.entities.items()
    units = [(name, unit) for name, e in entities for unit in (*e.fields.values(), *e.groups.values())]
    yield from _when_problems({n: (r.on, r.when) for n, r in enumerate(plan.rules) if r.when}, units)


def _units(context: CheckContext, name: str, entity: EntityShape) -> Iterator[FieldPlan]:
    grouped = {field for group in entity.groups.values() for field in group.fields}
    for field in context.mapped(name):
        if field not in grouped:
            yield FieldPlan(field, entity.fields[field].merge if field in entity.fields else "mv")
    for group, shape in entity.groups.items():
        yield FieldPlan(group, members=tuple(shape.fields))


def _when_problems(
    whens: Mapping[int, tuple[str, str]], units: Sequence[tuple[str, FieldPlan]]
) -> Iterator[ConfigProblem]:
    """`whens` by the rule's number: `on` and `when`. Each problem once, however many fields it concerns."""
    for number, (on, text) in whens.items():
        if "." not in on:
            yield ConfigProblem(("rules", number, "on"), "a rule with `when` is about fields", f"{on}.* or {on}.FIELD")
            continue
        selected = [variables(unit) for name, unit in units if is_about(on, name, unit)]
        errors = dict.fromkeys(error for names in selected for error in _errors(text, names))
        yield from (ConfigProblem(("rules", number, "when"), sentence, hint) for sentence, hint in errors)


def _errors(text: str, names: Variables) -> Iterator[tuple[str, str]]:
    try:
        compile_expression(text, names)
    except ExpressionError as error:
        yield f"line {error.line}, column {error.column}: {error}", error.hint


def expression_problems(entity: EntityPlan) -> Iterator[ConfigProblem]:
    """Checks and unique conditions with the value types of the sources' catalogs."""
    texts: dict[Path, str] = {("checks", n, "expr"): check.expr for n, check in enumerate(entity.checks)}
    texts |= {("unique", n, "when"): unique.when for n, unique in enumerate(entity.unique) if unique.when}
    yield from _problems(entity.name, texts, record_types(entity))


def _problems(entity: str, texts: Mapping[Path, str], types: Mapping[str, str]) -> Iterator[ConfigProblem]:
    for path, text in texts.items():
        for sentence, hint in _errors(text, {"record": types}):
            yield ConfigProblem(entity_path(entity, *path), sentence, hint)
