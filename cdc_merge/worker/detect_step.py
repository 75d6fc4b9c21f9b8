"""Step 5: the conflicts of the batch's records and tables that are detected, revised, announced or closed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from time import perf_counter

from cdc_merge.conflicts.detect import is_auto_resolved
from cdc_merge.conflicts.lifecycle import resolved_by_rule
from cdc_merge.conflicts.missing_records import save_missing_sources
from cdc_merge.conflicts.record_review import RecordReview
from cdc_merge.conflicts.schema_drift import WHOLE_TABLE, schema_drift_transitions
from cdc_merge.merge.key_changes import new_keys, previous_keys
from cdc_merge.merge.record_state import Record
from cdc_merge.model import Conflict, RecordKey
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.record_cache import CachedRecord
from cdc_merge.worker.state import WorkerState


def detect(state: WorkerState, batch: Batch, tx: StoreTransaction) -> None:
    """Detect conflicts in everything that the batch touched, and in the records whose deadline or re-evaluation is due."""
    state.records.touch(state.deadlines.passed(state.watermark_us, state.limits.page_records), tx)
    outdated = state.reevaluation.next_page(tx, state.records.touched)
    batch.uncached = [key for key in outdated if state.records.cached(key) is None]
    state.records.touch(outdated, tx)
    transitions = [*detect_touched(state, batch, tx), *_schema_drift(state, batch, tx)]
    conflicts = state.reevaluation.supersede(transitions, batch.context)
    conflicts += _announced(state, batch, [*batch.conflicts, *conflicts])
    tx.save_conflicts(conflicts)
    batch.conflicts += conflicts


def detect_touched(state: WorkerState, batch: Batch, tx: StoreTransaction) -> list[Conflict]:
    """The transitions of the touched records' conflicts."""
    started = perf_counter()
    review = RecordReview(state.store, state.rulebooks, state.watermark_us, batch.context)
    entries = _records_to_review(state, batch, review, tx)
    transitions: list[Conflict] = []
    for key, entry in entries.items():
        reviewed = review.review(entry, _targets(state, entry.record, tx))
        if reviewed.due_us != batch.deadlines.get(key, state.deadlines.get(key)):
            batch.deadlines[key] = reviewed.due_us
        transitions += reviewed.transitions
    load = partial(state.records.states, tx=tx)
    transitions += state.unique_index.transitions(tx, entries, load, state.rulebooks, batch.context)
    save_missing_sources(tx, state.records.touched, state.reevaluation.copied)
    batch.add_seconds("questions", started)
    return transitions


def _records_to_review(
    state: WorkerState, batch: Batch, review: RecordReview, tx: StoreTransaction
) -> dict[RecordKey, CachedRecord]:
    """The touched records that may have conflicts, and those that their rows left: the conflict about a move stands there."""
    records = state.records

    def to_review(entries: Mapping[RecordKey, CachedRecord]) -> dict[RecordKey, CachedRecord]:
        return {
            key: entry
            for key, entry in entries.items()
            if review.is_needed(entry) or state.deadlines.get(key) is not None
        }

    entries = to_review(records.touched)
    left = {RecordKey(key.entity, old) for key, entry in entries.items() for old in previous_keys(entry.record)}
    left |= batch.previous_keys
    batch.previous_keys.clear()
    others = sorted(left - records.touched.keys())
    records.touch(others, tx)
    return entries | to_review({key: records.touched[key] for key in others})


def _targets(state: WorkerState, record: Record, tx: StoreTransaction) -> Mapping[str, Record]:
    """The records to which the record's rows moved, and moved on."""
    entity = record.units.entity.name
    targets: dict[str, Record] = {}
    wanted = new_keys(record)
    while wanted and len(targets) < state.limits.page_records:
        keys = [RecordKey(entity, key) for key in sorted(wanted)]
        reached = {key.key: target for key, target in zip(keys, state.records.states(keys, tx), strict=True)}
        targets.update(reached)
        wanted = {key for target in reached.values() for key in new_keys(target)} - targets.keys()
    return targets


def _schema_drift(state: WorkerState, batch: Batch, tx: StoreTransaction) -> Iterator[Conflict]:
    """The transitions of conflicts about tables whose columns were announced."""
    for (_, entity, _), announced in batch.announced_columns.items():
        table = RecordKey(entity, WHOLE_TABLE)
        plan = state.records.entities()[entity].entity
        unfinished = tx.open_conflicts([table]).get(table, ())
        yield from schema_drift_transitions(plan, announced, unfinished, batch.context)


def _announced(state: WorkerState, batch: Batch, changed: Iterable[Conflict]) -> list[Conflict]:
    """The settling conflicts that have settled, open or resolved by a rule; conflicts of touched records are reviewed."""
    changed_ids = {conflict.id for conflict in changed}
    announced = []
    for conflict in state.settling.values():
        detected = conflict.detected
        if RecordKey(detected.entity, detected.key) in state.records.touched or conflict.id in changed_ids:
            continue
        opened = state.announced(conflict, batch.now_us)
        if opened is None:
            continue
        units = state.records.entities()[detected.entity]
        is_resolved = is_auto_resolved(units, detected)
        announced.append(resolved_by_rule(conflict, detected, batch.now_us) if is_resolved else opened)
    return announced
