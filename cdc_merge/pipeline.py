"""The way of the data: deliveries → changes → history → merged records → conflicts, one durable batch after the other.

Histories, conflicts and positions commit together; only then is a source told that it may forget (semantics §9). The
pipeline knows neither what a source is nor where the store is, and it owns no thread: whoever composes it calls
`step`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from time import perf_counter
from typing import NamedTuple, TypeAlias

from cdc_merge import absence
from cdc_merge.decision.asking import Answers, all_questions, answers_itself
from cdc_merge.decision.drift import WHOLE_TABLE, Announced, drifted
from cdc_merge.decision.expression import Compile
from cdc_merge.decision.loops import Loops
from cdc_merge.decision.queue import Asked, Moment, announced, answered, asked, is_answer, review, traces
from cdc_merge.decision.rules import duplicate
from cdc_merge.decision.rules.rulebook import armed, rulebooks
from cdc_merge.duplicates import Duplicates
from cdc_merge.intake import Absent, Intake, Taken, carried, is_large, truncations
from cdc_merge.mapping.actors import names_writes
from cdc_merge.mapping.changes import Truncated
from cdc_merge.merge.moves import came_from, destinations
from cdc_merge.merge.record import PRESENT, Record
from cdc_merge.model import (
    DELETE,
    INSERT,
    SNAPSHOT,
    UNKNOWN,
    UPDATE,
    BatchMerged,
    Change,
    ClockCut,
    Conflict,
    ConflictMoved,
    Delivery,
    DetectionDegraded,
    Fact,
    HeartbeatPassed,
    Idle,
    MaybeValue,
    Place,
    Question,
    RecordKey,
    SnapshotRows,
    Stamp,
    Transaction,
)
from cdc_merge.orders import NO_ORDERS
from cdc_merge.plan import Plan
from cdc_merge.ports import Observer, Source, Store, StoreTransaction
from cdc_merge.records import Entry, Records
from cdc_merge.rejudging import Rejudging
from cdc_merge.resyncs import LOOKED_FOR, Scan
from cdc_merge.retention import Retention
from cdc_merge.timers import Timers

# Row changes per batch and source. Large enough to share one fsync, small enough that a batch takes well under a
# second.
BATCH_ROWS = 8_000
# An idle source's position is saved at most this often; its commits are saved at once.
IDLE_SAVE_US = 500_000
# Old history leaves at most this often: 500 changes a tenth of a second keep up with 5,000 a second.
SWEEP_EVERY_US = 100_000
# Records read at a time when a whole table was emptied.
PAGE = 1_000


class World(NamedTuple):
    """What a worker needs that follows from nothing: our own clock in µs, new ids, and who reads expressions."""

    now_us: Callable[[], int]
    new_id: Callable[[], str]
    compile: Compile


Arrived: TypeAlias = Sequence[tuple[Source, Intake, Sequence[Delivery]]]
"""What each source has delivered."""


def parts(arrived: Arrived) -> Iterator[Arrived]:
    """A large transaction is a batch of its own: its records are settled piece by piece."""
    waiting = [(source, intake, deque(deliveries)) for source, intake, deliveries in arrived]
    is_over = False
    while not is_over:
        small = [(source, intake, _before_large(deliveries)) for source, intake, deliveries in waiting]
        large = [(source, intake, [deliveries.popleft()]) for source, intake, deliveries in waiting if deliveries]
        if not large or any(deliveries for _, _, deliveries in small):
            yield small
        yield from ([each] for each in large)
        is_over = not any(deliveries for _, _, deliveries in waiting)


def _before_large(deliveries: deque[Delivery]) -> list[Delivery]:
    found = list(takewhile(lambda delivery: not is_large(delivery), deliveries))
    for _ in found:
        deliveries.popleft()
    return found


class Pipeline:
    """One worker. Everything but the world follows from deliveries and the store."""

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[tuple[Source, Intake]],
        store: Store,
        observe: Observer,
        world: World,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._store = store
        self._observe = observe
        self._now_us, self._new_id, self._compile = world
        self.rulebooks = rulebooks(plan, world.compile)
        self.records = Records(plan)
        armed(self.records.entities(), self.rulebooks)
        self.loops = Loops(plan)
        self.timers = Timers()
        self.duplicates = Duplicates(store)
        self.rejudging = Rejudging(store)
        self._retention = Retention(plan, self.records.entities())
        self._lost: frozenset[str] = frozenset()
        self._swept_us = 0
        self._settling: dict[str, Conflict] = {}
        self._saved_us = 0
        self._latest_us: dict[str, int] = {}

    def resume(self) -> None:
        """Take up where the store left off: clocks, positions, timers, conflicts that were settling."""
        positions, orders = self._store.positions(), self._store.orders()
        for _, intake in self._sources:
            if intake.source in positions:
                intake.resume(*positions[intake.source])
            intake.resyncs.resume(orders.get(intake.source, NO_ORDERS))
        self.timers.move(self._store.due())
        self._lost = self._store.lost()
        self.rejudging.follow(self._plan, self._copied())
        for conflict in self._store.unfinished_conflicts():
            if conflict.status == "settling" and conflict.question.entity in self._plan.entities:
                self._settling[conflict.id] = conflict

    def _copied(self) -> frozenset[str]:
        """The sources whose first copies are complete."""
        positions = [intake.position for _, intake in self._sources]
        names = [intake.source for _, intake in self._sources]
        return frozenset(n for n, at in zip(names, positions, strict=True) if at is not None and at.snapshot == "done")

    def follow(self, plan: Plan) -> None:
        """Go on by another plan of the same sources, mappings and merges. Between two batches only. ExpressionError
        leaves the old one in force."""
        self.rulebooks = rulebooks(plan, self._compile)
        self._plan = plan
        self.records = Records(plan)
        armed(self.records.entities(), self.rulebooks)
        self._retention = Retention(plan, self.records.entities())
        self.rejudging.follow(plan, self._copied())

    @property
    def watermark_us(self) -> int:
        """The stamp time that every source has passed; 0 while one has passed nothing. It never goes back."""
        return min((intake.passed_us for _, intake in self._sources), default=0)

    def step(self) -> bool:
        """Take what has arrived and make it durable. False when there was nothing to do."""
        taken = [(source, intake, source.take(BATCH_ROWS)) for source, intake in self._sources]
        now_us = self._now_us()
        if not any(deliveries for _, _, deliveries in taken) and not self._due(now_us):
            return False
        only_idle = all(isinstance(d, Idle) for _, _, deliveries in taken for d in deliveries)
        if only_idle and not self._due(now_us) and now_us - self._saved_us < IDLE_SAVE_US:
            self._pass_idle(taken, now_us)
            return True
        for part in parts(taken):
            self._batch(part, now_us)
        return True

    def _pass_idle(self, taken: Arrived, now_us: int) -> None:
        """Idle marks move the watermark at once; their positions are saved and confirmed with a later batch."""
        for _, intake, deliveries in taken:
            for delivery in deliveries:
                if isinstance(delivery, Idle):
                    intake.idle(delivery, now_us)

    def _batch(self, taken: Arrived, now_us: int) -> None:
        started = perf_counter()
        batch = Batch(self, now_us)
        self.records.begin()
        try:
            with self._store.transaction() as tx:
                for _, intake, deliveries in taken:
                    batch.take(intake, deliveries, tx)  # 1, 2
                batch.fold(tx)  # 3, 4
                batch.look_for_missing([intake for _, intake, _ in taken], tx)
                self.records.touch(self.timers.passed(self.watermark_us, PAGE), tx)
                self.records.touch(self.rejudging.page(tx, self.records), tx)
                moved = self.rejudging.ended(batch.review(tx), self.moment(now_us))  # 5
                moved += self._announce(now_us, [*batch.moved, *moved])
                tx.save_conflicts(moved)  # 6
                moved = [*batch.moved, *moved]
                removed = self._sweep(tx, now_us)
                if batch.due:
                    tx.save_due(batch.due)
                for _, intake, _ in taken:
                    intake.save(tx)
                ready = perf_counter()
            batch.seconds["commit"] = perf_counter() - ready
        except BaseException:
            self.records.clear()
            raise
        self._saved_us = now_us
        self.timers.move(batch.due)
        self.rejudging.committed()
        self.records.removed([*removed, *self.rejudging.strangers])
        self._lost |= {key.entity for key in removed}
        self._remember(moved)
        if self._copied() != self.rejudging.copied:
            self.rejudging.follow(self._plan, self._copied())
        for source, intake, _ in taken:
            if intake.position is not None and not intake.position.is_copying:
                source.confirm(intake.position.lsn)
        self.records.shrink()
        self._tell(batch, moved, perf_counter() - started)

    def _sweep(self, tx: StoreTransaction, now_us: int) -> list[RecordKey]:
        """What is older than the retention leaves, a piece at a time."""
        if now_us - self._swept_us < SWEEP_EVERY_US:
            return []
        self._swept_us = now_us
        return self._retention.sweep(tx, self.watermark_us, now_us)

    # ------------------------------------------------------------ conflicts

    def moment(self, now_us: int) -> Moment:
        return Moment(now_us, self._new_id, self._plan.policy)

    def _due(self, now_us: int) -> bool:
        if any(intake.resyncs.scan() is not None or intake.resyncs.is_changed for _, intake in self._sources):
            return True
        watermark_us = self.watermark_us
        if self.timers.is_due(watermark_us) or self.rejudging.is_due:
            return True
        return any(announced(c, watermark_us, now_us, self._plan.settle_us) for c in self._settling.values())

    def _announce(self, now_us: int, moved: Sequence[Conflict]) -> Iterator[Conflict]:
        """Settling conflicts that a person may be told of now; those of this batch's records speak for themselves."""
        watermark_us = self.watermark_us
        told = {conflict.id for conflict in moved}
        for conflict in list(self._settling.values()):
            key = RecordKey(conflict.question.entity, conflict.question.key)
            if key in self.records.touched or conflict.id in told:
                continue
            opened = announced(conflict, watermark_us, now_us, self._plan.settle_us)
            if opened is None:
                continue
            units = self.records.entities()[conflict.question.entity]
            yield answered(conflict, conflict.question, now_us) if answers_itself(units, conflict.question) else opened

    def _remember(self, moved: Sequence[Conflict]) -> None:
        for conflict in moved:
            if conflict.status == "settling":
                self._settling[conflict.id] = conflict
            else:
                self._settling.pop(conflict.id, None)
        self.note(moved)

    def note(self, moved: Sequence[Conflict]) -> None:
        """The records that are in memory know of these."""
        for conflict in moved:
            entry = self.records.cached(RecordKey(conflict.question.entity, conflict.question.key))
            if entry is not None:
                keep(entry.known, conflict)

    def trace_is_told(self, trace: Conflict) -> bool:
        """Whether a conflict that is already recorded names the write that the trace is about."""
        place = trace.question.candidates[0].place
        return any(c.place == place for told in self._told(trace.question) for c in told.question.candidates)

    def answer_is_told(self, question: Question) -> bool:
        """Whether it is recorded that a rule answered this question with these candidates."""
        return any(is_answer(told, question) for told in self._told(question))

    def _told(self, question: Question) -> list[Conflict]:
        """What was ever asked about the same field of the record."""
        where = {"entity": question.entity, "key": question.key, "field": question.group or question.field or ""}
        return self._store.conflicts(where, None, PAGE)

    # ------------------------------------------------------------ what the store must be asked

    def page_of(self, scan: Scan) -> tuple[list[str], bool]:
        """Records of an entity, and whether they are the last."""
        keys = self._store.records(scan.entity, scan.after, LOOKED_FOR)
        return keys, len(keys) < LOOKED_FOR

    def held_keys(self, entity: str, source: str, tx: StoreTransaction) -> Iterator[str]:
        """The keys of all records of which the source holds a row, those of this batch included."""
        recent = {key: entry for key, entry in self.records.touched.items() if key.entity == entity}
        yield from (key.key for key, entry in recent.items() if _holds(entry, source))
        after: str | None = None
        while keys := self._store.records(entity, after, PAGE):
            wanted = [key for name in keys if (key := RecordKey(entity, name)) not in recent]
            self.records.load(wanted, tx)
            yield from [key.key for key in wanted if _holds(self.records.get(key), source)]
            self.records.shrink()
            after = keys[-1]

    # ------------------------------------------------------------ facts

    def is_latest(self, source: str, commit_us: int) -> bool:
        """Whether no commit of the source that was taken before has a later time."""
        latest_us = self._latest_us.get(source, 0)
        self._latest_us[source] = max(latest_us, commit_us)
        return commit_us >= latest_us

    def _tell(self, batch: Batch, moved: Sequence[Conflict], seconds: float) -> None:
        batch.count()
        for fact in batch.facts:
            self._observe(fact)
        now_us = self._now_us()
        for source, sent_us, lost in batch.beats:
            self._observe(HeartbeatPassed(source, (now_us - sent_us) / 1e6, lost))
        self._observe(
            BatchMerged(
                seconds={**batch.seconds, "all": seconds},
                changes=dict(batch.changes),
                merges=dict(batch.merges),
                detection_seconds={s: tuple((now_us - t) / 1e6 for t in times) for s, times in batch.commits.items()},
                late_changes=batch.late,
                raised=tuple(c for c in moved if c.status == "settling" and c.revision == 1),
                closed=tuple(c for c in moved if c.status == "closed"),
                rules=self._evaluated(),
                transactions={source: tuple(rows) for source, rows in batch.rows.items()},
                behind=dict(batch.behind),
                loads=dict(self.records.loads),
                ended_us=now_us,
            )
        )
        self.records.loads.clear()
        for conflict in moved:
            self._observe(ConflictMoved(_what(conflict), conflict))

    def degraded(self) -> Iterator[Fact]:
        """Changes whose records' past retention had removed."""
        for source, entity in self.records.unknown:
            if entity in self._lost:
                yield DetectionDegraded(source, entity, "tombstone_removed")
        for source, entity in self.records.beyond:
            yield DetectionDegraded(source, entity, "history_removed")

    def _evaluated(self) -> Mapping[tuple[str, str], int]:
        """What expressions gave since the last batch."""
        total: Counter[tuple[str, str]] = Counter()
        for rulebook in self.rulebooks.values():
            total.update(rulebook.tally)
            rulebook.tally.clear()
        return total


def _holds(entry: Entry, source: str) -> bool:
    row = entry.record.rows.get(source)
    return row is not None and row.presence == PRESENT


def _what(conflict: Conflict) -> str:
    if conflict.status == "closed":
        return "closed"
    if conflict.status == "open" and conflict.announced_us is not None:
        return "announced"
    return "raised" if conflict.revision == 1 else "revised"


def keep(known: dict[Asked, Conflict], conflict: Conflict) -> None:
    """Remember an unfinished conflict by its question, forget a closed one."""
    identity = asked(conflict.question)
    if conflict.status != "closed":
        known[identity] = conflict
    elif identity in known and known[identity].id == conflict.id:
        del known[identity]


class Batch:
    """What one batch has taken so far, and what will be told about it."""

    def __init__(self, pipeline: Pipeline, now_us: int) -> None:
        self._pipeline = pipeline
        self._now_us = now_us
        self._pending: list[Change] = []
        self._shapes: dict[tuple[str, str, str], Announced] = {}
        self._origins: set[RecordKey] = set()
        self._moment = pipeline.moment(now_us)
        self.facts: list[Fact] = []
        self.due: dict[RecordKey, int | None] = {}
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

    def take(self, intake: Intake, deliveries: Sequence[Delivery], tx: StoreTransaction) -> None:
        """Steps 1 and 2 for one source's deliveries."""
        started = perf_counter()
        for delivery in deliveries:
            before = self.changes.total()
            if isinstance(delivery, Transaction) and names_writes(delivery.messages):
                self.fold(tx)  # it may name a write of this batch
            for taken in intake.pieces(delivery, tx, self._now_us):
                if taken.void:
                    self._pipeline.records.forget(taken.void, tx)
                self._add(intake, taken, tx)
                if taken.is_piece:
                    self._settle_piece(tx)
            self._settle_emptied(tx)
            if isinstance(delivery, Transaction) and self.changes.total() > before:
                self._count(intake.source, delivery)
        if any(isinstance(delivery, SnapshotRows) for delivery in deliveries):
            self.facts.extend(intake.copied())
        self.seconds["map"] = self.seconds.get("map", 0.0) + perf_counter() - started

    def _count(self, source: str, transaction: Transaction) -> None:
        self.commits.setdefault(source, []).append(transaction.commit_us)
        self.rows.setdefault(source, []).append(transaction.size)
        if not self._pipeline.is_latest(source, transaction.commit_us):
            self.behind[(source, "own" if transaction.origin is None else "origin")] += 1

    def _add(self, intake: Intake, taken: Taken, tx: StoreTransaction) -> None:
        self.facts.extend(taken.parked)
        self.beats.extend((intake.source, beat.sent_us, lost) for beat, lost in taken.beats)
        if taken.shapes and intake.position is not None:
            at = intake.position
            for shape in taken.shapes:
                place = Place(at.system, at.timeline, at.lsn, shape.table, 0)
                self._shapes[(intake.source, shape.entity, shape.table)] = Announced(
                    intake.source, shape, intake.clock, place
                )
        if taken.cut_us:
            self.facts.append(ClockCut(intake.source, taken.cut_us))
        changes = taken.changes
        if taken.carried:
            self.fold(tx)
            changes = tuple(self._carried(intake.source, change, taken.carried, tx) for change in changes)
        # What the source held before the transaction is gone; rows that it entered afterwards are among its changes.
        for truncated in taken.truncated:
            self._empty(intake.source, truncated, taken.committed_us, tx)
        if intake.resyncs.unnamed_entities:
            changes = self._named(intake, changes, tx)
        if taken.absent is not None:
            changes = (*changes, *self._gone(intake, taken.absent, tx))
        self._pending.extend(changes)
        self.facts.extend(loop for change in changes if (loop := self._pipeline.loops.note(change)) is not None)
        self.changes.update([(intake.source, change.entity, change.row) for change in changes])

    def _empty(self, source: str, truncated: Truncated, committed_us: int, tx: StoreTransaction) -> None:
        """The records go to the log a page at a time; what that means is asked when the transaction is over."""
        self.fold(tx)
        held = self._pipeline.held_keys(truncated.entity, source, tx)
        while keys := list(islice(held, PAGE)):
            self._pending.extend(truncations(truncated, keys, committed_us))
            self._emptied += [(RecordKey(truncated.entity, key), truncated.stamp) for key in keys]
            self._lay_down(tx)
        self.changes[(source, truncated.entity, "truncate")] += 1

    def _named(self, intake: Intake, changes: Sequence[Change], tx: StoreTransaction) -> tuple[Change, ...]:
        """Without the updates and deletes of rows that the unfinished copy has not named: what they come to, the piece
        that names the row will say. Taken alone, an update would be a delta to nobody knows what."""
        self.fold(tx)
        entities, records = intake.resyncs.unnamed_entities, self._pipeline.records
        late = [c for c in changes if c.row in (UPDATE, DELETE) and c.entity in entities and c.moved_to is None]
        records.load([RecordKey(change.entity, change.key) for change in late], tx)
        came = {(change.entity, change.key) for change in changes if change.row not in (UPDATE, DELETE)}
        unnamed = {
            (c.entity, c.key)
            for c in late
            if intake.source not in records.get(RecordKey(c.entity, c.key)).record.rows
            and (c.entity, c.key) not in came
        }
        return tuple(c for c in changes if c.row not in (UPDATE, DELETE) or (c.entity, c.key) not in unnamed)

    def _gone(self, intake: Intake, absent: Absent, tx: StoreTransaction) -> list[Change]:
        """The ends of the rows that a source was asked for and does not hold any more."""
        self.fold(tx)
        unnamed = self._unnamed(intake.source, Scan(absent.entity, None, absent.resync.since), absent.keys, tx)
        gone = list(intake.gone(absent, unnamed))
        self.facts.append(intake.read_again(absent, len(gone)))
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

    def look_for_missing(self, intakes: Iterable[Intake], tx: StoreTransaction) -> None:
        """One page of the records that a resync has to go through in the end, of each source."""
        for intake in intakes:
            scan = intake.resyncs.scan()
            if scan is not None:
                keys, is_last = self._pipeline.page_of(scan)
                intake.resyncs.scanned(self._unnamed(intake.source, scan, keys, tx), None if is_last else keys[-1])

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
            coming = [RecordKey(change.entity, change.key) for change in pending if change.row in (INSERT, SNAPSHOT)]
            records.load(coming, tx)
            left = [RecordKey(key.entity, old) for key in coming for old in came_from(records.get(key).record)]
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
            records.touch([key for key, stamp in page.items() if records.get(key).record.last == stamp], tx)
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
        origins = {RecordKey(k.entity, old) for k, entry in records.touched.items() for old in came_from(entry.record)}
        origins |= self._origins
        self._origins.clear()
        records.touch(sorted(origins - records.touched.keys()), tx)
        for key, entry in records.touched.items():
            yield from self._review(key, entry, self._targets(entry.record, tx))
        yield from self._pipeline.duplicates.review(tx, records, self._pipeline.rulebooks, self._moment)
        absence.note(tx, records.touched, self._pipeline.rejudging.copied)
        self.seconds["questions"] = self.seconds.get("questions", 0.0) + perf_counter() - started

    def _traced_us(self, entry: Entry) -> int | None:
        """When the record's traces may be told: 0 for now, None for no traces. What is late may still take them
        back."""
        record = entry.record
        if record.last is None or not any(record.cells[name].traces for name in record.unsettled):
            return None
        return 0 if self._pipeline.watermark_us > record.last.wall_us else record.last.wall_us

    def _drifted(self, tx: StoreTransaction) -> Iterator[Conflict]:
        """The tables that changed their shape."""
        for (_, name, _), seen in self._shapes.items():
            whole = RecordKey(name, WHOLE_TABLE)
            entity = self._pipeline.records.entities()[name].entity
            yield from drifted(entity, seen, tx.open_conflicts([whole]).get(whole, ()), self._moment)

    def _targets(self, record: Record, tx: StoreTransaction) -> Mapping[str, Record]:
        """The records to which a record's rows have moved, and moved on."""
        records, entity = self._pipeline.records, record.units.entity.name
        found: dict[str, Record] = {}
        wanted = destinations(record)
        while wanted and len(found) < PAGE:
            keys = [RecordKey(entity, key) for key in sorted(wanted)]
            records.load(keys, tx)
            reached = {key.key: records.get(key).record for key in keys}
            found.update(reached)
            wanted = {key for target in reached.values() for key in destinations(target)} - found.keys()
        return found

    def _review(self, key: RecordKey, entry: Entry, targets: Mapping[str, Record]) -> Iterator[Conflict]:
        record, known = entry.record, duplicate.without(entry.known)
        rulebook = self._pipeline.rulebooks[record.units.entity.name]
        quiet = rulebook.is_silent and not (known or record.unsettled or record.deletes)
        if quiet and self._pipeline.timers.get(key) is None:
            return
        traced_us = self._traced_us(entry)
        if traced_us == 0:
            yield from [t for t in traces(record, known, self._moment) if not self._pipeline.trace_is_told(t)]
        answers = all_questions(record, rulebook, self._pipeline.watermark_us, targets)
        due_us = min(filter(None, (answers.due_us, traced_us)), default=None)
        if due_us != self.due.get(key, self._pipeline.timers.get(key)):
            self.due[key] = due_us
        found: Sequence[Question] = answers.questions
        if answers.answered:
            known = dict(known)
            over = [*self._answered(answers, known)]
            yield from over
            told = {asked(conflict.question) for conflict in over}
            found = [q for q in found if asked(q) not in told and not self._is_told(q, answers, known)]
        if found or known:
            yield from review(record, found, known, self._moment)

    def _answered(self, answers: Answers, known: dict[Asked, Conflict]) -> Iterator[Conflict]:
        """Open questions that a rule answers by itself from here on; they are known no more."""
        for question in answers.questions:
            identity = asked(question)
            if identity in answers.answered and identity in known and known[identity].status == "open":
                yield answered(known.pop(identity), question, self._now_us)

    def _is_told(self, question: Question, answers: Answers, known: Mapping[Asked, Conflict]) -> bool:
        """A rule answers it, and that is recorded already."""
        identity = asked(question)
        if identity in known or identity not in answers.answered:
            return False
        return self._pipeline.answer_is_told(question)
