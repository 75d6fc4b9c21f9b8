"""What the fold remembers. A write's id is the stamp of its change: stamps are never tied (§1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cdc_merge.model import INSERT, SNAPSHOT, UNKNOWN, Change, Place, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan
from cdc_merge.values.normalizers import normalizer
from tests.laws.oracle import maps

OVERWRITES = frozenset({"mv", "lww", "priority", "immutable"})  # §2 rules 2 and 4
AGREES = OVERWRITES | {"max", "min", "flag", "lattice"}  # §2 rule 3
AUTOMATIC = frozenset({"lww", "priority", "max", "min", "flag"})  # §3, the table

ADDS = frozenset({"counter", "append"})

PRESENT, DELETED, NEVER = "present", "deleted", "unknown"


@dataclass(eq=False)
class Write:
    """`seen` is what it dominates; `taught` what its source had seen just after it, agreement included."""

    id: Stamp
    source: str
    value: Any
    kind: str  # edit, insert, decision, baseline
    place: Place
    seen: set[Stamp]
    before: Any = UNKNOWN
    life: int = 0
    also: frozenset[Stamp] = frozenset()
    taught: frozenset[Stamp] = frozenset()
    dots: frozenset[Any] = frozenset()
    delta: Any = None
    is_reset: bool = False
    base_unknown: bool = False


@dataclass(eq=False)
class Delete:
    """An edit of the row; `seen` per field or group."""

    id: Stamp
    source: str
    place: Place
    seen: dict[str, set[Stamp]]
    moved_to: str | None
    dots: dict[str, set[Any]] = field(default_factory=dict)
    overwritten: bool = False
    outlived: bool = False
    dominated: dict[str, set[Stamp]] = field(default_factory=lambda: defaultdict(set))


@dataclass(eq=False)
class WaitingCopy:
    """A copy that matched nothing yet. `replaced` is the source's own write that it replaced."""

    source: str
    value: Any
    stamp: Stamp
    replaced: Stamp | None
    places: tuple[Place, ...]


@dataclass(eq=False)
class Unit:
    """One field, or one group whose value is the tuple of its members."""

    plan: FieldPlan
    sources: frozenset[str]
    same_form: Callable[[Any], Any]
    path: tuple[str, ...] = ()
    writes: dict[Stamp, Write] = field(default_factory=dict)
    baselines: dict[Stamp, Write] = field(default_factory=dict)
    snapshot_only: dict[str, Stamp] = field(default_factory=dict)
    untouched: set[str] = field(default_factory=set)
    null_inserts: set[Stamp] = field(default_factory=set)
    overwritten: set[Stamp] = field(default_factory=set)
    ended: set[Stamp] = field(default_factory=set)
    seen: dict[str, set[Stamp]] = field(default_factory=lambda: defaultdict(set))
    view: dict[str, Any] = field(default_factory=dict)
    before_delete: dict[str, Any] = field(default_factory=dict)
    base: Any = UNKNOWN
    lives: int = 0
    ended_in: dict[Stamp, int] = field(default_factory=dict)
    overruled: dict[str, set[Stamp]] = field(default_factory=lambda: defaultdict(set))
    first_snapshot: dict[str, Any] = field(default_factory=dict)
    differed: set[frozenset[str]] = field(default_factory=set)
    waiting: list[WaitingCopy] = field(default_factory=list)
    waiting_elements: list[WaitingCopy] = field(default_factory=list)
    past: dict[str, list[tuple[int, Any]]] = field(default_factory=lambda: defaultdict(list))
    agreed_at: dict[frozenset[str], int] = field(default_factory=dict)
    dots: set[tuple[Any, Any]] = field(default_factory=set)
    removals: dict[Any, list[tuple[Stamp, frozenset[Any]]]] = field(default_factory=lambda: defaultdict(list))
    seen_dots: dict[str, set[Any]] = field(default_factory=lambda: defaultdict(set))
    ended_dots: set[Any] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def members(self) -> tuple[str, ...]:
        return self.plan.members

    def same(self, one: Any, other: Any) -> bool:
        """§3: values are compared after normalisation."""
        return bool(self.same_form(one) == self.same_form(other))

    def is_written(self) -> bool:
        """Somebody has written since the record's present life began."""
        return any(id_ not in self.ended for id_ in self.writes)

    def is_null(self, value: Any) -> bool:
        return value in (maps.ABSENT, maps.NO_MAP) or self.gives_way(value)

    def gives_way(self, value: Any) -> bool:
        """§3: NULL "at a first snapshot differs from nothing and gives way to any value"."""
        return value in (None, UNKNOWN, maps.NO_MAP) or (bool(self.members) and all(part is None for part in value))


@dataclass(eq=False)
class Record:
    entity: EntityPlan
    max_ahead_us: int
    units: list[Unit]
    steps: int = 0
    presence: dict[str, str] = field(default_factory=lambda: defaultdict(lambda: NEVER))
    kept: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    reborn_by_copy: set[str] = field(default_factory=set)
    deletes: dict[Stamp, Delete] = field(default_factory=dict)
    waiting_deletes: list[WaitingCopy] = field(default_factory=list)
    lost_updates: set[tuple[str, str, Any]] = field(default_factory=set)

    def holds(self, source: str) -> bool:
        """§4: present, or emptied by TRUNCATE, whose last values count as held; not after a local delete."""
        return self.presence[source] == PRESENT or source in self.kept

    def held(self, unit: Unit) -> list[tuple[str, Any]]:
        """What the holders hold now, in the order of `from:`."""
        return [(source, unit.view[source]) for source in self.holders(unit) if source in unit.view]

    def holders(self, unit: Unit) -> list[str]:
        return [source for source in self.entity.sources if source in unit.sources and self.holds(source)]


def record_for(entity: EntityPlan, max_ahead_us: int, changes: list[Change]) -> Record:
    plain = [plan for plan in entity.fields.values() if plan.merge != "map"]
    units = [_unit(entity, plan) for plan in (*plain, *entity.groups.values())]
    for plan in entity.fields.values():
        if plan.merge == "map":
            units += [_key(entity, *found) for found in maps.leaves(plan, changes)]
    return Record(entity, max_ahead_us, units)


def _key(entity: EntityPlan, path: maps.Path, plan: FieldPlan) -> Unit:
    sources = frozenset(source for source, mapped in entity.mapped.items() if path[0] in mapped)
    return Unit(plan, sources, _form(normalizer(plan.normalize), is_group=False), path)


def _unit(entity: EntityPlan, plan: FieldPlan) -> Unit:
    names = set(plan.members or (plan.name,))
    sources = frozenset(source for source, mapped in entity.mapped.items() if names <= mapped)
    one = normalizer(plan.normalize)
    return Unit(plan, sources, _form(one, is_group=bool(plan.members)))


def _form(one: Callable[[Any], Any], *, is_group: bool) -> Callable[[Any], Any]:
    def known(value: Any) -> Any:
        return value if value is UNKNOWN else one(value)

    def group(value: Any) -> Any:
        return tuple(known(part) for part in value) if isinstance(value, tuple) else known(value)

    return group if is_group else known


def said(unit: Unit, change: Change) -> tuple[Any, Any] | None:
    """(before, after) of this field or group, or None when the change says nothing about it.

    §3: an unchanged TOASTed column is absent, which is neither NULL nor a write. `before` comes "from the old tuple or
    else from the source's view". A group's member that is not mentioned is as the source held it.
    """
    source = change.stamp.source
    if unit.path:
        return _said_of_key(unit, change)
    if not unit.members:
        before, after = change.fields.get(unit.name, (UNKNOWN, UNKNOWN))
        held = unit.view.get(source, UNKNOWN)
        return None if after is UNKNOWN else (held if before is UNKNOWN else before, after)
    if not any(member in change.fields for member in unit.members):
        return None
    held_parts = unit.view.get(source) or (UNKNOWN,) * len(unit.members)
    pairs = [_part(change, member, held) for member, held in zip(unit.members, held_parts, strict=True)]
    return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def _said_of_key(unit: Unit, change: Change) -> tuple[Any, Any] | None:
    empties = change.operation not in (SNAPSHOT, INSERT)
    pair = change.fields.get(unit.path[0], (UNKNOWN, UNKNOWN))
    before, after = (maps.leaf(value, unit.path, null_is_empty=empties) for value in pair)
    held = unit.view.get(change.stamp.source, UNKNOWN)
    if held is maps.NO_MAP and after is maps.ABSENT:
        still = change.fields[unit.path[0]][1] is None
        return (held, held) if still else (after, after)  # a NULL map had no key that could go
    return None if after is UNKNOWN else (held if before is UNKNOWN else before, after)


def _part(change: Change, member: str, held: Any) -> tuple[Any, Any]:
    before, after = change.fields.get(member, (UNKNOWN, UNKNOWN))
    before = held if before is UNKNOWN else before
    return before, (before if after is UNKNOWN else after)
