"""One attempt to read a Postgres source: checks, an initial snapshot where none is on disk, then the stream until it ends.

Rules
- Nothing is created before every check has passed. A slot that we created is dropped again when its initial snapshot fails
  before a table is complete; else the snapshot continues with the remaining tables.
- A stored position is compared with server and slot before the stream starts, and with the slot again afterwards: a slot
  that was recreated, advanced or lost is refused by name, never followed in silence.
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
from cdc_merge.sources.postgres.resume_checks import Server, check_owner, check_server, check_slot, may_resnapshot
from cdc_merge.sources.postgres.slot_monitor import Health, MonitorTarget, SlotMonitor
from cdc_merge.sources.postgres.snapshot.incremental import IncrementalSnapshot
from cdc_merge.sources.postgres.snapshot.initial import InitialSnapshot, ReaderStopped
from cdc_merge.sources.postgres.sqlstates import VALUE_UNREADABLE
from cdc_merge.sources.postgres.stream import Connections, Stream
from cdc_merge.sources.postgres.stream_types import StreamTypes

COPY_INTERRUPTED: Final = "copy_interrupted"
"""The problem of a new snapshot of a source with history, when an earlier one was not finished."""

FINISH_LIMIT_S: Final = (
    0.5  # a stream that is ended by CopyDone frees its slot at once; closing the socket is enough, too
)

_BLOCKING: Final = frozenset({"wal_level", "publication_missing", "table_missing", "configuration"})
# A column that is dropped while streaming concerns its own field only (`schema_drift`).
_BLOCKING_SNAPSHOT: Final = _BLOCKING | {"column_missing", "not_selectable", "not_permitted"}


@dataclass(frozen=True, slots=True)
class SessionCallbacks:
    """Callbacks: `park` with an unreadable row, `announce` with a new state and a sentence on it."""

    park: Callable[[Parked], None]
    announce: Callable[[str, str], None]


class Session:
    """One attempt to read a source. `now_us` is our own clock."""

    def __init__(
        self, settings: ReaderSettings, shared: ReaderState, callbacks: SessionCallbacks, now_us: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._callbacks = callbacks
        self._now_us = now_us

    def run(self) -> None:
        """Read until the reader is stopped. SourceUnavailable: retry; SourceRefused: an operator must act."""
        settings = self._settings
        target = MonitorTarget(settings.slot, settings.publication, tuple(settings.tables))
        monitor = SlotMonitor(settings.name, settings.dsn, target, settings.limits)
        try:
            sender = WalSender(settings.name, settings.dsn, settings.limits)
            try:
                self._read(monitor, sender)
                sender.finish(FINISH_LIMIT_S)
            finally:
                sender.close()
        except ReaderStopped:
            return
        finally:
            monitor.close()

    def _read(self, monitor: SlotMonitor, sender: WalSender) -> None:
        settings = self._settings
        server = sender.identify()
        if self._shared.resync_requested:
            self._shared.resync_requested, self._shared.resync_until_lsn = False, server.wal_lsn
        lost = self._lost_position(monitor, server)
        position = self._resumed_snapshot(monitor, server, self._shared.delivered)
        has_no_history = position is None or position.is_copying
        needs_snapshot = lost is not None or (settings.snapshot == "initial" and has_no_history)
        self._check_catalog(monitor, _BLOCKING_SNAPSHOT if needs_snapshot else _BLOCKING)
        incremental = IncrementalSnapshot(
            settings.name, settings.dsn, settings.publication, self._shared, settings.tables
        )
        connections = Connections(monitor, sender, incremental)
        begin = (
            self._take_snapshot(connections, server, lost)
            if needs_snapshot
            else self._resumed_position(monitor, server, position)
        )
        self._shared.delivered = begin
        self._stream(connections, server, begin)

    def _lost_position(self, monitor: SlotMonitor, server: Server) -> str | None:
        """Why the stream cannot continue the position, if a new snapshot is to follow; None: it can. SourceRefused if the
        source is to stop."""
        settings, shared = self._settings, self._shared
        position = shared.delivered
        if position is None or position.snapshot == "running":
            return None
        if position.snapshot == "again":
            return COPY_INTERRUPTED
        if shared.lost is not None:
            return shared.lost
        try:
            check_server(settings.name, position, server)
            check_slot(settings.name, settings.slot, self._read_health(monitor).slot, position.lsn)
        except SourceRefused as refused:
            if not self.may_resnapshot(refused):
                raise
            shared.tally.add(GAPS, refused.problem)
            return refused.problem
        return None

    def _resumed_snapshot(self, monitor: SlotMonitor, server: Server, position: Position | None) -> Position | None:
        """The position after an interrupted initial snapshot. With an intact slot and a complete table the stream continues,
        and the remaining tables get an incremental snapshot: the exported snapshot ended with its session."""
        settings, shared = self._settings, self._shared
        if position is None or position.snapshot != "running" or not position.copied:
            return position
        try:
            check_server(settings.name, position, server)
            health = self._read_health(monitor)
            check_slot(settings.name, settings.slot, health.slot, position.lsn)
        except SourceRefused:
            return position
        unfinished = tuple(table for table in settings.tables if table not in position.copied)
        shared.deliver(SnapshotDone(settings.name, position.lsn, unfinished))
        shared.wake()
        # The publication at the snapshot's start was not stored: later checks compare with its current members.
        shared.delivered = position._replace(snapshot="done", copied=(), membership=health.membership)
        shared.received_lsn = position.lsn
        return shared.delivered

    def may_resnapshot(self, refused: SourceRefused) -> bool:
        """Whether a refused stream is followed by a new snapshot."""
        shared = self._shared
        if refused.problem == VALUE_UNREADABLE:
            # The stream fails only where it reaches the value: the operator's word covers what was in the WAL by then.
            return shared.received_lsn < shared.resync_until_lsn
        accepts_loss = shared.accepts_loss
        return may_resnapshot(refused.problem, policy=self._settings.on_lost_position, accepts_loss=accepts_loss)

    def _stream(self, connections: Connections, server: Server, begin: Position) -> None:
        settings, shared = self._settings, self._shared
        types = self._stream_types(connections.monitor)
        connections.sender.start(settings.slot, settings.publication, begin.lsn)
        # The slot may have been advanced between the check and the start.
        check_slot(settings.name, settings.slot, self._read_health(connections.monitor).slot, begin.lsn)
        shared.streams_begun += 1
        shared.is_streaming = True
        self._callbacks.announce("streaming", "follows the stream")
        assembler = Assembler(settings.name, server.system, server.timelines, self._callbacks.park, shared.tally)
        assembler.catalog_types = types.names_of
        try:
            Stream(settings.name, shared, connections, assembler, self._now_us).run()
        finally:
            shared.is_streaming, shared.open_bytes = False, 0
            if connections.incremental is not None:
                connections.incremental.stop()

    def _stream_types(self, monitor: SlotMonitor) -> StreamTypes:
        settings = self._settings
        tables = Catalog(settings.name, monitor.connection, settings.publication).describe(settings.tables).values()
        return StreamTypes(settings, {oid: name for table in tables for oid, name in table.columns.values()})

    def _read_health(self, monitor: SlotMonitor) -> Health:
        """Read the slot's health; the status shows it even when it is refused."""
        health = monitor.health()
        self._shared.slot = health.slot
        return health

    def _check_catalog(self, monitor: SlotMonitor, blocking: frozenset[str]) -> None:
        settings = self._settings
        catalog = Catalog(settings.name, monitor.connection, settings.publication)
        for problem in catalog.problems(settings.tables):
            if problem.problem in blocking:
                raise SourceRefused(
                    f"Source {settings.name}: {problem.sentence}",
                    problem="not_permitted" if problem.problem == "not_selectable" else problem.problem,
                    hint=problem.hint,
                )

    def _resumed_position(self, monitor: SlotMonitor, server: Server, position: Position | None) -> Position:
        settings = self._settings
        stored = position if position is not None and not position.is_copying else None
        health = self._read_health(monitor)
        slot = check_slot(settings.name, settings.slot, health.slot, stored.lsn if stored else None)
        if stored is None:
            timeline = server.timelines.of(slot.confirmed_lsn)
            stored = Position(server.system, timeline, slot.confirmed_lsn, "none", settings.slot)
        elif not self._shared.accepts_loss:
            check_publication_members(settings.name, settings.publication, stored.membership, health.membership)
        self._shared.accepts_loss = False
        return stored._replace(membership=health.membership)

    # ---------------------------------------------------------------- the snapshot

    def _take_snapshot(self, connections: Connections, server: Server, lost: str | None) -> Position:
        """Create a slot and copy all tables as of its consistent point; `lost`: into an existing history."""
        settings, shared = self._settings, self._shared
        monitor, sender, _ = connections
        slot, _, membership = monitor.health()
        if slot is not None:
            check_owner(settings.name, slot)
            monitor.drop_slot()
        at_us = monitor.clock().at_us
        why = "takes its initial snapshot" if lost is None else f"cannot be continued ({lost}): it takes a new snapshot"
        self._callbacks.announce("snapshot", why)
        created = sender.create_slot(
            settings.slot, settings.slot_creation_limit_s, shared.stopping.is_set, failover=settings.failover
        )
        if created is None:
            raise self._slot_not_created(monitor)
        timeline = server.timelines.of(created.lsn)
        begun = Position(server.system, timeline, created.lsn, "running" if lost is None else "again", settings.slot)
        began = SnapshotBegan(settings.name, server.system, timeline, created.lsn, at_us, {}, lost)
        shared.delivered, shared.slot = begun, None
        # The confirmed LSN of an earlier slot, perhaps on another timeline, does not apply to this one.
        shared.confirmed_lsn, shared.received_lsn = 0, created.lsn
        try:
            snapshot = InitialSnapshot(
                (settings.name, settings.dsn, settings.publication), settings.tables, shared, self._now_us
            )
            snapshot.run(created.snapshot, began, settings.snapshot_workers)
        except BaseException:
            if lost is not None or not shared.delivered.copied:
                self._drop_slot()
            raise
        shared.lost, shared.accepts_loss, shared.resync_until_lsn = None, False, 0
        return begun._replace(snapshot="done", membership=membership)

    def _slot_not_created(self, monitor: SlotMonitor) -> Exception:
        if self._shared.stopping.is_set():
            return ReaderStopped()
        blockers = "; ".join(row["who"] for row in monitor.rows("blockers")) or "none that this role may see"
        return SourceUnavailable(
            f"Source {self._settings.name}: slot {self._settings.slot} could not be created within "
            f"{self._settings.slot_creation_limit_s:g} s: it waits for open transactions.",
            hint=f"Terminate the blocking sessions: {blockers}. The reader retries.",
        )

    def _drop_slot(self) -> None:
        """Drop the slot of a failed snapshot: it would retain WAL without a reader. If this fails, the next start drops it."""
        settings = self._settings
        with suppress(CdcMergeError):
            target = MonitorTarget(settings.slot, settings.publication, ())
            monitor = SlotMonitor(settings.name, settings.dsn, target, settings.limits)
            try:
                monitor.drop_slot()
            finally:
                monitor.close()
