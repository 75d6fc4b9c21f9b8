"""Step 6: what commits with the batch's changes and conflicts: deadlines, positions, and what retention removes."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.detect_step import detect_touched
from cdc_merge.worker.fold_step import fold, release_records
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.state import WorkerState


def record(state: WorkerState, batch: Batch, ingests: Iterable[SourceIngest], tx: StoreTransaction) -> None:
    """`ingests`: those of the sources whose deliveries the batch contains."""
    if state.is_sweep_due(batch.now_us):
        _sweep(state, batch, tx)
    if batch.deadlines:
        tx.save_deadlines(batch.deadlines)
    for ingest in ingests:
        ingest.save(tx)


def settle_piece(state: WorkerState, batch: Batch, tx: StoreTransaction) -> None:
    """Steps 3 to 6 for one piece of a large transaction. No later piece touches its records, so they leave the cache."""
    fold(state, batch, tx)
    conflicts = detect_touched(state, batch, tx)
    tx.save_conflicts(conflicts)
    state.update_cached(conflicts)
    batch.conflicts += conflicts
    release_records(state, batch, tx)


def _sweep(state: WorkerState, batch: Batch, tx: StoreTransaction) -> None:
    """Remove what is older than the retention, a piece at a time."""
    expired = state.retention.sweep_quarantine(tx, batch.now_us)
    batch.facts += expired
    for _, ingest in state.sources if expired else ():
        ingest.awaited_identities = tx.awaited_identities(ingest.source)
    batch.removed = state.retention.sweep(tx, state.watermark_us, batch.now_us)
