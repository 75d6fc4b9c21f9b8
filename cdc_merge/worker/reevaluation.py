"""RecordCache that are judged again because what they are judged by has changed: after a restart or a reload by other rules.

The store knows by which policy the records of an entity were judged. When that is not the one in force, they are looked
at again, a page a batch, beside whatever arrives: first those with an unfinished conflict, then all others in the order
of their keys. How far that came commits with the batch. What was asked only by the earlier rules ends as superseded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cdc_merge.conflicts.lifecycle import LifecycleContext
from cdc_merge.conflicts.schema_drift import WHOLE_TABLE
from cdc_merge.model import Conflict, RecordKey
from cdc_merge.model.plan import EntityPlan, Plan
from cdc_merge.model.ports import Store, StoreTransaction
from cdc_merge.worker.missing_records import REPORT
from cdc_merge.worker.record_cache import RecordCache

# RecordCache that are looked at again in one batch. Each may have to be folded from its base, about a millisecond.
PAGE: Final = 200


class Reevaluation:
    """What one worker has to judge again. `page` belongs into a batch, before its review; `committed` behind it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plan: Plan | None = None
        self._copied: frozenset[str] = frozenset()
        self._behind: dict[str, str | None] = {}
        self._asked: deque[RecordKey] = deque()
        self._orphans: list[Conflict] = []
        self._current: dict[str, str] = {}
        self._reached: dict[str, str | None] = {}
        self._page: frozenset[RecordKey] = frozenset()
        self.uncached: tuple[RecordKey, ...] = ()

    @property
    def is_due(self) -> bool:
        """There are records to look at again."""
        return bool(self._behind or self._orphans)

    @property
    def copied(self) -> frozenset[str]:
        """The sources whose first copies are complete."""
        return self._copied

    def follow(self, plan: Plan, copied: Iterable[str]) -> None:
        """The plan that is in force from here on, and the sources whose first copies are complete."""
        self._plan, self._copied = plan, frozenset(copied)
        known = self._store.evaluated()
        self._behind, self._current = {}, {}
        for name, entity in plan.entities.items():
            policy, reached = known.get(name, ("", None))
            if policy != self._policy(entity):
                if self._store.records(name, None, 1):
                    self._behind[name] = None
                else:
                    self._current[name] = self._policy(entity)
            elif reached is not None:
                self._behind[name] = reached
        self._collect(plan)

    def _collect(self, plan: Plan) -> None:
        """The records with unfinished conflicts, and the conflicts of entities that the plan has no more."""
        self._asked, self._orphans = deque(), []
        found: dict[RecordKey, None] = {}
        for conflict in self._store.unfinished_conflicts():
            key = RecordKey(conflict.detected.entity, conflict.detected.key)
            if key.entity not in plan.entities:
                self._orphans.append(conflict)
            elif key.entity in self._behind and key.key != WHOLE_TABLE:
                found[key] = None
        self._asked.extend(found)

    def _policy(self, entity: EntityPlan) -> str:
        """All that an entity's records are judged by."""
        assert self._plan is not None, "asked before there is a plan"
        if entity.on_missing != REPORT:
            return self._plan.policy
        return "/".join((self._plan.policy, *sorted(self._copied.intersection(entity.sources))))

    def page(self, tx: StoreTransaction, records: RecordCache) -> list[RecordKey]:
        """The next records to look at again. `strangers`: those of them that nobody else needs in memory."""
        for entity, policy in self._current.items():
            tx.save_evaluated(entity, policy, None)
        self._reached = {}
        keys = self._next(tx)
        self._page = frozenset(key for key in keys if key not in records.touched)
        self.uncached = tuple(key for key in keys if records.cached(key) is None)
        return keys

    def _next(self, tx: StoreTransaction) -> list[RecordKey]:
        if self._asked:
            return [self._asked.popleft() for _ in range(min(PAGE, len(self._asked)))]
        for entity, after in self._behind.items():
            assert self._plan is not None, "asked before there is a plan"
            plan = self._plan.entities[entity]
            if after is None and plan.on_missing != REPORT:
                tx.forget_missing(entity)
            keys = self._store.records(entity, after, PAGE)
            self._reached[entity] = keys[-1] if len(keys) == PAGE else None
            tx.save_evaluated(entity, self._policy(plan), self._reached[entity])
            return [RecordKey(entity, key) for key in keys]
        return []

    def ended(self, moved: Iterable[Conflict], moment: LifecycleContext) -> list[Conflict]:
        """What the batch's review moved. Questions of the earlier rules that nothing but the change of rules has ended are
        superseded; so are those of entities that are no more."""
        found = [self._judged(conflict, moment) for conflict in moved]
        gone = [replace(c, status="closed", resolution="superseded", closed_us=moment.now_us) for c in self._orphans]
        return [*found, *gone]

    def _judged(self, conflict: Conflict, moment: LifecycleContext) -> Conflict:
        key = RecordKey(conflict.detected.entity, conflict.detected.key)
        by_earlier = conflict.policy != moment.policy and key in self._page
        if not by_earlier or conflict.resolution != "converged":
            return conflict
        labels = tuple(label for label in conflict.labels if label != "overwrote")
        return replace(conflict, resolution="superseded", labels=labels)

    def committed(self) -> None:
        """The batch is on disk: what it has looked at needs no second look."""
        for entity, reached in self._reached.items():
            self._behind[entity] = reached
            if reached is None:
                del self._behind[entity]
        self._current, self._orphans, self._reached = {}, [], {}
        self._page = frozenset()
