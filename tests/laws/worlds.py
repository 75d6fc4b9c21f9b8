"""Worlds: scripts that systems could really have written.

A `World` plays the sources: it knows the row that each of them holds, so that `before` values, inserts, updates and
deletes fit together, and it stamps with one hybrid logical clock per source. `small_worlds` exhausts what two or three
sources can do in a few steps; `scripts` samples longer stories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc_merge.clock import tick
from cdc_merge.model import (
    DECISION,
    DECISION_SOURCE,
    DELETE,
    INSERT,
    SNAPSHOT,
    TRUNCATE,
    UNKNOWN,
    UPDATE,
    Change,
    Copy,
    Place,
    Stamp,
)
from cdc_merge.plan import EntityPlan, FieldPlan

ENTITY, KEY = "customer", "C001"
START_US = 1_790_000_000_000_000
SECOND = 1_000_000
MARKED = Copy()


def entity(
    *plans: FieldPlan,
    sources: Sequence[str] = ("A", "B"),
    groups: Iterable[FieldPlan] = (),
    deletes: str = "review",
    mapped: Mapping[str, Iterable[str]] | None = None,
) -> EntityPlan:
    """An entity whose sources map every field, unless `mapped` says otherwise."""
    shapes = {group.name: group for group in groups}
    names = {plan.name for plan in plans} | {member for group in shapes.values() for member in group.members}
    told = mapped or {}
    return EntityPlan(
        name=ENTITY,
        sources=tuple(sources),
        mapped={source: frozenset(told.get(source, names)) for source in sources},
        fields={plan.name: plan for plan in plans},
        groups=shapes,
        deletes=deletes,
    )


@dataclass
class World:
    """Sources that hold rows of one record. Every step takes one second unless `wait` says otherwise.

    `skew` is how far a source's clock is ahead, in µs. With `full_old` updates carry old tuples and only changed
    columns (REPLICA IDENTITY FULL); without it every column is sent and `before` is unknown.
    """

    plan: EntityPlan
    skew: Mapping[str, int] = field(default_factory=dict)
    full_old: bool = True
    now_us: int = START_US
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    clocks: dict[str, Stamp] = field(default_factory=dict)
    lsn: int = 0
    changes: list[Change] = field(default_factory=list)

    def wait(self, seconds: float = 1) -> None:
        self.now_us += int(seconds * SECOND)

    def stamp(self, source: str) -> Stamp:
        last = self.clocks.get(source, Stamp(0, 0, source))
        self.clocks[source] = tick(last, self.now_us + self.skew.get(source, 0))
        return self.clocks[source]

    def snapshot(self, source: str, **values: Any) -> Change:
        if values:
            self.rows[source] = self._row(source, values)
        return self._add(source, SNAPSHOT, {name: (UNKNOWN, value) for name, value in self.rows[source].items()})

    def insert(self, source: str, copy: Copy | None = None, actor: str | None = None, **values: Any) -> Change:
        assert source not in self.rows
        self.rows[source] = self._row(source, values)
        told = {name: (UNKNOWN, value) for name, value in self.rows[source].items()}
        return self._add(source, INSERT, told, copy=copy, actor=actor)

    def update(self, source: str, copy: Copy | None = None, actor: str | None = None, **values: Any) -> Change:
        row = self.rows[source]
        if self.full_old:
            told: dict[str, Any] = {name: (row[name], value) for name, value in values.items() if row[name] != value}
        else:
            told = {name: (UNKNOWN, values.get(name, held)) for name, held in row.items()}
        self.rows[source] = {**row, **values}
        return self._add(source, UPDATE, told, copy=copy, actor=actor)

    def write(self, source: str, copy: Copy | None = None, **values: Any) -> Change:
        """An update where the source holds the row, else an insert."""
        return self.update(source, copy, **values) if source in self.rows else self.insert(source, copy, **values)

    def delete(self, source: str, copy: Copy | None = None, moved_to: str | None = None) -> Change:
        del self.rows[source]
        return self._add(source, DELETE, {}, copy=copy, moved_to=moved_to)

    def truncate(self, source: str) -> Change:
        del self.rows[source]
        return self._add(source, TRUNCATE, {})

    def decide(self, **values: Any) -> Change:
        return self._decision(DECISION, {name: (UNKNOWN, value) for name, value in values.items()})

    def decide_delete(self) -> Change:
        return self._decision(DELETE, {})

    def _decision(self, row: str, told: dict[str, Any]) -> Change:
        """§6: "Its stamp is later than every stamp of its record"."""
        latest = max(change.stamp for change in self.changes)
        stamp = Stamp(latest.wall_us + 1, 0, DECISION_SOURCE)
        for source in self.clocks:
            self.clocks[source] = max(self.clocks[source], Stamp(stamp.wall_us, 0, source))
        return self._append(Change(ENTITY, KEY, stamp, self._place(DECISION_SOURCE), row, told))

    def _row(self, source: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values.get(name) for name in sorted(self.plan.mapped[source])}

    def _place(self, source: str) -> Place:
        self.lsn += 1
        return Place(f"system-{source}", 1, self.lsn, "public.customer", 0)

    def _add(self, source: str, row: str, told: dict[str, Any], **more: Any) -> Change:
        change = Change(ENTITY, KEY, self.stamp(source), self._place(source), row, told, **more)
        self.wait()
        return self._append(change)

    def _append(self, change: Change) -> Change:
        self.changes.append(change._replace(committed_us=change.stamp.wall_us))
        return self.changes[-1]
