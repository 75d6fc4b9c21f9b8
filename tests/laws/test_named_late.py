"""What was kept until its row was named ends in the records, questions and histories of a worker that always knew it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cdc_merge.model import QuarantineReleased, Value
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.stores.memory.disk import Disk
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.limits import Limits
from tests.laws.holdings import ENTITY, START_US
from tests.laws.sidecar import Firm, Sidecar
from tests.laws.systems import INTEGER, TABLE, TEXT, Sheet, Statements, System
from tests.system.crash.killable_worker import KillSwitch

SECOND = 1_000_000
COLUMNS = {"phone": TEXT, "remark": TEXT, "points": INTEGER}
FIELDS = (FieldPlan("phone"), FieldPlan("remark", "lww"), FieldPlan("points", "counter", value_type="integer"))
KEYS = ("K1", "K2")
# Of crm only the surrogate id is sent with a delete, and the key not at all with an update, as if it were very long.
SHEETS = {"crm": Sheet(COLUMNS, identity="id", large="no"), "erp": Sheet(COLUMNS)}


def plan_of(deletes: str) -> Plan:
    mapped = {name: frozenset(COLUMNS) for name in SHEETS}
    shape = EntityPlan(ENTITY, tuple(SHEETS), mapped, {field.name: field for field in FIELDS}, deletes=deletes)
    tables = tuple(TableMap(name, ENTITY, TABLE, ("no",), {column: column for column in COLUMNS}) for name in SHEETS)
    return Plan({ENTITY: shape}, tables)


class Office:
    """Both systems know both customers; what crm's rows are called is what a worker may have forgotten."""

    def __init__(self, deletes: str) -> None:
        self.plan = plan_of(deletes)
        self.now_us = START_US
        self.systems = {name: System(name, sheet) for name, sheet in SHEETS.items()}
        self.ids: dict[str, int] = {}
        for name in SHEETS:
            self.systems[name].first_copy(self.later())
            for key in KEYS:
                self.enter(name, key, {"points": 5})

    def later(self) -> int:
        self.now_us += SECOND
        return self.now_us

    def commit(self, name: str, work: Callable[[Statements], None]) -> None:
        self.systems[name].commit(self.later(), work)

    def enter(self, name: str, key: str, values: dict[str, Value]) -> None:
        """A customer comes back as the row that it was."""
        system = self.systems[name]
        last, system.last_id = system.last_id, self.ids.get(f"{name} {key}", system.last_id + 1) - 1
        self.commit(name, lambda at: at.insert(key, values))
        self.ids[f"{name} {key}"] = system.last_id
        system.last_id = max(last, system.last_id)

    def worker(self, store: MemoryStore | SqliteStore) -> Sidecar:
        ids = itertools.count(1)
        arrived_us: dict[str, dict[int, int]] = {name: {} for name in SHEETS}
        firm = Firm(self.plan, self.systems, lambda: self.now_us, lambda: f"q{next(ids)}", arrived_us)
        return Sidecar(firm, store, KillSwitch(), Limits(cached_records=100))


def act(office: Office, name: str, key: str, what: str, value: int) -> None:
    values: dict[str, Value] = {"phone": str(value % 3), "points": 5 + value}
    if key not in office.systems[name].rows:
        office.enter(name, key, values)
    elif what == "delete":
        office.commit(name, lambda at: at.delete(key))
    else:
        office.commit(name, lambda at: at.update(key, values))


acts = st.tuples(
    st.sampled_from(("crm", "crm", "erp")),
    st.sampled_from(KEYS),
    st.sampled_from(("update", "update", "delete")),
    st.integers(0, 9),
    st.sampled_from((0, 0, 1, 2, 1_000)),
)


def forget_names(store: MemoryStore | SqliteStore, disk: Disk) -> None:
    """As if crm's rows were older than anything that the store has seen."""
    disk.identities.clear()
    if isinstance(store, SqliteStore):
        with store.transaction() as tx:
            tx.save_identities("crm", TABLE, {str(number): None for number in range(10)})


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@given(story=st.lists(acts, min_size=2, max_size=25), deletes=st.sampled_from(["conflict", "propagate", "ignore"]))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_row_named_late_ends_as_one_that_was_always_known(
    kind: str,
    story: list[tuple[str, str, str, int, int]],
    deletes: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    office, disk = Office(deletes), Disk()
    file: Path = tmp_path_factory.mktemp("late") / "state.db"
    ignorant = office.worker(MemoryStore(disk) if kind == "memory" else SqliteStore(file))
    knowing = office.worker(MemoryStore())
    workers = (ignorant, knowing)
    for worker in workers:
        worker.merge(dict.fromkeys(SHEETS, 1_000))
    forget_names(ignorant.store, disk)  # type: ignore[arg-type]
    for name, key, what, value, arrive in story:
        act(office, name, key, what, value)
        for worker in workers if arrive else ():
            worker.merge(dict.fromkeys(SHEETS, arrive))
    for key in KEYS:  # every row of crm is entered again in the end, and so is named
        if key in office.systems["crm"].rows:
            act(office, "crm", key, "delete", 0)
        act(office, "crm", key, "insert", 7)
    office.systems["erp"].idle(office.later())
    office.systems["crm"].idle(office.later())
    for worker in workers:
        worker.merge(dict.fromkeys(SHEETS, 1_000))
    assert ignorant.store.figures().parked == {}
    assert ignorant.histories() == knowing.histories()
    assert ignorant.whole() == knowing.whole()
    assert ignorant.durable().differences(ignorant.whole()) == []
    assert knowing.durable().differences(knowing.whole()) == []
    named = sum(fact.count for fact in ignorant.facts if isinstance(fact, QuarantineReleased))
    event(f"{min(named, 5)} were kept")
    ignorant.store.close()


def test_what_was_never_named_leaves_with_the_retention_and_is_looked_for_no_longer() -> None:
    office, disk = Office("conflict"), Disk()
    office.plan = replace(office.plan, retention_us=100 * SECOND)
    worker = office.worker(MemoryStore(disk))
    worker.merge(dict.fromkeys(SHEETS, 1_000))
    forget_names(worker.store, disk)  # type: ignore[arg-type]
    act(office, "crm", "K1", "delete", 0)
    worker.merge(dict.fromkeys(SHEETS, 1_000))
    (ingest,) = [ingest for source, ingest in worker.pipeline.state.sources if source.name == "crm"]
    assert (worker.store.parked(), set(ingest.awaited_identities)) == ({("crm", TABLE): 1}, {TABLE})
    office.now_us += 200 * SECOND
    act(office, "erp", "K1", "update", 1)
    worker.merge(dict.fromkeys(SHEETS, 1_000))
    assert (worker.store.parked(), ingest.awaited_identities) == ({}, {})
    assert [fact.outcome for fact in worker.facts if isinstance(fact, QuarantineReleased)] == ["expired"]
