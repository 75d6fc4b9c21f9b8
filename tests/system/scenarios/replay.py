"""Other orders of arrival: the deliveries that a witness took, once more, through new pipelines into stores in memory.

Any order between sources is legal; the order within a source is its own. Each delivery arrives at the time (by our own
clock) at which it arrived at the witness, because that time is part of a stamp that had to be cut.
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
from tests.system.scenarios.picture import Document, Picture, picture
from tests.system.scenarios.witness import Played

Tapes = Mapping[str, Sequence[Played]]
Order = Sequence[tuple[str, Played]]

NEVER_US = 2**62
LATER_US = 60_000_000  # long after everything has settled
ALL = 1_000


class TapedSource:
    """ports.Source: gives what it was handed."""

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


class Desk(SourceIngest):
    """Where people decide: what it is handed are changes as they are, and it keeps nobody waiting."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(DECISION_SOURCE, Mapper(DECISION_SOURCE, (), plan), "none", SpillFile)
        self.passed_us = NEVER_US
        self.decided: list[Change] = []

    def take(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> IngestResult:
        decided, self.decided = tuple(self.decided), []
        return IngestResult(decided)


class Rerun:
    """A pipeline over a store in memory that is fed by hand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.disk = Disk()
        self._now_us = 0
        self._ids = itertools.count(1)
        self._begin()

    def _begin(self) -> None:
        """A worker with nothing in its head."""
        self._sources = {name: TapedSource(name) for name in self._settings.sources}
        self._sources[DECISION_SOURCE] = TapedSource(DECISION_SOURCE)
        self._desk = Desk(self._settings.plan)
        pairs = [(self._sources[name], self._intake(name)) for name in self._settings.sources]
        pairs.append((self._sources[DECISION_SOURCE], self._desk))
        self._store = MemoryStore(self.disk)
        world = Environment(lambda: self._now_us, lambda: str(next(self._ids)), compile_expression)
        self._pipeline = Pipeline(self._settings.plan, pairs, self._store, _deaf, world)
        self._pipeline.resume()

    def _intake(self, name: str) -> SourceIngest:
        plan = self._settings.plan
        return SourceIngest(
            name, Mapper(name, [table for table in plan.tables if table.source == name], plan), "slot", SpillFile
        )

    def begin_anew(self) -> None:
        self._store.close()
        self._begin()

    def deliver(self, source: str, played: Played) -> None:
        self._now_us = played.arrived_us
        self._sources[source].next = [played.delivery]
        while self._pipeline.step():
            pass

    def decide(self, changes: Sequence[Change]) -> None:
        """People have decided."""
        self._desk.decided += changes
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

    def picture(self) -> Picture:
        """What it says once everything has had time to settle."""
        self._now_us += LATER_US
        while self._pipeline.step():
            pass
        return picture_of(self._store, self._settings)


def picture_of(store: Store, settings: Settings) -> Picture:
    """What a store says once everything has had time to settle."""
    reading = StoreQueries(store, settings.plan)
    records = records_document(reading, "customer", None, ALL)["items"]
    settling, standing = (conflicts_document(reading, {"status": s}, None, ALL)["items"] for s in ("settling", "open"))
    assert settling == [], "there was time enough to settle"
    return picture(_documents(records), _documents(standing))


def _documents(found: object) -> list[Document]:
    assert isinstance(found, list)
    return found


def _deaf(fact: Fact) -> None:
    """Nobody listens."""


# ---------------------------------------------------------------- orders


def _in_turn(tapes: Tapes, names: Sequence[str]) -> list[tuple[str, Played]]:
    return [(name, played) for name in names for played in tapes[name]]


def _round_robin(tapes: Tapes) -> list[tuple[str, Played]]:
    rows = itertools.zip_longest(*([(name, played) for played in tape] for name, tape in tapes.items()))
    return [each for row in rows for each in row if each is not None]


def _shuffled(tapes: Tapes, seed: int) -> list[tuple[str, Played]]:
    """Any interleaving that keeps the order of each source."""
    chance = random.Random(seed)
    names = [name for name, tape in tapes.items() for _ in tape]
    chance.shuffle(names)
    heads = {name: iter(tape) for name, tape in tapes.items()}
    return [(name, next(heads[name])) for name in names]


def split(tapes: Tapes) -> tuple[Tapes, Tapes]:
    """The first copies, and all that follows them."""
    ends = {
        name: next((n for n, played in enumerate(tape, 1) if isinstance(played.delivery, SnapshotDone)), 0)
        for name, tape in tapes.items()
    }
    first = {name: tape[: ends[name]] for name, tape in tapes.items()}
    return first, {name: tape[ends[name] :] for name, tape in tapes.items()}


def orders(tapes: Tapes) -> Iterator[tuple[str, Order]]:
    """Named orders: every order of whole sources, after the first copies and with them, and mixed ones."""
    first, rest = split(tapes)
    copied = _round_robin(first)
    for names in itertools.permutations(tapes):
        yield f"{' before '.join(names)}", [*copied, *_in_turn(rest, names)]
    for name in tapes:
        others = [other for other in tapes if other != name]
        yield f"even the first copy of {name} comes last", _in_turn(tapes, [*others, name])
    yield "in turn", _round_robin(tapes)
    yield "mixed (1)", _shuffled(tapes, 1)
    yield "everything after the first copies twice", [*copied, *_shuffled(rest, 2), *_shuffled(rest, 3)]


def pictures(settings: Settings, tapes: Tapes) -> Iterator[tuple[str, Picture]]:
    """What is said in each order of arrival, and by a worker that is replaced after every delivery."""
    for name, order in orders(tapes):
        rerun = Rerun(settings)
        for source, played in order:
            rerun.deliver(source, played)
        yield name, rerun.picture()
    yield "a new worker after every delivery", _forgetful(settings, tapes)


def _forgetful(settings: Settings, tapes: Tapes) -> Picture:
    first, rest = split(tapes)
    rerun = Rerun(settings)
    for source, played in _round_robin(first):
        rerun.deliver(source, played)
    for source, played in _shuffled(rest, 4):
        rerun.begin_anew()
        rerun.deliver(source, played)
    return rerun.picture()
