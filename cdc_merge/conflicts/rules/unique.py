"""Unique rules: what a record may not share with another one of its entity (`unique:`, semantics §5, duplicate).

A record holds one digest per rule: of the rule and its fields' merged values, each compared as its field is and then
after the rule's own `normalize:`. NULL and unknown values match nothing; nor does a record that has ended, or for which
`when` is not true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from cdc_merge.conflicts.expression_port import Compile, Expression
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.types import TYPES
from cdc_merge.merge.views import ended, values
from cdc_merge.model import UNKNOWN, MaybeValue, Value
from cdc_merge.model.plan import EntityPlan, Unique
from cdc_merge.values.keys import encoded, value_text
from cdc_merge.values.normalizers import normalizer

# Two values share a digest of this length by chance less often than a disk returns a wrong block unnoticed.
DIGEST_BYTES: Final = 16

NO_RULES: Final[Mapping[bytes, CompiledUnique]] = {}


class CompiledUnique(NamedTuple):
    """A compiled rule. `texts`: its fields, each with the function that maps equal values to equal texts."""

    rule: Unique
    test: Expression | None
    texts: tuple[tuple[str, Callable[[Value], str]], ...]


def compiled(entity: EntityPlan, compile_text: Compile, types: Mapping[str, str]) -> tuple[CompiledUnique, ...]:
    """The unique rules of an entity. ExpressionError for a `when` that cannot be read."""
    return tuple(
        CompiledUnique(
            rule,
            None if rule.when is None else compile_text(rule.when, {"record": types}),
            tuple((field, _text_of(entity, field, rule.normalize)) for field in rule.fields),
        )
        for rule in entity.unique
    )


def digests(
    record: Record, rules: Sequence[CompiledUnique], count: Callable[[str, str], None]
) -> Mapping[bytes, CompiledUnique]:
    """The record's digests, each with its rule. `count` is called with the outcome of each `when`."""
    if not rules or ended(record):
        return NO_RULES
    merged = values(record)
    by_rule = ((_digest(rule, merged), rule) for rule in rules)
    return {digest: rule for digest, rule in by_rule if digest is not None and _applies(rule, merged, count)}


def _applies(rule: CompiledUnique, merged: Mapping[str, MaybeValue], count: Callable[[str, str], None]) -> bool:
    if rule.test is None:
        return True
    errors = rule.test.errors
    answer = rule.test.evaluate({"record": merged})
    failed = rule.test.errors > errors
    count(rule.rule.name, "error" if failed else "unknown" if answer is UNKNOWN else "true" if answer else "false")
    return answer is True


def _digest(rule: CompiledUnique, merged: Mapping[str, Value]) -> bytes | None:
    """None where a field is NULL or unknown."""
    parts = [repr((rule.rule.fields, rule.rule.normalize, rule.rule.when))]
    for field, text in rule.texts:
        value = merged.get(field)
        if value is None:
            return None
        parts.append(encoded(text(value)))
    return blake2b(",".join(parts).encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _text_of(entity: EntityPlan, field: str, more: tuple[str, ...]) -> Callable[[Value], str]:
    key_of, normal = _comparison_key(entity, field), normalizer(more)

    def text(value: Value) -> str:
        key = key_of(value)
        if isinstance(key, frozenset):
            return ",".join(sorted(encoded(_text(normal(each))) for each in key))
        return _text(normal(key))  # type: ignore[arg-type]  # a key is a value, or a set of them

    return text


def _text(value: Value) -> str:
    return "" if value is None else value_text(value)


def _comparison_key(entity: EntityPlan, field: str) -> Callable[[Value], object]:
    """How the field's values are compared."""
    for group in entity.groups.values():
        if field in group.members:
            return normalizer(tuple((group.options.get("normalize") or {}).get(field, ())))
    plan = entity.fields[field]
    return TYPES[plan.merge].comparison_key(plan) if plan.merge in TYPES else normalizer(plan.normalize)
