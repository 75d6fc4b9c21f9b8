"""A worker that is killed between any two steps: every call of the store's and the sources' ports is a step."""

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
from tests.system.scenarios.replay import LATER_US, DeliveryLogs
from tests.system.scenarios.sidecars import RecordedDelivery


class WorkerKilled(BaseException):
    """The simulated SIGKILL: nothing after the raising line happens."""


class KillSwitch:
    """Counts the steps of a batch and kills the worker at step `last_step`; None: never."""

    def __init__(self) -> None:
        self.steps = 0
        self.last_step: int | None = None

    def arm(self, last_step: int | None) -> None:
        self.steps, self.last_step = 0, last_step

    def step(self) -> None:
        if self.steps == self.last_step:
            raise WorkerKilled
        self.steps += 1


class KillableTransaction:
    """ports.StoreTransaction: a step before and after each of its calls."""

    def __init__(self, inner: StoreTransaction, kill_switch: KillSwitch) -> None:
        self._inner = inner
        self._kill_switch = kill_switch

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        def called(*arguments: object) -> Any:
            self._kill_switch.step()
            result = method(*arguments)
            self._kill_switch.step()
            return result

        return called


class KillableStore:
    """ports.Store: a step before and after what a batch does with it, and on both sides of the commit."""

    def __init__(self, inner: Store, kill_switch: KillSwitch) -> None:
        self._inner = inner
        self._kill_switch = kill_switch

    @contextmanager
    def transaction(self) -> Iterator[StoreTransaction]:
        self._kill_switch.step()
        with self._inner.transaction() as tx:
            yield cast(StoreTransaction, KillableTransaction(tx, self._kill_switch))
            self._kill_switch.step()
        self._kill_switch.step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ResumedSource:
    """ports.Source over recorded deliveries: starts after a position, as a server does."""

    def __init__(
        self, name: str, delivery_log: Sequence[RecordedDelivery], at_a_time: int, kill_switch: KillSwitch
    ) -> None:
        self.name = name
        self._at_a_time = at_a_time
        self.arrived_us = 0
        self._delivery_log = delivery_log
        self._kill_switch = kill_switch
        self._next = 0

    def start(self, position: Position | None) -> None:
        self._next = 0
        if position is not None and position.snapshot != "running":
            later = (n for n, played in enumerate(self._delivery_log) if _end(played.delivery) > position.lsn)
            self._next = next(later, len(self._delivery_log))
            self.arrived_us = self._delivery_log[self._next - 1].arrived_us

    @property
    def is_over(self) -> bool:
        return self._next == len(self._delivery_log)

    def take(self, limit: int) -> Sequence[Delivery]:
        self._kill_switch.step()
        taken = self._delivery_log[self._next : self._next + self._at_a_time]
        self._next += len(taken)
        self.arrived_us = taken[-1].arrived_us if taken else self.arrived_us
        return [played.delivery for played in taken]

    def confirm(self, lsn: int) -> None:
        self._kill_switch.step()

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)

    def stop(self) -> None: ...


def with_final_idle(delivery_logs: DeliveryLogs) -> DeliveryLogs:
    """The same logs, each with a final idle mark, as a server sends when nothing follows."""
    last_us = max(played.arrived_us for delivery_log in delivery_logs.values() for played in delivery_log)
    return {
        name: (*delivery_log, RecordedDelivery(last_us, _idle(delivery_log, last_us)))
        for name, delivery_log in delivery_logs.items()
    }


def _idle(delivery_log: Sequence[RecordedDelivery], at_us: int) -> Idle:
    last = next(each for each in reversed([p.delivery for p in delivery_log]) if isinstance(each, Transaction | Idle))
    return Idle(last.source, last.system, last.timeline, _end(last) + 1, at_us)


def _end(delivery: Delivery) -> int:
    """Where a delivery of the stream ends; the initial snapshot lies before every position."""
    if isinstance(delivery, Transaction):
        return delivery.end_lsn
    return delivery.lsn if isinstance(delivery, Idle) else 0


@dataclass(frozen=True)
class Script:
    """The input of one run: the sources' deliveries, and how many of one source arrive together."""

    settings: Settings
    delivery_logs: DeliveryLogs
    at_a_time: int
    limits: Limits = DEFAULT_LIMITS


class KillableWorker:
    """A pipeline with its sources over a store, as a process that has just started."""

    def __init__(self, script: Script, store: Store, kill_switch: KillSwitch) -> None:
        self.store = store
        self._kill_switch = kill_switch
        self.sources = {
            name: ResumedSource(name, delivery_log, script.at_a_time, kill_switch)
            for name, delivery_log in script.delivery_logs.items()
        }
        pairs = [(cast(Source, source), _ingest(script, name)) for name, source in self.sources.items()]
        environment = Environment(self._now_us, _ids(store), compile_expression, script.limits)
        self._later_us = 0
        killable = cast(Store, KillableStore(store, kill_switch))
        self.pipeline = Pipeline(script.settings.plan, pairs, killable, self._observe, environment)
        self.pipeline.resume()
        positions: Mapping[str, tuple[Position, object]] = store.positions()
        for name, source in self.sources.items():
            source.start(positions[name][0] if name in positions else None)

    @property
    def is_over(self) -> bool:
        return all(source.is_over for source in self.sources.values())

    def step(self, *, is_final: bool) -> bool:
        """Run one batch. `is_final`: our clock is late enough that every conflict has settled."""
        self._later_us = LATER_US if is_final else 0
        return self.pipeline.step()

    @property
    def is_copying(self) -> bool:
        """Whether some initial snapshot is not on disk."""
        done = [position.snapshot == "done" for position, _ in self.store.positions().values()]
        return done != [True] * len(self.sources)

    def _now_us(self) -> int:
        return max(source.arrived_us for source in self.sources.values()) + self._later_us

    def _observe(self, fact: Fact) -> None:
        self._kill_switch.step()


def _ingest(script: Script, name: str) -> SourceIngest:
    plan = script.settings.plan
    mapper = Mapper(name, [table for table in plan.tables if table.source == name], plan)
    return SourceIngest(name, mapper, "slot", SpillFile, script.limits)


def _ids(store: Store) -> Callable[[], str]:
    """Conflict ids that no earlier worker has used."""
    given = {conflict.id for conflict in store.conflicts({}, None, 100_000)}
    free = (str(n) for n in itertools.count(1) if str(n) not in given)
    return lambda: next(free)
