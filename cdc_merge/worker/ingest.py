"""One source's deliveries become changes of records: its clock, its position, its first copy.

An intake belongs to the worker that reads the source. Everything it remembers is saved with the batch, and given back to it
when a worker starts again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from cdc_merge.mapping.large_transactions import LARGE_ROWS, BucketSorter, in_chunks
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.mapping.mapping_result import MappingResult, Truncated
from cdc_merge.mapping.relation import RelationColumns
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
    UNKNOWN,
    Change,
    ChunkRead,
    Delivery,
    Idle,
    MaybeValue,
    Parked,
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
from cdc_merge.model.heartbeats import Heartbeat, HeartbeatGaps, heartbeats_in
from cdc_merge.model.ports import SpillSpace, StoreTransaction
from cdc_merge.model.source_commands import FAILED, Resync
from cdc_merge.worker.resync import ResyncQueue


class MissingFromChunk(NamedTuple):
    """What an answer to a resync does not name: of the records `keys` that were looked for, those of which the source has
    told nothing since the resync began are gone."""

    entity: str
    keys: tuple[str, ...]
    resync: Resync
    read: ChunkRead


class IngestResult(NamedTuple):
    """What one delivery says: changes, tables emptied, rows set aside, records whose history was taken back. `unparked`:
    what had been set aside and is so no longer; what was named is among the changes."""

    changes: tuple[Change, ...] = ()
    truncated: tuple[Truncated, ...] = ()
    parked: tuple[Parked, ...] = ()
    void: tuple[RecordKey, ...] = ()
    cut_us: int = 0
    committed_us: int = 0
    carried: Mapping[RecordKey, str] = {}
    shapes: tuple[RelationColumns, ...] = ()
    is_piece: bool = False
    beats: tuple[tuple[Heartbeat, int], ...] = ()  # with how many before it were lost
    absent: MissingFromChunk | None = None
    unparked: tuple[QuarantineReleased, ...] = ()


_NOTHING: Final = QuarantineResult()

# Rows of a large transaction that are mapped in one go.
PIECE_ROWS = 8_000


def is_large(delivery: Delivery) -> bool:
    """It may not fit into memory once it is mapped and merged: it has very many rows, or empties a table."""
    if not isinstance(delivery, Transaction):
        return False
    return len(delivery.changes) > LARGE_ROWS or any(change.operation == TRUNCATE for change in delivery.changes)


class SourceIngest:
    """`passed_us` is the stamp time up to which the source has said everything (semantics §2, Stability).

    `spill_space` opens room on disk for one large transaction. `tally` counts what only the merging side knows.
    """

    def __init__(self, source: str, mapper: Mapper, slot: str, spill_space: Callable[[], SpillSpace]) -> None:
        self.source = source
        self.mapper = mapper
        self.slot = slot
        self._spill_space = spill_space
        self._pulse = HeartbeatGaps()
        self.tally = Tally(mapper.tables())
        self.clock = Stamp(0, 0, source)
        self.position: Position | None = None
        self.passed_us = 0
        self.snapshot_rows = 0
        self.snapshot_expected = 0
        self.resyncs = ResyncQueue(source, mapper.tables())
        self._began: SnapshotBegan | None = None
        self._expected: dict[str, int] = {}
        self._copied: Counter[str] = Counter()
        self.awaited_identities: AwaitedIdentities = {}

    def resume(self, position: Position, clock: Stamp, awaited: AwaitedIdentities) -> None:
        self.position, self.clock, self.awaited_identities = position, clock, awaited
        if not position.is_copying:
            self.passed_us = max(clock.wall_us, position.passed_us)
        self.resyncs.is_held = position.is_copying

    def pieces(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> Iterator[IngestResult]:
        """As `take`; a large transaction in several pieces, which belong into one store transaction. Each record's change
        is in one of them, so that every piece can be merged and forgotten before the next."""
        if isinstance(delivery, Transaction) and is_large(delivery):
            yield from self._large(delivery, tx, now_us)
        else:
            yield self.take(delivery, tx, now_us)

    def take(self, delivery: Delivery, tx: StoreTransaction, now_us: int) -> IngestResult:
        """Map one delivery; what it needs from the store is read, and what the store must remember is saved."""
        if isinstance(delivery, Transaction):
            return self._transaction(delivery, tx, now_us)
        if isinstance(delivery, SnapshotRows):
            return self._snapshot_rows(delivery, tx)
        if isinstance(delivery, Idle):
            return self.idle(delivery, now_us)
        if isinstance(delivery, ChunkRead):
            return self._rows_read(delivery, tx, now_us)
        return self._copy_moved(delivery, tx, now_us)

    def _copy_moved(
        self, delivery: SnapshotBegan | SnapshotTable | SnapshotDone, tx: StoreTransaction, now_us: int
    ) -> IngestResult:
        if isinstance(delivery, SnapshotBegan):
            return self._snapshot_began(delivery, tx, now_us)
        if isinstance(delivery, SnapshotDone):
            return self._snapshot_done(delivery, now_us)
        assert self.position is not None, "a table of a copy ended before it began"
        self.position = self.position._replace(copied=(*self.position.copied, delivery.table))
        return IngestResult()

    def _transaction(self, delivery: Transaction, tx: StoreTransaction, now_us: int) -> IngestResult:
        if self._is_repeated(delivery):
            self.tally.add(DUPLICATES)
            return IngestResult()
        mapped = self._told(delivery, tx, now_us)
        self._count_moves(mapped)
        self._save_identities(mapped, tx)
        named = self._settle_waiting(delivery.changes, mapped, tx)
        self._passed(delivery, mapped, now_us)
        return IngestResult(
            (*named.changes, *mapped.changes),
            mapped.truncated,
            mapped.parked,
            cut_us=mapped.cut_us,
            committed_us=delivery.commit_us,
            carried=mapped.carried,
            shapes=mapped.shapes,
            beats=tuple((beat, self._pulse.lost_before(beat)) for beat in heartbeats_in(delivery.messages, self.slot)),
            unparked=named.released,
        )

    def _told(self, delivery: Transaction, tx: StoreTransaction, now_us: int) -> MappingResult:
        """The transaction mapped. Where it names writes that the source holds from now on, its clock is not earlier than they are."""
        known = self._known(delivery.changes, tx)
        mapped = self.mapper.map_transaction(delivery, self.clock, now_us, known)
        named = [(change, change.copy.of) for change in mapped.changes if change.copy is not None and change.copy.of]
        stamps = [at for change, of in named for at in tx.stamps_of(RecordKey(change.entity, change.key), of)]
        clock = received(self.clock, max(stamps, default=self.clock))
        if clock == self.clock:
            return mapped
        again = self.mapper.map_transaction(delivery, clock, now_us, known)
        return again._replace(shapes=mapped.shapes, parked=mapped.parked)

    def _large(self, delivery: Transaction, tx: StoreTransaction, now_us: int) -> Iterator[IngestResult]:
        if self._is_repeated(delivery):
            self.tally.add(DUPLICATES)
            return
        with closing(self._spill_space()) as spilled:
            touches = BucketSorter(spilled, len(delivery.changes))
            mapped = MappingResult((), self.clock, {})
            late = LateResolutions(delivery)
            for changes in in_chunks(delivery.changes, PIECE_ROWS):
                known = self._known(changes, tx)
                is_first = mapped.clock == self.clock
                mapped = self.mapper.map_changes(delivery, changes, (mapped.clock, now_us), known, touches)
                touches.flush()
                self._save_identities(mapped, tx)
                named = self._settle_waiting(changes, mapped, tx)
                late.add(named.resolved, mapped.truncated)
                taken = IngestResult((), mapped.truncated, mapped.parked, shapes=mapped.shapes, is_piece=True)
                yield taken._replace(
                    unparked=named.released, cut_us=mapped.cut_us if is_first else 0, committed_us=delivery.commit_us
                )
            for lineages in touches.buckets():
                told = self.mapper.build_changes(delivery, lineages, mapped.clock)
                self._count_moves(told)
                yield IngestResult(
                    late.merged_into(told.changes), (), told.parked, carried=told.carried, is_piece=True
                )
            if left := late.remaining():
                yield IngestResult(left, is_piece=True)
            self.tally.add(SPILLED, by=spilled.size_bytes)
        self._passed(delivery, mapped, now_us)

    def _count_moves(self, mapped: MappingResult) -> None:
        for table in [change.place.table for change in mapped.changes if change.moved_to is not None]:
            self.tally.of_table(KEY_CHANGES, table)

    def _is_repeated(self, delivery: Transaction) -> bool:
        """It was delivered before: the same places, which count once."""
        return self.position is not None and delivery.end_lsn <= self.position.lsn

    def _known(self, changes: Sequence[RowChange], tx: StoreTransaction) -> dict[tuple[str, str], str]:
        """What the store knows of the rows' business keys: (table, identity) → key."""
        known: dict[tuple[str, str], str] = {}
        for table, identities in self.mapper.identities_to_look_up(changes).items():
            found = tx.keys_of(self.source, table, identities)
            known.update({(table, identity): key for identity, key in found.items()})
        return known

    def _save_identities(self, mapped: MappingResult, tx: StoreTransaction) -> None:
        for table, moved in mapped.identities.items():
            tx.save_identities(self.source, table, moved)

    def _settle_waiting(
        self, changes: Sequence[RowChange], mapped: MappingResult, tx: StoreTransaction
    ) -> QuarantineResult:
        """What has waited for a name that these changes give (semantics §4), and what waits no longer; what begins to wait is kept."""
        if not self.awaited_identities and not mapped.unresolved:
            return _NOTHING
        found = (
            resolutions(changes, self.mapper.relation_mappings, self.awaited_identities)
            if self.awaited_identities
            else {}
        )
        named: list[ResolvedRow] = []
        counts: Counter[str] = Counter()
        for label in self.awaited_identities:
            keys = {**mapped.former_identities.get(label, {}), **found.get(label, {})}
            for identity, waiting in tx.release_quarantined(self.source, label, keys).items():
                named += resolve(waiting, keys[identity])
                counts[waiting[0].change.place.table] += len(waiting)
        unparked = [QuarantineReleased(self.source, table, "named", count) for table, count in counts.items()]
        for emptied in mapped.truncated if self.awaited_identities else ():
            if gone := tx.forget_quarantined(self.source, emptied.entity, emptied.table):
                unparked.append(QuarantineReleased(self.source, emptied.table, "emptied", gone))
        tx.quarantine(self.source, mapped.unresolved)
        if unparked or mapped.unresolved:
            self.awaited_identities = tx.awaited_identities(self.source)
        return QuarantineResult(tuple(named), tuple(unparked))

    def _passed(self, delivery: Transaction, mapped: MappingResult, now_us: int) -> None:
        """The transaction is taken: clock and position are behind it."""
        self.clock = mapped.clock
        self.passed_us = max(self.passed_us, min(delivery.commit_us - mapped.cut_us, now_us), self.clock.wall_us)
        self._reached(delivery.system, delivery.timeline, delivery.end_lsn)

    def copied(self) -> Iterator[SnapshotProgress]:
        """How far the first copy of each entity is."""
        for entity, expected in self._expected.items():
            yield SnapshotProgress(self.source, entity, self._copied[entity], expected)

    def idle(self, delivery: Idle, now_us: int) -> IngestResult:
        """The source is idle: everything up to here was said, and there is nothing to save yet."""
        self.passed_us = max(self.passed_us, min(delivery.at_us, now_us))
        self._reached(delivery.system, delivery.timeline, delivery.lsn)
        if delivery.membership and self.position is not None:
            self.position = self.position._replace(membership=delivery.membership)
        return IngestResult()

    def _snapshot_began(self, delivery: SnapshotBegan, tx: StoreTransaction, now_us: int) -> IngestResult:
        void: Sequence[RecordKey] = ()
        if delivery.lost is None:
            void = tx.forget_source(self.source)
            self.awaited_identities = {}
        else:
            self.resyncs.lost(self.clock, now_us, delivery.lost)
        self.resyncs.is_held = True
        self._began = delivery
        self._expected, self._copied = self.mapper.expected_records(delivery.expected_rows), Counter()
        self.snapshot_rows, self.snapshot_expected = 0, sum(delivery.expected_rows.values())
        state = "running" if delivery.lost is None else "again"
        self.position = Position(delivery.system, delivery.timeline, delivery.lsn, state, self.slot)
        return IngestResult(void=tuple(void))

    def _snapshot_rows(self, delivery: SnapshotRows, tx: StoreTransaction) -> IngestResult:
        assert self._began is not None, "rows of a first copy before it began"
        mapped = self.mapper.map_snapshot(delivery, self._began, self.clock)
        self._save_identities(mapped, tx)
        self.clock = mapped.clock
        self.snapshot_rows += len(delivery.changes)
        self._copied.update(change.entity for change in mapped.changes)
        named = self._settle_waiting(delivery.changes, mapped, tx)
        changes = (*named.changes, *mapped.changes)
        return IngestResult(changes, (), mapped.parked, shapes=mapped.shapes, unparked=named.released)

    def _snapshot_done(self, delivery: SnapshotDone, now_us: int) -> IngestResult:
        assert self.position is not None, "a first copy ended before it began"
        self.position = self.position._replace(lsn=delivery.lsn, snapshot="done", copied=())
        self.resyncs.is_held = False
        self.resyncs.unfinished(delivery.unfinished, self.clock, now_us)
        if self._began is not None:
            self.passed_us = max(self.passed_us, self._began.at_us)
        return IngestResult()

    # ------------------------------------------------------------ rows read again

    def _rows_read(self, read: ChunkRead, tx: StoreTransaction, now_us: int) -> IngestResult:
        resync = self.resyncs.answered(read)
        if resync is None:
            return IngestResult()
        at_us = min(read.at_us, now_us)
        mapped = self._mapped(read.rows, read, at_us)
        self._save_identities(mapped, tx)
        self.clock = mapped.clock
        entity = self.resyncs.entity_of(resync)
        found = {change.key for change in mapped.changes if change.entity == entity}
        asked = () if read.problem else self.resyncs.asked_keys(resync)
        absent = MissingFromChunk(
            entity, tuple(key for key in asked if key not in found), resync, read._replace(at_us=at_us)
        )
        named = self._settle_waiting(read.rows, mapped, tx)
        taken = IngestResult((*named.changes, *mapped.changes), (), mapped.parked, shapes=mapped.shapes, absent=absent)
        return taken._replace(unparked=named.released)

    def _mapped(self, rows: tuple[RowChange, ...], read: ChunkRead, at_us: int) -> MappingResult:
        began = SnapshotBegan(read.source, read.system, read.timeline, read.lsn, at_us, {})
        return self.mapper.map_snapshot(SnapshotRows(self.source, rows), began, self.clock)

    def gone(self, absent: MissingFromChunk, keys: Iterable[str]) -> Iterator[Change]:
        """The ends of rows that the source held and that are not there any more."""
        read = absent.read
        for ordinal, key in enumerate(keys, len(read.rows)):
            self.clock = tick(self.clock, read.at_us)
            place = Place(read.system, read.timeline, read.lsn, absent.resync.table, ordinal)
            yield Change(absent.entity, key, self.clock, place, DELETE, {}, committed_us=read.at_us)

    def read_again(self, absent: MissingFromChunk, gone: int) -> ResyncProgress:
        """The answer is taken; the next one may be asked for."""
        read = absent.read
        after = self.resyncs.advance(absent.resync, read, gone)
        state = FAILED if read.problem else after.phase if after in self.resyncs.orders.resyncs else "done"
        rows = len(read.rows)
        return ResyncProgress(self.source, after.table, state, after.rows, after.expected, rows, gone, read.problem)

    def save(self, tx: StoreTransaction) -> None:
        """All that is remembered."""
        if self.position is not None:
            tx.save_position(self.source, self.position._replace(passed_us=self.passed_us), self.clock)
        if self.resyncs.is_changed:
            tx.save_orders(self.source, self.resyncs.orders)
            self.resyncs.is_changed = False

    def _reached(self, system: str, timeline: int, lsn: int) -> None:
        snapshot = self.position.snapshot if self.position else "none"
        lsn = max(lsn, self.position.lsn) if self.position else lsn
        before = self.position or Position(system, timeline, lsn, snapshot, self.slot)
        self.position = before._replace(system=system, timeline=timeline, lsn=lsn, slot=self.slot)


def carried(change: Change, held: Callable[[str], MaybeValue], fields: frozenset[str]) -> Change:
    """A row that moved to a new key keeps the columns the stream did not send: what the source held of the old record."""
    absent = {field: held(field) for field in sorted(fields) if field not in change.fields}
    missing: dict[str, tuple[MaybeValue, MaybeValue]] = {f: (UNKNOWN, v) for f, v in absent.items() if v is not UNKNOWN}
    return change._replace(fields={**change.fields, **missing}) if missing else change


def truncations(truncated: Truncated, keys: Iterable[str], committed_us: int) -> Iterator[Change]:
    """The one event of an emptied table as a change of each record of which the source held a row before it."""
    whole = Change(truncated.entity, "", truncated.stamp, truncated.place, TRUNCATE, {})
    whole = whole._replace(actor=truncated.actor, copy=truncated.copy, committed_us=committed_us)
    return (whole._replace(key=key) for key in keys)
