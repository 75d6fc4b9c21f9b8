"""What retention takes out of the log changes no answer about the present; what it cannot answer any more, it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.errors import HistoryRemoved
from cdc_merge.merge.fold import fold
from cdc_merge.merge.views import ended, merged
from cdc_merge.model import DELETE, Change, RecordKey
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import Store
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker import retention
from cdc_merge.worker.limits import Limits
from cdc_merge.worker.record_cache import RecordCache
from cdc_merge.worker.retention import Retention
from tests.laws.equivalence import merge_batch as merge
from tests.laws.equivalence import plan_of
from tests.laws.worlds import ENTITY, SECOND, scripts
from tests.support.stock_record import A_RECORD, SHOP, edits, expected, loaded, said

KEEP_US = 8_000
LAST = RecordKey(ENTITY, "the last entry of the log stays")


def keeping(plan: Plan, keep_us: int = KEEP_US) -> Plan:
    return replace(plan, retention_us=keep_us, keep_folded_us=0)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield opened
    opened.close()


def sweep(plan: Plan, store: Store, now_us: int, watermark_us: int | None = None) -> list[RecordKey]:
    """Everything that is over leaves; the records that were removed."""
    rule, removed, before = Retention(plan, RecordCache(plan).entities()), list[RecordKey](), -1
    while before != store.figures().history_changes:
        before = store.figures().history_changes
        with store.transaction() as batch:
            removed += rule.sweep(batch, now_us if watermark_us is None else watermark_us, now_us)
    return removed


def deleted(change: Change) -> Change:
    stamp = change.stamp._replace(wall_us=change.stamp.wall_us + 1)
    return change._replace(operation=DELETE, fields={}, stamp=stamp, place=change.place._replace(ordinal=1))


@pytest.mark.parametrize("count", [20, 1000])
def test_old_changes_leave_and_the_present_stays(store: Store, count: int) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, count)
    for start in range(0, count, 50):
        merge(RecordCache(plan), store, history[start : start + 50])
    assert sweep(plan, store, history[-1].stamp.wall_us + 1000) == []
    left = store.history(A_RECORD)
    assert left == history[-len(left) :]
    assert len(left) <= KEEP_US // 1000 * (1 + 1 / retention.SLACK) + 1
    assert store.figures().history_changes == len(left)
    with loaded(RecordCache(plan), store) as record:
        assert said(record) == expected(SHOP, history)


def test_nothing_leaves_that_a_source_has_not_passed(store: Store) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, 20)
    merge(RecordCache(plan), store, history)
    sweep(plan, store, 10**9, watermark_us=3_500)
    assert [each.stamp.wall_us for each in store.history(A_RECORD)][0] > 2_000
    sweep(plan, store, 10**9, watermark_us=0)
    assert len(store.history(A_RECORD)) > 15


def test_without_a_retention_nothing_leaves(store: Store) -> None:
    merge(RecordCache(plan_of(SHOP)), store, edits(0, 20))
    assert sweep(plan_of(SHOP), store, 10**15) == []
    assert len(store.history(A_RECORD)) == 20


def test_the_past_before_the_root_is_refused_and_the_rest_is_answered(store: Store) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, 40)
    merge(RecordCache(plan), store, history)
    sweep(plan, store, history[-1].stamp.wall_us)
    lookup = StoreQueries(store, plan)
    assert lookup.record(A_RECORD, None) == merged(fold(SHOP, history))
    assert lookup.record(A_RECORD, history[38].stamp) == merged(fold(SHOP, history[:39]))
    with pytest.raises(HistoryRemoved, match="removed by retention"):
        lookup.record(A_RECORD, history[3].stamp)
    assert lookup.explain(A_RECORD, "name") is not None


def test_a_record_that_has_ended_everywhere_is_removed_and_its_entity_remembers_it(store: Store) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, 5)
    merge(RecordCache(plan), store, [*history, deleted(history[-1])])
    merge(RecordCache(plan), store, edits(900, 1, LAST.key))
    assert ended(fold(SHOP, [*history, deleted(history[-1])]))
    assert sweep(plan, store, 10**6) == [A_RECORD]
    assert store.records(ENTITY, None, 10) == [LAST.key]
    assert store.history(A_RECORD) == []
    assert store.folded(A_RECORD) == (None, [])
    assert store.lost() == {ENTITY}
    cache = RecordCache(plan)
    merge(cache, store, edits(950, 1))
    assert cache.unseen == [("crm", ENTITY)]


def test_a_record_that_some_source_holds_stays(store: Store) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, 5)
    merge(RecordCache(plan), store, history)
    merge(RecordCache(plan), store, edits(900, 1, LAST.key))
    assert sweep(plan, store, 10**6) == []
    assert store.history(A_RECORD) == []
    with loaded(RecordCache(plan), store) as record:
        assert said(record) == expected(SHOP, history)
    merge(RecordCache(plan), store, edits(5, 1))
    with loaded(RecordCache(plan), store) as record:
        assert said(record) == expected(SHOP, edits(0, 6))
    assert store.lost() == frozenset()


def test_a_change_older_than_the_pruned_history_is_not_merged_and_is_reported(store: Store) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, 40)
    merge(RecordCache(plan), store, history)
    sweep(plan, store, history[-1].stamp.wall_us)
    cache, late = RecordCache(plan), edits(2, 1, source="erp")
    merge(cache, store, late)
    assert cache.before_pruned == [("erp", ENTITY)]
    assert said(cache.get(A_RECORD).record) == expected(SHOP, history)


def test_a_source_that_is_forgotten_leaves_the_records_that_begin_with_a_root(store: Store) -> None:
    plan, history = keeping(plan_of(SHOP)), edits(0, 5)
    merge(RecordCache(plan), store, history)
    merge(RecordCache(plan), store, edits(900, 1, LAST.key, "erp"))
    sweep(plan, store, 10**6)
    with store.transaction() as batch:
        batch.forget_source("erp")
    merge(RecordCache(plan), store, edits(5, 1))
    with loaded(RecordCache(plan), store) as record:
        assert said(record) == expected(SHOP, edits(0, 6))


@pytest.mark.parametrize("merge_type", ["mv", "counter", "set", "map"])
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_sweeps_between_the_changes_of_any_story_are_the_full_fold(merge_type: str, data: st.DataObject) -> None:
    entity, changes = data.draw(scripts(merge_type, 25).filter(lambda script: bool(script[1])))
    plan, store = keeping(plan_of(entity), 8 * SECOND), MemoryStore()
    swept = data.draw(st.sets(st.integers(0, len(changes))))
    often = Limits(checkpoint_after=3, checkpoint_when_read=2)
    for number, each in enumerate(sorted(changes, key=lambda change: change.stamp)):
        merge(RecordCache(plan, often), store, [each])
        if number in swept:
            sweep(plan, store, each.stamp.wall_us)
    assert store.lost() or StoreQueries(store, plan).record(A_RECORD, None) == merged(fold(entity, changes))
