"""What a worker keeps from one batch to the next. All of it can be rebuilt from the plan, the store and the sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from cdc_merge.conflicts.expression_port import Compile
from cdc_merge.conflicts.lifecycle import LifecycleContext, announced
from cdc_merge.conflicts.reevaluation import Reevaluation
from cdc_merge.conflicts.rules.rulebook import attach_write_rules, rulebooks
from cdc_merge.conflicts.unique_index import UniqueIndex
from cdc_merge.conflicts.write_loops import WriteLoops
from cdc_merge.model import Conflict, RecordKey
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import Source, Store
from cdc_merge.model.source_commands import NO_ORDERS
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.deadlines import Deadlines
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.limits import DEFAULT_LIMITS, Limits
from cdc_merge.worker.record_cache import RecordCache
from cdc_merge.worker.retention import Retention

# Retention removes history at most this often: 500 changes a tenth of a second keep up with 5,000 a second.
SWEEP_EVERY_US = 100_000


class Environment(NamedTuple):
    """The inputs of a worker besides plan, sources and store: our clock in µs, new ids, the expression compiler, limits."""

    now_us: Callable[[], int]
    new_id: Callable[[], str]
    compile: Compile
    limits: Limits = DEFAULT_LIMITS


SourcePair: TypeAlias = tuple[Source, SourceIngest]


class WorkerState:
    """`settling`: the conflicts that wait to be announced, by id. `pruned_entities`: those of which retention removed ended
    records."""

    def __init__(self, plan: Plan, sources: Sequence[SourcePair], store: Store, environment: Environment) -> None:
        self.plan = plan
        self.sources = sources
        self.store = store
        self.environment = environment
        self.rulebooks = rulebooks(plan, environment.compile)
        self.records = self._new_cache(plan)
        self.retention = Retention(plan, self.records.entities())
        self.write_loops = WriteLoops(plan)
        self.deadlines = Deadlines()
        self.unique_index = UniqueIndex(store)
        self.reevaluation = Reevaluation(store, environment.limits.reevaluated_records)
        self.settling: dict[str, Conflict] = {}
        self.pruned_entities: frozenset[str] = frozenset()
        self._latest_commit_us: dict[str, int] = {}
        self._swept_us = 0

    def _new_cache(self, plan: Plan) -> RecordCache:
        records = RecordCache(plan, self.environment.limits)
        attach_write_rules(records.entities(), self.rulebooks)
        return records

    def resume(self) -> None:
        """Continue from the store: clocks, positions, deadlines, settling conflicts."""
        positions, orders = self.store.positions(), self.store.orders()
        awaited = self.store.awaited_identities()
        for _, ingest in self.sources:
            if ingest.source in positions:
                ingest.resume(*positions[ingest.source], awaited.get(ingest.source, {}))
            ingest.resyncs.resume(orders.get(ingest.source, NO_ORDERS))
        self.deadlines.update(self.store.deadlines())
        self.pruned_entities = self.store.lost()
        self.reevaluation.follow(self.plan, self.copied_sources())
        for conflict in self.store.unfinished_conflicts():
            if conflict.status == "settling" and conflict.detected.entity in self.plan.entities:
                self.settling[conflict.id] = conflict

    def follow(self, plan: Plan) -> None:
        """Put another plan of the same sources, mappings and merges in force, between two batches. ExpressionError leaves
        the old one in force."""
        self.rulebooks = rulebooks(plan, self.environment.compile)
        self.plan = plan
        self.records = self._new_cache(plan)
        self.retention = Retention(plan, self.records.entities())
        self.reevaluation.follow(plan, self.copied_sources())

    @property
    def limits(self) -> Limits:
        return self.environment.limits

    @property
    def watermark_us(self) -> int:
        """The stamp time that every source has passed; 0 while one has passed nothing. It never goes back."""
        return min((ingest.passed_us for _, ingest in self.sources), default=0)

    def copied_sources(self) -> frozenset[str]:
        """The sources with a complete initial snapshot."""
        ingests = [ingest for _, ingest in self.sources]
        return frozenset(i.source for i in ingests if i.position is not None and i.position.snapshot == "done")

    def lifecycle_context(self, now_us: int) -> LifecycleContext:
        return LifecycleContext(now_us, self.environment.new_id, self.plan.policy)

    def is_due(self, now_us: int) -> bool:
        """Whether a batch has work to do although nothing arrived."""
        if any(ingest.resyncs.next_scan() is not None or ingest.resyncs.is_changed for _, ingest in self.sources):
            return True
        if self.deadlines.is_due(self.watermark_us) or self.reevaluation.is_due:
            return True
        return any(self.announced(conflict, now_us) for conflict in self.settling.values())

    def announced(self, conflict: Conflict, now_us: int) -> Conflict | None:
        """The settling conflict, open; None while it has to settle."""
        return announced(conflict, self.watermark_us, now_us, self.plan.settle_us)

    def is_sweep_due(self, now_us: int) -> bool:
        """Whether retention removes history in this batch; not again for a while."""
        if now_us - self._swept_us < SWEEP_EVERY_US:
            return False
        self._swept_us = now_us
        return True

    def is_latest_commit(self, source: str, commit_us: int) -> bool:
        """Whether no earlier transaction of the source has a later commit time."""
        latest_us = self._latest_commit_us.get(source, 0)
        self._latest_commit_us[source] = max(latest_us, commit_us)
        return commit_us >= latest_us

    def update_cached(self, conflicts: Iterable[Conflict]) -> None:
        """Bring the unfinished conflicts of cached records up to date."""
        for conflict in conflicts:
            entry = self.records.cached(RecordKey(conflict.detected.entity, conflict.detected.key))
            if entry is not None:
                entry.remember(conflict)

    def committed(self, batch: Batch) -> None:
        """The batch is durable: take over what it changed."""
        self.deadlines.update(batch.deadlines)
        self.reevaluation.committed()
        self.records.evict([*batch.removed, *batch.uncached])
        self.pruned_entities |= {key.entity for key in batch.removed}
        for conflict in batch.conflicts:
            if conflict.status == "settling":
                self.settling[conflict.id] = conflict
            else:
                self.settling.pop(conflict.id, None)
        self.update_cached(batch.conflicts)
        if self.copied_sources() != self.reevaluation.copied:
            self.reevaluation.follow(self.plan, self.copied_sources())
