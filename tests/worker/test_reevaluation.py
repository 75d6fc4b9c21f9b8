"""Rules that change across a restart: records that nobody touches are judged by the new ones, page by page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    INSERT,
    SNAPSHOT,
    UNKNOWN,
    UPDATE,
    Change,
    Conflict,
    Delivery,
    Fact,
    Idle,
    Place,
    Position,
    SourceStatus,
    Stamp,
)
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, Rule
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.memory.disk import Disk
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.ingest_result import IngestResult
from cdc_merge.worker.limits import Limits
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.state import Environment

SOURCES = ("crm", "erp")
FIELDS = ("used", "limit")
T0 = 1_790_000_000_000_000
LATER_US = T0 + 10_000_000_000
Stores = MemoryStore | SqliteStore


class ChangesIngest(SourceIngest):
    """The ingest of a source that delivers record changes as they are."""

    def __init__(self, source: str, plan: Plan) -> None:
        super().__init__(source, Mapper(source, (), plan), "slot", SpillFile)
        self.changes: tuple[Change, ...] = ()

    def take(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> IngestResult:
        self.position = Position("7", 1, 1, "done", "slot")
        self.passed_us = LATER_US
        changes, self.changes = self.changes, ()
        return IngestResult(changes)


class IdleSource:
    def __init__(self, name: str) -> None:
        self.name = name
        self.has_more = True

    def start(self, position: Position | None) -> None: ...
    def confirm(self, lsn: int) -> None: ...
    def stop(self) -> None: ...
    def request_chunk(self, request: object) -> None: ...
    def accept_loss(self, *, accepts: bool) -> None: ...

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)

    def take(self, limit: int) -> Sequence[Delivery]:
        had, self.has_more = self.has_more, False
        return [Idle(self.name, "7", 1, 1, LATER_US)] if had else []


def ignore_fact(fact: Fact) -> None:
    """No observer."""


SMALL_PAGES = Limits(reevaluated_records=2)


class Worker:
    """A worker that has just started: it merges its changes until nothing is due."""

    def __init__(self, store: Stores, plan: Plan, changes: Sequence[Change] = ()) -> None:
        self.store = store
        pairs = [(IdleSource(source), ChangesIngest(source, plan)) for source in SOURCES]
        for _, ingest in pairs:
            ingest.changes = tuple(change for change in changes if change.stamp.source == ingest.source)
        ids = itertools.count(len(store.conflicts({}, None, 10_000)))
        self.now_us = LATER_US
        world = Environment(lambda: self.now_us, lambda: f"c{next(ids)}", compile_expression, SMALL_PAGES)
        self.pipeline = Pipeline(plan, pairs, store, ignore_fact, world)
        self.pipeline.resume()

    def work(self) -> int:
        """How many steps there were until there was nothing left to do."""
        steps = 0
        for _ in range(2):
            while self.pipeline.step():
                steps += 1
            self.now_us += 10_000_000
        return steps

    def unfinished(self) -> list[Conflict]:
        return sorted(self.store.unfinished_conflicts(), key=lambda c: (c.detected.key, c.detected.kind))

    def unfinished_kinds(self) -> list[tuple[str, str, str]]:
        return [(c.detected.key, c.detected.kind, c.detected.severity) for c in self.unfinished()]


def plan_of(policy: str, *, checks: Sequence[Check] = (), rules: Sequence[Rule] = (), missing: str = "ignore") -> Plan:
    entity = EntityPlan(
        "customer",
        SOURCES,
        dict.fromkeys(SOURCES, frozenset(FIELDS)),
        {name: FieldPlan(name, value_type="integer") for name in FIELDS},
        checks=tuple(checks),
        on_missing=missing,
    )
    return ruled(Plan({"customer": entity}, (), tuple(rules), policy=policy))


def change(key: str, source: str, number: int, row: str = UPDATE, **values: int) -> Change:
    fields: dict[str, tuple[object, object]] = {
        name: (UNKNOWN if row != UPDATE else 0, value) for name, value in values.items()
    }
    stamp, place = Stamp(T0 + number * 1_000, 0, source), Place(source, 1, number, f"public.{key}", 0)
    return Change("customer", key, stamp, place, row, fields, committed_us=stamp.wall_us)  # type: ignore[arg-type]


def history() -> list[Change]:
    """C1: two limits, one of them broken. C2 to C9: customers beyond what a later rule allows. Nobody touches any again."""
    snapshots = [
        change(f"C{n}", source, 10 * n + place, SNAPSHOT, used=0, limit=10)
        for n in range(1, 10)
        for place, source in enumerate(SOURCES)
    ]
    edits = [change(f"C{n}", "crm", 1_000 + n, used=n * 10) for n in range(2, 10)]
    rival = [change("C1", "crm", 2_001, limit=20), change("C1", "erp", 2_002, limit=30)]
    return [*snapshots, *edits, *rival]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    store: Stores = MemoryStore(Disk()) if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield store
    store.close()


LIMIT = Check("limit", "record.used <= 50", "critical")


def test_untouched_records_are_detected_under_a_new_check(store: Stores) -> None:
    first = Worker(store, plan_of("one"), history())
    first.work()
    assert first.unfinished_kinds() == [("C1", "concurrent_update", "medium")]
    second = Worker(store, plan_of("two", checks=[LIMIT]))
    second.work()
    assert second.unfinished_kinds() == [
        ("C1", "concurrent_update", "medium"),
        *((f"C{n}", "invariant", "critical") for n in range(6, 10)),
    ]
    assert {c.status for c in second.unfinished()} == {"open"}


def test_conflicts_that_the_new_rules_do_not_detect_are_superseded(store: Stores) -> None:
    first = Worker(store, plan_of("one", checks=[LIMIT]), history())
    first.work()
    assert len(first.unfinished_kinds()) == 5
    second = Worker(store, plan_of("two"))
    second.work()
    assert second.unfinished_kinds() == [("C1", "concurrent_update", "medium")]
    closed = store.conflicts({"status": "closed"}, None, 100)
    assert {(c.detected.kind, c.resolution) for c in closed} == {("invariant", "superseded")}


def test_a_conflict_to_which_a_new_rule_gives_another_severity_is_revised(store: Stores) -> None:
    first = Worker(store, plan_of("one"), history())
    first.work()
    (before,) = first.unfinished()
    second = Worker(store, plan_of("two", rules=[Rule("grave", "customer.limit", severity="critical")]))
    second.work()
    (after,) = second.unfinished()
    assert (after.id, after.revision) == (before.id, before.revision + 1)
    assert (after.detected.severity, after.policy) == ("critical", "two")


def test_a_conflict_that_a_new_rule_resolves_is_closed_by_it(store: Stores) -> None:
    Worker(store, plan_of("one"), history()).work()
    second = Worker(store, plan_of("two", rules=[Rule("latest", "customer.limit", auto=("latest",))]))
    second.work()
    assert second.unfinished_kinds() == []
    (closed,) = store.conflicts({"status": "closed"}, None, 10)
    assert closed.resolution == "auto"


def test_a_restart_under_the_same_rules_reevaluates_nothing(store: Stores) -> None:
    Worker(store, plan_of("one"), history()).work()
    second = Worker(store, plan_of("one"))
    assert not second.pipeline.state.reevaluation.is_due
    third = Worker(store, plan_of("two"))
    assert third.pipeline.state.reevaluation.is_due
    third.work()
    assert not Worker(store, plan_of("two")).pipeline.state.reevaluation.is_due


def test_a_reevaluation_continues_where_the_previous_worker_stopped(store: Stores) -> None:
    Worker(store, plan_of("one"), history()).work()
    checked = plan_of("two", checks=[LIMIT])
    interrupted = Worker(store, checked)
    for _ in range(4):
        interrupted.pipeline.step()
    reached = store.evaluated()["customer"]
    assert reached[0] == "two"
    assert reached[1] is not None
    last = Worker(store, checked)
    assert last.work() < 9
    assert [key for key, kind, _ in last.unfinished_kinds() if kind == "invariant"] == ["C6", "C7", "C8", "C9"]


def test_conflicts_of_an_entity_that_is_no_more_end(store: Stores) -> None:
    Worker(store, plan_of("one"), history()).work()
    other = EntityPlan("order", SOURCES, dict.fromkeys(SOURCES, frozenset({"a"})), {"a": FieldPlan("a")})
    last = Worker(store, Plan({"order": other}, (), policy="two"))
    last.work()
    assert last.unfinished_kinds() == []
    assert [c.resolution for c in store.conflicts({"status": "closed"}, None, 10)] == ["superseded"]


def test_missing_records_are_reported_once_the_configuration_requests_it(store: Stores) -> None:
    Worker(store, plan_of("one"), [*history(), change("C5x", "crm", 3_000, INSERT, used=1, limit=2)]).work()
    assert store.missing(("customer", None), None, 10) == []
    Worker(store, plan_of("two", missing="report")).work()
    assert [(each.key, each.source) for each in store.missing(("customer", None), None, 10)] == [("C5x", "erp")]
    Worker(store, plan_of("three")).work()
    assert store.missing(("customer", None), None, 10) == []
