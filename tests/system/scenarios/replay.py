"""Replays recorded deliveries in other orders of arrival, through new pipelines into stores in memory.

Any order between sources is legal; the order within a source is fixed. Each delivery arrives at its recorded time (of our
own clock), because that time is part of a stamp that had to be cut.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from cdc_merge.cel import compile_expression
from cdc_merge.config.settings import Settings
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    DECISION_SOURCE,
    Change,
    Conflict,
    Delivery,
    Fact,
    Position,
    SnapshotDone,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import Store, StoreTransaction
from cdc_merge.queries.responses import conflicts_document, records_document
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.memory.disk import Disk
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.ingest_result import IngestResult
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.state import Environment
from tests.system.scenarios.merged_state import Document, MergedState, merged_state
from tests.system.scenarios.sidecars import RecordedDelivery

DeliveryLogs = Mapping[str, Sequence[RecordedDelivery]]
Order = Sequence[tuple[str, RecordedDelivery]]

NEVER_US = 2**62
LATER_US = 60_000_000  # long after everything has settled
ALL = 1_000


class FedSource:
    """ports.Source: delivers what a test puts into `next`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next: list[Delivery] = []

    def start(self, position: Position | None) -> None: ...

    def take(self, limit: int) -> Sequence[Delivery]:
        taken, self.next = self.next, []
        return taken

    def confirm(self, lsn: int) -> None: ...

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)

    def stop(self) -> None: ...


class DecisionIngest(SourceIngest):
    """The ingest of decisions: takes changes unmapped, and never holds the watermark back."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(DECISION_SOURCE, Mapper(DECISION_SOURCE, (), plan), "none", SpillFile)
        self.passed_us = NEVER_US
        self.decided: list[Change] = []

    def take(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> IngestResult:
        decided, self.decided = tuple(self.decided), []
        return IngestResult(decided)


class Replay:
    """A pipeline over a store in memory; the test delivers by hand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.disk = Disk()
        self._now_us = 0
        self._ids = itertools.count(1)
        self._begin()

    def _begin(self) -> None:
        """Start a worker without cached state, over the same disk."""
        self._sources = {name: FedSource(name) for name in self._settings.sources}
        self._sources[DECISION_SOURCE] = FedSource(DECISION_SOURCE)
        self._decisions = DecisionIngest(self._settings.plan)
        pairs = [(self._sources[name], self._intake(name)) for name in self._settings.sources]
        pairs.append((self._sources[DECISION_SOURCE], self._decisions))
        self._store = MemoryStore(self.disk)
        environment = Environment(lambda: self._now_us, lambda: str(next(self._ids)), compile_expression)
        self._pipeline = Pipeline(self._settings.plan, pairs, self._store, _ignore, environment)
        self._pipeline.resume()

    def _intake(self, name: str) -> SourceIngest:
        plan = self._settings.plan
        return SourceIngest(
            name, Mapper(name, [table for table in plan.tables if table.source == name], plan), "slot", SpillFile
        )

    def replace_worker(self) -> None:
        self._store.close()
        self._begin()

    def deliver(self, source: str, played: RecordedDelivery) -> None:
        self._now_us = played.arrived_us
        self._sources[source].next = [played.delivery]
        while self._pipeline.step():
            pass

    def decide(self, changes: Sequence[Change]) -> None:
        """Deliver decisions."""
        self._decisions.decided += changes
        self._now_us = max(self._now_us, changes[0].committed_us)
        empty = Transaction(DECISION_SOURCE, DECISION_SOURCE, 0, 0, self._now_us, None, (), ())
        self._sources[DECISION_SOURCE].next = [empty]
        while self._pipeline.step():
            pass

    @property
    def watermark_us(self) -> int:
        return self._pipeline.watermark_us

    def conflicts(self, **where: str) -> list[Conflict]:
        return self._store.conflicts(where, None, ALL)

    def merged_state(self) -> MergedState:
        """The merged state after every conflict has settled."""
        self._now_us += LATER_US
        while self._pipeline.step():
            pass
        return merged_state_of(self._store, self._settings)


def merged_state_of(store: Store, settings: Settings) -> MergedState:
    """The merged state of a store in which every conflict has settled."""
    reading = StoreQueries(store, settings.plan)
    records = records_document(reading, "customer", None, ALL)["items"]
    settling, standing = (conflicts_document(reading, {"status": s}, None, ALL)["items"] for s in ("settling", "open"))
    assert settling == [], "a conflict did not settle"
    return merged_state(_documents(records), _documents(standing))


def _documents(found: object) -> list[Document]:
    assert isinstance(found, list)
    return found


def _ignore(fact: Fact) -> None:
    """An observer that drops every fact."""


# ---------------------------------------------------------------- orders


def _in_turn(delivery_logs: DeliveryLogs, names: Sequence[str]) -> list[tuple[str, RecordedDelivery]]:
    return [(name, played) for name in names for played in delivery_logs[name]]


def _round_robin(delivery_logs: DeliveryLogs) -> list[tuple[str, RecordedDelivery]]:
    rows = itertools.zip_longest(
        *([(name, played) for played in delivery_log] for name, delivery_log in delivery_logs.items())
    )
    return [each for row in rows for each in row if each is not None]


def _shuffled(delivery_logs: DeliveryLogs, seed: int) -> list[tuple[str, RecordedDelivery]]:
    """Any interleaving that keeps the order of each source."""
    chance = random.Random(seed)
    names = [name for name, delivery_log in delivery_logs.items() for _ in delivery_log]
    chance.shuffle(names)
    heads = {name: iter(delivery_log) for name, delivery_log in delivery_logs.items()}
    return [(name, next(heads[name])) for name in names]


def split(delivery_logs: DeliveryLogs) -> tuple[DeliveryLogs, DeliveryLogs]:
    """(initial snapshots, deliveries after them)."""
    ends = {
        name: next((n for n, played in enumerate(delivery_log, 1) if isinstance(played.delivery, SnapshotDone)), 0)
        for name, delivery_log in delivery_logs.items()
    }
    first = {name: delivery_log[: ends[name]] for name, delivery_log in delivery_logs.items()}
    return first, {name: delivery_log[ends[name] :] for name, delivery_log in delivery_logs.items()}


def orders(delivery_logs: DeliveryLogs) -> Iterator[tuple[str, Order]]:
    """Orders of arrival by name: source after source, with and without the initial snapshots first, and interleaved."""
    first, rest = split(delivery_logs)
    copied = _round_robin(first)
    for names in itertools.permutations(delivery_logs):
        yield f"{' before '.join(names)}", [*copied, *_in_turn(rest, names)]
    for name in delivery_logs:
        others = [other for other in delivery_logs if other != name]
        yield f"even the snapshot of {name} arrives last", _in_turn(delivery_logs, [*others, name])
    yield "in turn", _round_robin(delivery_logs)
    yield "mixed (1)", _shuffled(delivery_logs, 1)
    yield "everything after the snapshots twice", [*copied, *_shuffled(rest, 2), *_shuffled(rest, 3)]


def merged_states(settings: Settings, delivery_logs: DeliveryLogs) -> Iterator[tuple[str, MergedState]]:
    """The merged state of each order of arrival, and of a worker that is replaced after every delivery."""
    for name, order in orders(delivery_logs):
        replay = Replay(settings)
        for source, played in order:
            replay.deliver(source, played)
        yield name, replay.merged_state()
    yield "a new worker after every delivery", _state_of_replaced_workers(settings, delivery_logs)


def _state_of_replaced_workers(settings: Settings, delivery_logs: DeliveryLogs) -> MergedState:
    first, rest = split(delivery_logs)
    replay = Replay(settings)
    for source, played in _round_robin(first):
        replay.deliver(source, played)
    for source, played in _shuffled(rest, 4):
        replay.replace_worker()
        replay.deliver(source, played)
    return replay.merged_state()
