"""The pipeline: deliveries → changes → history → merged records → conflicts, one durable batch after the other.

Histories, conflicts and positions commit together; only then is a source confirmed (semantics §9). The pipeline knows
neither what a source is nor where the store is, and it owns no thread: the application calls `step`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile
from time import perf_counter
from typing import Final, TypeAlias

from cdc_merge.errors import StoreHeld
from cdc_merge.model import Delivery, Idle
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import Observer, Source, Store
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.detect_step import detect
from cdc_merge.worker.fold_step import fold
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.ingest_step import IngestStep
from cdc_merge.worker.publish import publish
from cdc_merge.worker.record_step import record
from cdc_merge.worker.state import Environment, SourcePair, WorkerState

# An idle source's position is saved at most this often; its commits are saved at once.
IDLE_SAVE_US: Final = 500_000

Arrived: TypeAlias = Sequence[tuple[Source, SourceIngest, Sequence[Delivery]]]
"""The deliveries of each source."""


class Pipeline:
    """One worker. Everything follows from deliveries, the store and the environment."""

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[SourcePair],
        store: Store,
        observe: Observer,
        environment: Environment,
    ) -> None:
        self.state = WorkerState(plan, sources, store, environment)
        self._observe = observe
        self._now_us = environment.now_us
        self._saved_us = 0
        self._waiting: deque[Arrived] = deque()

    def _run_batch(self, arrived: Arrived, now_us: int) -> None:
        """One batch, whole or not at all."""
        state, started = self.state, perf_counter()
        batch, ingests = Batch(state.lifecycle_context(now_us)), [ingest for _, ingest, _ in arrived]
        state.records.begin()
        try:
            with state.store.transaction() as tx:
                step = IngestStep(state, batch, tx)
                for _, ingest, deliveries in arrived:
                    step.ingest(ingest, deliveries)  # 1, 2: row changes -> record changes
                fold(state, batch, tx)  # 3, 4: the log, then record states
                for ingest in ingests:
                    step.scan_page(ingest)
                detect(state, batch, tx)  # 5: conflicts
                record(state, batch, ingests, tx)  # 6: deadlines and positions, in the same commit
                ready = perf_counter()
            batch.add_seconds("commit", ready)
        except BaseException:
            state.records.clear()
            raise
        self._saved_us = now_us
        state.committed(batch)
        for source, ingest, _ in arrived:  # 7: after the commit, slots and observers
            if ingest.position is not None and not ingest.position.is_copying:
                source.confirm(ingest.position.lsn)
        state.records.shrink()
        publish(state, batch, self._observe, perf_counter() - started)

    def step(self) -> bool:
        """Take what has arrived and make it durable. False when there was nothing to do. StoreHeld: retry; everything that
        was taken is kept."""
        now_us = self._now_us()
        if self._waiting:
            self._run_waiting(now_us)
            return True
        arrived = [(source, ingest, source.take(self.state.limits.batch_rows)) for source, ingest in self.state.sources]
        delivered = [delivery for _, _, deliveries in arrived for delivery in deliveries]
        # With a commit among the deliveries there is a batch anyway: what else is due need not be looked up.
        if all(isinstance(delivery, Idle) for delivery in delivered) and not self.state.is_due(now_us):
            if not delivered:
                return False
            if now_us - self._saved_us < IDLE_SAVE_US:
                _pass_idle(arrived, now_us)
                return True
        self._waiting.extend(batches(arrived))
        self._run_waiting(now_us)
        return True

    def _run_waiting(self, now_us: int) -> None:
        """StoreHeld: the batch that was not begun waits, and those behind it."""
        while self._waiting:
            try:
                self._run_batch(self._waiting[0], now_us)
            except StoreHeld:
                raise
            except BaseException:
                self._waiting.clear()  # half of the first one was done, in memory
                raise
            self._waiting.popleft()

    @property
    def is_waiting(self) -> bool:
        """Deliveries were taken that are not durable, because another program held the store."""
        return bool(self._waiting)

    def resume(self) -> None:
        """Continue from the store."""
        self.state.resume()

    def follow(self, plan: Plan) -> None:
        """Put another plan of the same sources, mappings and merges in force, between two batches. ExpressionError leaves
        the old one in force."""
        self.state.follow(plan)

    @property
    def watermark_us(self) -> int:
        """The stamp time that every source has passed; it never goes back."""
        return self.state.watermark_us


def batches(arrived: Arrived) -> Iterator[Arrived]:
    """A large transaction is a batch of its own: its records are settled piece by piece."""
    waiting = [(source, ingest, deque(deliveries)) for source, ingest, deliveries in arrived]
    is_over = False
    while not is_over:
        small = [(source, ingest, _pop_small(ingest, deliveries)) for source, ingest, deliveries in waiting]
        large = [(source, ingest, [deliveries.popleft()]) for source, ingest, deliveries in waiting if deliveries]
        if not large or any(deliveries for _, _, deliveries in small):
            yield small
        yield from ([each] for each in large)
        is_over = not any(deliveries for _, _, deliveries in waiting)


def _pop_small(ingest: SourceIngest, deliveries: deque[Delivery]) -> list[Delivery]:
    """Remove and return the deliveries before the first large transaction."""
    small = list(takewhile(lambda delivery: not ingest.is_large(delivery), deliveries))
    for _ in small:
        deliveries.popleft()
    return small


def _pass_idle(arrived: Arrived, now_us: int) -> None:
    """Idle marks move the watermark at once; their positions are saved and confirmed with a later batch."""
    for _, ingest, deliveries in arrived:
        for delivery in deliveries:
            if isinstance(delivery, Idle):
                ingest.idle(delivery, now_us)
