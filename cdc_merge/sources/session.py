"""One connection's life to a Postgres source: check, first copy where none is on disk, then the stream until it ends.

Rules
- Nothing is created before every check has passed; a slot that we created is dropped again when its first copy fails.
- A position on disk is compared with server and slot before the stream starts, and with the slot once more after: a
  slot that was recreated, advanced or lost is refused by name, never followed in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable
from cdc_merge.model import Parked, Position, SnapshotBegan, SnapshotDone, SnapshotRows
from cdc_merge.sources.catalog import Catalog
from cdc_merge.sources.connecting import connect
from cdc_merge.sources.exchange import Exchange
from cdc_merge.sources.membership import check_membership
from cdc_merge.sources.positions import Server, check_owner, check_server, check_slot
from cdc_merge.sources.rereading import Rereading
from cdc_merge.sources.rows import Assembler
from cdc_merge.sources.snapshot import FirstCopy
from cdc_merge.sources.stream import Lines, Stream
from cdc_merge.sources.walsender import WalSender
from cdc_merge.sources.watch import Watch, Watched

FINISH_LIMIT_S: Final = 0.5  # a stream that ends in peace frees its slot at once; closing the socket is enough, too

_BLOCKING: Final = frozenset({"wal_level", "publication_missing", "table_missing", "configuration"})
# A column that goes while the stream is followed concerns its own field only (`schema_drift`).
_BLOCKING_FIRST_COPY: Final = _BLOCKING | {"column_missing", "not_selectable", "not_permitted"}


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """One source of the configuration. `tables` maps `schema.table` → the columns needed of it."""

    name: str
    dsn: str = field(repr=False)
    slot: str
    publication: str
    snapshot: str
    tables: Mapping[str, tuple[str, ...]]
    slot_creation_limit_s: float = 60.0


class Stopped(Exception):  # noqa: N818 - not an error: the reader was asked to stop
    """The reader was asked to stop in the middle of something."""


@dataclass(frozen=True, slots=True)
class Ears:
    """Who is told: `park` about unreadable rows, `announce` about a new state and a sentence on it."""

    park: Callable[[Parked], None]
    announce: Callable[[str, str], None]


class Session:
    """One attempt to read a source. `now_us` is our own clock."""

    def __init__(self, settings: PostgresSettings, exchange: Exchange, ears: Ears, now_us: Callable[[], int]) -> None:
        self._settings = settings
        self._exchange = exchange
        self._ears = ears
        self._now_us = now_us

    def run(self) -> None:
        """Read until asked to stop. SourceUnavailable: try again; SourceRefused: somebody must act."""
        settings = self._settings
        watched = Watched(settings.slot, settings.publication, tuple(settings.tables))
        watch = Watch(settings.name, settings.dsn, watched)
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

    def _read(self, watch: Watch, sender: WalSender) -> None:
        settings = self._settings
        server = sender.identify()
        position = self._exchange.delivered
        needs_copy = settings.snapshot == "initial" and (position is None or position.is_copying)
        if position is not None and not position.is_copying:
            check_server(settings.name, position, server)
        self._check_catalog(watch, _BLOCKING_FIRST_COPY if needs_copy else _BLOCKING)
        rereading = Rereading(settings.name, settings.dsn, settings.publication, self._exchange, settings.tables)
        lines = Lines(watch, sender, rereading)
        begin = self._first_copy(lines, server) if needs_copy else self._known_position(watch, server, position)
        self._exchange.delivered = begin
        self._stream(lines, server, begin)

    def _stream(self, lines: Lines, server: Server, begin: Position) -> None:
        settings, exchange = self._settings, self._exchange
        lines.sender.start(settings.slot, settings.publication, begin.lsn)
        # Somebody may have moved the slot between the check and the start.
        exchange.slot = check_slot(settings.name, settings.slot, lines.watch.health().slot, begin.lsn)
        exchange.streams_begun += 1
        exchange.is_streaming = True
        self._ears.announce("streaming", "follows the stream")
        assembler = Assembler(settings.name, server.system, server.timelines, self._ears.park)
        try:
            Stream(settings.name, exchange, lines, assembler, self._now_us).run()
        finally:
            exchange.is_streaming = False
            if lines.rereading is not None:
                lines.rereading.stop()

    def _check_catalog(self, watch: Watch, blocking: frozenset[str]) -> None:
        settings = self._settings
        catalog = Catalog(settings.name, watch.connection, settings.publication)
        for problem in catalog.problems(settings.tables):
            if problem.problem in blocking:
                raise SourceRefused(
                    f"Source {settings.name}: {problem.sentence}",
                    problem="not_permitted" if problem.problem == "not_selectable" else problem.problem,
                    hint=problem.hint,
                )

    def _known_position(self, watch: Watch, server: Server, position: Position | None) -> Position:
        settings = self._settings
        known = position if position is not None and not position.is_copying else None
        health = watch.health()
        slot = check_slot(settings.name, settings.slot, health.slot, known.lsn if known else None)
        if known is None:
            timeline = server.timelines.of(slot.confirmed_lsn)
            known = Position(server.system, timeline, slot.confirmed_lsn, "none", settings.slot)
        elif not self._exchange.accepts_loss:
            check_membership(settings.name, settings.publication, known.membership, health.membership)
        self._exchange.accepts_loss = False
        return known._replace(membership=health.membership)

    # ---------------------------------------------------------------- the first copy

    def _first_copy(self, lines: Lines, server: Server) -> Position:
        settings = self._settings
        watch, sender, _ = lines
        slot, _, membership = watch.health()
        if slot is not None:
            check_owner(settings.name, slot)
            watch.drop_slot()
        at_us = watch.clock().at_us
        self._ears.announce("snapshot", "takes its first copy")
        created = sender.create_slot(settings.slot, settings.slot_creation_limit_s, self._exchange.stopping.is_set)
        if created is None:
            raise self._not_created(watch)
        try:
            timeline = server.timelines.of(created.lsn)
            self._copy(created.snapshot, SnapshotBegan(settings.name, server.system, timeline, created.lsn, at_us, {}))
        except BaseException:
            self._drop_again()
            raise
        return Position(server.system, timeline, created.lsn, "done", settings.slot, membership=membership)

    def _copy(self, snapshot: str, began: SnapshotBegan) -> None:
        settings, exchange = self._settings, self._exchange
        connection = connect(settings.name, settings.dsn)
        try:
            copy = FirstCopy(settings.name, connection, settings.publication)
            facts = copy.begin(snapshot, settings.tables)
            exchange.deliver(
                began._replace(expected_rows={table: known.expected_rows for table, known in facts.items()})
            )
            for rows, size in copy.chunks(facts, settings.tables, self._wait_for_space):
                exchange.deliver(SnapshotRows(settings.name, tuple(rows)), len(rows), size)
                exchange.last_message_us = self._now_us()
                exchange.wake()
            exchange.deliver(SnapshotDone(settings.name, began.lsn))
            exchange.wake()
        finally:
            connection.close()

    def _wait_for_space(self) -> None:
        while not self._exchange.queue.wait_for_space(0.2):
            if self._exchange.stopping.is_set():
                raise Stopped
        if self._exchange.stopping.is_set():
            raise Stopped

    def _not_created(self, watch: Watch) -> Exception:
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
            watch = Watch(settings.name, settings.dsn, Watched(settings.slot, settings.publication, ()))
            try:
                watch.drop_slot()
            finally:
                watch.close()
