"""Steps 3 and 4: append the pending changes to the log, fold them into their records."""

from __future__ import annotations

from time import perf_counter

from cdc_merge.merge.key_changes import previous_keys
from cdc_merge.model import INSERT, SNAPSHOT, DetectionDegraded, RecordKey
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.state import WorkerState


def fold(state: WorkerState, batch: Batch, tx: StoreTransaction) -> None:
    """Everything that is mapped so far is in the log and in the cached states afterwards."""
    started = perf_counter()
    changes, batch.pending = batch.pending, []
    if changes:
        # A row that arrives again loses its link to the previous key, at which a conflict may stand.
        arriving = [RecordKey(each.entity, each.key) for each in changes if each.operation in (INSERT, SNAPSHOT)]
        for key, record in zip(arriving, state.records.states(arriving, tx), strict=True):
            batch.previous_keys |= {RecordKey(key.entity, previous) for previous in previous_keys(record)}
        state.records.apply(changes, tx)
    state.records.refold(tx)
    batch.add_seconds("merge", started)


def release_records(state: WorkerState, batch: Batch, tx: StoreTransaction) -> None:
    """Fold the pending changes; their records may leave the cache afterwards."""
    fold(state, batch, tx)
    count_merges(state, batch)
    state.records.begin()
    state.records.shrink()


def count_merges(state: WorkerState, batch: Batch) -> None:
    """Take over the cache's counts, and the changes whose records' past is pruned."""
    records = state.records
    batch.merges.update(records.merges)
    batch.late_changes += records.late_changes
    for source, entity in records.unseen:
        if entity in state.pruned_entities:
            batch.facts.append(DetectionDegraded(source, entity, "tombstone_removed"))
    for source, entity in records.before_pruned:
        batch.facts.append(DetectionDegraded(source, entity, "history_removed"))
