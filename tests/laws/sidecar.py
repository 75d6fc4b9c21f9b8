"""The whole way of the data over systems in memory: the real pipeline, a real store, and what both say in comparable form.

`Picture` is everything that is a function of histories, rules and watermark alone. One is taken from what the worker
keeps in its cache, one from the store's bases and the changes after them, one from the full fold over the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import detect
from cdc_merge.conflicts.lifecycle import ConflictIdentity, conflict_identity
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.merge.fold import fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import fold_from_checkpoint
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.merge.writes import LIMITS, CompactionLimits
from cdc_merge.model import Change, Conflict, DetectedConflict, Fact, MergedRecord, RecordKey, Stamp
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import Store
from cdc_merge.sources.spill import SpillFile
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.limits import Limits
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.state import Environment
from tests.laws.holdings import ENTITY
from tests.laws.systems import Stream, System
from tests.system.crash.killable_worker import KillableStore, KillSwitch

ALL: Final = 1_000

Frontier = Mapping[str, tuple[Stamp, ...]]
Told = tuple[MergedRecord, Frontier]


@dataclass(frozen=True)
class Picture:
    """Every record with its views and frontiers, and what is asked of people."""

    records: Mapping[str, Told]
    open: Mapping[tuple[str, ConflictIdentity], DetectedConflict]

    def differences(self, other: Picture) -> list[str]:
        return [*_apart(self.records, other.records), *_apart(self.open, other.open)]


def _apart(mine: Mapping[Any, object], theirs: Mapping[Any, object]) -> list[str]:
    keys = sorted(mine.keys() | theirs.keys(), key=repr)
    return [f"{key}:\n   {mine.get(key)}\n ≠ {theirs.get(key)}" for key in keys if mine.get(key) != theirs.get(key)]


@dataclass(frozen=True)
class Firm:
    """The systems, what is asked of them, the time by our own clock, and when each delivery of a stream was taken for good."""

    plan: Plan
    systems: Mapping[str, System]
    now_us: Callable[[], int]
    new_id: Callable[[], str]
    arrived_us: Mapping[str, dict[int, int]]


TWO_RECORDS: Final = Limits(cached_records=2)


class Sidecar:
    """A worker that has just started over a store."""

    def __init__(
        self,
        firm: Firm,
        store: Store,
        fate: KillSwitch,
        limits: Limits = TWO_RECORDS,
        *,
        compaction: CompactionLimits = LIMITS,
    ) -> None:
        self._plan = firm.plan
        self.store = store
        self.streams = {
            name: Stream(system, firm.now_us, firm.arrived_us[name]) for name, system in firm.systems.items()
        }
        mappers = {name: Mapper(name, firm.plan.tables, firm.plan) for name in firm.systems}
        pairs = [
            (self.streams[name], SourceIngest(name, mapper, "slot", SpillFile)) for name, mapper in mappers.items()
        ]
        world = Environment(firm.now_us, firm.new_id, compile_expression, limits)
        mortal = cast(Store, KillableStore(store, fate))
        self.facts: list[Fact] = []
        self.pipeline = Pipeline(firm.plan, pairs, mortal, self._note, world)
        for units in self.pipeline.state.records.entities().values():
            units.limits = compaction
        self.pipeline.resume()
        positions = store.positions()
        for name, stream in self.streams.items():
            stream.start(positions[name][0] if name in positions else None)

    def _note(self, fact: Fact) -> None:
        self.facts.append(fact)

    def merge(self, allowed: Mapping[str, int]) -> None:
        """Everything that may arrive arrives, and timers that are due are heard."""
        for name, stream in self.streams.items():
            stream.allowed = allowed.get(name, 0)
        while self.pipeline.step():
            pass

    @property
    def is_over(self) -> bool:
        return all(stream.is_over for stream in self.streams.values())

    # ------------------------------------------------------------ what is said

    def histories(self) -> dict[str, list[Change]]:
        keys = self.store.records(ENTITY, None, ALL)
        return {key: self.store.history(RecordKey(ENTITY, key)) for key in keys}

    def whole(self) -> Picture:
        """By the definition: every record folded from its whole history."""
        units, plan = Units(self._plan.entities[ENTITY]), self._plan
        return self._asking(
            {key: fold(units, history, max_ahead_us=plan.max_ahead_us) for key, history in self.histories().items()}
        )

    def durable(self) -> Picture:
        """From what is on disk: bases and the changes after them, and the queue."""
        units = Units(self._plan.entities[ENTITY])
        found = {}
        for key in self.store.records(ENTITY, None, ALL):
            state = self.store.folded(RecordKey(ENTITY, key))
            found[key] = merged_and_frontiers(
                fold_from_checkpoint(units, key, state, max_ahead_us=self._plan.max_ahead_us)
            )
        return Picture(found, self._unfinished())

    def cached(self) -> dict[str, Told]:
        """From what the worker has in its head."""
        entries = {key: self.pipeline.state.records.cached(RecordKey(ENTITY, key)) for key in self.histories()}
        return {key: merged_and_frontiers(entry.record) for key, entry in entries.items() if entry is not None}

    def _asking(self, records: Mapping[str, Record]) -> Picture:
        rulebook, watermark_us = self.pipeline.state.rulebooks[ENTITY], self.pipeline.watermark_us
        found: dict[tuple[str, ConflictIdentity], DetectedConflict] = {}
        for key, record in records.items():
            answers = detect(record, rulebook, watermark_us, records)
            open_ = (
                question for question in answers.conflicts if conflict_identity(question) not in answers.auto_resolved
            )
            found |= {(key, conflict_identity(question)): question for question in open_}
        return Picture({key: merged_and_frontiers(record) for key, record in records.items()}, found)

    def _unfinished(self) -> dict[tuple[str, ConflictIdentity], DetectedConflict]:
        """The queue, without what a rule will have answered when it has settled."""
        plans = self._plan.entities[ENTITY].fields
        return {
            (conflict.detected.key, conflict_identity(conflict.detected)): conflict.detected
            for conflict in self.store.unfinished_conflicts()
            if not (conflict.status == "settling" and _is_answered(plans, conflict))
        }


def _is_answered(plans: Mapping[str, Any], conflict: Conflict) -> bool:
    question = conflict.detected
    plan = plans.get(question.field or "")
    return plan is not None and bool(plan.auto) and question.kind.startswith("concurrent_")


def merged_and_frontiers(record: Record) -> Told:
    fronts = {name: tuple(write.stamp for write in cell.frontier_writes()) for name, cell in record.unit_states.items()}
    return merged(record), {name: stamps for name, stamps in fronts.items() if stamps}
