"""Steps 1 and 2: a source's deliveries become pending changes of the batch.

A large transaction is ingested in pieces, each record's whole part in one of them. A piece is folded, detected and recorded
before the next, so that its records need not stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from time import perf_counter

from cdc_merge.conflicts.schema_drift import AnnouncedColumns
from cdc_merge.mapping.attribution import is_write_back
from cdc_merge.mapping.mapping_result import Truncated
from cdc_merge.merge.record_state import PRESENT, Record
from cdc_merge.model import (
    DELETE,
    UNKNOWN,
    UPDATE,
    Change,
    ClockCut,
    Delivery,
    MaybeValue,
    Place,
    RecordKey,
    SnapshotRows,
    Stamp,
    Transaction,
)
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.fold_step import fold, release_records
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.ingest_result import IngestResult, MissingFromChunk, truncations, with_previous_values
from cdc_merge.worker.record_step import settle_piece
from cdc_merge.worker.resync import KEYS_PER_REQUEST, Scan
from cdc_merge.worker.state import WorkerState


class IngestStep:
    def __init__(self, state: WorkerState, batch: Batch, tx: StoreTransaction) -> None:
        self._state = state
        self._batch = batch
        self._tx = tx

    def ingest(self, source: SourceIngest, deliveries: Sequence[Delivery]) -> None:
        """Map one source's deliveries, in order."""
        started = perf_counter()
        for delivery in deliveries:
            self._ingest(source, delivery)
        if any(isinstance(delivery, SnapshotRows) for delivery in deliveries):
            self._batch.facts.extend(source.snapshot_progress())
        self._batch.add_seconds("map", started)

    def _ingest(self, source: SourceIngest, delivery: Delivery) -> None:
        changes_before = self._batch.changes.total()
        if isinstance(delivery, Transaction) and is_write_back(delivery.messages):
            fold(self._state, self._batch, self._tx)  # it may refer to a write of this batch
        for result in source.pieces(delivery, self._tx, self._batch.now_us):
            if result.retracted:
                self._state.records.fold_again(result.retracted, self._tx)
            self._add(source, result)
            if result.is_piece:
                settle_piece(self._state, self._batch, self._tx)
        self._settle_truncated()
        if isinstance(delivery, Transaction) and self._batch.changes.total() > changes_before:
            self._count(source.source, delivery)

    def _count(self, source: str, transaction: Transaction) -> None:
        self._batch.commits.setdefault(source, []).append(transaction.commit_us)
        self._batch.rows.setdefault(source, []).append(len(transaction.changes))
        if not self._state.is_latest_commit(source, transaction.commit_us):
            self._batch.behind[(source, "own" if transaction.origin is None else "origin")] += 1

    def _add(self, source: SourceIngest, result: IngestResult) -> None:
        batch = self._batch
        batch.facts += [*result.parked, *result.released]
        batch.heartbeats += [(source.source, beat.sent_us, lost) for beat, lost in result.heartbeats]
        self._note_columns(source, result)
        if result.clock_cut_us:
            batch.facts.append(ClockCut(source.source, result.clock_cut_us))
        changes: Sequence[Change] = result.changes
        if result.previous_keys:
            changes = self._with_previous_values(source.source, changes, result.previous_keys)
        # A truncate ends the rows of before the transaction; rows inserted afterwards are among its changes.
        for truncated in result.truncated:
            self._truncate(source.source, truncated, result.committed_us)
        if source.resyncs.incomplete_entities:
            changes = self._without_uncopied_rows(source, changes)
        if result.missing is not None:
            changes = [*changes, *self._deletes_of_missing(source, result.missing)]
        batch.pending.extend(changes)
        loops = (self._state.write_loops.observe(change) for change in changes)
        batch.facts.extend(loop for loop in loops if loop is not None)
        batch.changes.update([(source.source, change.entity, change.operation) for change in changes])

    def _note_columns(self, source: SourceIngest, result: IngestResult) -> None:
        at = source.position
        if at is None:
            return
        for columns in result.announced_columns:
            place = Place(at.system, at.timeline, at.lsn, columns.table, 0)
            announced = AnnouncedColumns(source.source, columns, source.clock, place)
            self._batch.announced_columns[(source.source, columns.entity, columns.table)] = announced

    def _with_previous_values(
        self, source: str, changes: Sequence[Change], previous_keys: Mapping[RecordKey, str]
    ) -> list[Change]:
        """The changes, completed by values that the stream left out of rows whose key changed."""
        fold(self._state, self._batch, self._tx)
        return [
            change if previous is None else self._completed(source, change, previous)
            for change in changes
            for previous in [previous_keys.get(RecordKey(change.entity, change.key))]
        ]

    def _completed(self, source: str, change: Change, previous: str) -> Change:
        (record,) = self._state.records.states([RecordKey(change.entity, previous)], self._tx)

        def previous_value(field: str) -> MaybeValue:
            unit_state = record.unit_states.get(field)
            return UNKNOWN if unit_state is None else unit_state.value_at(source)

        mapped = record.units.entity.mapped.get(source, frozenset())
        return with_previous_values(change, previous_value, mapped)

    # ------------------------------------------------------------ truncated tables

    def _truncate(self, source: str, truncated: Truncated, committed_us: int) -> None:
        """Log the end of the table's records a page at a time; conflicts are detected when the transaction is complete."""
        fold(self._state, self._batch, self._tx)
        present = self._present_keys(truncated.entity, source)
        while keys := list(islice(present, self._state.limits.page_records)):
            self._batch.pending.extend(truncations(truncated, keys, committed_us))
            self._batch.truncated += [(RecordKey(truncated.entity, key), truncated.stamp) for key in keys]
            release_records(self._state, self._batch, self._tx)
        self._batch.changes[(source, truncated.entity, "truncate")] += 1

    def _present_keys(self, entity: str, source: str) -> Iterator[str]:
        """The keys of all records that have a row at the source, those of this batch included."""
        records, limit = self._state.records, self._state.limits.page_records
        touched = {key: entry.record for key, entry in records.touched.items() if key.entity == entity}
        yield from (key.key for key, record in touched.items() if _is_present(record, source))
        after: str | None = None
        while page := self._state.store.records(entity, after, limit):
            keys = [key for name in page if (key := RecordKey(entity, name)) not in touched]
            states = zip(keys, records.states(keys, self._tx), strict=True)
            yield from [key.key for key, record in states if _is_present(record, source)]
            records.shrink()
            after = page[-1]

    def _settle_truncated(self) -> None:
        """Settle the records of truncated tables that the transaction did not change afterwards; the others are settled."""
        truncated, self._batch.truncated = self._batch.truncated, []
        records, limit = self._state.records, self._state.limits.page_records
        for start in range(0, len(truncated), limit):
            stamps = dict(truncated[start : start + limit])
            states = records.states(list(stamps), self._tx)
            ended = [key for (key, at), record in zip(stamps.items(), states, strict=True) if _is_last(record, at)]
            records.touch(ended, self._tx)
            settle_piece(self._state, self._batch, self._tx)

    # ------------------------------------------------------------ resyncs

    def _without_uncopied_rows(self, source: SourceIngest, changes: Sequence[Change]) -> list[Change]:
        """Without updates and deletes of rows that an incomplete snapshot has not copied yet: the chunk with the row contains
        their effect. An update alone would be a delta to an unknown value."""
        fold(self._state, self._batch, self._tx)
        entities = source.resyncs.incomplete_entities
        partial = [
            c for c in changes if c.operation in (UPDATE, DELETE) and c.entity in entities and c.moved_to is None
        ]
        copied = {(c.entity, c.key) for c in changes if c.operation not in (UPDATE, DELETE)}
        states = self._state.records.states([RecordKey(c.entity, c.key) for c in partial], self._tx)
        uncopied = {
            (change.entity, change.key)
            for change, record in zip(partial, states, strict=True)
            if source.source not in record.rows and (change.entity, change.key) not in copied
        }
        return [c for c in changes if c.operation not in (UPDATE, DELETE) or (c.entity, c.key) not in uncopied]

    def _deletes_of_missing(self, source: SourceIngest, missing: MissingFromChunk) -> list[Change]:
        """The ends of the rows that a chunk was to contain and that the source does not have any more."""
        fold(self._state, self._batch, self._tx)
        scan = Scan(missing.entity, None, missing.resync.since)
        deletes = list(source.deletes_of(missing, self._unchanged_since(source.source, scan, missing.keys)))
        self._batch.facts.append(source.finish_chunk(missing, len(deletes)))
        return deletes

    def scan_page(self, source: SourceIngest) -> None:
        """Scan one page of the records that the source's resync has to check at its end."""
        scan = source.resyncs.next_scan()
        if scan is not None:
            keys = self._state.store.records(scan.entity, scan.after, KEYS_PER_REQUEST)
            is_last = len(keys) < KEYS_PER_REQUEST
            unchanged = self._unchanged_since(source.source, scan, keys)
            source.resyncs.finish_scan(unchanged, None if is_last else keys[-1])

    def _unchanged_since(self, source: str, scan: Scan, keys: Iterable[str]) -> list[str]:
        """Those of the records that are present at the source, and that it has not changed since."""
        wanted = [RecordKey(scan.entity, key) for key in keys]
        rows = [record.rows.get(source) for record in self._state.records.states(wanted, self._tx)]
        return [
            key.key
            for key, row in zip(wanted, rows, strict=True)
            if row is not None and row.presence == PRESENT and (row.last is None or row.last <= scan.since)
        ]


def _is_present(record: Record, source: str) -> bool:
    row = record.rows.get(source)
    return row is not None and row.presence == PRESENT


def _is_last(record: Record, stamp: Stamp) -> bool:
    """Whether the stamp's source has not changed the record since; others may have."""
    row = record.rows.get(stamp.source.partition("/")[0])
    return row is None or row.last == stamp
