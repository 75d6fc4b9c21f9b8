"""The read side over a store, for console and command line.

The present state is a record's checkpoint and the changes after it; a past state is folded from the nearest earlier
checkpoint; an explanation is a full fold, which forgets nothing. Thread-safe: the only state is the compiled plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias, TypeVar

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import detect
from cdc_merge.conflicts.missing_records import REPORT, missing_sources
from cdc_merge.conflicts.rules.rulebook import rulebooks
from cdc_merge.conflicts.rules.selection import first, untriggered
from cdc_merge.errors import ConfigError, HistoryRemoved, NotFound
from cdc_merge.history.order import ordered
from cdc_merge.merge.explain import explain_in_one_pass
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import fold_from_checkpoint, policy_of
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
from cdc_merge.queries.documents import time_json
from cdc_merge.queries.port import Page
from cdc_merge.queries.source_documents import SourceReport

NOT_RUNNING = "No running sidecar was contacted; showing stored state."
NO_SIDECAR = "No sidecar is running here."
StoredHistory: TypeAlias = tuple[Checkpoint | None, Sequence[Change]]
"""A record as the store has it: its checkpoint, if any, and the changes after it."""


class Live(NamedTuple):
    """The state and actions of a running sidecar. `problem`: why merging ended for good, None while it works."""

    sources: Callable[[], Sequence[SourceReport]]
    ready: Callable[[], tuple[bool, str]]
    problem: Callable[[], str | None]
    reload: Callable[[], None]


class StoreQueries:
    """QueryPort over a store. `live`: the running sidecar; without it, sources show only their stored state."""

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
        self._require_entity(record.entity)
        checkpoint, changes = self._store.folded(record, as_of)
        if checkpoint is not None and not checkpoint.pruned and checkpoint.policy != policy_of(self._plan):
            checkpoint, changes = self._store.folded(record, whole=True)
        if as_of is not None:
            _refuse_before(checkpoint, as_of)
            changes = [change for change in changes if change.stamp <= as_of]
        if checkpoint is None and not changes:
            return None
        state = self._fold(record, (checkpoint, changes))
        if self._plan.entities[record.entity].on_missing != REPORT:
            return merged(state)
        return replace(merged(state), missing=tuple(missing_sources(state, self._snapshotted_sources())))

    def _snapshotted_sources(self) -> frozenset[str]:
        """The sources with a complete initial snapshot."""
        return frozenset(name for name, (at, _) in self._store.positions().items() if at.snapshot == "done")

    def records(self, entity: str, cursor: str | None, limit: int) -> Page[MergedRecord]:
        self._require_entity(entity)
        keys = _page(self._store.records(entity, cursor, limit + 1), limit, str)
        records = [self.record(RecordKey(entity, key), None) for key in keys.items]
        return Page([record for record in records if record is not None], keys.next_cursor)

    def missing(self, entity: str, source: str | None, cursor: str | None, limit: int) -> Page[Missing]:
        self._require_entity(entity)
        missing = self._store.missing((entity, source), cursor, limit + 1)
        keys = [*dict.fromkeys(each.key for each in missing)]
        of_page = frozenset(keys[:limit])
        return Page([e for e in missing if e.key in of_page], keys[limit - 1] if len(keys) > limit else None)

    def history(self, record: RecordKey, cursor: str | None, limit: int) -> Page[Change]:
        self._require_entity(record.entity)
        after = _history_place(cursor) if cursor else None
        changes = self._store.history_page(record, after, limit + 1)
        return Page(changes[:limit], _history_cursor(changes[:limit], after) if len(changes) > limit else None)

    def explain(self, record: RecordKey, field: str) -> Explanation | None:
        self._require_entity(record.entity)
        pruned, changes = self._store.folded(record, whole=True)
        if pruned is None and not changes:
            return None
        explanation = explain_in_one_pass(self._fold(record, (pruned, ()), compacts=False), ordered(changes), field)
        rule = first(untriggered(self._plan.rules), record.entity, explanation.field)
        return replace(explanation, rule=rule.name) if rule is not None and rule.auto else explanation

    def restore(self, record: RecordKey, to: Stamp | None, fields: Sequence[str]) -> RestorePlan | None:
        self._require_entity(record.entity)
        pruned, changes = self._store.folded(record, whole=True)
        if pruned is None and not changes:
            return None
        _require_fields(self._plan.entities[record.entity], fields)
        history = ordered(changes)
        stamp = self._last_conflict_free(record, (pruned, history)) if to is None else to
        _refuse_before(pruned, stamp)
        past = [change for change in history if change.stamp <= stamp]
        if pruned is None and not past:
            raise NotFound("The record did not exist at that time.", hint="Read its history for its first change.")
        return restore_plan(self._fold(record, (pruned, past)), history[len(past) :], stamp, fields)

    def _fold(self, record: RecordKey, stored: StoredHistory, *, compacts: bool = True) -> Record:
        units, ahead_us = self._units[record.entity], self._plan.max_ahead_us
        return fold_from_checkpoint(units, record.key, stored, max_ahead_us=ahead_us, compacts=compacts)

    def _last_conflict_free(self, record: RecordKey, stored: StoredHistory) -> Stamp:
        """The latest stamp at which the record had no conflict, by the rules in force."""
        pruned, history = stored
        rulebook = rulebooks(self._plan, compile_expression)[record.entity]
        state, latest = self._fold(record, (pruned, ())), None
        if pruned is not None and not detect(state, rulebook, pruned.stamp.wall_us).conflicts:
            latest = pruned.stamp
        for change in history:
            advance(state, change)
            if not detect(state, rulebook, change.stamp.wall_us).conflicts:
                latest = change.stamp
        if latest is None:
            raise NotFound("The record has never been conflict-free.", hint="Pass an explicit time with --to.")
        return latest

    def sources(self) -> Sequence[SourceReport]:
        if self._live is not None:
            return self._live.sources()
        positions, orders, parked = self._store.positions(), self._store.orders(), self._store.parked()
        names = sorted({table.source for table in self._plan.tables})
        return [
            SourceReport(
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
        return (False, NO_SIDECAR) if self._live is None else self._live.ready()

    def problem(self) -> str | None:
        return None if self._live is None else self._live.problem()

    def reload(self) -> None:
        if self._live is None:
            raise ConfigError(NO_SIDECAR, hint="The next cdc-merge run reads the file.")
        self._live.reload()

    def follow(self, plan: Plan) -> None:
        """Use a reloaded plan with the same mappings and merges."""
        self._units = {name: Units(entity) for name, entity in plan.entities.items()}
        self._plan = plan

    def _require_entity(self, entity: str) -> None:
        if entity not in self._units:
            entities = ", ".join(sorted(self._units))
            raise NotFound(f"There is no entity {entity}.", hint=f"The configuration has: {entities}.")


def _require_fields(entity: EntityPlan, fields: Sequence[str]) -> None:
    existing = {*entity.fields, *(member for group in entity.groups.values() for member in group.members)}
    if any(field not in existing for field in fields):
        hint = "Its fields: " + ", ".join(sorted(existing)) + "."
        raise NotFound(f"Entity {entity.name} has no such field.", hint=hint)


def _refuse_before(checkpoint: Checkpoint | None, as_of: Stamp) -> None:
    if checkpoint is not None and checkpoint.stamp > as_of:
        raise HistoryRemoved(
            f"The history before {time_json(checkpoint.stamp.wall_us)} was removed by retention.",
            hint="Request a later time; `history.retention` sets how long the log of a record is kept.",
        )


def _history_place(cursor: str) -> tuple[Stamp, int]:
    """The cursor of a history page: a stamp, and the number of changes with it on the pages before."""
    text, _, count = cursor.partition("~")
    try:
        return stamp_from_text(text), int(count or 1)
    except ValueError as error:
        raise NotFound("Invalid cursor.", hint="Start again without a cursor.") from error


def _history_cursor(page: Sequence[Change], after: tuple[Stamp, int] | None) -> str:
    last = page[-1].stamp
    count = sum(1 for change in page if change.stamp == last)
    if after is not None and after[0] == last:
        count += after[1]
    return f"{last}~{count}"


Item = TypeVar("Item")


def _page(items: list[Item], limit: int, name: Callable[[Item], str]) -> Page[Item]:
    """The first `limit` items; the name of the last is the cursor when there are more."""
    return Page(items[:limit], name(items[limit - 1]) if len(items) > limit else None)
