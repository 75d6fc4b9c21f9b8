"""Commands to sources: pause, resume, resync. Any thread sends them; the merging thread executes them between two batches,
and they are durable before the caller gets the result.

A repeated command changes nothing. Commands outlive a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final, NamedTuple

from cdc_merge.errors import CdcMergeError, NotFound, SourceRefused, StoreHeld
from cdc_merge.model import Position
from cdc_merge.model.ports import IncrementalSource, Source, Store
from cdc_merge.model.source_commands import ChunkRequest, SourceOrders
from cdc_merge.worker.ingest import SourceIngest

# Far above a batch and the end of a reader; a merging thread that takes longer has another problem, which alerts report.
TAKE_LIMIT_S: Final = 60.0


class _PendingCommand(NamedTuple):
    source: str
    execute: Callable[[Source, SourceIngest], None]
    result: Future[SourceOrders]


class SourceControl:
    """`wake` ends the merging thread's sleep; `now_us` is our own clock."""

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
        self._pending: deque[_PendingCommand] = deque()
        self._requested: dict[str, ChunkRequest | None] = {}
        self._accepts_loss: dict[str, bool] = {}

    # ---------------------------------------------------------------- any thread

    def pause(self, source: str) -> SourceOrders:
        """Stop reading; the slot stays and retains WAL. NotFound."""
        return self._execute(source, self._pause)

    def resume(self, source: str) -> SourceOrders:
        """Continue from the durable position. NotFound."""
        return self._execute(source, self._resume)

    def resync(self, source: str, table: str | None, key: str | None) -> SourceOrders:
        """Resync a table (None: all) or one of its records while the stream continues. A resync of all tables also makes a
        source with a lost position take a new snapshot. NotFound; SourceRefused for a source without resyncs."""
        return self._execute(source, lambda reader, ingest: self._resync(reader, ingest, table, key))

    def orders(self) -> Mapping[str, SourceOrders]:
        """The durable commands of each source."""
        return {name: ingest.resyncs.orders for name, (_, ingest) in self._sources.items()}

    def _execute(self, source: str, execute: Callable[[Source, SourceIngest], None]) -> SourceOrders:
        if source not in self._sources:
            configured = ", ".join(sorted(self._sources))
            raise NotFound(f"There is no source {source}.", hint=f"The configuration has: {configured}.")
        command = _PendingCommand(source, execute, Future())
        self._pending.append(command)
        self._wake()
        try:
            return command.result.result(TAKE_LIMIT_S)
        except FutureTimeoutError:
            command.result.cancel()
            raise CdcMergeError(
                f"Source {source}: unknown whether the command was executed, because the merging thread is busy.",
                hint="Check with `cdc-merge source list`; repeating the command is safe.",
            ) from None

    # ---------------------------------------------------------------- the merging thread

    def begin(self) -> None:
        """Start every source by its durable commands."""
        for source, ingest in self._sources.values():
            self._start(source, ingest)

    def between_batches(self) -> None:
        """Execute the pending commands, then request the next chunks."""
        while self._pending:
            command = self._pending[0]  # with the store held it stays first and is retried: commands are idempotent
            if command.result.running() or command.result.set_running_or_notify_cancel():
                self._execute_pending(command)
            self._pending.popleft()
        for source, ingest in self._sources.values():
            self._request_chunk(source, ingest)
            self._update_loss_acceptance(source, ingest)

    def _update_loss_acceptance(self, source: Source, ingest: SourceIngest) -> None:
        """A lost position is accepted once: no longer when the source streams."""
        if ingest.resyncs.orders.accepts_loss and source.status().state == "streaming":
            ingest.resyncs.replace_orders(ingest.resyncs.orders._replace(accepts_loss=False))
        accepts = ingest.resyncs.orders.accepts_loss
        if self._accepts_loss.get(source.name, False) != accepts and isinstance(source, IncrementalSource):
            self._accept_loss(source, accepts=accepts)

    def _accept_loss(self, source: Source, *, accepts: bool) -> None:
        assert isinstance(source, IncrementalSource), "a source without server positions"
        self._accepts_loss[source.name] = accepts
        source.accept_loss(accepts=accepts)

    def _execute_pending(self, command: _PendingCommand) -> None:
        source, ingest = self._sources[command.source]
        try:
            command.execute(source, ingest)
            with self._store.transaction() as tx:
                ingest.save(tx)
        except StoreHeld:
            raise
        except CdcMergeError as error:
            command.result.set_exception(error)
        else:
            command.result.set_result(ingest.resyncs.orders)

    def _request_chunk(self, source: Source, ingest: SourceIngest) -> None:
        request = ingest.resyncs.next_request()
        if (
            request is not None
            and request != self._requested.get(source.name)
            and isinstance(source, IncrementalSource)
        ):
            source.request_chunk(request)
        self._requested[source.name] = request

    def _start(self, source: Source, ingest: SourceIngest) -> None:
        position = self._position(source.name)
        self._requested.pop(source.name, None)
        orders = ingest.resyncs.orders
        if not isinstance(source, IncrementalSource):
            if not orders.paused:
                source.start(position)
            return
        self._accept_loss(source, accepts=orders.accepts_loss)
        if orders.paused:
            source.pause(position)
        else:
            source.start(position)

    def _position(self, source: str) -> Position | None:
        saved = self._store.positions().get(source)
        return None if saved is None else saved[0]

    def _pause(self, source: Source, ingest: SourceIngest) -> None:
        if ingest.resyncs.orders.paused:
            return
        ingest.resyncs.replace_orders(ingest.resyncs.orders._replace(paused=True))
        if not isinstance(source, IncrementalSource):
            source.stop()
            return
        self._start(source, ingest)

    def _resume(self, source: Source, ingest: SourceIngest) -> None:
        if not ingest.resyncs.orders.paused:
            return
        ingest.resyncs.replace_orders(ingest.resyncs.orders._replace(paused=False))
        self._start(source, ingest)

    def _resync(self, source: Source, ingest: SourceIngest, table: str | None, key: str | None) -> None:
        if not isinstance(source, IncrementalSource):
            raise SourceRefused(
                f"Source {source.name}: its tables cannot be resynced.",
                problem="configuration",
                hint="Only a database that is read directly can be resynced. Send its rows as snapshots instead.",
            )
        request_resync(ingest, table, key, self._now_us())
        if source.status().state == "stopped" and ingest.resyncs.orders.accepts_loss:
            self._start(source, ingest)


def request_resync(ingest: SourceIngest, table: str | None, key: str | None, now_us: int) -> None:
    """Enqueue a resync. One of all tables also accepts the loss of a position that cannot be resumed."""
    ingest.resyncs.enqueue(table, key, ingest.clock, now_us)
    if table is None and key is None:
        ingest.resyncs.replace_orders(ingest.resyncs.orders._replace(accepts_loss=True))
