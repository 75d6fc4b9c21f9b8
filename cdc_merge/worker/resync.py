"""The queue of one source's resyncs (incremental snapshots): the next chunk request, and the progress after each chunk.

Rules
- One chunk is requested at a time, and the next only when the last one is durable: after a crash the resync continues behind
  the last chunk.
- After a table's rows come its records that neither a chunk nor the stream contained since the beginning: they are looked up
  by key, and only those without a row are deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cdc_merge.errors import NotFound, SourceRefused
from cdc_merge.model import ChunkRead, Stamp
from cdc_merge.model.plan import TableMap
from cdc_merge.model.source_commands import (
    FAILED,
    INTERRUPTED,
    MISSING,
    NO_ORDERS,
    REQUESTED,
    ROWS,
    ChunkRequest,
    Resync,
    SourceOrders,
)
from cdc_merge.values.keys import key_parts

KEYS_PER_REQUEST: Final = 500  # with composite keys far below the 65,535 parameters of a statement


class Scan(NamedTuple):
    """The records of `entity` after the key `after` that are present at the source, and that it has not changed since `since`,
    are to be looked up."""

    entity: str
    after: str | None
    since: Stamp


class ResyncQueue:
    """`tables`: the mappings of each table of the source."""

    def __init__(self, source: str, tables: Mapping[str, Sequence[TableMap]]) -> None:
        self._source = source
        self._tables = tables
        self.orders = NO_ORDERS
        self.is_changed = False
        self.is_suspended = False
        """No chunk is requested while an initial snapshot is taken."""
        self._requested_keys: tuple[str, ...] = ()
        self._scanned_to: str | None = None

    def resume(self, orders: SourceOrders) -> None:
        self.orders = orders
        self._requested_keys = ()

    def replace_orders(self, orders: SourceOrders) -> None:
        if orders != self.orders:
            self.orders, self.is_changed = orders, True

    # ---------------------------------------------------------------- rows that could not be read

    def add_unreadable(self, rows: Mapping[str, int]) -> None:
        """Count rows that are parked for good, by table."""
        if rows:
            parked = {**self.orders.parked, **{t: self.orders.parked.get(t, 0) + n for t, n in rows.items()}}
            self.replace_orders(self.orders._replace(parked=parked))

    def forget_unreadable(self, tables: Iterable[str]) -> None:
        """These tables are read whole again: their rows are counted anew."""
        again = {*tables}
        parked = {table: count for table, count in self.orders.parked.items() if table not in again}
        self.replace_orders(self.orders._replace(parked=parked))

    # ---------------------------------------------------------------- enqueueing

    def enqueue(self, table: str | None, key: str | None, clock: Stamp, now_us: int) -> None:
        """Resync a table (None: all of them), or one record. NotFound for a table that is not mapped. A resync that runs goes on,
        a failed one starts again."""
        if table is not None and table not in self._tables:
            mapped = ", ".join(sorted(self._tables))
            raise NotFound(f"Source {self._source} has no mapped table {table}.", hint=f"Mapped tables: {mapped}.")
        tables = [table] if table is not None else [*self._tables]
        requested = [Resync(name, clock, now_us, REQUESTED) for name in tables]
        if key is not None:
            requested = [one for name in tables for one in self._of_record(name, key, clock, now_us)]
        unfailed = [resync for resync in self.orders.resyncs if resync.phase != FAILED]
        running = {resync.table for resync in unfailed if not resync.keys}
        added = [resync for resync in requested if resync.keys or resync.table not in running]
        self.replace_orders(self.orders._replace(resyncs=(*unfailed, *added)))

    def _of_record(self, table: str, key: str, clock: Stamp, now_us: int) -> list[Resync]:
        for mapped in self._tables[table]:
            _key_parts(mapped, key)
        count = len(self._tables[table])
        return [Resync(table, clock, now_us, entity=number, keys=(key,)) for number in range(count)]

    def restart_after_loss(self, clock: Stamp, now_us: int, cause: str) -> None:
        """A new snapshot of all tables begins, since the stream could not be resumed: records outside it are looked up."""
        resyncs = [Resync(table, clock, now_us, cause, MISSING) for table in self._tables]
        self._requested_keys = ()
        self.replace_orders(self.orders._replace(accepts_loss=False, resyncs=tuple(resyncs)))

    def enqueue_interrupted(self, tables: Iterable[str], clock: Stamp, now_us: int) -> None:
        """Resync the tables that an interrupted initial snapshot did not finish."""
        resyncs = [Resync(table, clock, now_us, INTERRUPTED) for table in tables if table in self._tables]
        self.replace_orders(self.orders._replace(resyncs=(*self.orders.resyncs, *resyncs)))

    @property
    def incomplete_entities(self) -> frozenset[str]:
        """Entities some of whose rows are not copied yet, since their initial snapshot was interrupted."""
        unfinished = [r for r in self.orders.resyncs if r.cause == INTERRUPTED and r.phase != MISSING]
        return frozenset(mapped.entity for resync in unfinished for mapped in self._tables[resync.table])

    # ---------------------------------------------------------------- the next request

    @property
    def current(self) -> Resync | None:
        """The resync in progress."""
        if self.is_suspended or self.orders.paused:
            return None
        return next((resync for resync in self.orders.resyncs if resync.phase != FAILED), None)

    def next_request(self) -> ChunkRequest | None:
        """The chunk to be requested from the source."""
        resync = self.current
        if resync is None:
            return None
        number = self.orders.answers + 1
        if resync.phase == ROWS and not resync.keys:
            return ChunkRequest(number, resync.table, resync.after)
        keys = resync.keys or self._requested_keys
        if not keys:
            return None
        mapped = self._tables[resync.table][resync.entity]
        return ChunkRequest(number, resync.table, None, mapped.key, tuple(_key_parts(mapped, key) for key in keys))

    def next_scan(self) -> Scan | None:
        """The records to be scanned for missing ones."""
        resync = self.current
        if resync is None or resync.phase != MISSING or self._requested_keys:
            return None
        return Scan(self.entity_of(resync), resync.scanned, resync.since)

    def entity_of(self, resync: Resync) -> str:
        return self._tables[resync.table][resync.entity].entity

    def finish_scan(self, unchanged: Iterable[str], reached: str | None) -> None:
        """Scanned up to `reached` (None: to the end); the `unchanged` records are to be looked up."""
        resync = self.current
        assert resync is not None, "a scan without a resync"
        mapped = self._tables[resync.table][resync.entity]
        self._requested_keys, self._scanned_to = tuple(key for key in unchanged if _has_parts(mapped, key)), reached
        if not self._requested_keys:
            self._replace_resync(resync, self._after_scan(resync, reached))

    def _after_scan(self, resync: Resync, reached: str | None) -> Resync | None:
        if reached is not None:
            return resync._replace(scanned=reached)
        if resync.entity + 1 < len(self._tables[resync.table]):
            return resync._replace(entity=resync.entity + 1, scanned=None)
        return None

    # ---------------------------------------------------------------- chunks

    def matching(self, read: ChunkRead) -> Resync | None:
        """The resync of this chunk; None for a repeated chunk, or one whose request was replaced."""
        return self.current if read.number == self.orders.answers + 1 else None

    def requested_keys(self, resync: Resync) -> tuple[str, ...]:
        """The keys that the chunk looks up; () for rows of the table."""
        return resync.keys or (self._requested_keys if resync.phase == MISSING else ())

    def advance(self, resync: Resync, read: ChunkRead, deleted: int) -> Resync:
        """The chunk is ingested; `deleted` of the records that it looked up have no row. The resync after that."""
        self.replace_orders(self.orders._replace(answers=read.number))
        rows = len(read.rows)
        if read.problem:
            after: Resync | None = resync._replace(phase=FAILED, problem=read.problem)
        elif resync.phase == MISSING:
            self._requested_keys = ()
            after = self._after_scan(resync._replace(gone=resync.gone + deleted), self._scanned_to)
        elif resync.keys:
            after = None
        else:
            after = resync._replace(
                rows=resync.rows + rows, expected=max(read.expected, resync.rows + rows), after=read.reached
            )
            after = after if read.reached is not None else after._replace(phase=MISSING)
        self._replace_resync(resync, after)
        return after or resync._replace(gone=resync.gone + deleted, rows=resync.rows + (rows if resync.keys else 0))

    def _replace_resync(self, resync: Resync, after: Resync | None) -> None:
        resyncs = [(after if each is resync else each) for each in self.orders.resyncs]
        self.replace_orders(self.orders._replace(resyncs=tuple(each for each in resyncs if each is not None)))


def _has_parts(mapped: TableMap, key: str) -> bool:
    """Whether the key fits the mapping; a record of an earlier mapping may have another one."""
    return len(mapped.key) == 1 or key.count(",") == len(mapped.key) - 1


def _key_parts(mapped: TableMap, key: str) -> tuple[str, ...]:
    try:
        return key_parts(key, len(mapped.key))
    except ValueError as error:
        raise SourceRefused(
            f"Table {mapped.table} has a business key of {len(mapped.key)} columns: {error}.",
            problem="configuration",
            hint="Write the parts in mapping order, percent-encoded, separated by commas.",
        ) from None
