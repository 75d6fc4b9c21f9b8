"""What a record may not share with another one of its entity (`unique:` of an entity, semantics §5, duplicate).

A record holds one digest per rule: of the rule and its fields' merged values, each compared as its field is and then
after the rule's own `normalize:`. NULL and what is unknown match nothing; nor does a record that has ended, or of which
`when` does not say true.
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
    """A rule, ready to be asked. `texts`: its fields, each with what makes equal values equal texts."""

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
    """What the record may not share, with the rule that says so. `count` is told what each `when` gave."""
    if not rules or ended(record):
        return NO_RULES
    merged = values(record)
    held = ((_digest(rule, merged), rule) for rule in rules)
    return {digest: rule for digest, rule in held if digest is not None and _applies(rule, merged, count)}


def _applies(rule: CompiledUnique, merged: Mapping[str, MaybeValue], count: Callable[[str, str], None]) -> bool:
    if rule.test is None:
        return True
    errors = rule.test.errors
    said = rule.test.evaluate({"record": merged})
    failed = rule.test.errors > errors
    count(rule.rule.name, "error" if failed else "unknown" if said is UNKNOWN else "true" if said else "false")
    return said is True


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
    keyed, normal = _keyed(entity, field), normalizer(more)

    def text(value: Value) -> str:
        key = keyed(value)
        if isinstance(key, frozenset):
            return ",".join(sorted(encoded(_written(normal(each))) for each in key))
        return _written(normal(key))  # type: ignore[arg-type]  # a key is a value, or a set of them

    return text


def _written(value: Value) -> str:
    return "" if value is None else value_text(value)


def _keyed(entity: EntityPlan, field: str) -> Callable[[Value], object]:
    """How the field's values are compared."""
    for group in entity.groups.values():
        if field in group.members:
            return normalizer(tuple((group.options.get("normalize") or {}).get(field, ())))
    plan = entity.fields[field]
    return TYPES[plan.merge].keyed(plan) if plan.merge in TYPES else normalizer(plan.normalize)
