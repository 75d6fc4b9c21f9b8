"""What is merged as one value: a field, a group of fields, or one key of a map.

`Units` is compiled once per entity. It turns the fields of a change into unit events and says who holds a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from cdc_merge.merge.merge_type import Event, MergeType
from cdc_merge.merge.types import TYPES
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.model.plan import EntityPlan, FieldPlan

if TYPE_CHECKING:
    from cdc_merge.merge.rule_hits import WriteRules


class Unit(NamedTuple):
    """One unit of an entity. `owner` is the mapped field or group it belongs to (a map's keys belong to the map's
    field).
    `order`: the sources that map it, as in `from:`. `steps`: the type's apply, copy, snapshot, decide. `rivals`:
    first-snapshot values may stand against first inserts."""

    name: str
    owner: str
    plan: FieldPlan
    type: MergeType
    order: tuple[str, ...]
    keyed: Callable[[Any], object]
    steps: tuple[Callable[[UnitState, FieldPlan, Event], str], ...]
    rivals: bool


Fields = Mapping[str, tuple[MaybeValue, MaybeValue]]


class Units:
    """The units of one entity, who maps them, and which group a field belongs to."""

    def __init__(self, entity: EntityPlan) -> None:
        self.entity = entity
        self.by_name: dict[str, Unit] = {}
        self.group_of: dict[str, FieldPlan] = {}
        self._holding: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        plans = (*entity.fields.values(), *entity.groups.values())
        self.write_rules: WriteRules | None = None
        self.timed = frozenset(plan.name for plan in plans if plan.tolerance_us is not None)
        for plan in entity.groups.values():
            self._add(plan, plan.members[0])
            self.group_of.update(dict.fromkeys(plan.members, plan))
        for plan in entity.fields.values():
            if plan.merge != "map":
                self._add(plan, plan.name)
        self.plain = not entity.groups and all(plan.merge != "map" for plan in entity.fields.values())

    def _add(self, plan: FieldPlan, field: str) -> None:
        self.by_name[plan.name] = self.unit(plan, plan.name, field)

    def unit(self, plan: FieldPlan, owner: str, field: str) -> Unit:
        order = tuple(s for s in self.entity.sources if field in self.entity.mapped.get(s, ()))
        kind = TYPES[plan.merge]
        steps = (kind.apply, kind.copy, kind.snapshot, kind.decide)
        rivals = kind.traits.rivals and len(self.entity.sources) > 1
        return Unit(plan.name, owner, plan, kind, order, kind.keyed(plan), steps, rivals)

    def maps(self, source: str, unit: Unit) -> bool:
        return source in unit.order

    def holding(self, present: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """For these present sources: unit owner → its holders. Shared by all records in the same situation."""
        return self._holding.setdefault(present, {})

    def grouped(self, fields: Fields) -> Iterator[tuple[FieldPlan, Fields]]:
        """The groups that a change touches, each with its members' values."""
        touched = {self.group_of[f].name: self.group_of[f] for f in fields if f in self.group_of}
        for plan in touched.values():
            yield plan, {m: fields[m] for m in plan.members if m in fields}


def group_values(plan: FieldPlan, fields: Fields, held: MaybeValue) -> tuple[MaybeValue, MaybeValue]:
    """(before, after) of a group as one value: a tuple of members, None where all are NULL, UNKNOWN where nothing is
    known.

    `held` is the source's present view of the group; it fills the members that the change does not mention.
    """
    view = held if isinstance(held, tuple) else tuple([None if held is None else UNKNOWN] * len(plan.members))
    before = tuple([_before(fields, m, v) for m, v in zip(plan.members, view, strict=True)])
    after = tuple([fields[m][1] if m in fields else v for m, v in zip(plan.members, view, strict=True)])
    return _whole(before), _whole(after)


def _before(fields: Fields, member: str, held: MaybeValue) -> MaybeValue:
    before = fields[member][0] if member in fields else UNKNOWN
    return held if before is UNKNOWN else before


def _whole(values: tuple[MaybeValue, ...]) -> MaybeValue:
    if all(v is None for v in values):
        return None
    if any(v is UNKNOWN for v in values):
        return UNKNOWN
    return values  # type: ignore[return-value]  # UNKNOWN was just excluded


def members_of(plan: FieldPlan, value: MaybeValue) -> dict[str, MaybeValue]:
    """A group's value taken apart again."""
    if isinstance(value, tuple):
        return dict(zip(plan.members, value, strict=True))
    return dict.fromkeys(plan.members, value)
