"""Re-evaluation: records are detected again when the policy behind their conflicts has changed, by a restart or a reload.

The store has, for each entity, the policy by which its records were evaluated. When that is not the one in force, they are
detected again, a page a batch, beside whatever arrives: first those with an unfinished conflict, then all others in key
order. The progress commits with the batch. A conflict that only the earlier policy detects ends as superseded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Final

from cdc_merge.conflicts.lifecycle import LifecycleContext
from cdc_merge.conflicts.missing_records import REPORT
from cdc_merge.conflicts.schema_drift import WHOLE_TABLE
from cdc_merge.model import Conflict, RecordKey
from cdc_merge.model.plan import EntityPlan, Plan
from cdc_merge.model.ports import Store, StoreTransaction

# Records of one batch. Each may have to be folded from its checkpoint, about a millisecond.
PAGE_RECORDS: Final = 200


class Reevaluation:
    """What one worker has to evaluate again. `next_page` belongs into a batch, before detection; `committed` follows its commit."""

    def __init__(self, store: Store, page_records: int = PAGE_RECORDS) -> None:
        self._store = store
        self._page_records = page_records
        self._plan: Plan | None = None
        self._copied: frozenset[str] = frozenset()
        self._outdated: dict[str, str | None] = {}  # entity → the key up to which it is evaluated
        self._with_conflicts: deque[RecordKey] = deque()
        self._orphans: list[Conflict] = []
        self._without_records: dict[str, str] = {}  # entity → policy, to be saved with the next batch
        self._reached: dict[str, str | None] = {}
        self._only_reevaluated: frozenset[RecordKey] = frozenset()

    @property
    def is_due(self) -> bool:
        """There are records to evaluate again."""
        return bool(self._outdated or self._orphans)

    @property
    def copied(self) -> frozenset[str]:
        """The sources with a complete initial snapshot."""
        return self._copied

    def follow(self, plan: Plan, copied: Iterable[str]) -> None:
        """The plan in force from here on, and the sources with a complete initial snapshot."""
        self._plan, self._copied = plan, frozenset(copied)
        evaluated = self._store.evaluated()
        self._outdated, self._without_records = {}, {}
        for name, entity in plan.entities.items():
            policy, reached = evaluated.get(name, ("", None))
            if policy != self._policy(entity):
                if self._store.records(name, None, 1):
                    self._outdated[name] = None
                else:
                    self._without_records[name] = self._policy(entity)
            elif reached is not None:
                self._outdated[name] = reached
        self._collect_unfinished(plan)

    def _collect_unfinished(self, plan: Plan) -> None:
        """The records with unfinished conflicts, and the conflicts of entities that the plan no longer has."""
        self._orphans = []
        records: dict[RecordKey, None] = {}
        for conflict in self._store.unfinished_conflicts():
            key = RecordKey(conflict.detected.entity, conflict.detected.key)
            if key.entity not in plan.entities:
                self._orphans.append(conflict)
            elif key.entity in self._outdated and key.key != WHOLE_TABLE:
                records[key] = None
        self._with_conflicts = deque(records)

    def _policy(self, entity: EntityPlan) -> str:
        """Everything on which the conflicts of an entity's records depend."""
        assert self._plan is not None, "a policy before a plan"
        if entity.on_missing != REPORT:
            return self._plan.policy
        return "/".join((self._plan.policy, *sorted(self._copied.intersection(entity.sources))))

    def next_page(self, tx: StoreTransaction, touched: Container[RecordKey]) -> list[RecordKey]:
        """The next records to evaluate again. `touched`: those that the batch detects anyway."""
        for entity, policy in self._without_records.items():
            tx.save_evaluated(entity, policy, None)
        self._reached = {}
        keys = self._next_keys(tx)
        self._only_reevaluated = frozenset(key for key in keys if key not in touched)
        return keys

    def _next_keys(self, tx: StoreTransaction) -> list[RecordKey]:
        limit = self._page_records
        if self._with_conflicts:
            return [self._with_conflicts.popleft() for _ in range(min(limit, len(self._with_conflicts)))]
        for entity, after in self._outdated.items():
            assert self._plan is not None, "outdated entities before a plan"
            plan = self._plan.entities[entity]
            if after is None and plan.on_missing != REPORT:
                tx.forget_missing(entity)
            keys = self._store.records(entity, after, limit)
            self._reached[entity] = keys[-1] if len(keys) == limit else None
            tx.save_evaluated(entity, self._policy(plan), self._reached[entity])
            return [RecordKey(entity, key) for key in keys]
        return []

    def supersede(self, transitions: Iterable[Conflict], context: LifecycleContext) -> list[Conflict]:
        """The batch's transitions. A conflict that ends only because the policy changed is superseded, and so are those of
        removed entities."""
        closed_us = context.now_us
        orphans = [replace(c, status="closed", resolution="superseded", closed_us=closed_us) for c in self._orphans]
        return [*(self._as_superseded(conflict, context) for conflict in transitions), *orphans]

    def _as_superseded(self, conflict: Conflict, context: LifecycleContext) -> Conflict:
        key = RecordKey(conflict.detected.entity, conflict.detected.key)
        is_by_earlier_policy = conflict.policy != context.policy and key in self._only_reevaluated
        if not is_by_earlier_policy or conflict.resolution != "converged":
            return conflict
        labels = tuple(label for label in conflict.labels if label != "overwrote")
        return replace(conflict, resolution="superseded", labels=labels)

    def committed(self) -> None:
        """The batch is durable, and with it the evaluation of its page."""
        for entity, reached in self._reached.items():
            self._outdated[entity] = reached
            if reached is None:
                del self._outdated[entity]
        self._without_records, self._orphans, self._reached = {}, [], {}
        self._only_reevaluated = frozenset()
