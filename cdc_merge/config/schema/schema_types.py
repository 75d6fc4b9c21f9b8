"""The types of the schema: durations, lists that may be a single word, exact numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from cdc_merge.config.durations import DURATION_PATTERN, duration_us


class Shape(BaseModel):
    """The base model of a mapping in the file: no unknown keys, no implicit conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _one_or_many(given: object) -> object:
    return [given] if isinstance(given, str) else given


def _number(given: object) -> Decimal | int:
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        raise ValueError("this must be a number")  # noqa: TRY004 pydantic collects ValueError, not TypeError
    if isinstance(given, Decimal) and not given.is_finite():
        raise ValueError("this must be a finite number")
    return given


Duration: TypeAlias = Annotated[
    int,
    BeforeValidator(duration_us),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["2s", "10m", "90d"]}),
]
"""Whole microseconds; in the file `2s`, `10m`, `1h30m`."""


def duration_field(text: str, description: str) -> Any:
    """A duration field whose default is given as in the file; typed as pydantic's own Field is."""
    return Field(default=duration_us(text), description=description, json_schema_extra={"default": text})


OneOrMany: TypeAlias = Annotated[
    list[str],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""A list of words, or a single word."""

Number: TypeAlias = Annotated[Decimal | int, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
"""An exact number."""
