"""The way of the data: deliveries → changes → history → merged records → conflicts, one durable batch after the other.

Histories, conflicts and positions commit together; only then is a source told that it may forget (semantics §9). The
pipeline knows neither what a source is nor where the store is, and it owns no thread: whoever composes it calls
`step`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from time import perf_counter
from typing import NamedTuple, TypeAlias

from cdc_merge.conflicts.detect import is_auto_resolved
from cdc_merge.conflicts.expression_port import Compile
from cdc_merge.conflicts.lifecycle import LifecycleContext, announced, is_same_auto_resolution, resolved_by_rule
from cdc_merge.conflicts.rules.rulebook import attach_write_rules, rulebooks
from cdc_merge.conflicts.write_loops import WriteLoops
from cdc_merge.errors import StoreHeld
from cdc_merge.merge.record_state import PRESENT
from cdc_merge.model import (
    BatchMerged,
    Conflict,
    ConflictMoved,
    Delivery,
    DetectedConflict,
    DetectionDegraded,
    Fact,
    HeartbeatPassed,
    Idle,
    RecordKey,
)
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import Observer, Source, Store, StoreTransaction
from cdc_merge.model.source_commands import NO_ORDERS
from cdc_merge.worker.batch import PAGE, Batch, keep
from cdc_merge.worker.deadlines import Deadlines
from cdc_merge.worker.ingest import SourceIngest, is_large
from cdc_merge.worker.record_cache import CachedRecord, RecordCache
from cdc_merge.worker.reevaluation import Reevaluation
from cdc_merge.worker.resync import LOOKED_FOR, Scan
from cdc_merge.worker.retention import Retention
from cdc_merge.worker.unique_index import UniqueIndex

# Row changes per batch and source. Large enough to share one fsync, small enough that a batch takes well under a
# second.
BATCH_ROWS = 8_000
# An idle source's position is saved at most this often; its commits are saved at once.
IDLE_SAVE_US = 500_000
# Old history leaves at most this often: 500 changes a tenth of a second keep up with 5,000 a second.
SWEEP_EVERY_US = 100_000


class Environment(NamedTuple):
    """What a worker needs that follows from nothing: our own clock in µs, new ids, and who reads expressions."""

    now_us: Callable[[], int]
    new_id: Callable[[], str]
    compile: Compile


Arrived: TypeAlias = Sequence[tuple[Source, SourceIngest, Sequence[Delivery]]]
"""What each source has delivered."""


def parts(arrived: Arrived) -> Iterator[Arrived]:
    """A large transaction is a batch of its own: its records are settled piece by piece."""
    waiting = [(source, ingest, deque(deliveries)) for source, ingest, deliveries in arrived]
    is_over = False
    while not is_over:
        small = [(source, ingest, _before_large(deliveries)) for source, ingest, deliveries in waiting]
        large = [(source, ingest, [deliveries.popleft()]) for source, ingest, deliveries in waiting if deliveries]
        if not large or any(deliveries for _, _, deliveries in small):
            yield small
        yield from ([each] for each in large)
        is_over = not any(deliveries for _, _, deliveries in waiting)


def _before_large(deliveries: deque[Delivery]) -> list[Delivery]:
    found = list(takewhile(lambda delivery: not is_large(delivery), deliveries))
    for _ in found:
        deliveries.popleft()
    return found


class Pipeline:
    """One worker. Everything but the world follows from deliveries and the store."""

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[tuple[Source, SourceIngest]],
        store: Store,
        observe: Observer,
        world: Environment,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._store = store
        self._observe = observe
        self._now_us, self._new_id, self._compile = world
        self.rulebooks = rulebooks(plan, world.compile)
        self.records = self._records(plan)
        self.loops = WriteLoops(plan)
        self.deadlines = Deadlines()
        self.duplicates = UniqueIndex(store)
        self.reevaluation = Reevaluation(store)
        self._retention = Retention(plan, self.records.entities())
        self._lost: frozenset[str] = frozenset()
        self._swept_us = 0
        self._settling: dict[str, Conflict] = {}
        self._saved_us = 0
        self._latest_us: dict[str, int] = {}
        self._waiting: deque[Arrived] = deque()

    def resume(self) -> None:
        """Take up where the store left off: clocks, positions, timers, conflicts that were settling."""
        positions, orders, awaited = self._store.positions(), self._store.orders(), self._store.awaited_identities()
        for _, ingest in self._sources:
            if ingest.source in positions:
                ingest.resume(*positions[ingest.source], awaited.get(ingest.source, {}))
            ingest.resyncs.resume(orders.get(ingest.source, NO_ORDERS))
        self.deadlines.move(self._store.deadlines())
        self._lost = self._store.lost()
        self.reevaluation.follow(self._plan, self._copied())
        for conflict in self._store.unfinished_conflicts():
            if conflict.status == "settling" and conflict.detected.entity in self._plan.entities:
                self._settling[conflict.id] = conflict

    def _records(self, plan: Plan) -> RecordCache:
        records = RecordCache(plan)
        attach_write_rules(records.entities(), self.rulebooks)
        return records

    def _copied(self) -> frozenset[str]:
        """The sources whose first copies are complete."""
        positions = [ingest.position for _, ingest in self._sources]
        names = [ingest.source for _, ingest in self._sources]
        return frozenset(n for n, at in zip(names, positions, strict=True) if at is not None and at.snapshot == "done")

    def follow(self, plan: Plan) -> None:
        """Go on by another plan of the same sources, mappings and merges. Between two batches only. ExpressionError
        leaves the old one in force."""
        self.rulebooks = rulebooks(plan, self._compile)
        self._plan = plan
        self.records = self._records(plan)
        self._retention = Retention(plan, self.records.entities())
        self.reevaluation.follow(plan, self._copied())

    @property
    def watermark_us(self) -> int:
        """The stamp time that every source has passed; 0 while one has passed nothing. It never goes back."""
        return min((ingest.passed_us for _, ingest in self._sources), default=0)

    def step(self) -> bool:
        """Take what has arrived and make it durable. False when there was nothing to do. StoreHeld: ask again later,
        everything waits as it was."""
        now_us = self._now_us()
        if self._waiting:
            self._work_off(now_us)
            return True
        taken = [(source, ingest, source.take(BATCH_ROWS)) for source, ingest in self._sources]
        if not any(deliveries for _, _, deliveries in taken) and not self._due(now_us):
            return False
        only_idle = all(isinstance(d, Idle) for _, _, deliveries in taken for d in deliveries)
        if only_idle and not self._due(now_us) and now_us - self._saved_us < IDLE_SAVE_US:
            self._pass_idle(taken, now_us)
            return True
        self._waiting.extend(parts(taken))
        self._work_off(now_us)
        return True

    @property
    def is_waiting(self) -> bool:
        """Something was taken that a store which is held could not take in yet."""
        return bool(self._waiting)

    def _work_off(self, now_us: int) -> None:
        """StoreHeld: the part that was not begun waits, and those behind it."""
        while self._waiting:
            try:
                self._batch(self._waiting[0], now_us)
            except StoreHeld:
                raise
            except BaseException:
                self._waiting.clear()  # half of the first was done, in memory
                raise
            self._waiting.popleft()

    def _pass_idle(self, taken: Arrived, now_us: int) -> None:
        """Idle marks move the watermark at once; their positions are saved and confirmed with a later batch."""
        for _, ingest, deliveries in taken:
            for delivery in deliveries:
                if isinstance(delivery, Idle):
                    ingest.idle(delivery, now_us)

    def _batch(self, taken: Arrived, now_us: int) -> None:
        started = perf_counter()
        batch = Batch(self, now_us)
        self.records.begin()
        try:
            with self._store.transaction() as tx:
                for _, ingest, deliveries in taken:
                    batch.take(ingest, deliveries, tx)  # 1, 2
                batch.fold(tx)  # 3, 4
                batch.look_for_missing([ingest for _, ingest, _ in taken], tx)
                self.records.touch(self.deadlines.passed(self.watermark_us, PAGE), tx)
                self.records.touch(self.reevaluation.page(tx, self.records), tx)
                moved = self.reevaluation.ended(batch.review(tx), self.moment(now_us))  # 5
                moved += self._announce(now_us, [*batch.moved, *moved])
                tx.save_conflicts(moved)  # 6
                moved = [*batch.moved, *moved]
                removed = self._sweep(tx, now_us, batch.facts)
                if batch.deadlines:
                    tx.save_deadlines(batch.deadlines)
                for _, ingest, _ in taken:
                    ingest.save(tx)
                ready = perf_counter()
            batch.seconds["commit"] = perf_counter() - ready
        except BaseException:
            self.records.clear()
            raise
        self._saved_us = now_us
        self.deadlines.move(batch.deadlines)
        self.reevaluation.committed()
        self.records.removed([*removed, *self.reevaluation.uncached])
        self._lost |= {key.entity for key in removed}
        self._remember(moved)
        if self._copied() != self.reevaluation.copied:
            self.reevaluation.follow(self._plan, self._copied())
        for source, ingest, _ in taken:
            if ingest.position is not None and not ingest.position.is_copying:
                source.confirm(ingest.position.lsn)
        self.records.shrink()
        self._tell(batch, moved, perf_counter() - started)

    def _sweep(self, tx: StoreTransaction, now_us: int, facts: list[Fact]) -> list[RecordKey]:
        """What is older than the retention leaves, a piece at a time."""
        if now_us - self._swept_us < SWEEP_EVERY_US:
            return []
        self._swept_us = now_us
        expired = self._retention.sweep_parked(tx, now_us)
        facts += expired
        for _, ingest in self._sources if expired else ():
            ingest.awaited_identities = tx.awaited_identities(ingest.source)
        return self._retention.sweep(tx, self.watermark_us, now_us)

    # ------------------------------------------------------------ conflicts

    def moment(self, now_us: int) -> LifecycleContext:
        return LifecycleContext(now_us, self._new_id, self._plan.policy)

    def _due(self, now_us: int) -> bool:
        if any(ingest.resyncs.scan() is not None or ingest.resyncs.is_changed for _, ingest in self._sources):
            return True
        watermark_us = self.watermark_us
        if self.deadlines.is_due(watermark_us) or self.reevaluation.is_due:
            return True
        return any(announced(c, watermark_us, now_us, self._plan.settle_us) for c in self._settling.values())

    def _announce(self, now_us: int, moved: Sequence[Conflict]) -> Iterator[Conflict]:
        """Settling conflicts that a person may be told of now; those of this batch's records speak for themselves."""
        watermark_us = self.watermark_us
        told = {conflict.id for conflict in moved}
        for conflict in list(self._settling.values()):
            key = RecordKey(conflict.detected.entity, conflict.detected.key)
            if key in self.records.touched or conflict.id in told:
                continue
            opened = announced(conflict, watermark_us, now_us, self._plan.settle_us)
            if opened is None:
                continue
            units = self.records.entities()[conflict.detected.entity]
            yield (
                resolved_by_rule(conflict, conflict.detected, now_us)
                if is_auto_resolved(units, conflict.detected)
                else opened
            )

    def _remember(self, moved: Sequence[Conflict]) -> None:
        for conflict in moved:
            if conflict.status == "settling":
                self._settling[conflict.id] = conflict
            else:
                self._settling.pop(conflict.id, None)
        self.note(moved)

    def note(self, moved: Sequence[Conflict]) -> None:
        """The records that are in memory know of these."""
        for conflict in moved:
            entry = self.records.cached(RecordKey(conflict.detected.entity, conflict.detected.key))
            if entry is not None:
                keep(entry.known, conflict)

    def trace_is_told(self, trace: Conflict) -> bool:
        """Whether a conflict that is already recorded names the write that the trace is about."""
        place = trace.detected.candidates[0].place
        return any(c.place == place for told in self._told(trace.detected) for c in told.detected.candidates)

    def answer_is_told(self, question: DetectedConflict) -> bool:
        """Whether it is recorded that a rule answered this question with these candidates."""
        return any(is_same_auto_resolution(told, question) for told in self._told(question))

    def _told(self, question: DetectedConflict) -> list[Conflict]:
        """What was ever asked about the same field of the record."""
        where = {"entity": question.entity, "key": question.key, "field": question.group or question.field or ""}
        return self._store.conflicts(where, None, PAGE)

    # ------------------------------------------------------------ what the store must be asked

    def page_of(self, scan: Scan) -> tuple[list[str], bool]:
        """RecordCache of an entity, and whether they are the last."""
        keys = self._store.records(scan.entity, scan.after, LOOKED_FOR)
        return keys, len(keys) < LOOKED_FOR

    def held_keys(self, entity: str, source: str, tx: StoreTransaction) -> Iterator[str]:
        """The keys of all records of which the source holds a row, those of this batch included."""
        recent = {key: entry for key, entry in self.records.touched.items() if key.entity == entity}
        yield from (key.key for key, entry in recent.items() if _holds(entry, source))
        after: str | None = None
        while keys := self._store.records(entity, after, PAGE):
            wanted = [key for name in keys if (key := RecordKey(entity, name)) not in recent]
            self.records.load(wanted, tx)
            yield from [key.key for key in wanted if _holds(self.records.get(key), source)]
            self.records.shrink()
            after = keys[-1]

    # ------------------------------------------------------------ facts

    def is_latest(self, source: str, commit_us: int) -> bool:
        """Whether no commit of the source that was taken before has a later time."""
        latest_us = self._latest_us.get(source, 0)
        self._latest_us[source] = max(latest_us, commit_us)
        return commit_us >= latest_us

    def _tell(self, batch: Batch, moved: Sequence[Conflict], seconds: float) -> None:
        batch.count()
        for fact in batch.facts:
            self._observe(fact)
        now_us = self._now_us()
        for source, sent_us, lost in batch.beats:
            self._observe(HeartbeatPassed(source, (now_us - sent_us) / 1e6, lost))
        self._observe(
            BatchMerged(
                seconds={**batch.seconds, "all": seconds},
                changes=dict(batch.changes),
                merges=dict(batch.merges),
                detection_seconds={s: tuple((now_us - t) / 1e6 for t in times) for s, times in batch.commits.items()},
                late_changes=batch.late,
                raised=tuple(c for c in moved if c.status == "settling" and c.revision == 1),
                closed=tuple(c for c in moved if c.status == "closed"),
                rules=self._evaluated(),
                transactions={source: tuple(rows) for source, rows in batch.rows.items()},
                behind=dict(batch.behind),
                loads=dict(self.records.loads),
            )
        )
        self.records.loads.clear()
        for conflict in moved:
            self._observe(ConflictMoved(_what(conflict), conflict))

    def degraded(self) -> Iterator[Fact]:
        """Changes whose records' past retention had removed."""
        for source, entity in self.records.unknown:
            if entity in self._lost:
                yield DetectionDegraded(source, entity, "tombstone_removed")
        for source, entity in self.records.beyond:
            yield DetectionDegraded(source, entity, "history_removed")

    def _evaluated(self) -> Mapping[tuple[str, str], int]:
        """What expressions gave since the last batch."""
        total: Counter[tuple[str, str]] = Counter()
        for rulebook in self.rulebooks.values():
            total.update(rulebook.tally)
            rulebook.tally.clear()
        return total


def _holds(entry: CachedRecord, source: str) -> bool:
    row = entry.record.rows.get(source)
    return row is not None and row.presence == PRESENT


def _what(conflict: Conflict) -> str:
    if conflict.status == "closed":
        return "closed"
    if conflict.status == "open" and conflict.announced_us is not None:
        return "announced"
    return "raised" if conflict.revision == 1 else "revised"
