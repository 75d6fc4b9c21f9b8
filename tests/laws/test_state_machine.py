"""Any working day of three systems: edits, jobs, re-keys, clocks that are stepped, streams that stall or repeat, workers
that die.

The real pipeline over the real SQLite store takes what the systems' servers would send. After every batch the worker's
memory, the store's bases and its queue say what the full fold over the log says; at the end so does a worker that gets
everything in another order, and every view is the row that its system holds.

`CDC_MERGE_STORIES=2000` tells so many random stories instead of the few that are always the same.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from cdc_merge.merge.fold import fold
from cdc_merge.merge.types import TYPES
from cdc_merge.merge.views import merged
from cdc_merge.model import DELETE, SNAPSHOT, TRUNCATE, Place, RecordKey, Transaction
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.values.normalizers import normalizer
from cdc_merge.worker.limits import Limits
from tests.laws.comparable import merge_answer, oracle_answer
from tests.laws.equivalence import AT_ONCE, in_words
from tests.laws.holdings import ENTITY, FIELDS, KEYS, NAMES, POOLS, SECOND, SHEETS, START_US, plan_of
from tests.laws.oracle import answer
from tests.laws.sidecar import Firm, Picture, Sidecar
from tests.laws.systems import PLAIN, UNDER_ORIGIN, Mark, Statements, System, Values, applied, marked
from tests.system.crash.killable_worker import KillSwitch, WorkerKilled

# ---------------------------------------------------------------- what may happen

rows = st.fixed_dictionaries({name: st.sampled_from(pool) for name, pool in POOLS.items()})
some = st.sets(st.sampled_from(sorted(POOLS)), min_size=1, max_size=3)
systems = st.sampled_from(NAMES)
keys = st.sampled_from(KEYS)
MANY: Final = 1_000
# How many deliveries arrive in one batch: streams stall.
arriving = st.fixed_dictionaries({name: st.sampled_from((0, 1, 2, MANY, MANY)) for name in NAMES})

# Fields that are units by themselves: a map's are its keys, a group is one.
EXPLAINED: Final = frozenset(field.name for field in FIELDS if field.merge != "map")

Work = Callable[[Statements], None]
Carried = tuple[str, str, Values | None, Place | None]
"""What a job has read: of which system and row, the row (None: there was none), and its last change."""


# Checkpoints and evictions as often as possible.
SMALL: Final = Limits(cached_records=2, checkpoint_after=3, checkpoint_when_read=1)


class Day(RuleBasedStateMachine):
    carried = Bundle("carried")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-merge-day-"))
        self.now_us = START_US
        self.systems = {name: System(name, sheet) for name, sheet in SHEETS.items()}
        self.copied: dict[str, bool] = {}
        self.fate = KillSwitch()
        self.is_broken = False

    @initialize(
        first=st.fixed_dictionaries({name: st.dictionaries(keys, rows, max_size=2) for name in NAMES}),
        copied=st.fixed_dictionaries({name: st.sampled_from((True, True, False)) for name in NAMES}),
        deletes=st.sampled_from(("review", "review", "delete_wins", "update_wins", "local")),
    )
    def begin(self, first: Mapping[str, Mapping[str, Values]], copied: dict[str, bool], deletes: str) -> None:
        for name, system in self.systems.items():
            statements = Statements(system)
            for key, row in first[name].items():
                statements.insert(key, self._mapped(system, row))
            if copied[name]:
                system.first_copy(self._later(1))
        self.copied = copied
        arrived_us: dict[str, dict[int, int]] = {name: {} for name in NAMES}
        ids = itertools.count(1)
        self.firm = Firm(plan_of(deletes), self.systems, lambda: self.now_us, lambda: f"q{next(ids)}", arrived_us)
        self.sidecar = self._started()

    # ------------------------------------------------------------ what people do

    @rule(name=systems, key=keys, row=rows, changed=some)
    def write(self, name: str, key: str, row: Values, changed: set[str]) -> None:
        system = self.systems[name]
        values = self._mapped(system, row)
        if key in system.rows:
            values = {column: value for column, value in values.items() if column in changed}
        self._commit(system, lambda at: at.update(key, values) if key in system.rows else at.insert(key, values))

    @rule(name=systems, key=keys, by=st.sampled_from((-1, 1, 3)))
    def count(self, name: str, key: str, by: int) -> None:
        system = self.systems[name]
        held = system.rows.get(key, {}).get("points")
        if isinstance(held, int):
            self._commit(system, lambda at: at.update(key, {"points": held + by}))

    @rule(name=systems, key=keys, mark=st.sampled_from((PLAIN, PLAIN, marked())))
    def leave(self, name: str, key: str, mark: Mark) -> None:
        if key in self.systems[name].rows:
            self._commit(self.systems[name], lambda at: at.delete(key), mark)

    @rule(name=systems, key=keys, to=keys)
    def move(self, name: str, key: str, to: str) -> None:
        system = self.systems[name]
        if key not in system.rows or key == to:
            return
        if to in system.rows:
            self._commit(system, lambda at: at.swap(key, to))
        else:
            self._commit(system, lambda at: at.update(key, {"no": to}))

    @rule(name=systems, key=keys, row=rows)
    def replace(self, name: str, key: str, row: Values) -> None:
        """A row is deleted and entered again in one transaction, and written twice."""
        system = self.systems[name]
        if key not in system.rows:
            return

        def work(at: Statements) -> None:
            at.delete(key)
            at.insert(key, self._mapped(system, row))
            at.update(key, {"remark": row["remark"]})

        self._commit(system, work)

    @rule(name=systems)
    def empty(self, name: str) -> None:
        if self.systems[name].rows:
            self._commit(self.systems[name], lambda at: at.truncate())

    # ------------------------------------------------------------ what jobs do

    @rule(target=carried, name=systems, key=keys)
    def read(self, name: str, key: str) -> Carried:
        system = self.systems[name]
        return name, key, system.holds(key) if key in system.rows else None, system.places.get(key)

    @rule(
        name=systems,
        load=carried,
        mark_by=st.sampled_from(("plain", "copy", "copy", "from", "origin", "apply")),
        columns=st.none() | some,
    )
    def job(self, name: str, load: Carried, mark_by: str, columns: set[str] | None) -> None:
        """A job repeats at one system what it has read at another, perhaps long ago; whole rows or some columns."""
        system, (origin, key, held, place) = self.systems[name], load
        if name == origin:
            return
        mark = {
            "plain": PLAIN,
            "copy": marked(),
            "from": marked(source=origin),
            "origin": UNDER_ORIGIN,
            "apply": applied([place] if place else []),
        }[mark_by]
        if held is None:
            if key in system.rows:
                self._commit(system, lambda at: at.delete(key), mark)
            return
        values = self._mapped(system, held)
        if key not in system.rows:
            self._commit(system, lambda at: at.insert(key, values), mark)
            return
        wanted = {column: value for column, value in values.items() if columns is None or column in columns}
        self._commit(system, lambda at: at.update(key, wanted), mark)

    # ------------------------------------------------------------ what time, networks and machines do

    @rule(seconds=st.sampled_from((1, 6, 30)))
    def wait(self, seconds: int) -> None:
        self._later(seconds)

    @rule(name=systems, seconds=st.sampled_from((-7, -1, 1, 4, 9, 40)))
    def step_clock(self, name: str, seconds: int) -> None:
        system = self.systems[name]
        system.offset_us = max(-60, min(60, system.offset_us // SECOND + seconds)) * SECOND

    @rule(name=systems)
    def fall_idle(self, name: str) -> None:
        self.systems[name].idle(self.now_us)

    @rule(allowed=arriving)
    def merge(self, allowed: Mapping[str, int]) -> None:
        with self._watched():
            self.sidecar.merge(allowed)
            self._check()

    @rule(name=systems, count=st.integers(1, 3))
    def repeat(self, name: str, count: int) -> None:
        self.sidecar.streams[name].again(count)

    @rule(allowed=arriving, step=st.integers(0, 25))
    def die(self, allowed: Mapping[str, int], step: int) -> None:
        """The worker dies between two steps of a batch, or after it; its successor knows only what is on disk."""
        with self._watched():
            self.fate.arm(step)
            with suppress(WorkerKilled):
                self.sidecar.merge(allowed)
            self.fate.arm(None)
            self.sidecar.store.close()
            self.sidecar = self._started()
            self._check()

    # ------------------------------------------------------------ the end of the day

    def teardown(self) -> None:
        try:
            if not self.is_broken and self.copied:
                self._evening()
        finally:
            if self.copied:
                self.sidecar.store.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _evening(self) -> None:
        """Everything arrives, clocks are right again, and there is time to settle."""
        self._later(200)
        for system in self.systems.values():
            system.offset_us = 0
            system.idle(self.now_us)
        for _ in range(2):
            self.sidecar.merge(dict.fromkeys(NAMES, MANY))
            self._check()
            self._later(60)
        self._check_views()
        self._check_past()
        self._check_with_oracle()
        said = self.sidecar.durable()
        for seed in (1, 2):
            found = self._again(seed)
            assert found == said, found.differences(said)

    def _check(self) -> None:
        whole = self.sidecar.whole()
        durable = self.sidecar.durable()
        assert durable == whole, durable.differences(whole)
        cached = self.sidecar.cached()
        expected = {key: whole.records[key] for key in cached}
        assert cached == expected, Picture(cached, {}).differences(Picture(expected, {}))

    def _check_views(self) -> None:
        found = self.sidecar.durable().records
        for name, system in self.systems.items():
            views = {key: told[0].sources[name] for key, told in found.items() if name in told[0].sources}
            seen = {key: view.values for key, view in views.items() if view.presence == "present"}
            held = {key: system.holds(key) for key in system.rows if self.copied[name] or key in seen}
            for key in seen.keys() | held.keys():
                known = self._known(name, seen.get(key, {}))
                there, told = held.get(key, {}), seen.get(key, {})
                assert _normalized(told, known) == _normalized(there, known), (name, key)

    def _check_past(self) -> None:
        """What the store says of any earlier time is what was known then; an explanation ends with the value."""
        entity, ahead_us = self.firm.plan.entities[ENTITY], self.firm.plan.max_ahead_us
        reading = StoreQueries(self.sidecar.store, self.firm.plan)
        for key, history in self.sidecar.histories().items():
            for end in range(1, len(history), 3):
                found = reading.record(RecordKey(ENTITY, key), history[end - 1].stamp)
                assert found == merged(fold(entity, history[:end], max_ahead_us=ahead_us)), key
            values = merged(fold(entity, history, max_ahead_us=ahead_us)).values
            for field in values.keys() & EXPLAINED:
                explained = reading.explain(RecordKey(ENTITY, key), field)
                assert explained is not None
                assert explained.value == values[field], (key, field)

    def _check_with_oracle(self) -> None:
        """The oracle, which was written from the text alone, says the same of records that were read from the beginning
        and never left (tests/laws/test_fold_equals_oracle.py tells what is read differently elsewhere)."""
        entity = self.firm.plan.entities[ENTITY]
        plain = replace(entity, fields={field.name: field for field in FIELDS}, checks=())
        for history in self.sidecar.histories().values():
            stayed = all(self.copied.values()) and not any(change.operation in (DELETE, TRUNCATE) for change in history)
            written = any(change.operation != SNAPSHOT for change in history)  # a first snapshot breaks no bound (§4)
            if stayed and written:
                expected = oracle_answer(plain, answer(plain, history))
                assert merge_answer(plain, fold(plain, history)) == expected, in_words(history)

    def _known(self, name: str, seen: Values) -> set[str]:
        """The columns of which something must be known; rows that were there before anybody read are known in part,
        and may come to another key with a column that was never sent."""
        sheet = SHEETS[name]
        return {*sheet.columns} if self.copied[name] else {*seen} - {sheet.large or ""}

    # ------------------------------------------------------------ other orders of arrival

    def _again(self, seed: int) -> Picture:
        """The same deliveries through a new worker, in another order and other batches. One whose commit time had to be
        cut arrives when it first did: that time is part of its stamp."""
        now_us = self.now_us
        firm = replace(self.firm, now_us=lambda: now_us, arrived_us={name: {} for name in NAMES})
        other = Sidecar(firm, MemoryStore(), KillSwitch(), SMALL, compaction=AT_ONCE)
        for name, count in self._order(other, random.Random(seed)):
            number = other.streams[name].next
            now_us = self.firm.arrived_us[name].get(number, self.now_us) if count == 1 else self.now_us
            other.merge({name: count})
        now_us = self.now_us
        other.merge({})
        return other.durable()

    def _order(self, other: Sidecar, chance: random.Random) -> Iterator[tuple[str, int]]:
        """Any stream next, with any number of deliveries; alone, where a commit time has to be cut."""
        while waiting := [name for name in NAMES if not other.streams[name].is_over]:
            name = chance.choice(waiting)
            yield name, self._uncut(name, other.streams[name].next, chance.choice((1, 3, MANY)))

    def _uncut(self, name: str, number: int, most: int) -> int:
        """How many deliveries can be taken together; at least one."""
        last = min(len(self.systems[name].tape), number + most)
        cut = (n for n in range(number, last) if self._is_cut(name, n))
        return max(1, next(cut, last) - number)

    def _is_cut(self, name: str, number: int) -> bool:
        delivery = self.systems[name].tape[number]
        arrived_us = self.firm.arrived_us[name].get(number, self.now_us)
        return isinstance(delivery, Transaction) and delivery.commit_us > arrived_us + self.firm.plan.max_ahead_us

    # ------------------------------------------------------------ small steps

    def _started(self) -> Sidecar:
        return Sidecar(self.firm, SqliteStore(self.folder / "state.db"), self.fate, SMALL, compaction=AT_ONCE)

    def _later(self, seconds: int) -> int:
        self.now_us += seconds * SECOND
        return self.now_us

    def _mapped(self, system: System, row: Values) -> Values:
        return {column: row[column] for column in system.sheet.columns if column in row}

    def _commit(self, system: System, work: Work, mark: Mark = PLAIN) -> None:
        system.commit(self._later(1), work, mark)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """A day on which something was wrong is not lived to its end."""
        self.is_broken = True
        yield
        self.is_broken = False


def _normalized(row: Values, columns: set[str]) -> Values:
    """These columns; which of two spellings that normalise to one value is shown, the text does not say."""
    plans = {field.name: field for field in FIELDS if field.normalize}
    return {c: normalizer(plans[c].normalize)(row.get(c)) if c in plans else row.get(c) for c in columns}


# ---------------------------------------------------------------- how many days

# A minute or so; more where CDC_MERGE_STORIES asks for them.
STORIES: Final = int(os.environ.get("CDC_MERGE_STORIES", "0"))
ALWAYS_THE_SAME: Final = settings(
    max_examples=STORIES or 250,
    stateful_step_count=40,
    deadline=None,
    derandomize=not STORIES,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)


def test_the_systems_hold_a_field_of_every_merge_type() -> None:
    assert {field.merge for field in FIELDS} == {*TYPES, "map"}


@pytest.mark.timeout(600 + STORIES * 5)
def test_every_day_means_what_its_log_means_in_every_order_and_by_every_worker() -> None:
    run_state_machine_as_test(Day, settings=ALWAYS_THE_SAME)


def test_a_table_that_is_emptied_is_judged_when_another_source_has_spoken_later_in_the_same_batch() -> None:
    row = {"name": "Li", "phone": "1", "remark": "r", "segment": "gold", "points": 5, "top": 4, "low": 4, "tags": ()}
    row |= {"labels": (), "prefs": "{}", "active": True, "stage": "draft", "notes": "x", "contract": "c1"}
    row |= {"city": "Wuhan", "street": "s0"}
    day = Day()
    day.begin(first={"crm": {"K1": row}, "erp": {}, "finance": {}}, copied=dict.fromkeys(NAMES, True), deletes="review")
    day.write(changed={"active"}, key="K1", name="finance", row=row)
    day.empty(name="finance")
    day.write(changed={"active"}, key="K1", name="crm", row=row)
    day.empty(name="crm")
    day.teardown()
