"""Rule hits: a fold that keeps the writes which break a business rule until a decision about their field (§5, business_rule).

A write is judged once, when it is folded: only then is the value known that its source held before. Hits are kept beside the
unit states, because a later write that has seen the offending one does not answer it; only a decision does. Copies and
decisions break no rule. The rules stand behind `WriteRules`; this module has no expression grammar.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.merge.record_state import Record, RuleHit
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import ABSENT, BASELINE, WRITE, Write
from cdc_merge.model import DECISION, DECISION_SOURCE, DELETE, UNKNOWN, Change, MaybeValue

# Of a field that breaks a rule again and again without a decision, the latest hits are kept.
KEPT: Final = 100


def note_rule_hits(record: Record, change: Change) -> None:
    """A change was folded into the record: keep the hits of its writes, drop those that it decides."""
    if change.stamp.source == DECISION_SOURCE:
        _drop_decided(record, change)
    elif change.copy is None:
        _add_hits(record, change)


def _add_hits(record: Record, change: Change) -> None:
    write_rules = record.units.write_rules
    assert write_rules is not None, "called only where rules look at writes"
    for name, state in record.unit_states.items():
        unit = record.unit_of[name]
        if unit.owner not in write_rules.owners:
            continue
        for write in state.writes.values():
            if write.kind == WRITE and write.stamp == change.stamp:
                for rule in write_rules.rules(unit, _value(write.before), _value(write.value)):
                    earlier = record.rule_hits.get((name, rule), ())
                    record.rule_hits[name, rule] = (*earlier, _hit(unit, state, write))[-KEPT:]


def _value(value: MaybeValue) -> MaybeValue:
    """A rule sees an absent map key as an unknown value."""
    return UNKNOWN if value is ABSENT else value


def _hit(unit: Unit, state: UnitState, write: Write) -> RuleHit:
    seen = [each for each in state.writes_in(write.seen & sum(state.writes)) if each.kind != BASELINE]
    latest = max(seen, key=lambda each: each.stamp, default=None)
    at_source = state.by_source.get(write.source)
    base = latest.value if latest is not None else UNKNOWN if at_source is None else at_source.snapshot_value
    is_delta = unit.plan.merge == "counter" and not write.is_reset and not write.delta_unknown
    delta = write.delta if is_delta else None
    return RuleHit(write.change._replace(fields={}), write.value, base, delta, None if latest is None else latest.stamp)


def _drop_decided(record: Record, change: Change) -> None:
    """A decision has seen the writes of its fields; one that ends the record has seen them all."""
    if change.operation == DELETE:
        record.rule_hits = {}
    elif change.operation == DECISION and record.rule_hits:
        groups = record.units.group_of
        decided = {groups[field].name if field in groups else field for field in change.fields}
        owner_of = {name: record.unit_of[name].owner for name, _ in record.rule_hits}
        record.rule_hits = {key: hits for key, hits in record.rule_hits.items() if owner_of[key[0]] not in decided}
