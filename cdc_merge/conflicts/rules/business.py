"""business_rule: writes for which a rule's `when` is true, over the value at the writer's source and the written one
(semantics §5). Open until people decide; neither later writes nor a delete close it.

`old` and `new` are the field's values, of a group objects of its members. Where one is NULL or unknown the rule does not
match, unless the rest of the expression decides without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_merge.conflicts.expression_port import Compile, Expression, Values, Variables
from cdc_merge.conflicts.rules.selection import matches
from cdc_merge.merge.conflict_detection import ConflictSubject, build_conflict, displayed
from cdc_merge.merge.record_state import Record, RuleHit
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.model import UNKNOWN, Candidate, DetectedConflict, MaybeValue
from cdc_merge.model.plan import EntityPlan, FieldPlan, Rule

if TYPE_CHECKING:
    from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext


class BusinessRules:
    """The rules with a `when` of one entity (merge.rule_hits.WriteRules); `tally` counts their outcomes."""

    def __init__(
        self, entity: EntityPlan, rules: Iterable[Rule], compile_text: Compile, tally: Counter[tuple[str, str]]
    ) -> None:
        self._entity = entity.name
        self._tally = tally
        self.by_name = {rule.name: rule for rule in rules if rule.when is not None}
        self._tests: dict[str, list[tuple[Rule, Expression]]] = {}
        for name, unit in {**entity.fields, **entity.groups}.items():
            for rule in self.by_name.values():
                if is_about(rule.on, entity.name, unit):
                    test = compile_text(rule.when or "", variables(unit))
                    self._tests.setdefault(name, []).append((rule, test))
        self.owners = frozenset(self._tests)

    def rules(self, unit: Unit, old: MaybeValue, new: MaybeValue) -> list[str]:
        values = {"old": _operand(unit.plan, old), "new": _operand(unit.plan, new)}
        applicable = [
            (rule, test) for rule, test in self._tests[unit.owner] if matches(rule.on, self._entity, unit.name)
        ]
        return [rule.name for rule, test in applicable if self._is_hit(rule, test, values)]

    def _is_hit(self, rule: Rule, test: Expression, values: Values) -> bool:
        errors = test.errors
        answer = test.evaluate(values)
        failed = test.errors > errors
        self._tally[
            rule.name, "error" if failed else "unknown" if answer is UNKNOWN else "true" if answer else "false"
        ] += 1
        return answer is True


def is_about(on: str, entity: str, unit: FieldPlan) -> bool:
    """Whether a rule's `on` names a field or group, or a key of a map."""
    field = on.partition(".")[2]
    of_a_key = unit.merge == "map" and field.startswith(f"{unit.name}.")
    return matches(on, entity, field if of_a_key else unit.name)


def variables(unit: FieldPlan) -> Variables:
    """What `old` and `new` are in expressions about a field or group."""
    if unit.members:
        members = dict.fromkeys(unit.members, "")
        return {"old": members, "new": members}
    kind = "" if unit.merge == "map" else unit.value_type
    return {"old": kind, "new": kind}


def _operand(plan: FieldPlan, value: MaybeValue) -> MaybeValue | Mapping[str, MaybeValue]:
    return members_of(plan, value) if plan.members and value is not UNKNOWN else value


# ---------------------------------------------------------------- detection


def detect(record: Record, rulebook: Rulebook, context: RuleContext) -> Iterator[DetectedConflict]:
    for (name, rule_name), hits in sorted(record.rule_hits.items()):
        rule = rulebook.business.by_name.get(rule_name) if rulebook.business is not None else None
        unit = record.unit_of.get(name)
        if rule is None or unit is None:
            continue
        subject = ConflictSubject(record, unit, record.unit_states[name])
        candidates = tuple(_candidate(unit, hit) for hit in hits)
        detected = build_conflict(subject, candidates, kind="business_rule", base=_base(unit, hits))
        yield replace(detected, severity=rule.severity or detected.severity, rule=rule.name)


def _candidate(unit: Unit, hit: RuleHit) -> Candidate:
    change = hit.change
    return Candidate(
        source=change.stamp.source.partition("/")[0],
        value=displayed(unit, hit.value),
        stamp=change.stamp,
        committed_us=change.committed_us,
        actor=change.actor,
        place=change.place,
        seen=() if hit.seen is None else (hit.seen,),
        delta=hit.delta,
    )


def _base(unit: Unit, hits: tuple[RuleHit, ...]) -> MaybeValue:
    """One source's writes all start from the first one's base; writes of several sources only have a base if it is common."""
    bases = {unit.key_of(hit.base) for hit in hits if hit.base is not UNKNOWN}
    one_source = len({hit.change.stamp.source for hit in hits}) == 1
    is_common = one_source or (len(bases) == 1 and all(hit.base is not UNKNOWN for hit in hits))
    return hits[0].base if is_common else UNKNOWN
