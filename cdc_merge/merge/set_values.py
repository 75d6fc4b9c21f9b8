"""The values of a set: arrays, JSON arrays, or text split by `separator`; elements are compared after `normalize:`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cdc_merge.model import UNKNOWN, Json, MaybeValue, Value
from cdc_merge.model.plan import FieldPlan
from cdc_merge.values.normalizers import normalizer


def _json_elements(text: str) -> list[Value]:
    parsed = json.loads(text, parse_float=str)
    items = parsed if isinstance(parsed, list) else [parsed]
    return [item if isinstance(item, str | int | bool) or item is None else Json(_dump(item)) for item in items]


def _dump(item: Any) -> str:
    return json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _as_array(values: list[Value], plan: FieldPlan) -> Value:
    return tuple(values)


def _as_json(values: list[Value], plan: FieldPlan) -> Value:
    return Json("[" + ",".join(v if isinstance(v, Json) else _dump(v) for v in values) + "]")


def _as_text(values: list[Value], plan: FieldPlan) -> Value:
    return (plan.options.get("separator") or ",").join(str(v) for v in values)


FORMS: Final[Mapping[str, Callable[[list[Value], FieldPlan], Value]]] = {
    "array": _as_array,
    "json": _as_json,
    "text": _as_text,
}
"""How a field writes a set, by its last value."""


def split(plan: FieldPlan, value: MaybeValue) -> list[Value]:
    if value is None or value is UNKNOWN:
        return []
    if isinstance(value, Json):
        return _json_elements(value)
    if isinstance(value, tuple):
        return list(value)
    separator = plan.options.get("separator") or ","
    return [part for part in (p.strip() for p in str(value).split(separator)) if part]


def comparison_key(plan: FieldPlan) -> Callable[[Any], object]:
    normal = normalizer(plan.normalize)

    def key(value: Any) -> object:
        return value if value is None or value is UNKNOWN else frozenset(normal(v) for v in split(plan, value))

    return key


def element_keys(plan: FieldPlan, value: MaybeValue) -> set[object]:
    """The element keys of a value."""
    normal = normalizer(plan.normalize)
    return {normal(item) for item in split(plan, value)}
