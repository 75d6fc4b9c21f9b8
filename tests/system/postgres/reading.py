"""A Postgres source with its deliveries collected, and the table that these deliveries alone make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import psycopg

from cdc_merge.model import (
    UNCHANGED,
    Delivery,
    Fact,
    Idle,
    Position,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    SourceChanged,
    Transaction,
)
from cdc_merge.model.ports import Source
from cdc_merge.sources.postgres.reader import PostgresSource
from cdc_merge.sources.postgres.reader_settings import ReaderSettings

LIMIT_S = 20.0


def wait_for(fact: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """The fact's value, as soon as it is true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        value = fact()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"within {limit_s:g} s it was not true that {what}")


def run(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run each statement in its own transaction; the last one's rows."""
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows


def our_clock_us() -> int:
    return time.time_ns() // 1000


def reader_settings(dsn: str, tables: Mapping[str, Sequence[str]], **chosen: Any) -> ReaderSettings:
    """Those of a source `crm` with a slot named after its database, but for what is chosen."""
    usual = ReaderSettings(
        name="crm",
        dsn=dsn,
        slot="cdc_" + (dsn.partition("dbname=")[2].partition(" ")[0] or "test"),
        publication="cdc_merge",
        snapshot="initial",
        tables={table: tuple(columns) for table, columns in tables.items()},
        max_queued_bytes=64 << 20,
    )
    return replace(usual, **chosen)


class Reading:
    """A PostgresSource and all that it delivered, in order. `confirming` confirms as a pipeline would."""

    def __init__(
        self,
        dsn: str,
        tables: Mapping[str, Sequence[str]],
        *,
        confirming: bool = True,
        now_us: Callable[[], int] = our_clock_us,
        **settings: Any,
    ) -> None:
        self.facts: list[Fact] = []
        self.deliveries: list[Delivery] = []
        self.position: Position | None = None
        self.confirming = confirming
        self.woken = threading.Event()
        wanted = reader_settings(dsn, tables, **settings)
        self.source: Source = PostgresSource(wanted, wake=self.woken.set, observe=self._note, now_us=now_us)
        self.slot = wanted.slot

    def _note(self, fact: Fact) -> None:
        self.facts.append(fact)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.stop()

    def start(self, position: Position | None = None) -> Self:
        self.position = position
        self.source.start(position)
        return self

    def take(self, limit: int = 1000) -> list[Delivery]:
        """What has come since the last call; it moves the position, as a pipeline that has it on disk would say."""
        taken = list(self.source.take(limit))
        self.deliveries += taken
        for delivery in taken:
            self._move(delivery)
        if self.confirming and self.position is not None and self.position.snapshot != "running":
            self.source.confirm(self.position.lsn)
        return taken

    def _move(self, delivery: Delivery) -> None:
        match delivery:
            case SnapshotBegan(_, system, timeline, lsn):
                self.position = Position(system, timeline, lsn, "running", self.slot)
            case SnapshotDone():
                assert self.position is not None
                self.position = self.position._replace(snapshot="done")
            case Transaction(_, system, timeline, lsn) | Idle(_, system, timeline, lsn):
                snapshot = self.position.snapshot if self.position else "none"
                self.position = Position(system, timeline, lsn, snapshot, self.slot)

    def until(self, fact: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
        """Take until the fact is true; a source that stopped with a problem fails at once."""

        def look() -> Any:
            self.take()
            value = fact()
            if not value and self.source.status().state == "stopped":
                raise AssertionError(f"the source stopped: {self.source.status().problem}")
            return value

        return wait_for(look, what, limit_s)

    def until_passed(self, lsn: int, limit_s: float = LIMIT_S) -> None:
        self.until(lambda: self.position is not None and self.position.lsn >= lsn, f"the reader passed {lsn}", limit_s)

    def until_copied(self) -> None:
        self.until(
            lambda: any(isinstance(each, SnapshotDone) for each in self.deliveries), "the initial snapshot was done"
        )

    def until_streaming(self) -> None:
        self.until(lambda: self.source.status().state == "streaming", "the source was streaming")

    def refusal(self) -> SourceChanged:
        """The fact with which the source stopped."""
        wait_for(lambda: self.source.status().state == "stopped", "the source stopped with a problem")
        stopped = [fact for fact in self.facts if isinstance(fact, SourceChanged) and fact.state == "stopped"]
        assert self.source.status().problem == f"{stopped[-1].sentence} {stopped[-1].hint}".strip()
        assert not self.source.status().up
        return stopped[-1]

    # ---------------------------------------------------------------- what was delivered

    @property
    def transactions(self) -> list[Transaction]:
        return [each for each in self.deliveries if isinstance(each, Transaction)]

    @property
    def streamed(self) -> list[RowChange]:
        return [change for transaction in self.transactions for change in transaction.changes]

    @property
    def copied(self) -> list[RowChange]:
        """Rows of the last initial snapshot that began."""
        rows: list[RowChange] = []
        for delivery in self.deliveries:
            if isinstance(delivery, SnapshotBegan):
                rows = []
            elif isinstance(delivery, SnapshotRows):
                rows += delivery.changes
        return rows

    def table(self, key: str = "id") -> dict[Any, dict[str, Any]]:
        """The table as the deliveries alone make it. A row that comes twice or is missing where it changes fails."""
        rows: dict[Any, dict[str, Any]] = {}
        for change in [*self.copied, *self.streamed]:
            _apply(rows, change, key)
        return rows


def _apply(rows: dict[Any, dict[str, Any]], change: RowChange, key: str) -> None:
    names = [column.name for column in change.relation.columns]
    new: dict[str, Any] | None = dict(zip(names, change.new, strict=True)) if change.new is not None else None
    old: dict[str, Any] | None = dict(zip(names, change.old, strict=True)) if change.old is not None else None
    if change.operation in ("insert", "snapshot"):
        assert new is not None
        assert new[key] not in rows, f"row {new[key]!r} came twice"
        rows[new[key]] = new
    elif change.operation == "update":
        assert new is not None
        before = rows.pop((old or new)[key])
        assert old is None or not change.old_is_full or {name: before[name] for name in old} == old
        rows[new[key]] = before | {name: cell for name, cell in new.items() if cell is not UNCHANGED}
    elif change.operation == "delete":
        assert old is not None
        del rows[old[key]]
    else:
        rows.clear()


def wal_lsn(dsn: str) -> int:
    """Where the server's WAL ends, after what is committed is flushed."""
    run(dsn, "SELECT pg_logical_emit_message(true, 'test.mark', '')")
    return int(run(dsn, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")[0][0])


def confirmed_lsn(dsn: str, slot: str) -> int:
    found = run(
        dsn, f"SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = '{slot}'"
    )
    return int(found[0][0]) if found else 0


def retries(reading: Reading) -> list[SourceChanged]:
    return [fact for fact in reading.facts if isinstance(fact, SourceChanged) and fact.state == "retrying"]
