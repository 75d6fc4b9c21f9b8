"""A worker that may die between any two steps: every call of the store's and the sources' ports is one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from cdc_merge.cel import compile_expression
from cdc_merge.config.settings import Settings
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import Delivery, Fact, Idle, Position, SourceStatus, Transaction
from cdc_merge.model.ports import Source, Store, StoreTransaction
from cdc_merge.sources.spill import SpillFile
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.limits import DEFAULT_LIMITS, Limits
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.state import Environment
from tests.system.scenarios.replay import LATER_US, Tapes
from tests.system.scenarios.witness import Played


class Death(BaseException):
    """The process ends here, as if by SIGKILL: nothing after this line happens."""


class Fate:
    """Counts the steps of a batch and says at which one the worker dies; None: it lives."""

    def __init__(self) -> None:
        self.steps = 0
        self.last_step: int | None = None

    def arm(self, last_step: int | None) -> None:
        self.steps, self.last_step = 0, last_step

    def step(self) -> None:
        if self.steps == self.last_step:
            raise Death
        self.steps += 1


class MortalTransaction:
    """ports.StoreTransaction: a step before and after each of its calls."""

    def __init__(self, inner: StoreTransaction, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        def called(*arguments: object) -> Any:
            self._fate.step()
            result = method(*arguments)
            self._fate.step()
            return result

        return called


class MortalStore:
    """ports.Store: a step before and after what a batch does with it, and on both sides of the commit."""

    def __init__(self, inner: Store, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    @contextmanager
    def transaction(self) -> Iterator[StoreTransaction]:
        self._fate.step()
        with self._inner.transaction() as tx:
            yield cast(StoreTransaction, MortalTransaction(tx, self._fate))
            self._fate.step()
        self._fate.step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ResumedSource:
    """ports.Source over what a source once delivered: begins after a position, as a server does."""

    def __init__(self, name: str, tape: Sequence[Played], at_a_time: int, fate: Fate) -> None:
        self.name = name
        self._at_a_time = at_a_time
        self.arrived_us = 0
        self._tape = tape
        self._fate = fate
        self._next = 0

    def start(self, position: Position | None) -> None:
        self._next = 0
        if position is not None and position.snapshot != "running":
            later = (n for n, played in enumerate(self._tape) if _end(played.delivery) > position.lsn)
            self._next = next(later, len(self._tape))
            self.arrived_us = self._tape[self._next - 1].arrived_us

    @property
    def is_over(self) -> bool:
        return self._next == len(self._tape)

    def take(self, limit: int) -> Sequence[Delivery]:
        self._fate.step()
        taken = self._tape[self._next : self._next + self._at_a_time]
        self._next += len(taken)
        self.arrived_us = taken[-1].arrived_us if taken else self.arrived_us
        return [played.delivery for played in taken]

    def confirm(self, lsn: int) -> None:
        self._fate.step()

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)

    def stop(self) -> None: ...


def with_evening(tapes: Tapes) -> Tapes:
    """The same, and at the end every source says once more that it is idle, as servers go on to do."""
    night_us = max(played.arrived_us for tape in tapes.values() for played in tape)
    return {name: (*tape, Played(night_us, _idle(tape, night_us))) for name, tape in tapes.items()}


def _idle(tape: Sequence[Played], at_us: int) -> Idle:
    last = next(each for each in reversed([p.delivery for p in tape]) if isinstance(each, Transaction | Idle))
    return Idle(last.source, last.system, last.timeline, _end(last) + 1, at_us)


def _end(delivery: Delivery) -> int:
    """Where a delivery of the stream ends; the first copy lies before every position."""
    if isinstance(delivery, Transaction):
        return delivery.end_lsn
    return delivery.lsn if isinstance(delivery, Idle) else 0


@dataclass(frozen=True)
class Day:
    """What the sources deliver, and how many deliveries of a source arrive together."""

    settings: Settings
    tapes: Tapes
    at_a_time: int
    limits: Limits = DEFAULT_LIMITS


class Worker:
    """A pipeline with its sources over a store, as a process that has just started."""

    def __init__(self, day: Day, store: Store, fate: Fate) -> None:
        self.store = store
        self._fate = fate
        self.sources = {name: ResumedSource(name, tape, day.at_a_time, fate) for name, tape in day.tapes.items()}
        pairs = [(cast(Source, source), _ingest(day, name)) for name, source in self.sources.items()]
        world = Environment(self._now_us, _ids(store), compile_expression, day.limits)
        self._later_us = 0
        mortal = cast(Store, MortalStore(store, fate))
        self.pipeline = Pipeline(day.settings.plan, pairs, mortal, self._observe, world)
        self.pipeline.resume()
        positions: Mapping[str, tuple[Position, object]] = store.positions()
        for name, source in self.sources.items():
            source.start(positions[name][0] if name in positions else None)

    @property
    def is_over(self) -> bool:
        return all(source.is_over for source in self.sources.values())

    def step(self, *, is_evening: bool) -> bool:
        """One batch; in the evening everything has had time to settle."""
        self._later_us = LATER_US if is_evening else 0
        return self.pipeline.step()

    @property
    def is_copying(self) -> bool:
        """Some first copy is not on disk."""
        done = [position.snapshot == "done" for position, _ in self.store.positions().values()]
        return done != [True] * len(self.sources)

    def _now_us(self) -> int:
        return max(source.arrived_us for source in self.sources.values()) + self._later_us

    def _observe(self, fact: Fact) -> None:
        self._fate.step()


def _ingest(day: Day, name: str) -> SourceIngest:
    plan = day.settings.plan
    mapper = Mapper(name, [table for table in plan.tables if table.source == name], plan)
    return SourceIngest(name, mapper, "slot", SpillFile, day.limits)


def _ids(store: Store) -> Callable[[], str]:
    """Ids that no earlier worker has given."""
    given = {conflict.id for conflict in store.conflicts({}, None, 100_000)}
    free = (str(n) for n in itertools.count(1) if str(n) not in given)
    return lambda: next(free)
