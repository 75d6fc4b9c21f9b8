"""Sources are told to rest, to go on, to read tables again: asked from any thread, done between two batches by the
thread that merges, and on disk before it is answered.

A source that is told again what it does already stays as it is. What was asked outlives a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from typing import Final, NamedTuple

from cdc_merge.errors import CdcMergeError, NotFound, SourceRefused, StoreHeld
from cdc_merge.model import Position
from cdc_merge.model.ports import IncrementalSource, Source, Store
from cdc_merge.model.source_commands import ChunkRequest, SourceOrders
from cdc_merge.worker.ingest import SourceIngest

# Far above a batch and the end of a reader; a merging thread that takes longer has another problem, which alerts tell.
TAKE_LIMIT_S: Final = 60.0


class _PendingCommand(NamedTuple):
    source: str
    change: Callable[[Source, SourceIngest], None]
    done: Future[SourceOrders]


class SourceControl:
    """`wake` makes the merging thread look up, `now_us` is our own clock."""

    def __init__(
        self,
        sources: Sequence[tuple[Source, SourceIngest]],
        store: Store,
        wake: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        self._sources = {source.name: (source, ingest) for source, ingest in sources}
        self._store = store
        self._wake = wake
        self._now_us = now_us
        self._told: deque[_PendingCommand] = deque()
        self._asked: dict[str, ChunkRequest | None] = {}
        self._accepting: dict[str, bool] = {}

    # ---------------------------------------------------------------- any thread

    def pause(self, source: str) -> SourceOrders:
        """Stop reading; the slot stays and keeps what comes. NotFound."""
        return self._tell(source, self._pause)

    def resume(self, source: str) -> SourceOrders:
        """Go on behind what is on disk. NotFound."""
        return self._tell(source, self._resume)

    def resync(self, source: str, table: str | None, key: str | None) -> SourceOrders:
        """Read a table (None: all) or only a record of it again while the stream goes on. A source that stopped because
        its position was lost is copied anew, when all of it is wanted. NotFound; SourceRefused for a source that cannot
        be read again."""
        return self._tell(source, lambda reader, ingest: self._resync(reader, ingest, table, key))

    def orders(self) -> Mapping[str, SourceOrders]:
        """What each source was told."""
        return {name: ingest.resyncs.orders for name, (_, ingest) in self._sources.items()}

    def _tell(self, source: str, change: Callable[[Source, SourceIngest], None]) -> SourceOrders:
        if source not in self._sources:
            known = ", ".join(sorted(self._sources))
            raise NotFound(f"There is no source {source}.", hint=f"The configuration has: {known}.")
        told = _PendingCommand(source, change, Future())
        self._told.append(told)
        self._wake()
        try:
            return told.done.result(TAKE_LIMIT_S)
        except TookTooLong:
            told.done.cancel()
            raise CdcMergeError(
                f"Source {source}: it is not known whether this was done: the merging thread is busy.",
                hint="Look with `cdc-merge source list`; asking again does no harm.",
            ) from None

    # ---------------------------------------------------------------- the merging thread

    def begin(self) -> None:
        """Start every source as it was told before."""
        for source, ingest in self._sources.values():
            self._start(source, ingest)

    def between_batches(self) -> None:
        """Do what was told, then ask for what is to be read next."""
        while self._told:
            told = self._told[0]  # it stays there when the store is held, and is done again: all of it may be
            if told.done.running() or told.done.set_running_or_notify_cancel():
                self._do(told)
            self._told.popleft()
        for source, ingest in self._sources.values():
            self._ask(source, ingest)
            self._settle_loss(source, ingest)

    def _settle_loss(self, source: Source, ingest: SourceIngest) -> None:
        """A position that was said to be lost is accepted as lost once."""
        if ingest.resyncs.orders.accepts_loss and source.status().state == "streaming":
            ingest.resyncs.change(ingest.resyncs.orders._replace(accepts_loss=False))
        accepts = ingest.resyncs.orders.accepts_loss
        if self._accepting.get(source.name, False) != accepts and isinstance(source, IncrementalSource):
            self._accept(source, accepts=accepts)

    def _accept(self, source: Source, *, accepts: bool) -> None:
        assert isinstance(source, IncrementalSource), "a source that knows no positions of a server"
        self._accepting[source.name] = accepts
        source.accept_loss(accepts=accepts)

    def _do(self, told: _PendingCommand) -> None:
        source, ingest = self._sources[told.source]
        try:
            told.change(source, ingest)
            with self._store.transaction() as tx:
                ingest.save(tx)
        except StoreHeld:
            raise
        except CdcMergeError as error:
            told.done.set_exception(error)
        else:
            told.done.set_result(ingest.resyncs.orders)

    def _ask(self, source: Source, ingest: SourceIngest) -> None:
        wanted = ingest.resyncs.wanted()
        if wanted is not None and wanted != self._asked.get(source.name) and isinstance(source, IncrementalSource):
            source.request_chunk(wanted)
        self._asked[source.name] = wanted

    def _start(self, source: Source, ingest: SourceIngest) -> None:
        position = self._position(source.name)
        self._asked.pop(source.name, None)
        orders = ingest.resyncs.orders
        if not isinstance(source, IncrementalSource):
            if not orders.paused:
                source.start(position)
            return
        self._accept(source, accepts=orders.accepts_loss)
        if orders.paused:
            source.pause(position)
        else:
            source.start(position)

    def _position(self, source: str) -> Position | None:
        found = self._store.positions().get(source)
        return None if found is None else found[0]

    def _pause(self, source: Source, ingest: SourceIngest) -> None:
        if ingest.resyncs.orders.paused:
            return
        ingest.resyncs.change(ingest.resyncs.orders._replace(paused=True))
        if not isinstance(source, IncrementalSource):
            source.stop()
            return
        self._start(source, ingest)

    def _resume(self, source: Source, ingest: SourceIngest) -> None:
        if not ingest.resyncs.orders.paused:
            return
        ingest.resyncs.change(ingest.resyncs.orders._replace(paused=False))
        self._start(source, ingest)

    def _resync(self, source: Source, ingest: SourceIngest, table: str | None, key: str | None) -> None:
        if not isinstance(source, IncrementalSource):
            raise SourceRefused(
                f"Source {source.name}: its tables cannot be read again.",
                problem="configuration",
                hint="Only a database that is read directly can be: send its rows as snapshots.",
            )
        wanted_again(ingest, table, key, self._now_us())
        if source.status().state == "stopped" and ingest.resyncs.orders.accepts_loss:
            self._start(source, ingest)


def wanted_again(ingest: SourceIngest, table: str | None, key: str | None, now_us: int) -> None:
    """Note what is to be read again. When that is all, a position that cannot be continued is accepted as lost, too."""
    ingest.resyncs.begin(table, key, ingest.clock, now_us)
    if table is None and key is None:
        ingest.resyncs.change(ingest.resyncs.orders._replace(accepts_loss=True))
