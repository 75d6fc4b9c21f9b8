"""The units of an entity: what is merged as one value, which is a field, a group of fields, or one key of a map.

`Units` is compiled once per entity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cdc_merge.merge.merge_type import MergeType, Step
from cdc_merge.merge.types import TYPES
from cdc_merge.merge.writes import LIMITS, CompactionLimits
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.model.plan import EntityPlan, FieldPlan


class Unit(NamedTuple):
    """One unit of an entity.

    `owner`: the mapped field or group that it belongs to (a map's keys belong to the map's field). `order`: the sources
    that map it, as in `from:`. `steps`: the type's apply, copy, snapshot, decide. `snapshot_candidates`: first-snapshot
    values may stand against first inserts."""

    name: str
    owner: str
    plan: FieldPlan
    type: MergeType
    order: tuple[str, ...]
    key_of: Callable[[Any], object]
    steps: tuple[Step, ...]
    snapshot_candidates: bool


Fields = Mapping[str, tuple[MaybeValue, MaybeValue]]


class WriteRules(Protocol):
    """The rules that look at writes of one entity. `owners`: the fields and groups that any of them is about."""

    @property
    def owners(self) -> frozenset[str]: ...

    def rules(self, unit: Unit, old: MaybeValue, new: MaybeValue) -> Sequence[str]:
        """The names of the rules that a write breaks. `old`: the value at the writer's source."""
        ...


class Units:
    """The units of one entity: which sources map them, which group a field belongs to, when their states are compacted.

    `write_rules`: set where rules look at writes. `with_tolerance`: the owners whose differences are timed."""

    def __init__(self, entity: EntityPlan, limits: CompactionLimits = LIMITS) -> None:
        self.entity = entity
        self.limits = limits
        self.by_name: dict[str, Unit] = {}
        self.group_of: dict[str, FieldPlan] = {}
        self._holders: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        plans = (*entity.fields.values(), *entity.groups.values())
        self.write_rules: WriteRules | None = None
        self.with_tolerance = frozenset(plan.name for plan in plans if plan.tolerance_us is not None)
        for plan in entity.groups.values():
            self._add(plan, plan.members[0])
            self.group_of.update(dict.fromkeys(plan.members, plan))
        for plan in entity.fields.values():
            if plan.merge != "map":
                self._add(plan, plan.name)
        self.has_only_fields = not entity.groups and all(plan.merge != "map" for plan in entity.fields.values())

    def _add(self, plan: FieldPlan, field: str) -> None:
        self.by_name[plan.name] = self.unit(plan, plan.name, field)

    def unit(self, plan: FieldPlan, owner: str, field: str) -> Unit:
        order = tuple(s for s in self.entity.sources if field in self.entity.mapped.get(s, ()))
        kind = TYPES[plan.merge]
        steps = (kind.apply, kind.copy, kind.snapshot, kind.decide)
        candidates = kind.traits.snapshot_candidates and len(self.entity.sources) > 1
        return Unit(plan.name, owner, plan, kind, order, kind.comparison_key(plan), steps, candidates)

    def maps(self, source: str, unit: Unit) -> bool:
        return source in unit.order

    def holders_by_owner(self, present: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """For these present sources: unit owner → its holders. One mapping, shared by all records with these sources."""
        return self._holders.setdefault(present, {})

    def grouped(self, fields: Fields) -> Iterator[tuple[FieldPlan, Fields]]:
        """The groups that a change touches, each with its members' values."""
        touched = {self.group_of[f].name: self.group_of[f] for f in fields if f in self.group_of}
        for plan in touched.values():
            yield plan, {m: fields[m] for m in plan.members if m in fields}


def group_values(plan: FieldPlan, fields: Fields, present: MaybeValue) -> tuple[MaybeValue, MaybeValue]:
    """(before, after) of a group as one value: a tuple of members, None where all are NULL, UNKNOWN where any is unknown.

    `present`: the group's value at the source; it fills the members that the change leaves out.
    """
    view = present if isinstance(present, tuple) else tuple([None if present is None else UNKNOWN] * len(plan.members))
    before = tuple([_before(fields, m, v) for m, v in zip(plan.members, view, strict=True)])
    after = tuple([fields[m][1] if m in fields else v for m, v in zip(plan.members, view, strict=True)])
    return _whole(before), _whole(after)


def _before(fields: Fields, member: str, present: MaybeValue) -> MaybeValue:
    before = fields[member][0] if member in fields else UNKNOWN
    return present if before is UNKNOWN else before


def _whole(values: tuple[MaybeValue, ...]) -> MaybeValue:
    if all(v is None for v in values):
        return None
    if any(v is UNKNOWN for v in values):
        return UNKNOWN
    return values  # type: ignore[return-value]  # UNKNOWN was just excluded


def members_of(plan: FieldPlan, value: MaybeValue) -> dict[str, MaybeValue]:
    """A group's value by member."""
    if isinstance(value, tuple):
        return dict(zip(plan.members, value, strict=True))
    return dict.fromkeys(plan.members, value)
