"""Answers what the console and the command line ask, from what is durable.

The present is a record's base and the changes after it; the past is folded from the nearest earlier base; an
explanation is a full fold, which forgets nothing. Thread-safe: it keeps nothing but the compiled plan. The console's
`Reading` is this, plus what a running sidecar knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import detect
from cdc_merge.conflicts.rules.rulebook import rulebooks
from cdc_merge.conflicts.rules.selection import first, untriggered
from cdc_merge.errors import ConfigError, HistoryRemoved, NotFound
from cdc_merge.history.order import ordered
from cdc_merge.merge.explain import explain_in_one_pass
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import fold_from_checkpoint as base_and_tail
from cdc_merge.merge.replay import policy_of
from cdc_merge.merge.restore_plan import restore_plan
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.model import (
    Change,
    Checkpoint,
    Conflict,
    Explanation,
    MergedRecord,
    Missing,
    RecordKey,
    RestorePlan,
    SourceStatus,
    Stamp,
    stamp_from_text,
)
from cdc_merge.model.plan import EntityPlan, Plan, Rule
from cdc_merge.model.ports import Store
from cdc_merge.model.source_commands import NO_ORDERS
from cdc_merge.queries.documents import SourceReading, time_json
from cdc_merge.queries.port import Page
from cdc_merge.worker.missing_records import REPORT, missing_sources

NOT_RUNNING = "no sidecar was asked; this is what the store remembers"


class Live(NamedTuple):
    """What only a running sidecar can tell and do. `problem`: why nothing is merged any more, None while all is well."""

    readings: Callable[[], Sequence[SourceReading]]
    ready: Callable[[], tuple[bool, str]]
    problem: Callable[[], str | None]
    reload: Callable[[], None]


class StoreQueries:
    """The read side over a store. `live` tells what readers know now; without it only positions are known."""

    def __init__(self, store: Store, plan: Plan, live: Live | None = None) -> None:
        self._store = store
        self._plan = plan
        self._units = {name: Units(entity) for name, entity in plan.entities.items()}
        self._live = live

    def conflicts(self, where: Mapping[str, str], cursor: str | None, limit: int) -> Page[Conflict]:
        return _page(self._store.conflicts(where, cursor, limit + 1), limit, lambda conflict: conflict.id)

    def conflict(self, conflict_id: str) -> Conflict | None:
        return self._store.conflict(conflict_id)

    def record(self, record: RecordKey, as_of: Stamp | None) -> MergedRecord | None:
        self._entity(record.entity)
        base, changes = self._store.folded(record, as_of)
        if base is not None and not base.pruned and base.policy != policy_of(self._plan):
            base, changes = self._store.folded(record, whole=True)
        if as_of is not None:
            _refuse_before(base, as_of)
            changes = [change for change in changes if change.stamp <= as_of]
        if base is None and not changes:
            return None
        units, ahead_us = self._units[record.entity], self._plan.max_ahead_us
        fold_from_checkpoint = base_and_tail(units, record.key, (base, changes), max_ahead_us=ahead_us)
        if units.entity.on_missing != REPORT:
            return merged(fold_from_checkpoint)
        return replace(merged(fold_from_checkpoint), missing=tuple(missing_sources(fold_from_checkpoint, self._copied())))

    def _copied(self) -> frozenset[str]:
        """The sources whose first copies are complete."""
        return frozenset(name for name, (at, _) in self._store.positions().items() if at.snapshot == "done")

    def records(self, entity: str, cursor: str | None, limit: int) -> Page[MergedRecord]:
        self._entity(entity)
        keys = _page(self._store.records(entity, cursor, limit + 1), limit, str)
        found = [self.record(RecordKey(entity, key), None) for key in keys.items]
        return Page([record for record in found if record is not None], keys.next_cursor)

    def missing(self, entity: str, source: str | None, cursor: str | None, limit: int) -> Page[Missing]:
        self._entity(entity)
        found = self._store.missing((entity, source), cursor, limit + 1)
        keys = [*dict.fromkeys(each.key for each in found)]
        shown = frozenset(keys[:limit])
        return Page([e for e in found if e.key in shown], keys[limit - 1] if len(keys) > limit else None)

    def history(self, record: RecordKey, cursor: str | None, limit: int) -> Page[Change]:
        self._entity(record.entity)
        after = _after(cursor) if cursor else None
        found = self._store.history_page(record, after, limit + 1)
        return Page(found[:limit], _behind(found[:limit], after) if len(found) > limit else None)

    def explain(self, record: RecordKey, field: str) -> Explanation | None:
        self._entity(record.entity)
        root, changes = self._store.folded(record, whole=True)
        if root is None and not changes:
            return None
        units, ahead_us = self._units[record.entity], self._plan.max_ahead_us
        begun = base_and_tail(units, record.key, (root, ()), max_ahead_us=ahead_us, compacts=False)
        told = explain_in_one_pass(begun, ordered(changes), field)
        rule = first(untriggered(self._plan.rules), record.entity, told.field)
        return replace(told, rule=rule.name) if rule is not None and rule.auto else told

    def restore(self, record: RecordKey, to: Stamp | None, fields: Sequence[str]) -> RestorePlan | None:
        self._entity(record.entity)
        root, changes = self._store.folded(record, whole=True)
        if root is None and not changes:
            return None
        entity = self._units[record.entity].entity
        _refuse_unknown(entity, fields)
        history = ordered(changes)
        stamp = self._last_clean(record, (root, history)) if to is None else to
        _refuse_before(root, stamp)
        past = [change for change in history if change.stamp <= stamp]
        if root is None and not past:
            raise NotFound("The record did not exist at that time.", hint="Its history says when it began.")
        return restore_plan(self._at(record, (root, past)), history[len(past) :], stamp, fields)

    def _at(self, record: RecordKey, known: tuple[Checkpoint | None, Sequence[Change]]) -> Record:
        units = self._units[record.entity]
        return base_and_tail(units, record.key, known, max_ahead_us=self._plan.max_ahead_us)

    def _last_clean(self, record: RecordKey, known: tuple[Checkpoint | None, Sequence[Change]]) -> Stamp:
        """The latest stamp at which nothing was asked about the record, by the rules in force."""
        root, history = known
        rulebook = rulebooks(self._plan, compile_expression)[record.entity]
        folding, clean = self._at(record, (root, ())), None
        if root is not None and not detect(folding, rulebook, root.stamp.wall_us).conflicts:
            clean = root.stamp
        for change in history:
            advance(folding, change)
            if not detect(folding, rulebook, change.stamp.wall_us).conflicts:
                clean = change.stamp
        if clean is None:
            raise NotFound("The record has never been without a question.", hint="Name a time: --to.")
        return clean

    def sources(self) -> Sequence[SourceReading]:
        if self._live is not None:
            return self._live.readings()
        positions, orders, parked = self._store.positions(), self._store.orders(), self._store.parked()
        names = sorted({table.source for table in self._plan.tables})
        return [
            SourceReading(
                SourceStatus(name, "postgres", state="unknown", problem=NOT_RUNNING),
                positions[name][0] if name in positions else None,
                positions[name][1].wall_us if name in positions else None,
                orders.get(name, NO_ORDERS),
                parked=sum(count for (source, _), count in parked.items() if source == name),
            )
            for name in names
        ]

    def rules(self) -> Sequence[Rule]:
        return self._plan.rules

    def ready(self) -> tuple[bool, str]:
        return (False, "No sidecar is running here.") if self._live is None else self._live.ready()

    def problem(self) -> str | None:
        return None if self._live is None else self._live.problem()

    def reload(self) -> None:
        if self._live is None:
            raise ConfigError("No sidecar is running here.", hint="The next cdc-merge run reads the file.")
        self._live.reload()

    def follow(self, plan: Plan) -> None:
        """Answer by another plan of the same mappings and merges."""
        self._units = {name: Units(entity) for name, entity in plan.entities.items()}
        self._plan = plan

    def _entity(self, entity: str) -> None:
        if entity not in self._units:
            known = ", ".join(sorted(self._units))
            raise NotFound(f"There is no entity {entity}.", hint=f"The configuration has: {known}.")


def _refuse_unknown(entity: EntityPlan, fields: Sequence[str]) -> None:
    known = {*entity.fields, *(member for group in entity.groups.values() for member in group.members)}
    if any(field not in known for field in fields):
        raise NotFound(f"Entity {entity.name} has no such field.", hint="Its fields: " + ", ".join(sorted(known)) + ".")


def _refuse_before(base: Checkpoint | None, as_of: Stamp) -> None:
    if base is not None and base.stamp > as_of:
        raise HistoryRemoved(
            f"The history before {time_json(base.stamp.wall_us)} was removed by retention.",
            hint="Ask for a later time; `history.retention` says how long the log of a record is kept.",
        )


def _after(cursor: str) -> tuple[Stamp, int]:
    """A cursor of a history: a stamp, and how many changes that have it were given."""
    text, _, given = cursor.partition("~")
    try:
        return stamp_from_text(text), int(given or 1)
    except ValueError as error:
        hint = "Start again without a cursor."
        raise NotFound("The history cannot go on behind a place that is not in it.", hint=hint) from error


def _behind(given: Sequence[Change], after: tuple[Stamp, int] | None) -> str:
    last = given[-1].stamp
    count = sum(1 for change in given if change.stamp == last)
    if after is not None and after[0] == last:
        count += after[1]
    return f"{last}~{count}"


Item = TypeVar("Item")


def _page(found: list[Item], limit: int, name: Callable[[Item], str]) -> Page[Item]:
    """At most `limit` of what was found, and the name of the last as the cursor when there is more."""
    return Page(found[:limit], name(found[limit - 1]) if len(found) > limit else None)
