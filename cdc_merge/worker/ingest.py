"""The ingest of one source: its deliveries become record changes; with its clock, position, snapshot and resyncs.

Everything it remembers is saved with the batch, and restored when a worker starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

from cdc_merge.mapping.large_transactions import BucketSorter, in_chunks
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.mapping.mapping_result import MappingResult
from cdc_merge.mapping.unresolved_rows import (
    AwaitedIdentities,
    LateResolutions,
    QuarantineResult,
    ResolvedRow,
    resolutions,
    resolve,
)
from cdc_merge.model import (
    DELETE,
    TRUNCATE,
    Change,
    ChunkRead,
    Delivery,
    Idle,
    Place,
    Position,
    QuarantineReleased,
    RecordKey,
    ResyncProgress,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotProgress,
    SnapshotRows,
    SnapshotTable,
    Stamp,
    Transaction,
)
from cdc_merge.model.capture_counters import DUPLICATES, KEY_CHANGES, SPILLED, Tally
from cdc_merge.model.clock import received, tick
from cdc_merge.model.heartbeats import HeartbeatGaps, heartbeats_in
from cdc_merge.model.ports import SpillSpace, StoreTransaction
from cdc_merge.model.source_commands import FAILED, ROWS
from cdc_merge.worker.ingest_result import IngestResult, MissingFromChunk
from cdc_merge.worker.limits import DEFAULT_LIMITS, Limits
from cdc_merge.worker.resync import ResyncQueue

NOTHING_RELEASED: Final = QuarantineResult()


class SourceIngest:
    """`passed_us`: the stamp time up to which the source has delivered everything (semantics §2, Stability).

    `spill_space` opens room on disk for one large transaction. `tally` has the counters of the merging side.
    """

    def __init__(
        self,
        source: str,
        mapper: Mapper,
        slot: str,
        spill_space: Callable[[], SpillSpace],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.source = source
        self.mapper = mapper
        self.slot = slot
        self._spill_space = spill_space
        self._limits = limits
        self._heartbeat_gaps = HeartbeatGaps()
        self.tally = Tally(mapper.tables())
        self.clock = Stamp(0, 0, source)
        self.position: Position | None = None
        self.passed_us = 0
        self.snapshot_rows = 0
        self.snapshot_expected = 0
        self.resyncs = ResyncQueue(source, mapper.tables())
        self._snapshot: SnapshotBegan | None = None
        self._expected: dict[str, int] = {}
        self._copied: Counter[str] = Counter()
        self.awaited_identities: AwaitedIdentities = {}

    def resume(self, position: Position, clock: Stamp, awaited: AwaitedIdentities) -> None:
        self.position, self.clock, self.awaited_identities = position, clock, awaited
        if not position.is_copying:
            self.passed_us = max(clock.wall_us, position.passed_us)
        self.resyncs.is_suspended = position.is_copying

    def is_large(self, delivery: Delivery) -> bool:
        """Whether a delivery may not fit into memory once it is mapped and merged: very many rows, or a truncate."""
        if not isinstance(delivery, Transaction):
            return False
        has_many = len(delivery.changes) > self._limits.large_rows
        return has_many or any(change.operation == TRUNCATE for change in delivery.changes)

    def pieces(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> Iterator[IngestResult]:
        """As `take`; a large transaction in several pieces, all for one store transaction. Each record's change is in one of
        them, so that a piece can be merged and evicted before the next."""
        if isinstance(delivery, Transaction) and self.is_large(delivery):
            yield from self._large_transaction(delivery, tx, now_us)
        else:
            yield self.take(delivery, tx, now_us)

    def take(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> IngestResult:
        """Map one delivery; reads from the store what that needs, and saves its side effects there."""
        if isinstance(delivery, Transaction):
            return self._transaction(delivery, tx, now_us)
        if isinstance(delivery, SnapshotRows):
            return self._snapshot_rows(delivery, tx)
        if isinstance(delivery, Idle):
            return self.idle(delivery, now_us)
        if isinstance(delivery, ChunkRead):
            return self._chunk(delivery, tx, now_us)
        return self._snapshot_progressed(delivery, tx, now_us)

    def _snapshot_progressed(
        self, delivery: SnapshotBegan | SnapshotTable | SnapshotDone, tx: StoreTransaction, now_us: int
    ) -> IngestResult:
        if isinstance(delivery, SnapshotBegan):
            return self._snapshot_began(delivery, tx, now_us)
        if isinstance(delivery, SnapshotDone):
            return self._snapshot_done(delivery, now_us)
        assert self.position is not None, "a table of a snapshot ended before the snapshot began"
        self.position = self.position._replace(copied=(*self.position.copied, delivery.table))
        return IngestResult()

    def _transaction(self, delivery: Transaction, tx: StoreTransaction, now_us: int) -> IngestResult:
        if self._is_repeated(delivery):
            self.tally.add(DUPLICATES)
            return IngestResult()
        mapped = self._map(delivery, tx, now_us)
        self._count_key_changes(mapped)
        self._save_side_effects(mapped, tx)
        quarantine = self._update_quarantine(delivery.changes, mapped, tx)
        self._advance(delivery, mapped, now_us)
        return IngestResult(
            (*quarantine.changes, *mapped.changes),
            mapped.truncated,
            mapped.parked,
            clock_cut_us=mapped.clock_cut_us,
            committed_us=delivery.commit_us,
            previous_keys=mapped.previous_keys,
            announced_columns=mapped.announced_columns,
            heartbeats=tuple(
                (beat, self._heartbeat_gaps.lost_before(beat)) for beat in heartbeats_in(delivery.messages, self.slot)
            ),
            released=quarantine.released,
        )

    def _map(self, delivery: Transaction, tx: StoreTransaction, now_us: int) -> MappingResult:
        """The mapped transaction. Where it copies writes of other sources, its stamps are not earlier than theirs."""
        keys = self._remembered_keys(delivery.changes, tx)
        mapped = self.mapper.map_transaction(delivery, self.clock, now_us, keys)
        copies = [(change, change.copy.of) for change in mapped.changes if change.copy is not None and change.copy.of]
        stamps = [at for change, of in copies for at in tx.stamps_of(RecordKey(change.entity, change.key), of)]
        clock = received(self.clock, max(stamps, default=self.clock))
        if clock == self.clock:
            return mapped
        again = self.mapper.map_transaction(delivery, clock, now_us, keys)
        return again._replace(announced_columns=mapped.announced_columns, parked=mapped.parked)

    def _large_transaction(self, delivery: Transaction, tx: StoreTransaction, now_us: int) -> Iterator[IngestResult]:
        if self._is_repeated(delivery):
            self.tally.add(DUPLICATES)
            return
        with closing(self._spill_space()) as spill:
            sorter = BucketSorter(spill, len(delivery.changes), self._limits.bucket_rows)
            mapped = MappingResult((), self.clock, {})
            late = LateResolutions(delivery)
            for changes in in_chunks(delivery.changes, self._limits.piece_rows):
                keys = self._remembered_keys(changes, tx)
                is_first = mapped.clock == self.clock
                mapped = self.mapper.map_changes(delivery, changes, (mapped.clock, now_us), keys, sorter)
                sorter.flush()
                self._save_side_effects(mapped, tx)
                quarantine = self._update_quarantine(changes, mapped, tx)
                late.add(quarantine.resolved, mapped.truncated)
                yield IngestResult(
                    truncated=mapped.truncated,
                    parked=mapped.parked,
                    clock_cut_us=mapped.clock_cut_us if is_first else 0,
                    committed_us=delivery.commit_us,
                    announced_columns=mapped.announced_columns,
                    is_piece=True,
                    released=quarantine.released,
                )
            yield from self._sorted_pieces(delivery, sorter, late, mapped.clock)
            self.tally.add(SPILLED, by=spill.size_bytes)
        self._advance(delivery, mapped, now_us)

    def _sorted_pieces(
        self, delivery: Transaction, sorter: BucketSorter, late: LateResolutions, clock: Stamp
    ) -> Iterator[IngestResult]:
        """The record changes of a large transaction, bucket by bucket."""
        for coalescer in sorter.buckets():
            built = self.mapper.build_changes(delivery, coalescer, clock)
            self._count_key_changes(built)
            self.resyncs.add_unreadable(built.unreadable_rows)
            changes = late.merged_into(built.changes)
            yield IngestResult(changes, (), built.parked, previous_keys=built.previous_keys, is_piece=True)
        if remaining := late.remaining():
            yield IngestResult(remaining, is_piece=True)

    def _count_key_changes(self, mapped: MappingResult) -> None:
        for table in [change.place.table for change in mapped.changes if change.moved_to is not None]:
            self.tally.of_table(KEY_CHANGES, table)

    def _is_repeated(self, delivery: Transaction) -> bool:
        """Whether it was delivered before: changes of the same places count once."""
        return self.position is not None and delivery.end_lsn <= self.position.lsn

    def _remembered_keys(self, changes: Sequence[RowChange], tx: StoreTransaction) -> dict[tuple[str, str], str]:
        """The rows' business keys that the store remembers: (table, identity) → key."""
        keys: dict[tuple[str, str], str] = {}
        for table, identities in self.mapper.identities_to_look_up(changes).items():
            remembered = tx.keys_of(self.source, table, identities)
            keys.update({(table, identity): key for identity, key in remembered.items()})
        return keys

    def _save_side_effects(self, mapped: MappingResult, tx: StoreTransaction) -> None:
        self.resyncs.add_unreadable(mapped.unreadable_rows)
        for table, keys in mapped.identities.items():
            tx.save_identities(self.source, table, keys)

    def _update_quarantine(
        self, changes: Sequence[RowChange], mapped: MappingResult, tx: StoreTransaction
    ) -> QuarantineResult:
        """Release the quarantined changes whose business keys these changes resolve (semantics §4), drop those of truncated
        tables, quarantine what this delivery leaves unresolved."""
        if not self.awaited_identities and not mapped.unresolved:
            return NOTHING_RELEASED
        released = QuarantineResult()
        if self.awaited_identities:
            released = self._released(changes, mapped, tx)
        tx.quarantine(self.source, mapped.unresolved)
        if released.released or mapped.unresolved:
            self.awaited_identities = tx.awaited_identities(self.source)
        return released

    def _released(self, changes: Sequence[RowChange], mapped: MappingResult, tx: StoreTransaction) -> QuarantineResult:
        keys_by_label = resolutions(changes, self.mapper.relation_mappings, self.awaited_identities)
        resolved: list[ResolvedRow] = []
        counts: Counter[str] = Counter()
        for label in self.awaited_identities:
            keys = {**mapped.former_identities.get(label, {}), **keys_by_label.get(label, {})}
            for identity, quarantined in tx.release_quarantined(self.source, label, keys).items():
                resolved += resolve(quarantined, keys[identity])
                counts[quarantined[0].change.place.table] += len(quarantined)
        released = [QuarantineReleased(self.source, table, "named", count) for table, count in counts.items()]
        for truncated in mapped.truncated:
            if dropped := tx.forget_quarantined(self.source, truncated.entity, truncated.table):
                released.append(QuarantineReleased(self.source, truncated.table, "emptied", dropped))
        return QuarantineResult(tuple(resolved), tuple(released))

    def _advance(self, delivery: Transaction, mapped: MappingResult, now_us: int) -> None:
        """Move clock and position behind the transaction."""
        self.clock = mapped.clock
        self.passed_us = max(self.passed_us, min(delivery.commit_us - mapped.clock_cut_us, now_us), self.clock.wall_us)
        self._move_position(delivery.system, delivery.timeline, delivery.end_lsn)

    def idle(self, delivery: Idle, now_us: int) -> IngestResult:
        """The source is idle: it has delivered everything up to here. Nothing has to be saved at once."""
        self.passed_us = max(self.passed_us, min(delivery.at_us, now_us))
        self._move_position(delivery.system, delivery.timeline, delivery.lsn)
        if delivery.membership and self.position is not None:
            self.position = self.position._replace(membership=delivery.membership)
        return IngestResult()

    # ------------------------------------------------------------ initial snapshot

    def snapshot_progress(self) -> Iterator[SnapshotProgress]:
        """The progress of the initial snapshot, by entity."""
        for entity, expected in self._expected.items():
            yield SnapshotProgress(self.source, entity, self._copied[entity], expected)

    def _snapshot_began(self, delivery: SnapshotBegan, tx: StoreTransaction, now_us: int) -> IngestResult:
        retracted: Sequence[RecordKey] = ()
        if delivery.lost is None:
            retracted = tx.forget_source(self.source)
            self.awaited_identities = {}
        else:
            self.resyncs.restart_after_loss(self.clock, now_us, delivery.lost)
        self.resyncs.forget_unreadable(self.mapper.tables())
        self.resyncs.is_suspended = True
        self._snapshot = self.mapper.cut_snapshot(delivery, now_us)
        self._expected, self._copied = self.mapper.expected_records(delivery.expected_rows), Counter()
        self.snapshot_rows, self.snapshot_expected = 0, sum(delivery.expected_rows.values())
        state = "running" if delivery.lost is None else "again"
        self.position = Position(delivery.system, delivery.timeline, delivery.lsn, state, self.slot)
        return IngestResult(retracted=tuple(retracted), clock_cut_us=delivery.at_us - self._snapshot.at_us)

    def _snapshot_rows(self, delivery: SnapshotRows, tx: StoreTransaction) -> IngestResult:
        assert self._snapshot is not None, "rows of a snapshot before it began"
        mapped = self.mapper.map_snapshot(delivery, self._snapshot, self.clock)
        self._save_side_effects(mapped, tx)
        self.clock = mapped.clock
        self.snapshot_rows += len(delivery.changes)
        self._copied.update(change.entity for change in mapped.changes)
        return self._with_released(delivery.changes, mapped, tx)

    def _with_released(self, rows: Sequence[RowChange], mapped: MappingResult, tx: StoreTransaction) -> IngestResult:
        """The changes of read rows, with the quarantined changes that they resolve."""
        quarantine = self._update_quarantine(rows, mapped, tx)
        changes = (*quarantine.changes, *mapped.changes)
        return IngestResult(
            changes, (), mapped.parked, announced_columns=mapped.announced_columns, released=quarantine.released
        )

    def _snapshot_done(self, delivery: SnapshotDone, now_us: int) -> IngestResult:
        assert self.position is not None, "a snapshot ended before it began"
        self.position = self.position._replace(lsn=delivery.lsn, snapshot="done", copied=())
        self.resyncs.is_suspended = False
        self.resyncs.enqueue_interrupted(delivery.unfinished, self.clock, now_us)
        if self._snapshot is not None:
            self.passed_us = max(self.passed_us, min(self._snapshot.at_us, now_us), self.clock.wall_us)
        return IngestResult()

    # ------------------------------------------------------------ incremental snapshots

    def _chunk(self, read: ChunkRead, tx: StoreTransaction, now_us: int) -> IngestResult:
        resync = self.resyncs.matching(read)
        if resync is None:
            return IngestResult()
        at_us = min(read.at_us, now_us)
        snapshot = SnapshotBegan(read.source, read.system, read.timeline, read.lsn, at_us, {})
        mapped = self.mapper.map_snapshot(SnapshotRows(self.source, read.rows), snapshot, self.clock)
        if resync.phase == ROWS and resync.after is None and not resync.keys:
            self.resyncs.forget_unreadable([resync.table])
        self._save_side_effects(mapped, tx)
        self.clock = mapped.clock
        entity = self.resyncs.entity_of(resync)
        present = {change.key for change in mapped.changes if change.entity == entity}
        requested = () if read.problem else self.resyncs.requested_keys(resync)
        absent = tuple(key for key in requested if key not in present)
        missing = MissingFromChunk(entity, absent, resync, read._replace(at_us=at_us))
        return self._with_released(read.rows, mapped, tx)._replace(missing=missing)

    def deletes_of(self, missing: MissingFromChunk, keys: Iterable[str]) -> Iterator[Change]:
        """The ends of the rows of these keys, at the chunk's position."""
        read = missing.read
        for ordinal, key in enumerate(keys, len(read.rows)):
            self.clock = tick(self.clock, read.at_us)
            place = Place(read.system, read.timeline, read.lsn, missing.resync.table, ordinal)
            yield Change(missing.entity, key, self.clock, place, DELETE, {}, committed_us=read.at_us)

    def finish_chunk(self, missing: MissingFromChunk, deleted: int) -> ResyncProgress:
        """The chunk is ingested; the next one may be requested."""
        read = missing.read
        after = self.resyncs.advance(missing.resync, read, deleted)
        state = FAILED if read.problem else after.phase if after in self.resyncs.orders.resyncs else "done"
        rows = len(read.rows)
        return ResyncProgress(self.source, after.table, state, after.rows, after.expected, rows, deleted, read.problem)

    def save(self, tx: StoreTransaction) -> None:
        """Save everything that is remembered."""
        if self.position is not None:
            tx.save_position(self.source, self.position._replace(passed_us=self.passed_us), self.clock)
        if self.resyncs.is_changed:
            tx.save_orders(self.source, self.resyncs.orders)
            self.resyncs.is_changed = False

    def _move_position(self, system: str, timeline: int, lsn: int) -> None:
        snapshot = self.position.snapshot if self.position else "none"
        lsn = max(lsn, self.position.lsn) if self.position else lsn
        before = self.position or Position(system, timeline, lsn, snapshot, self.slot)
        self.position = before._replace(system=system, timeline=timeline, lsn=lsn, slot=self.slot)
