"""Expressions are read when the file is: grammar, fields and kinds of values, with line and column within the
expression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc_merge.cel import compile_expression
from cdc_merge.config.problems import Path, Problem
from cdc_merge.config.subject import Subject, entity_path
from cdc_merge.decision.expression import ExpressionError
from cdc_merge.decision.rules.rulebook import record_types
from cdc_merge.plan import EntityPlan


def check_expressions(subject: Subject) -> Iterator[Problem]:
    """Those of the file by itself: what types the fields have is not known yet."""
    for name, entity in subject.shape.entities.items():
        texts: dict[Path, str] = {("checks", n, "expr"): check.expr for n, check in enumerate(entity.checks)}
        texts |= {("unique", n, "when"): unique.when for n, unique in enumerate(entity.unique) if unique.when}
        yield from _problems(name, texts, dict.fromkeys(subject.mapped(name), ""))


def expression_problems(entity: EntityPlan) -> Iterator[Problem]:
    """Once more, with the value types that the sources' catalogs told."""
    texts: dict[Path, str] = {("checks", n, "expr"): check.expr for n, check in enumerate(entity.checks)}
    texts |= {("unique", n, "when"): unique.when for n, unique in enumerate(entity.unique) if unique.when}
    yield from _problems(entity.name, texts, record_types(entity))


def _problems(entity: str, texts: Mapping[Path, str], types: Mapping[str, str]) -> Iterator[Problem]:
    for path, text in texts.items():
        try:
            compile_expression(text, {"record": types})
        except ExpressionError as error:
            sentence = f"line {error.line}, column {error.column}: {error}"
            yield Problem(entity_path(entity, *path), sentence, error.hint)
