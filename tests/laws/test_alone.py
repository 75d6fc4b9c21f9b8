"""Updates that nobody reads at once mean what they would have meant: compared with a worker that reads each as it comes."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge import records
from cdc_merge.merge import record
from cdc_merge.model import BatchMerged, Fact, RecordKey, Value
from cdc_merge.plan import Check, EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.records import UNREAD
from cdc_merge.stores.memory import MemoryStore
from cdc_merge.stores.sqlite import SqliteStore
from tests.crash.mortal import Fate
from tests.laws.holdings import ENTITY, START_US
from tests.laws.sidecar import Firm, Sidecar
from tests.laws.systems import INTEGER, TABLE, TEXT, Sheet, Statements, System, Values

SECOND = 1_000_000
NAMES = ("crm", "erp")
COLUMNS = {"phone": TEXT, "remark": TEXT, "points": INTEGER}
FIELDS = (FieldPlan("phone"), FieldPlan("remark", "lww"), FieldPlan("points", "counter", value_type="integer"))
KEYS = ("K1", "K2")
PHONES, POINTS = ("1", "2", "3", "1", "2", "3", "1", "2", "4", None), (5, 7, 12, 1, 2, 3, 4, 5, -8, None)


def plan_of(*fields: FieldPlan, checks: tuple[Check, ...] = ()) -> Plan:
    mapped = {name: frozenset(COLUMNS) for name in NAMES}
    shape = EntityPlan(ENTITY, NAMES, mapped, {field.name: field for field in fields or FIELDS}, checks=checks)
    tables = tuple(TableMap(name, ENTITY, TABLE, ("no",), {column: column for column in COLUMNS}) for name in NAMES)
    return Plan({ENTITY: shape}, tables)


class Office:
    """Two systems, and workers over what they say."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or plan_of()
        self.now_us = START_US
        self.systems = {name: System(name, Sheet(COLUMNS)) for name in NAMES}
        for system in self.systems.values():
            system.first_copy(self.later())

    def later(self) -> int:
        self.now_us += SECOND
        return self.now_us

    def commit(self, name: str, work: Callable[[Statements], None]) -> None:
        self.systems[name].commit(self.later(), work)

    def worker(self, store: MemoryStore | SqliteStore, *, ahead: bool) -> Sidecar:
        ids = itertools.count(1)
        arrived_us: dict[str, dict[int, int]] = {name: {} for name in NAMES}
        firm = Firm(self.plan, self.systems, lambda: self.now_us, lambda: f"q{next(ids)}", arrived_us)
        return Sidecar(firm, store, Fate(), capacity=100, ahead=ahead)


def merges(facts: list[Fact]) -> Counter[tuple[str, str, str, str]]:
    found: Counter[tuple[str, str, str, str]] = Counter()
    for fact in facts:
        if isinstance(fact, BatchMerged):
            found.update(fact.merges)
    return found


def changes(facts: list[Fact]) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for fact in facts:
        if isinstance(fact, BatchMerged):
            found.update(fact.changes)
    return found


acts = st.tuples(
    st.sampled_from(("crm",) * 30 + ("erp",)),
    st.sampled_from(KEYS),
    st.sampled_from(("update",) * 30 + ("delete",)),
    st.dictionaries(st.sampled_from(("phone", "points", "points", "remark")), st.integers(0, 9), min_size=1),
    st.sampled_from((0,) * 8 + (1, 5, 1_000)),
)


def act(office: Office, name: str, key: str, what: str, chosen: dict[str, int]) -> None:
    system = office.systems[name]
    pools: dict[str, tuple[Value, ...]] = {"phone": PHONES, "remark": PHONES, "points": POINTS}
    values: Values = {field: pools[field][number] for field, number in chosen.items()}
    if key not in system.rows:
        office.commit(name, lambda at: at.insert(key, {"points": 5, **values}))
    elif what == "delete":
        office.commit(name, lambda at: at.delete(key))
    else:
        office.commit(name, lambda at: at.update(key, values))


@pytest.fixture(params=[3, 7, UNREAD])
def _waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many updates wait at most, and cells are compacted as soon as can be."""
    monkeypatch.setattr(records, "UNREAD", request.param)
    monkeypatch.setattr(record, "COMPACT_AT", 1)


@pytest.mark.usefixtures("_waiting")
@pytest.mark.parametrize("disk", ["memory", "sqlite"])
@given(story=st.lists(acts, min_size=10, max_size=80))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_records_questions_and_counts_are_those_of_a_worker_that_reads_at_once(
    disk: str, story: list[tuple[str, str, str, dict[str, int], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    office = Office()
    file: Path = tmp_path_factory.mktemp("alone") / "state.db"
    late = office.worker(MemoryStore() if disk == "memory" else SqliteStore(file), ahead=True)
    prompt = office.worker(MemoryStore(), ahead=False)
    for name, key, what, chosen, arrive in story:
        act(office, name, key, what, chosen)
        for worker in (late, prompt) if arrive else ():
            worker.merge(dict.fromkeys(NAMES, arrive))
    for worker in (late, prompt):
        worker.merge(dict.fromkeys(NAMES, 1_000))
    assert late.durable() == late.whole() == prompt.whole()
    assert late.cached() == prompt.cached()
    assert late.histories() == prompt.histories()
    assert (merges(late.facts), changes(late.facts)) == (merges(prompt.facts), changes(prompt.facts))
    late.store.close()


def updates(office: Office, count: int) -> None:
    def counts(number: int) -> Callable[[Statements], None]:
        return lambda at: at.update("K1", {"points": number, "phone": str(number)})

    for number in range(count):
        office.commit("crm", counts(number))


def begun(office: Office) -> Sidecar:
    office.commit("crm", lambda at: at.insert("K1", {"phone": "1", "remark": "r", "points": 5}))
    sidecar = office.worker(MemoryStore(), ahead=True)
    sidecar.merge(dict.fromkeys(NAMES, 1_000))
    return sidecar


def unread(sidecar: Sidecar) -> int:
    entry = sidecar.pipeline.records.cached(RecordKey(ENTITY, "K1"))
    assert entry is not None
    return entry.unread


def test_updates_of_the_only_source_that_has_a_record_wait_until_somebody_asks() -> None:
    office = Office()
    sidecar = begun(office)
    updates(office, 3)
    sidecar.merge(dict.fromkeys(NAMES, 1_000))
    assert unread(sidecar) == 3
    assert sidecar.cached()["K1"][0].values == {"phone": "2", "remark": "r", "points": 2}
    assert unread(sidecar) == 0


def test_only_few_updates_wait() -> None:
    office = Office()
    sidecar = begun(office)
    updates(office, UNREAD + 3)
    sidecar.merge(dict.fromkeys(NAMES, 1_000))
    assert unread(sidecar) == 3


def test_nothing_waits_once_another_source_has_the_record() -> None:
    office = Office()
    sidecar = begun(office)
    office.commit("erp", lambda at: at.insert("K1", {"phone": "8", "points": 5}))
    updates(office, 3)
    sidecar.merge(dict.fromkeys(NAMES, 1_000))
    assert unread(sidecar) == 0
    assert sidecar.durable().open, "the phones that nobody has seen of each other are asked"


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(FieldPlan("points", "counter", {"min": 0}, value_type="integer")),
        plan_of(FieldPlan("phone", normalize=("trim",))),
        plan_of(FieldPlan("phone", "immutable")),
        plan_of(FieldPlan("phone", writer_sources=("erp",))),
        plan_of(*FIELDS, checks=(Check("few", "record.points < 3", "major"),)),
    ],
    ids=["a bound", "values that are compared in another form", "a type with a word of its own", "writers", "a check"],
)
def test_nothing_waits_where_an_update_may_be_asked_about(plan: Plan) -> None:
    office = Office(plan)
    sidecar = begun(office)
    updates(office, 3)
    sidecar.merge(dict.fromkeys(NAMES, 1_000))
    assert unread(sidecar) == 0


@pytest.mark.usefixtures("_waiting")
@pytest.mark.parametrize("seed", range(12))
def test_many_updates_taken_at_once_leave_what_one_after_the_other_leaves(seed: int) -> None:
    chance, office = random.Random(seed), Office()
    late, prompt = begun(office), office.worker(MemoryStore(), ahead=False)
    for _ in range(12):
        for _ in range(chance.randrange(1, 12)):
            fields = chance.sample(("phone", "points", "remark"), chance.randrange(1, 4))
            chosen = {name: chance.randrange(9 if chance.random() < 0.9 else 10) for name in fields}
            act(office, "crm", "K1", "update", chosen)
        for worker in (late, prompt):
            worker.merge(dict.fromkeys(NAMES, 1_000))
        if chance.random() < 0.3:
            assert late.cached() == prompt.cached()
    act(office, "erp", "K1", "insert", {"phone": 1, "points": 2})
    act(office, "crm", "K1", "update", {"phone": 2, "points": 3})
    for worker in (late, prompt):
        worker.merge(dict.fromkeys(NAMES, 1_000))
    assert late.cached() == prompt.cached()
    assert late.durable() == late.whole() == prompt.whole()
