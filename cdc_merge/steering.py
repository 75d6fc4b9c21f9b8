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
from cdc_merge.intake import Intake
from cdc_merge.model import Position
from cdc_merge.orders import RowsWanted, SourceOrders
from cdc_merge.ports import ReadsAgain, Source, Store

# Far above a batch and the end of a reader; a merging thread that takes longer has another problem, which alerts tell.
TAKE_LIMIT_S: Final = 60.0


class _Told(NamedTuple):
    source: str
    change: Callable[[Source, Intake], None]
    done: Future[SourceOrders]


class Steering:
    """`wake` makes the merging thread look up, `now_us` is our own clock."""

    def __init__(
        self,
        sources: Sequence[tuple[Source, Intake]],
        store: Store,
        wake: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        self._sources = {source.name: (source, intake) for source, intake in sources}
        self._store = store
        self._wake = wake
        self._now_us = now_us
        self._told: deque[_Told] = deque()
        self._asked: dict[str, RowsWanted | None] = {}
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
        return self._tell(source, lambda reader, intake: self._resync(reader, intake, table, key))

    def orders(self) -> Mapping[str, SourceOrders]:
        """What each source was told."""
        return {name: intake.resyncs.orders for name, (_, intake) in self._sources.items()}

    def _tell(self, source: str, change: Callable[[Source, Intake], None]) -> SourceOrders:
        if source not in self._sources:
            known = ", ".join(sorted(self._sources))
            raise NotFound(f"There is no source {source}.", hint=f"The configuration has: {known}.")
        told = _Told(source, change, Future())
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
        for source, intake in self._sources.values():
            self._start(source, intake)

    def between_batches(self) -> None:
        """Do what was told, then ask for what is to be read next."""
        while self._told:
            told = self._told[0]  # it stays there when the store is held, and is done again: all of it may be
            if told.done.running() or told.done.set_running_or_notify_cancel():
                self._do(told)
            self._told.popleft()
        for source, intake in self._sources.values():
            self._ask(source, intake)
            self._settle_loss(source, intake)

    def _settle_loss(self, source: Source, intake: Intake) -> None:
        """A position that was said to be lost is accepted as lost once."""
        if intake.resyncs.orders.accepts_loss and source.status().state == "streaming":
            intake.resyncs.change(intake.resyncs.orders._replace(accepts_loss=False))
        accepts = intake.resyncs.orders.accepts_loss
        if self._accepting.get(source.name, False) != accepts and isinstance(source, ReadsAgain):
            self._accept(source, accepts=accepts)

    def _accept(self, source: Source, *, accepts: bool) -> None:
        assert isinstance(source, ReadsAgain), "a source that knows no positions of a server"
        self._accepting[source.name] = accepts
        source.accept_loss(accepts=accepts)

    def _do(self, told: _Told) -> None:
        source, intake = self._sources[told.source]
        try:
            told.change(source, intake)
            with self._store.transaction() as tx:
                intake.save(tx)
        except StoreHeld:
            raise
        except CdcMergeError as error:
            told.done.set_exception(error)
        else:
            told.done.set_result(intake.resyncs.orders)

    def _ask(self, source: Source, intake: Intake) -> None:
        wanted = intake.resyncs.wanted()
        if wanted is not None and wanted != self._asked.get(source.name) and isinstance(source, ReadsAgain):
            source.read_again(wanted)
        self._asked[source.name] = wanted

    def _start(self, source: Source, intake: Intake) -> None:
        position = self._position(source.name)
        self._asked.pop(source.name, None)
        orders = intake.resyncs.orders
        if not isinstance(source, ReadsAgain):
            if not orders.paused:
                source.start(position)
            return
        self._accept(source, accepts=orders.accepts_loss)
        if orders.paused:
            source.rest(position)
        else:
            source.start(position)

    def _position(self, source: str) -> Position | None:
        found = self._store.positions().get(source)
        return None if found is None else found[0]

    def _pause(self, source: Source, intake: Intake) -> None:
        if intake.resyncs.orders.paused:
            return
        intake.resyncs.change(intake.resyncs.orders._replace(paused=True))
        if not isinstance(source, ReadsAgain):
            source.stop()
            return
        self._start(source, intake)

    def _resume(self, source: Source, intake: Intake) -> None:
        if not intake.resyncs.orders.paused:
            return
        intake.resyncs.change(intake.resyncs.orders._replace(paused=False))
        self._start(source, intake)

    def _resync(self, source: Source, intake: Intake, table: str | None, key: str | None) -> None:
        if not isinstance(source, ReadsAgain):
            raise SourceRefused(
                f"Source {source.name}: its tables cannot be read again.",
                problem="configuration",
                hint="Only a database that is read directly can be: send its rows as snapshots.",
            )
        wanted_again(intake, table, key, self._now_us())
        if source.status().state == "stopped" and intake.resyncs.orders.accepts_loss:
            self._start(source, intake)


def wanted_again(intake: Intake, table: str | None, key: str | None, now_us: int) -> None:
    """Note what is to be read again. When that is all, a position that cannot be continued is accepted as lost, too."""
    intake.resyncs.begin(table, key, intake.clock, now_us)
    if table is None and key is None:
        intake.resyncs.change(intake.resyncs.orders._replace(accepts_loss=True))
