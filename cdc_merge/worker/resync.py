"""The resyncs of one source, worked off one after the other: what is asked for next, and what an answer means.

Rules
- One piece is asked for at a time, and the next only when the answer to the last is on disk: whoever dies, the work goes
  on behind the last piece.
- After a table's rows come its records that nobody named since the beginning: they are looked for by their keys, and only
  what is not there then is gone. What the stream has told of a record since counts as named.
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

LOOKED_FOR: Final = 500  # keys in one request; with composite keys far below the 65,535 parameters of a statement


class Scan(NamedTuple):
    """RecordCache of `entity` behind `after` that the source holds and has told nothing of since `since` are to be looked
    for."""

    entity: str
    after: str | None
    since: Stamp


class ResyncQueue:
    """`tables` says how each table of the source is mapped."""

    def __init__(self, source: str, tables: Mapping[str, Sequence[TableMap]]) -> None:
        self._source = source
        self._tables = tables
        self.orders = NO_ORDERS
        self.is_changed = False
        self.is_held = False
        """While a copy is taken nothing is read again."""
        self._looked_for: tuple[str, ...] = ()
        self._scanned: str | None = None

    def resume(self, orders: SourceOrders) -> None:
        self.orders = orders
        self._looked_for = ()

    def change(self, orders: SourceOrders) -> None:
        if orders != self.orders:
            self.orders, self.is_changed = orders, True

    # ---------------------------------------------------------------- what people ask for

    def begin(self, table: str | None, key: str | None, clock: Stamp, now_us: int) -> None:
        """Read a table again (None: all of them), or one record. NotFound for a table that is not mapped; a table that is
        being read again already goes on. Failed ones begin anew."""
        if table is not None and table not in self._tables:
            known = ", ".join(sorted(self._tables))
            raise NotFound(f"Source {self._source} has no mapped table {table}.", hint=f"It has: {known}.")
        tables = [table] if table is not None else [*self._tables]
        wanted = [self._whole(name, clock, now_us) for name in tables]
        if key is not None:
            wanted = [one for name in tables for one in self._record(name, key, clock, now_us)]
        going = [resync for resync in self.orders.resyncs if resync.phase != FAILED]
        running = {resync.table for resync in going if not resync.keys}
        added = [resync for resync in wanted if resync.keys or resync.table not in running]
        self.change(self.orders._replace(resyncs=(*going, *added)))

    def _whole(self, table: str, clock: Stamp, now_us: int, cause: str = REQUESTED) -> Resync:
        return Resync(table, clock, now_us, cause)

    def _record(self, table: str, key: str, clock: Stamp, now_us: int) -> list[Resync]:
        for mapped in self._tables[table]:
            _parts(mapped, key)
        count = len(self._tables[table])
        return [Resync(table, clock, now_us, entity=number, keys=(key,)) for number in range(count)]

    def lost(self, clock: Stamp, now_us: int, cause: str) -> None:
        """A copy of all tables begins, since the stream could not be continued: what it does not name is looked for."""
        resyncs = [self._whole(table, clock, now_us, cause)._replace(phase=MISSING) for table in self._tables]
        self._looked_for = ()
        self.change(self.orders._replace(accepts_loss=False, resyncs=tuple(resyncs)))

    def unfinished(self, tables: Iterable[str], clock: Stamp, now_us: int) -> None:
        """Tables that an interrupted first copy did not finish are read beside the stream."""
        resyncs = [self._whole(table, clock, now_us, INTERRUPTED) for table in tables if table in self._tables]
        self.change(self.orders._replace(resyncs=(*self.orders.resyncs, *resyncs)))

    @property
    def unnamed_entities(self) -> frozenset[str]:
        """Entities of which rows may be known to nobody yet, since their first copy was interrupted."""
        unfinished = [r for r in self.orders.resyncs if r.cause == INTERRUPTED and r.phase != MISSING]
        return frozenset(mapped.entity for resync in unfinished for mapped in self._tables[resync.table])

    # ---------------------------------------------------------------- what is done next

    @property
    def current(self) -> Resync | None:
        """The one that is worked on."""
        if self.is_held or self.orders.paused:
            return None
        return next((resync for resync in self.orders.resyncs if resync.phase != FAILED), None)

    def wanted(self) -> ChunkRequest | None:
        """What the source is to be asked for now."""
        resync = self.current
        if resync is None:
            return None
        number = self.orders.answers + 1
        if resync.phase == ROWS and not resync.keys:
            return ChunkRequest(number, resync.table, resync.after)
        keys = resync.keys or self._looked_for
        if not keys:
            return None
        mapped = self._tables[resync.table][resync.entity]
        return ChunkRequest(number, resync.table, None, mapped.key, tuple(_parts(mapped, key) for key in keys))

    def scan(self) -> Scan | None:
        """The records that are to be gone through now."""
        resync = self.current
        if resync is None or resync.phase != MISSING or self._looked_for:
            return None
        return Scan(self.entity_of(resync), resync.scanned, resync.since)

    def entity_of(self, resync: Resync) -> str:
        return self._tables[resync.table][resync.entity].entity

    def scanned(self, unnamed: Iterable[str], reached: str | None) -> None:
        """Gone through up to `reached` (None: to the end); `unnamed` are to be looked for."""
        resync = self.current
        assert resync is not None, "a scan of nothing"
        mapped = self._tables[resync.table][resync.entity]
        self._looked_for, self._scanned = tuple(key for key in unnamed if _has_parts(mapped, key)), reached
        if not self._looked_for:
            self._put(resync, self._behind(resync, reached))

    def _behind(self, resync: Resync, reached: str | None) -> Resync | None:
        if reached is not None:
            return resync._replace(scanned=reached)
        if resync.entity + 1 < len(self._tables[resync.table]):
            return resync._replace(entity=resync.entity + 1, scanned=None)
        return None

    # ---------------------------------------------------------------- answers

    def answered(self, read: ChunkRead) -> Resync | None:
        """The resync that this answers; None for an answer that came before, or to a question given up."""
        return self.current if read.number == self.orders.answers + 1 else None

    def asked_keys(self, resync: Resync) -> tuple[str, ...]:
        """The keys that the answer is about; () for a piece of the table."""
        return resync.keys or (self._looked_for if resync.phase == MISSING else ())

    def advance(self, resync: Resync, read: ChunkRead, gone: int) -> Resync:
        """The answer is taken; `gone` of the records that were looked for are not there. The resync as it is then."""
        self.change(self.orders._replace(answers=read.number))
        rows = len(read.rows)
        if read.problem:
            after: Resync | None = resync._replace(phase=FAILED, problem=read.problem)
        elif resync.phase == MISSING:
            self._looked_for = ()
            after = self._behind(resync._replace(gone=resync.gone + gone), self._scanned)
        elif resync.keys:
            after = None
        else:
            after = resync._replace(
                rows=resync.rows + rows, expected=max(read.expected, resync.rows + rows), after=read.reached
            )
            after = after if read.reached is not None else after._replace(phase=MISSING)
        self._put(resync, after)
        return after or resync._replace(gone=resync.gone + gone, rows=resync.rows + (rows if resync.keys else 0))

    def _put(self, resync: Resync, after: Resync | None) -> None:
        kept = [(after if each is resync else each) for each in self.orders.resyncs]
        self.change(self.orders._replace(resyncs=tuple(each for each in kept if each is not None)))


def _has_parts(mapped: TableMap, key: str) -> bool:
    """False for a record of an earlier mapping with another key."""
    return len(mapped.key) == 1 or key.count(",") == len(mapped.key) - 1


def _parts(mapped: TableMap, key: str) -> tuple[str, ...]:
    try:
        return key_parts(key, len(mapped.key))
    except ValueError as error:
        raise SourceRefused(
            f"Table {mapped.table} has a business key of {len(mapped.key)} columns: {error}.",
            problem="configuration",
            hint="Write the parts in mapping order, percent-encoded, joined by commas.",
        ) from None
