"""business_rule: writes that a rule's `when` says something about, by what the writer's source held and what it wrote
(semantics §5). Open until people decide; neither what is written later nor a delete answers it.

`old` and `new` are the field's values, of a group objects of its members. Where one is NULL or unknown the rule is
silent, unless the rest of the expression decides without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_merge.conflicts.expression_port import Compile, Expression, Values, Variables
from cdc_merge.conflicts.rules.selection import matches
from cdc_merge.merge.conflict_detection import About, made, shown
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.rule_hits import RuleHit
from cdc_merge.merge.units import Unit, members_of
from cdc_merge.model import UNKNOWN, Candidate, DetectedConflict, MaybeValue
from cdc_merge.model.plan import EntityPlan, FieldPlan, Rule

if TYPE_CHECKING:
    from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext


class BusinessRules:
    """merge.caught.Catches over the rules with a `when`; what they gave is counted in `tally`."""

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
        met = [(rule, test) for rule, test in self._tests[unit.owner] if matches(rule.on, self._entity, unit.name)]
        return [rule.name for rule, test in met if self._catches(rule, test, values)]

    def _catches(self, rule: Rule, test: Expression, values: Values) -> bool:
        errors = test.errors
        said = test.evaluate(values)
        failed = test.errors > errors
        self._tally[
            rule.name, "error" if failed else "unknown" if said is UNKNOWN else "true" if said else "false"
        ] += 1
        return said is True


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


# ---------------------------------------------------------------- the questions


def detect(record: Record, rulebook: Rulebook, stage: RuleContext) -> Iterator[DetectedConflict]:
    for (name, rule_name), several in sorted(record.rule_hits.items()):
        rule = rulebook.business.by_name.get(rule_name) if rulebook.business is not None else None
        unit = record.unit_of.get(name)
        if rule is None or unit is None:
            continue
        about = About(record, unit, record.cells[name])
        candidates = tuple(_candidate(unit, caught) for caught in several)
        question = made(about, candidates, kind="business_rule", base=_base(unit, several))
        yield replace(question, severity=rule.severity or question.severity, rule=rule.name)


def _candidate(unit: Unit, caught: RuleHit) -> Candidate:
    change = caught.change
    return Candidate(
        source=change.stamp.source.partition("/")[0],
        value=shown(unit, caught.value),
        stamp=change.stamp,
        committed_us=change.committed_us,
        actor=change.actor,
        place=change.place,
        seen=() if caught.seen is None else (caught.seen,),
        delta=caught.delta,
    )


def _base(unit: Unit, several: tuple[RuleHit, ...]) -> MaybeValue:
    """Of one source's writes each has seen what the first one had; of several sources' only what all started from."""
    bases = {unit.keyed(caught.base) for caught in several if caught.base is not UNKNOWN}
    one_source = len({caught.change.stamp.source for caught in several}) == 1
    is_common = one_source or (len(bases) == 1 and all(caught.base is not UNKNOWN for caught in several))
    return several[0].base if is_common else UNKNOWN
