"""One connection's life to a Postgres source: check, first copy where none is on disk, then the stream until it ends.

Rules
- Nothing is created before every check has passed; a slot that we created is dropped again when its first copy fails
  before any table was finished, else the copy goes on with the others.
- A position on disk is compared with server and slot before the stream starts, and with the slot once more after: a
  slot that was recreated, advanced or lost is refused by name, never followed in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable
from cdc_merge.model import Parked, Position, SnapshotBegan, SnapshotDone
from cdc_merge.model.capture_counters import GAPS
from cdc_merge.sources.postgres.catalog import Catalog
from cdc_merge.sources.postgres.protocol.transactions import Assembler
from cdc_merge.sources.postgres.publication_members import check_publication_members
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.postgres.reader_state import ReaderState
from cdc_merge.sources.postgres.replication_connection import WalSender
from cdc_merge.sources.postgres.resume_checks import Server, check_owner, check_server, check_slot, may_copy
from cdc_merge.sources.postgres.slot_monitor import Health, SlotMonitor, Watched
from cdc_merge.sources.postgres.snapshot.incremental import IncrementalSnapshot
from cdc_merge.sources.postgres.snapshot.initial import InitialSnapshot, Stopped
from cdc_merge.sources.postgres.stream import Connections, Stream

COPY_INTERRUPTED: Final = "copy_interrupted"
"""The problem of a copy into a history that exists, when an earlier one was not finished."""

FINISH_LIMIT_S: Final = 0.5  # a stream that ends in peace frees its slot at once; closing the socket is enough, too

_BLOCKING: Final = frozenset({"wal_level", "publication_missing", "table_missing", "configuration"})
# A column that goes while the stream is followed concerns its own field only (`schema_drift`).
_BLOCKING_FIRST_COPY: Final = _BLOCKING | {"column_missing", "not_selectable", "not_permitted"}


@dataclass(frozen=True, slots=True)
class SessionCallbacks:
    """Who is told: `park` about unreadable rows, `announce` about a new state and a sentence on it."""

    park: Callable[[Parked], None]
    announce: Callable[[str, str], None]


class Session:
    """One attempt to read a source. `now_us` is our own clock."""

    def __init__(
        self, settings: ReaderSettings, exchange: ReaderState, ears: SessionCallbacks, now_us: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._ears = ears
        self._now_us = now_us

    def run(self) -> None:
        """Read until asked to stop. SourceUnavailable: try again; SourceRefused: somebody must act."""
        settings = self._settings
        watched = Watched(settings.slot, settings.publication, tuple(settings.tables))
        watch = SlotMonitor(settings.name, settings.dsn, watched)
        try:
            sender = WalSender(settings.name, settings.dsn)
            try:
                self._read(watch, sender)
                sender.finish(FINISH_LIMIT_S)
            finally:
                sender.close()
        except Stopped:
            return
        finally:
            watch.close()

    def _read(self, watch: SlotMonitor, sender: WalSender) -> None:
        settings = self._settings
        server = sender.identify()
        lost = self._lost(watch, server)
        position = self._resumed(watch, server, self._exchange.delivered)
        is_first = position is None or position.is_copying
        needs_copy = lost is not None or (settings.snapshot == "initial" and is_first)
        self._check_catalog(watch, _BLOCKING_FIRST_COPY if needs_copy else _BLOCKING)
        rereading = IncrementalSnapshot(
            settings.name, settings.dsn, settings.publication, self._exchange, settings.tables
        )
        lines = Connections(watch, sender, rereading)
        begin = self._copied(lines, server, lost) if needs_copy else self._known_position(watch, server, position)
        self._exchange.delivered = begin
        self._stream(lines, server, begin)

    def _lost(self, watch: SlotMonitor, server: Server) -> str | None:
        """Why what follows the position cannot be had from the stream, where a new copy is to be taken then. SourceRefused
        where the source is to stop."""
        settings, exchange = self._settings, self._exchange
        position = exchange.delivered
        if position is None or position.snapshot == "running":
            return None
        if position.snapshot == "again":
            return COPY_INTERRUPTED
        if exchange.lost is not None:
            return exchange.lost
        try:
            check_server(settings.name, position, server)
            check_slot(settings.name, settings.slot, self._looked(watch).slot, position.lsn)
        except SourceRefused as refused:
            if not self.may_copy(refused):
                raise
            exchange.tally.add(GAPS, refused.problem)
            return refused.problem
        return None

    def _resumed(self, watch: SlotMonitor, server: Server, position: Position | None) -> Position | None:
        """A first copy that was interrupted goes on when its slot still has everything since and some table was finished:
        these are kept, and the others are read beside the stream. Their moment is gone, it ended with its session."""
        settings, exchange = self._settings, self._exchange
        if position is None or position.snapshot != "running" or not position.copied:
            return position
        try:
            check_server(settings.name, position, server)
            health = self._looked(watch)
            check_slot(settings.name, settings.slot, health.slot, position.lsn)
        except SourceRefused:
            return position
        unfinished = tuple(table for table in settings.tables if table not in position.copied)
        exchange.deliver(SnapshotDone(settings.name, position.lsn, unfinished))
        exchange.wake()
        # How the publication was when the copy began is not known: what it is now is what is compared with from here on.
        exchange.delivered = position._replace(snapshot="done", copied=(), membership=health.membership)
        exchange.received_lsn = position.lsn
        return exchange.delivered

    def may_copy(self, refused: SourceRefused) -> bool:
        """Whether the refusal of a stream is followed by a new copy."""
        is_told = self._exchange.accepts_loss
        return may_copy(refused.problem, policy=self._settings.on_lost_position, is_told=is_told)

    def _stream(self, lines: Connections, server: Server, begin: Position) -> None:
        settings, exchange = self._settings, self._exchange
        lines.sender.start(settings.slot, settings.publication, begin.lsn)
        # Somebody may have moved the slot between the check and the start.
        check_slot(settings.name, settings.slot, self._looked(lines.watch).slot, begin.lsn)
        exchange.streams_begun += 1
        exchange.is_streaming = True
        self._ears.announce("streaming", "follows the stream")
        assembler = Assembler(settings.name, server.system, server.timelines, self._ears.park, exchange.tally)
        try:
            Stream(settings.name, exchange, lines, assembler, self._now_us).run()
        finally:
            exchange.is_streaming, exchange.open_bytes = False, 0
            if lines.rereading is not None:
                lines.rereading.stop()

    def _looked(self, watch: SlotMonitor) -> Health:
        """The slot as it is: what it is refused for is seen, too."""
        health = watch.health()
        self._exchange.slot = health.slot
        return health

    def _check_catalog(self, watch: SlotMonitor, blocking: frozenset[str]) -> None:
        settings = self._settings
        catalog = Catalog(settings.name, watch.connection, settings.publication)
        for problem in catalog.problems(settings.tables):
            if problem.problem in blocking:
                raise SourceRefused(
                    f"Source {settings.name}: {problem.sentence}",
                    problem="not_permitted" if problem.problem == "not_selectable" else problem.problem,
                    hint=problem.hint,
                )

    def _known_position(self, watch: SlotMonitor, server: Server, position: Position | None) -> Position:
        settings = self._settings
        known = position if position is not None and not position.is_copying else None
        health = self._looked(watch)
        slot = check_slot(settings.name, settings.slot, health.slot, known.lsn if known else None)
        if known is None:
            timeline = server.timelines.of(slot.confirmed_lsn)
            known = Position(server.system, timeline, slot.confirmed_lsn, "none", settings.slot)
        elif not self._exchange.accepts_loss:
            check_publication_members(settings.name, settings.publication, known.membership, health.membership)
        self._exchange.accepts_loss = False
        return known._replace(membership=health.membership)

    # ---------------------------------------------------------------- the first copy

    def _copied(self, lines: Connections, server: Server, lost: str | None) -> Position:
        """A new slot and a copy of all tables as of its beginning; `lost`: into a history that exists."""
        settings, exchange = self._settings, self._exchange
        watch, sender, _ = lines
        slot, _, membership = watch.health()
        if slot is not None:
            check_owner(settings.name, slot)
            watch.drop_slot()
        at_us = watch.clock().at_us
        why = "takes its first copy" if lost is None else f"cannot be continued ({lost}): a new copy is taken"
        self._ears.announce("snapshot", why)
        created = sender.create_slot(
            settings.slot, settings.slot_creation_limit_s, exchange.stopping.is_set, failover=settings.failover
        )
        if created is None:
            raise self._not_created(watch)
        timeline = server.timelines.of(created.lsn)
        begun = Position(server.system, timeline, created.lsn, "running" if lost is None else "again", settings.slot)
        began = SnapshotBegan(settings.name, server.system, timeline, created.lsn, at_us, {}, lost)
        exchange.delivered, exchange.slot = begun, None
        # What was confirmed of an earlier slot, perhaps on another timeline, says nothing of this one.
        exchange.confirmed_lsn, exchange.received_lsn = 0, created.lsn
        try:
            copying = InitialSnapshot(
                (settings.name, settings.dsn, settings.publication), settings.tables, exchange, self._now_us
            )
            copying.run(created.snapshot, began, settings.snapshot_workers)
        except BaseException:
            if lost is not None or not exchange.delivered.copied:
                self._drop_again()
            raise
        exchange.lost, exchange.accepts_loss = None, False
        return begun._replace(snapshot="done", membership=membership)

    def _not_created(self, watch: SlotMonitor) -> Exception:
        if self._exchange.stopping.is_set():
            return Stopped()
        blockers = "; ".join(row["who"] for row in watch.rows("blockers")) or "none that this role may see"
        return SourceUnavailable(
            f"Source {self._settings.name}: slot {self._settings.slot} could not be created within "
            f"{self._settings.slot_creation_limit_s:g} s: it must wait for transactions that are open.",
            hint=f"End what blocks it: {blockers}. It is tried again.",
        )

    def _drop_again(self) -> None:
        """The slot of a first copy that failed would hold WAL for nobody. If this fails too, the next start does it."""
        settings = self._settings
        with suppress(CdcMergeError):
            watch = SlotMonitor(settings.name, settings.dsn, Watched(settings.slot, settings.publication, ()))
            try:
                watch.drop_slot()
            finally:
                watch.close()
