"""One batch on its way: what it has taken, the records it touches, what is asked about them, and what will be told.

A batch belongs to one store transaction. A large transaction goes through it in pieces, each record's whole part in one of them, so
that a piece is folded, reviewed and let go before the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from time import perf_counter
from typing import Protocol

from cdc_merge.conflicts.detect import Detection, detect
from cdc_merge.conflicts.lifecycle import (
    ConflictIdentity,
    LifecycleContext,
    conflict_identity,
    lost_update_conflicts,
    resolved_by_rule,
    transitions,
)
from cdc_merge.conflicts.rules import duplicate
from cdc_merge.conflicts.rules.rulebook import Rulebook
from cdc_merge.conflicts.schema_drift import WHOLE_TABLE, AnnouncedColumns, schema_drift_transitions
from cdc_merge.conflicts.write_loops import WriteLoops
from cdc_merge.mapping.attribution import names_writes
from cdc_merge.mapping.mapping_result import Truncated
from cdc_merge.merge.key_changes import new_keys, previous_keys
from cdc_merge.merge.record_state import PRESENT, Record, Row
from cdc_merge.model import (
    DELETE,
    INSERT,
    SNAPSHOT,
    UNKNOWN,
    UPDATE,
    Change,
    ClockCut,
    Conflict,
    Delivery,
    DetectedConflict,
    Fact,
    MaybeValue,
    Place,
    RecordKey,
    SnapshotRows,
    Stamp,
    Transaction,
)
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker import missing_records
from cdc_merge.worker.deadlines import Deadlines
from cdc_merge.worker.ingest import IngestResult, MissingFromChunk, SourceIngest, carried, truncations
from cdc_merge.worker.record_cache import CachedRecord, RecordCache
from cdc_merge.worker.reevaluation import Reevaluation
from cdc_merge.worker.resync import Scan
from cdc_merge.worker.unique_index import UniqueIndex

# RecordCache read at a time when a whole table was emptied.
PAGE = 1_000


def keep(known: dict[ConflictIdentity, Conflict], conflict: Conflict) -> None:
    """Remember an unfinished conflict by its question, forget a closed one."""
    identity = conflict_identity(conflict.detected)
    if conflict.status != "closed":
        known[identity] = conflict
    elif identity in known and known[identity].id == conflict.id:
        del known[identity]


class Worker(Protocol):
    """What a batch asks of the pipeline that makes it: what lives longer than a batch."""

    records: RecordCache
    rulebooks: dict[str, Rulebook]
    deadlines: Deadlines
    loops: WriteLoops
    duplicates: UniqueIndex
    reevaluation: Reevaluation

    @property
    def watermark_us(self) -> int: ...
    def moment(self, now_us: int) -> LifecycleContext: ...
    def note(self, moved: Sequence[Conflict]) -> None: ...
    def trace_is_told(self, trace: Conflict) -> bool: ...
    def answer_is_told(self, question: DetectedConflict) -> bool: ...
    def page_of(self, scan: Scan) -> tuple[list[str], bool]: ...
    def held_keys(self, entity: str, source: str, tx: StoreTransaction) -> Iterator[str]: ...
    def is_latest(self, source: str, commit_us: int) -> bool: ...
    def degraded(self) -> Iterator[Fact]: ...


class Batch:
    """What one batch has taken so far, and what will be told about it."""

    def __init__(self, pipeline: Worker, now_us: int) -> None:
        self._pipeline = pipeline
        self._now_us = now_us
        self._pending: list[Change] = []
        self._shapes: dict[tuple[str, str, str], AnnouncedColumns] = {}
        self._origins: set[RecordKey] = set()
        self._moment = pipeline.moment(now_us)
        self.facts: list[Fact] = []
        self.deadlines: dict[RecordKey, int | None] = {}
        self.changes: Counter[tuple[str, str, str]] = Counter()
        self.commits: dict[str, list[int]] = {}
        self.rows: dict[str, list[int]] = {}
        self.behind: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, float] = {}
        self.merges: Counter[tuple[str, str, str, str]] = Counter()
        self.late = 0
        self.moved: list[Conflict] = []
        self._emptied: list[tuple[RecordKey, Stamp]] = []
        self.beats: list[tuple[str, int, int]] = []

    def take(self, ingest: SourceIngest, deliveries: Sequence[Delivery], tx: StoreTransaction) -> None:
        """Steps 1 and 2 for one source's deliveries."""
        started = perf_counter()
        for delivery in deliveries:
            before = self.changes.total()
            if isinstance(delivery, Transaction) and names_writes(delivery.messages):
                self.fold(tx)  # it may name a write of this batch
            for taken in ingest.pieces(delivery, tx, self._now_us):
                if taken.void:
                    self._pipeline.records.forget(taken.void, tx)
                self._add(ingest, taken, tx)
                if taken.is_piece:
                    self._settle_piece(tx)
            self._settle_emptied(tx)
            if isinstance(delivery, Transaction) and self.changes.total() > before:
                self._count(ingest.source, delivery)
        if any(isinstance(delivery, SnapshotRows) for delivery in deliveries):
            self.facts.extend(ingest.copied())
        self.seconds["map"] = self.seconds.get("map", 0.0) + perf_counter() - started

    def _count(self, source: str, transaction: Transaction) -> None:
        self.commits.setdefault(source, []).append(transaction.commit_us)
        self.rows.setdefault(source, []).append(len(transaction.changes))
        if not self._pipeline.is_latest(source, transaction.commit_us):
            self.behind[(source, "own" if transaction.origin is None else "origin")] += 1

    def _add(self, ingest: SourceIngest, taken: IngestResult, tx: StoreTransaction) -> None:
        self.facts.extend(taken.parked)
        self.facts.extend(taken.unparked)
        self.beats.extend((ingest.source, beat.sent_us, lost) for beat, lost in taken.beats)
        if taken.shapes and ingest.position is not None:
            at = ingest.position
            for shape in taken.shapes:
                place = Place(at.system, at.timeline, at.lsn, shape.table, 0)
                self._shapes[(ingest.source, shape.entity, shape.table)] = AnnouncedColumns(
                    ingest.source, shape, ingest.clock, place
                )
        if taken.cut_us:
            self.facts.append(ClockCut(ingest.source, taken.cut_us))
        changes = taken.changes
        if taken.carried:
            self.fold(tx)
            changes = tuple(self._carried(ingest.source, change, taken.carried, tx) for change in changes)
        # What the source held before the transaction is gone; rows that it entered afterwards are among its changes.
        for truncated in taken.truncated:
            self._empty(ingest.source, truncated, taken.committed_us, tx)
        if ingest.resyncs.unnamed_entities:
            changes = self._named(ingest, changes, tx)
        if taken.absent is not None:
            changes = (*changes, *self._gone(ingest, taken.absent, tx))
        self._pending.extend(changes)
        self.facts.extend(loop for change in changes if (loop := self._pipeline.loops.note(change)) is not None)
        self.changes.update([(ingest.source, change.entity, change.operation) for change in changes])

    def _empty(self, source: str, truncated: Truncated, committed_us: int, tx: StoreTransaction) -> None:
        """The records go to the log a page at a time; what that means is asked when the transaction is over."""
        self.fold(tx)
        held = self._pipeline.held_keys(truncated.entity, source, tx)
        while keys := list(islice(held, PAGE)):
            self._pending.extend(truncations(truncated, keys, committed_us))
            self._emptied += [(RecordKey(truncated.entity, key), truncated.stamp) for key in keys]
            self._lay_down(tx)
        self.changes[(source, truncated.entity, "truncate")] += 1

    def _named(self, ingest: SourceIngest, changes: Sequence[Change], tx: StoreTransaction) -> tuple[Change, ...]:
        """Without the updates and deletes of rows that the unfinished copy has not named: what they come to, the piece
        that names the row will say. IngestResult alone, an update would be a delta to nobody knows what."""
        self.fold(tx)
        entities, records = ingest.resyncs.unnamed_entities, self._pipeline.records
        late = [c for c in changes if c.operation in (UPDATE, DELETE) and c.entity in entities and c.moved_to is None]
        records.load([RecordKey(change.entity, change.key) for change in late], tx)
        came = {(change.entity, change.key) for change in changes if change.operation not in (UPDATE, DELETE)}
        unnamed = {
            (c.entity, c.key)
            for c in late
            if ingest.source not in records.get(RecordKey(c.entity, c.key)).record.rows
            and (c.entity, c.key) not in came
        }
        return tuple(c for c in changes if c.operation not in (UPDATE, DELETE) or (c.entity, c.key) not in unnamed)

    def _gone(self, ingest: SourceIngest, absent: MissingFromChunk, tx: StoreTransaction) -> list[Change]:
        """The ends of the rows that a source was asked for and does not hold any more."""
        self.fold(tx)
        unnamed = self._unnamed(ingest.source, Scan(absent.entity, None, absent.resync.since), absent.keys, tx)
        gone = list(ingest.gone(absent, unnamed))
        self.facts.append(ingest.read_again(absent, len(gone)))
        return gone

    def _unnamed(self, source: str, scan: Scan, keys: Iterable[str], tx: StoreTransaction) -> list[str]:
        """Those of the records that the source is said to hold, and of which it has told nothing since."""
        wanted = [RecordKey(scan.entity, key) for key in keys]
        records = self._pipeline.records
        records.load(wanted, tx)
        rows = {key.key: records.get(key).record.rows.get(source) for key in wanted}
        return [
            key
            for key, row in rows.items()
            if row is not None and row.presence == PRESENT and (row.last is None or row.last <= scan.since)
        ]

    def look_for_missing(self, ingests: Iterable[SourceIngest], tx: StoreTransaction) -> None:
        """One page of the records that a resync has to go through in the end, of each source."""
        for ingest in ingests:
            scan = ingest.resyncs.scan()
            if scan is not None:
                keys, is_last = self._pipeline.page_of(scan)
                ingest.resyncs.scanned(self._unnamed(ingest.source, scan, keys, tx), None if is_last else keys[-1])

    def _carried(self, source: str, change: Change, came: Mapping[RecordKey, str], tx: StoreTransaction) -> Change:
        left = came.get(RecordKey(change.entity, change.key))
        if left is None:
            return change
        records = self._pipeline.records
        old = RecordKey(change.entity, left)
        records.load([old], tx)
        record = records.get(old).record
        entity = record.units.entity

        def held(field: str) -> MaybeValue:
            cell = record.cells.get(field)
            return UNKNOWN if cell is None else cell.view(source)

        return carried(change, held, entity.mapped.get(source, frozenset()))

    def fold(self, tx: StoreTransaction) -> None:
        """Steps 3 and 4 for what was taken so far."""
        started = perf_counter()
        pending, self._pending = self._pending, []
        records = self._pipeline.records
        if pending:
            # A row that comes here anew says no longer where it was before; the question stands there.
            coming = [
                RecordKey(change.entity, change.key) for change in pending if change.operation in (INSERT, SNAPSHOT)
            ]
            records.load(coming, tx)
            left = [RecordKey(key.entity, old) for key in coming for old in previous_keys(records.get(key).record)]
            self._origins.update(left)
            records.apply(pending, tx)
        records.refold(tx)
        self.seconds["merge"] = self.seconds.get("merge", 0.0) + perf_counter() - started

    def _settle_piece(self, tx: StoreTransaction) -> None:
        """Steps 3 to 6 for the records of a piece, which no later piece will touch; then they need not be in memory."""
        pipeline = self._pipeline
        self.fold(tx)
        moved = list(self._review_touched(tx))
        tx.save_conflicts(moved)
        pipeline.note(moved)
        self.moved += moved
        self._lay_down(tx)

    def _lay_down(self, tx: StoreTransaction) -> None:
        """What was taken is in the log, and its records need not be in memory."""
        self.fold(tx)
        self.count()
        self._pipeline.records.begin()
        self._pipeline.records.shrink()

    def _settle_emptied(self, tx: StoreTransaction) -> None:
        """The records of emptied tables to which the transaction did nothing afterwards; the others were settled then."""
        emptied, self._emptied = self._emptied, []
        records = self._pipeline.records
        for start in range(0, len(emptied), PAGE):
            page = dict(emptied[start : start + PAGE])
            records.load(page, tx)
            records.touch([key for key, stamp in page.items() if _is_latest(records.get(key).record, stamp)], tx)
            self._settle_piece(tx)

    def count(self) -> None:
        """Take over what the records counted."""
        records = self._pipeline.records
        self.merges.update(records.merges)
        self.late += records.late
        self.facts.extend(self._pipeline.degraded())

    def review(self, tx: StoreTransaction) -> Iterator[Conflict]:
        """Step 5: the conflicts of every touched record that are new, moved or over."""
        yield from self._review_touched(tx)
        yield from self._drifted(tx)

    def _review_touched(self, tx: StoreTransaction) -> Iterator[Conflict]:
        started = perf_counter()
        records = self._pipeline.records
        eventful = self._eventful(records.touched)
        origins = {RecordKey(key.entity, old) for key, entry in eventful.items() for old in previous_keys(entry.record)}
        origins |= self._origins
        self._origins.clear()
        left = sorted(origins - records.touched.keys())
        records.touch(left, tx)
        eventful |= self._eventful({key: records.touched[key] for key in left})
        for key, entry in eventful.items():
            yield from self._review(key, entry, self._targets(entry.record, tx))
        yield from self._pipeline.duplicates.review(tx, eventful, records, (self._pipeline.rulebooks, self._moment))
        missing_records.note_missing(tx, records.touched, self._pipeline.reevaluation.copied)
        self.seconds["questions"] = self.seconds.get("questions", 0.0) + perf_counter() - started

    def _eventful(self, touched: Mapping[RecordKey, CachedRecord]) -> dict[RecordKey, CachedRecord]:
        """The records of which anything may be asked, answered or awaited; of most that a busy source writes there is nothing."""
        timers, books = self._pipeline.deadlines, self._pipeline.rulebooks
        found = {}
        for key, entry in touched.items():
            record = entry.record
            is_quiet = (
                not (entry.known or record.unsettled or record.deletes or record.moves) and books[key.entity].is_calm
            )
            if is_quiet and timers.get(key) is None and not any(_is_odd(row) for row in record.rows.values()):
                continue
            found[key] = entry
        return found

    def _traced_us(self, entry: CachedRecord) -> int | None:
        """When the record's traces may be told: 0 for now, None for no traces. What is late may still take them
        back."""
        record = entry.record
        if record.last is None or not any(record.cells[name].lost_updates for name in record.unsettled):
            return None
        return 0 if self._pipeline.watermark_us > record.last.wall_us else record.last.wall_us

    def _drifted(self, tx: StoreTransaction) -> Iterator[Conflict]:
        """The tables that changed their shape."""
        for (_, name, _), seen in self._shapes.items():
            whole = RecordKey(name, WHOLE_TABLE)
            entity = self._pipeline.records.entities()[name].entity
            yield from schema_drift_transitions(entity, seen, tx.open_conflicts([whole]).get(whole, ()), self._moment)

    def _targets(self, record: Record, tx: StoreTransaction) -> Mapping[str, Record]:
        """The records to which a record's rows have moved, and moved on."""
        records, entity = self._pipeline.records, record.units.entity.name
        found: dict[str, Record] = {}
        wanted = new_keys(record)
        while wanted and len(found) < PAGE:
            keys = [RecordKey(entity, key) for key in sorted(wanted)]
            records.load(keys, tx)
            reached = {key.key: records.get(key).record for key in keys}
            found.update(reached)
            wanted = {key for target in reached.values() for key in new_keys(target)} - found.keys()
        return found

    def _review(self, key: RecordKey, entry: CachedRecord, targets: Mapping[str, Record]) -> Iterator[Conflict]:
        record, known = entry.record, duplicate.without_duplicates(entry.known)
        rulebook = self._pipeline.rulebooks[record.units.entity.name]
        traced_us = self._traced_us(entry)
        if traced_us == 0:
            yield from [
                t for t in lost_update_conflicts(record, known, self._moment) if not self._pipeline.trace_is_told(t)
            ]
        answers = detect(record, rulebook, self._pipeline.watermark_us, targets)
        due_us = min(filter(None, (answers.due_us, traced_us)), default=None)
        if due_us != self.deadlines.get(key, self._pipeline.deadlines.get(key)):
            self.deadlines[key] = due_us
        found: Sequence[DetectedConflict] = answers.conflicts
        if answers.answered:
            known = dict(known)
            over = [*self._answered(answers, known)]
            yield from over
            told = {conflict_identity(conflict.detected) for conflict in over}
            found = [q for q in found if conflict_identity(q) not in told and not self._is_told(q, answers, known)]
        if found or known:
            yield from transitions(record, found, known, self._moment)

    def _answered(self, answers: Detection, known: dict[ConflictIdentity, Conflict]) -> Iterator[Conflict]:
        """Open questions that a rule answers by itself from here on; they are known no more."""
        for question in answers.conflicts:
            identity = conflict_identity(question)
            if identity in answers.answered and identity in known and known[identity].status == "open":
                yield resolved_by_rule(known.pop(identity), question, self._now_us)

    def _is_told(
        self, question: DetectedConflict, answers: Detection, known: Mapping[ConflictIdentity, Conflict]
    ) -> bool:
        """A rule answers it, and that is recorded already."""
        identity = conflict_identity(question)
        if identity in known or identity not in answers.answered:
            return False
        return self._pipeline.answer_is_told(question)


def _is_odd(row: Row) -> bool:
    """A row beside which the same source has others of its key, or one that came from another key."""
    return bool(row.duplicates) or (row.by is not None and row.by.moved_from is not None)


def _is_latest(record: Record, stamp: Stamp) -> bool:
    """Its source has told nothing of the record since; others may have, and were folded before."""
    row = record.rows.get(stamp.source.partition("/")[0])
    return row is None or row.last == stamp
