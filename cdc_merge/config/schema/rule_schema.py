"""The schema of `rules:`: selection of conflicts, their severity, and their decision."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

from cdc_merge.config.schema.schema_types import Duration, Number, OneOrMany, Shape
from cdc_merge.model.plan import Severity

AUTO_WORDS = ("latest", "earliest", "max", "min", "provisional")
Step: TypeAlias = "str | tuple[str, ...]"


def auto_chain(given: object) -> object:
    """`latest`, `{ prefer: [crm, erp] }` or a list of them → a tuple of words and tuples of preferred sources."""
    return tuple(_step(step) for step in (given if isinstance(given, list) else [given]))


def _step(given: object) -> Step:
    if isinstance(given, str) and given in AUTO_WORDS:
        return given
    if isinstance(given, dict) and set(given) == {"prefer"}:
        sources = given["prefer"] if isinstance(given["prefer"], list) else [given["prefer"]]
        if sources and all(isinstance(source, str) for source in sources):
            return tuple(sources)
    raise ValueError(f"auto is one of {', '.join(AUTO_WORDS)}, or {{ prefer: [source, …] }}, or a list of these")


_STEP_SCHEMA = {
    "anyOf": [
        {"enum": list(AUTO_WORDS)},
        {
            "type": "object",
            "properties": {"prefer": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}},
            "required": ["prefer"],
            "additionalProperties": False,
        },
    ]
}

Auto: TypeAlias = Annotated[
    tuple[str | tuple[str, ...], ...],
    BeforeValidator(auto_chain),
    WithJsonSchema({"anyOf": [*_STEP_SCHEMA["anyOf"], {"type": "array", "items": _STEP_SCHEMA}]}),
]
Levels: TypeAlias = Annotated[
    list[OneOrMany],
    WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
]


class DecideShape(Shape):
    """How a conflict is decided."""

    auto: Auto = Field(default=(), description="Automatic decision: the first step of the chain that gives a value.")
    approve: Levels = Field(
        default=[], description="Levels of approval in order; each needs an approval of one of its roles."
    )
    votes: int = Field(default=1, ge=1, description="How many approvals a level needs.")
    four_eyes: bool = Field(default=False, description="Whether the proposer may not approve.")
    sla: Duration | None = Field(default=None, description="How long a decision may take.")
    on_expiry: str | None = Field(default=None, description="The action after the sla: escalate, or a word of auto.")
    when: str | None = Field(default=None, description="A CEL expression: true requires approval, false uses auto.")


class RuleShape(Shape):
    """One rule. The first that matches a conflict decides."""

    name: str = Field(min_length=1, description="The name of the rule in conflicts, reports and metrics.")
    on: str = Field(min_length=1, description="entity.field, entity.*, *.field or entity.")
    when: str | None = Field(default=None, description="A CEL expression over old and new.")
    severity: Severity | None = Field(default=None, description="Replaces the field's severity.")
    tolerance: Duration | None = Field(
        default=None, description="How long a source may differ before it is a conflict `divergence`."
    )
    threshold: Number | None = Field(default=None, description="The anomaly score above which a change is a conflict.")
    decide: DecideShape | None = Field(default=None, description="How a conflict is decided.")
