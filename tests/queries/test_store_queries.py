"""Store queries equal the full fold of the history, with checkpoints or without."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_merge.errors import HistoryRemoved
from cdc_merge.merge.checkpoint import dump_state
from cdc_merge.merge.fold import fold
from cdc_merge.merge.views import merged
from cdc_merge.model import Change, Checkpoint
from cdc_merge.model.ports import PRUNED_SLOT, Store
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.worker.record_cache import RecordCache
from tests.laws.equivalence import check, plan_of
from tests.laws.equivalence import merge_batch as merge
from tests.laws.worlds import scripts
from tests.support.stock_record import A_RECORD, SHOP, edits


def with_bases(changes: Sequence[Change], every: int) -> Store:
    store, cache = MemoryStore(), RecordCache(plan_of(SHOP))
    for start in range(0, len(changes), every):
        merge(cache, store, changes[start : start + every])
    return store


@pytest.mark.parametrize("merge_type", ["mv", "counter", "set"])
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_moment_of_a_record_is_the_fold_up_to_it(merge_type: str, data: st.DataObject) -> None:
    entity, changes = data.draw(scripts(merge_type, 25).filter(lambda script: bool(script[1])))
    check("store queries", entity, changes, data.draw(st.sets(st.integers(0, len(changes)))))


def test_the_present_of_a_long_record_is_read_from_its_base() -> None:
    history = edits(0, 500)
    store = with_bases(history, 50)
    assert len(store.folded(A_RECORD)[1]) < 200
    assert StoreQueries(store, plan_of(SHOP)).record(A_RECORD, None) == merged(fold(SHOP, history))


def test_another_policy_reads_the_log_and_not_the_base() -> None:
    history = edits(0, 500)
    store = with_bases(history, 50)
    assert StoreQueries(store, plan_of(SHOP, "two")).record(A_RECORD, None) == merged(fold(SHOP, history))


def test_an_explanation_names_every_write_of_a_record_with_bases() -> None:
    explanation = StoreQueries(with_bases(edits(0, 300), 50), plan_of(SHOP)).explain(A_RECORD, "name")
    assert explanation is not None
    assert len(explanation.writes) == 300


def test_what_retention_removed_is_refused_in_plain_words() -> None:
    history = edits(0, 10)
    store, folded = MemoryStore(), fold(SHOP, history[:5], compacts=True)
    with store.transaction() as batch:
        batch.append(history[5:])
        assert folded.last is not None
        batch.save_checkpoint(A_RECORD, Checkpoint(folded.last, 1, "one", dump_state(folded)), PRUNED_SLOT)
    lookup = StoreQueries(store, plan_of(SHOP))
    assert lookup.record(A_RECORD, None) == merged(fold(SHOP, history))
    assert lookup.record(A_RECORD, history[6].stamp) == merged(fold(SHOP, history[:7]))
    with pytest.raises(HistoryRemoved, match="removed by retention"):
        lookup.record(A_RECORD, history[2].stamp)
