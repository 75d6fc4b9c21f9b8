"""RecordCache between batches: whatever leaves the cache, restarts or comes late, the answer is that of the full fold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.errors import StoreUnavailable
from cdc_merge.merge.checkpoint import dump_state
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import policy_of
from cdc_merge.merge.units import Units
from cdc_merge.model import DELETE, INSERT, UNKNOWN, UPDATE, Change, Place, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan
from cdc_merge.model.ports import Store, StoreTransaction
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.limits import Limits
from cdc_merge.worker.record_cache import RecordCache
from tests.laws.equivalence import check, plan_of
from tests.laws.equivalence import merge_batch as merge
from tests.laws.worlds import ENTITY, KEY, scripts
from tests.support.stock_record import A_RECORD, SHOP, SOURCES, _edit, edits, expected, loaded, said


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield opened
    opened.close()


# Checkpoints after few changes.
SOON = Limits(checkpoint_after=8, checkpoint_when_read=4)
OFTEN = Limits(checkpoint_after=2, checkpoint_when_read=1)


class Counting:
    """A transaction that notes which changes it hands out."""

    def __init__(self, batch: StoreTransaction) -> None:
        self._batch = batch
        self.read = 0

    def histories(self, *wanted: Any) -> Any:
        found = self._batch.histories(*wanted)
        self.read += sum(map(len, found.values()))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)


# ---------------------------------------------------------------- coming back


def test_an_evicted_record_is_folded_from_its_checkpoint_and_a_short_tail(store: Store) -> None:
    cache = RecordCache(plan_of(SHOP), Limits(cached_records=1))
    history = edits(0, 1000)
    for start in range(0, 1000, 50):
        merge(cache, store, history[start : start + 50])
    merge(cache, store, edits(0, 1, "other"))
    assert cache.cached(A_RECORD) is None
    with store.transaction() as batch:
        counting = Counting(batch)
        cache.load([A_RECORD], counting)
        assert counting.read < Limits().checkpoint_after + 50
        assert said(cache.get(A_RECORD).record) == expected(SHOP, history)


def test_a_record_read_with_a_long_tail_gets_a_checkpoint(store: Store) -> None:
    merge(RecordCache(plan_of(SHOP)), store, edits(0, 100))
    reads = []
    for _ in range(2):
        with store.transaction() as batch:
            counting = Counting(batch)
            RecordCache(plan_of(SHOP)).load([A_RECORD], counting)
            reads.append(counting.read)
    assert reads == [100, 0]


def test_an_eviction_in_the_middle_of_a_history_changes_nothing(store: Store) -> None:
    cache, history = RecordCache(plan_of(SHOP), replace(SOON, cached_records=1)), edits(0, 60)
    for each in history:
        merge(cache, store, [each])
        merge(cache, store, [each._replace(key="other")])
    with loaded(cache, store) as record:
        assert said(record) == expected(SHOP, history)


def test_another_policy_does_not_use_the_earlier_checkpoints(store: Store) -> None:
    history = edits(0, 50)
    merge(RecordCache(plan_of(SHOP), SOON), store, history)
    assert store.folded(A_RECORD)[0] is not None
    other = EntityPlan(SHOP.name, SOURCES, SHOP.mapped, {**SHOP.fields, "stock": FieldPlan("stock")})
    with loaded(RecordCache(plan_of(other, "two"), SOON), store) as record:
        assert said(record) == expected(other, history)
    found, _ = store.folded(A_RECORD)
    assert found is not None
    assert found.policy == policy_of(plan_of(other, "two"))


def test_a_batch_that_fails_leaves_no_checkpoint(store: Store) -> None:
    cache, history = RecordCache(plan_of(SHOP), SOON), edits(0, 40)
    merge(cache, store, history[:10])
    before = store.folded(A_RECORD)
    cache.begin()
    with pytest.raises(StoreUnavailable):
        _failing(cache, store, history[10:])
    cache.clear()
    assert store.folded(A_RECORD) == before
    merge(cache, store, history[10:])
    assert said(cache.get(A_RECORD).record) == expected(SHOP, history)


def _failing(cache: RecordCache, store: Store, changes: list[Change]) -> None:
    with store.transaction() as batch:
        cache.apply(changes, batch)
        cache.refold(batch)
        raise StoreUnavailable("no space")


# ---------------------------------------------------------------- late changes


@pytest.mark.parametrize("late_by", [1, 7, 9, 30, 199])
def test_a_change_before_the_checkpoint_is_folded_at_its_stamp(store: Store, late_by: int) -> None:
    cache, history = RecordCache(plan_of(SHOP)), edits(0, 200)
    for start in range(0, 200, 5):
        merge(cache, store, history[start : start + 5])
    late = _edit(0, KEY, "erp")._replace(stamp=Stamp((199 - late_by) * 1000 + 500, 0, "erp"))
    merge(cache, store, [late])
    assert said(cache.get(A_RECORD).record) == expected(SHOP, [*history, late])
    with loaded(RecordCache(plan_of(SHOP)), store) as record:
        assert said(record) == expected(SHOP, [*history, late])


def test_a_change_that_is_a_little_late_reads_a_little(store: Store) -> None:
    cache, history = RecordCache(plan_of(SHOP)), edits(0, 2000)
    for start in range(0, 2000, 5):
        merge(cache, store, history[start : start + 5])
    read = []
    for number in range(64):
        late = _edit(0, KEY, "erp")._replace(
            stamp=Stamp(1_998_500, number, "erp"), place=Place("of erp", 1, number, "public.item", 0)
        )
        cache.begin()
        with store.transaction() as batch:
            counting = Counting(batch)
            cache.apply([late, *edits(2000 + number, 1)], counting)
            cache.refold(counting)
            read.append(counting.read)
    assert max(read) < 400


def test_a_place_that_comes_again_with_a_smaller_stamp_is_folded_there(store: Store) -> None:
    cache, history = RecordCache(plan_of(SHOP)), edits(0, 300)
    for start in range(0, 300, 50):
        merge(cache, store, history[start : start + 50])
    again = history[200]._replace(stamp=Stamp(100_500, 0, "crm"))
    merge(cache, store, [again])
    changes = [*history[:200], again, *history[201:]]
    assert said(cache.get(A_RECORD).record) == expected(SHOP, changes)
    with loaded(RecordCache(plan_of(SHOP)), store) as record:
        assert said(record) == expected(SHOP, changes)


@pytest.mark.parametrize("merge_type", ["mv", "counter", "set", "map", "immutable"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_arrival_in_any_batches_with_evictions_and_restarts_is_the_full_fold(
    merge_type: str, data: st.DataObject
) -> None:
    entity, changes = data.draw(scripts(merge_type, 30).filter(lambda script: bool(script[1])))
    arrived = data.draw(st.permutations(changes)) if data.draw(st.booleans()) else changes
    check("record cache", entity, arrived, data.draw(st.sets(st.integers(0, len(arrived)))))


# ---------------------------------------------------------------- cost

MANY, FEW = 100_000, 10
# A change of the long record may cost this much more than one of the short; the machine may be busy with other things.
FACTOR = 1.5


def test_a_change_costs_the_same_after_a_hundred_thousand_others_also_after_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    cache = RecordCache(plan_of(SHOP))
    for start in range(0, MANY, 4000):
        merge(cache, store, edits(start, 4000, "long"))
    merge(cache, store, edits(0, FEW, "short"))
    following = {"long": MANY, "short": FEW}

    def cost(cache: Callable[[], RecordCache], key: str) -> float:
        used = cache()
        changes = edits(following[key], 10, key)
        following[key] += 10
        started = process_time()
        merge(used, store, changes)
        return process_time() - started

    for kept in (lambda: cache, lambda: RecordCache(plan_of(SHOP))):
        rounds = [(cost(kept, "long"), cost(kept, "short")) for _ in range(60)]
        long, short = (median(times) for times in zip(*rounds, strict=True))
        assert long < FACTOR * short, (long, short)
    store.close()


def test_three_thousand_edits_that_come_shuffled_in_every_batch_are_the_full_fold() -> None:
    dice = random.Random(1)
    store, cache = MemoryStore(), RecordCache(plan_of(SHOP))
    history = edits(0, 3000)
    for start in range(0, 3000, 20):
        batch = history[start : start + 20]
        dice.shuffle(batch)
        merge(cache, store, batch)
    assert said(cache.get(A_RECORD).record) == expected(SHOP, history)


CYCLES: dict[str, tuple[FieldPlan, Callable[[int], list[tuple[str, Any, Any]]]]] = {
    "rows that come and go": (FieldPlan("name"), lambda number: [(INSERT, None, number), (DELETE, None, None)]),
    "elements that come and go": (
        FieldPlan("name", merge="set", options={"wins": "remove"}, value_type="array"),
        lambda number: [(UPDATE, ("x",), ()), (UPDATE, (), ("x",))],
    ),
}


@pytest.mark.parametrize("cycle", CYCLES)
def test_the_state_of_a_record_does_not_grow_with_its_changes(cycle: str) -> None:
    shape, steps = CYCLES[cycle]
    entity = EntityPlan(ENTITY, SOURCES, dict.fromkeys(SOURCES, frozenset({"name"})), {"name": shape})
    going, sizes = Record(Units(entity), KEY, max_ahead_us=5_000_000, compacts=True), []
    places = iter(range(10**6))
    for number in range(400):
        for row, before, after in steps(number):
            at = next(places)
            fields = {} if row == DELETE else {"name": (UNKNOWN if before is None else before, after)}
            place = Place("of crm", 1, at, "public.item", 0)
            advance(going, Change(ENTITY, KEY, Stamp(at * 1000, 0, "crm"), place, row, fields))
        sizes.append(len(repr(dump_state(going))))
    assert max(sizes[200:]) < 1.3 * max(sizes[50:100])
