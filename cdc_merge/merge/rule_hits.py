"""Writes that a business rule caught and no decision has seen (semantics §5, business_rule).

Judged once, when they are folded: what the writer's source held is known only then. They are kept beside the cells,
because what has seen a caught write does not answer it: only a decision about the field does. Copies and decisions are
not caught. What the rules say is asked through `Catches`; nothing here knows a grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import ABSENT, BASELINE, WRITE, Write
from cdc_merge.model import DECISION, DECISION_SOURCE, DELETE, UNKNOWN, Change, MaybeValue, Stamp

if TYPE_CHECKING:
    from cdc_merge.merge.record_state import Record
    from cdc_merge.merge.unit_state import UnitState

# Of a field that is caught again and again while nobody decides, the latest are kept.
KEPT: Final = 100


class WriteRules(Protocol):
    """The rules that look at writes of one entity. `owners`: the fields and groups that any of them is about."""

    @property
    def owners(self) -> frozenset[str]: ...

    def rules(self, unit: Unit, old: MaybeValue, new: MaybeValue) -> Sequence[str]:
        """The names of the rules that catch a write. `old`: what the writer's source held."""
        ...


class RuleHit(NamedTuple):
    """A write as it was when it was caught. `change` goes without what it says; `base`: the latest value it had seen."""

    change: Change
    value: MaybeValue
    base: MaybeValue
    delta: Decimal | int | None
    seen: Stamp | None


def note_rule_hits(record: Record, change: Change) -> None:
    """A change was folded into the record: what the rules say of its writes is kept, what it decides is let go."""
    if change.stamp.source == DECISION_SOURCE:
        _let_go(record, change)
    elif change.copy is None:
        _catch(record, change)


def _catch(record: Record, change: Change) -> None:
    write_rules = record.units.write_rules
    assert write_rules is not None, "asked only where rules look at writes"
    for name, cell in record.cells.items():
        unit = record.unit_of[name]
        if unit.owner not in write_rules.owners:
            continue
        for write in cell.writes.values():
            if write.kind == WRITE and write.stamp == change.stamp:
                for rule in write_rules.rules(unit, _told(write.before), _told(write.value)):
                    earlier = record.rule_hits.get((name, rule), ())
                    record.rule_hits[name, rule] = (*earlier, _caught(unit, cell, write))[-KEPT:]


def _told(value: MaybeValue) -> MaybeValue:
    return UNKNOWN if value is ABSENT else value


def _caught(unit: Unit, cell: UnitState, write: Write) -> RuleHit:
    seen = [each for each in cell.of(write.seen & sum(cell.writes)) if each.kind != BASELINE]
    latest = max(seen, key=lambda each: each.stamp, default=None)
    side = cell.sides.get(write.source)
    base = latest.value if latest is not None else UNKNOWN if side is None else side.first
    is_delta = unit.plan.merge == "counter" and not write.is_reset and not write.delta_unknown
    delta = write.delta if is_delta else None
    return RuleHit(write.change._replace(fields={}), write.value, base, delta, None if latest is None else latest.stamp)


def _let_go(record: Record, change: Change) -> None:
    """A decision has seen the writes of the fields it names; one that ends the record has seen them all."""
    if change.operation == DELETE:
        record.rule_hits = {}
    elif change.operation == DECISION and record.rule_hits:
        groups = record.units.group_of
        decided = {groups[field].name if field in groups else field for field in change.fields}
        owner_of = {name: record.unit_of[name].owner for name, _ in record.rule_hits}
        record.rule_hits = {w: several for w, several in record.rule_hits.items() if owner_of[w[0]] not in decided}
