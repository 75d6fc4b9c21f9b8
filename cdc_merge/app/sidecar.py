"""Composition: Settings → running objects. The only module that sees all settings and every adapter."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias

from cdc_merge import __version__
from cdc_merge.app.config_reload import ConfigReload
from cdc_merge.cel import compile_expression
from cdc_merge.config.settings import AccessSettings, PostgresSourceSettings, PostgresStore, Settings, SourceSettings
from cdc_merge.console.auth import Access, access_from_text
from cdc_merge.console.http_server import HttpServer
from cdc_merge.doctor.background import DoctorCollector, Rounds
from cdc_merge.doctor.preflight import Doctor
from cdc_merge.doctor.targets import subjects
from cdc_merge.errors import CdcMergeError, ConfigError, NotFound
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import Position, SourceStatus, StoreFigures
from cdc_merge.model.capture_counters import Counts
from cdc_merge.model.ports import Observer, Source, Store
from cdc_merge.model.source_commands import NO_ORDERS, PHASES
from cdc_merge.observers.fan_out import FanOut
from cdc_merge.observers.gauges import Gauges
from cdc_merge.observers.log_events import Logs
from cdc_merge.observers.prometheus import Metrics
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.source_documents import SourceReport
from cdc_merge.queries.store_queries import Live, StoreQueries
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.process.parent import ProcessSource
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.limits import DEFAULT_LIMITS
from cdc_merge.worker.merge_thread import MergeThread
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.source_control import SourceControl
from cdc_merge.worker.state import Environment

if TYPE_CHECKING:
    from cdc_merge.observers.traces import Traces

# Limit of a reader's queue, in bytes as the server sent them; in memory rows take about five times as much.
MAX_QUEUED_BYTES = 16 << 20
STOP_LIMIT_S = 30.0

MakeSource: TypeAlias = Callable[[ReaderSettings, Callable[[], None], Observer], Source]
"""Makes the reader of one source; the reader wakes the merging thread and reports facts to the observer."""


def now_us() -> int:
    """Our own clock, microseconds since 1970."""
    return time.time_ns() // 1000


class Sidecar:
    """The whole sidecar: readers, the merging thread, the HTTP side. `start`, `stop`; nothing starts by itself.

    Every reader is a process of its own, so that no merge keeps a server waiting; tests replace it with `make_source`.
    A reload reads the file with `environment` and passes the settings to `on_reload`.
    """

    def __init__(
        self,
        settings: Settings,
        observers: Sequence[Observer] = (),
        *,
        environment: Mapping[str, str] = os.environ,
        on_reload: Callable[[Settings], None] | None = None,
        make_source: MakeSource | None = None,
    ) -> None:
        self._settings = settings
        # Large transactions spill beside the store, which needs room for their rows anyway.
        self._directory = None if isinstance(settings.store, PostgresStore) else str(settings.store.path.parent)
        self._make_source = make_source
        self._on_reload = on_reload
        self._wake = threading.Event()
        self.store = open_store(settings)
        gauges = Gauges(
            self.figures,
            self.statuses,
            self._durable_lsns,
            self._watermarks,
            resyncs=self._resyncs,
            merging=self._counts,
        )
        self.metrics = Metrics(settings.plan, gauges, __version__)
        self._observe: Observer = FanOut((self.metrics, *observers))
        self._sources = [self._source(source) for source in settings.sources.values()]
        pipeline_environment = Environment(now_us, lambda: secrets.token_hex(8), compile_expression, DEFAULT_LIMITS)
        self.pipeline = Pipeline(settings.plan, self._sources, self.store, self._observe, pipeline_environment)
        self.source_control = SourceControl(self._sources, self.store, self._wake.set, now_us)
        self._reloading = ConfigReload(settings, environment, self._follow, self._wake.set, self._observe)
        self._merging = MergeThread(self._step, self._wake, self._observe)
        live = Live(self._source_reports, self._ready, lambda: self._merging.problem, self._reloading.reload)
        self._store_queries = StoreQueries(self.store, settings.plan, live)
        self.queries: QueryPort = self._store_queries
        self.doctor = Rounds(
            Doctor(self._positions, now_us, probing=False),
            lambda: subjects(settings.sources, settings.plan, self._positions()),
        )
        self.metrics.registry.register(DoctorCollector(self.doctor))
        self._access = _access(settings)
        self._http = HttpServer(self.queries, settings.listen, self.metrics.registry, self._access, self.source_control)

    @property
    def address(self) -> str:
        """The address of the HTTP listener, `host:port`."""
        return self._http.address

    def start(self) -> None:
        """Claim the store, listen, read. CdcMergeError if the store or the address is not available; nothing is left running."""
        self.store.claim(f"{os.uname().nodename}:{os.getpid()}")
        self.pipeline.resume()
        self._http.start()
        self.source_control.begin()
        self._merging.start()
        self.doctor.start()

    def stop(self) -> None:
        """Stop in order: merging, reading, listening. Deliveries that were not merged come again."""
        self._merging.end()
        self.doctor.stop()
        self._merging.join(STOP_LIMIT_S)
        stopping = [threading.Thread(target=source.stop, daemon=True) for source, _ in self._sources]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(STOP_LIMIT_S)
        self._http.stop()
        self.store.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a requested stop. Raises the error that ended the merging thread, if one did."""
        ended = self._merging.stopping.wait(timeout_s)
        if self._merging.failure is not None:
            raise self._merging.failure
        if not ended and self._http.has_failed:
            raise CdcMergeError(
                "The HTTP listener ended unexpectedly.", hint="Check the log for the cause and report it."
            )
        return ended

    def request_stop(self) -> None:
        self._merging.end()

    def reload(self) -> None:
        """Reload the configuration file. On a CdcMergeError the previous configuration stays in force."""
        self._reloading.reload()

    def _follow(self, settings: Settings) -> None:
        access = _access(settings)  # first: a tokens file that cannot be used changes nothing
        self.pipeline.follow(settings.plan)
        self._store_queries.follow(settings.plan)
        self.metrics.follow(settings.plan)
        self._access.follow(access)
        if self._on_reload is not None:
            self._on_reload(settings)

    def statuses(self) -> list[SourceStatus]:
        return [source.status() for source, _ in self._sources]

    def settled(self, lsns: Mapping[str, int], timeout_s: float) -> bool:
        """Whether, within the time, every source was durable up to its LSN and no conflict was settling."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._merging.failure is None:
            durable = self._durable_lsns()
            reached = all(durable.get(source, 0) >= lsn for source, lsn in lsns.items())
            if reached and not self.store.conflicts({"status": "settling"}, None, 1):
                return True
            self._merging.stopping.wait(0.05)
        return False

    def figures(self) -> StoreFigures:
        return replace(
            self.store.figures(),
            records_cached=len(self.pipeline.state.records),
            watermark_us=self.pipeline.watermark_us,
        )

    def _step(self) -> bool:
        if not self.pipeline.is_waiting:
            self._reloading.between_batches()
            self.source_control.between_batches()
        return self.pipeline.step()

    # ------------------------------------------------------------ state for gauges and queries

    def _durable_lsns(self) -> dict[str, int]:
        positions = self.store.positions()
        return {name: position.lsn for name, (position, _) in positions.items() if not position.is_copying}

    def _resyncs(self) -> dict[tuple[str, str], int]:
        orders = self.store.orders()
        return {
            (source.name, phase): sum(resync.phase == phase for resync in orders.get(source.name, NO_ORDERS).resyncs)
            for source, _ in self._sources
            for phase in PHASES
        }

    def _counts(self) -> dict[str, Counts]:
        return {source.name: ingest.tally.counts() for source, ingest in self._sources}

    def _watermarks(self) -> dict[str, int]:
        return {source.name: ingest.passed_us for source, ingest in self._sources}

    def _positions(self) -> dict[str, Position]:
        return {name: position for name, (position, _) in self.store.positions().items()}

    def _source_reports(self) -> list[SourceReport]:
        # From disk: once a resync is reported as complete, its records are on disk, too.
        positions, orders, parked = self.store.positions(), self.store.orders(), self.store.parked()
        return [
            SourceReport(
                status=source.status(),
                position=positions[source.name][0] if source.name in positions else None,
                watermark_us=ingest.passed_us or None,
                orders=orders.get(source.name, NO_ORDERS),
                snapshot_rows=ingest.snapshot_rows,
                snapshot_expected=ingest.snapshot_expected,
                parked=sum(count for (name, _), count in parked.items() if name == source.name),
            )
            for source, ingest in self._sources
        ]

    def _ready(self) -> tuple[bool, str]:
        blocked = self._merging.problem or self._merging.held
        if blocked is not None:
            return False, blocked
        waiting = [s for s in self.statuses() if s.state in ("connecting", "snapshot") and s.problem is None]
        if waiting:
            return False, "Still starting: " + ", ".join(f"{s.name} ({s.state})" for s in waiting)
        return True, "Every reachable source streams."

    def _source(self, settings: SourceSettings) -> tuple[Source, SourceIngest]:
        if not isinstance(settings, PostgresSourceSettings):
            raise ConfigError(
                f"Source {settings.name} has type {settings.type}, which this version cannot read.",
                hint="Use type: postgres.",
            )
        plan = self._settings.plan
        tables = [table for table in plan.tables if table.source == settings.name]
        columns: dict[str, tuple[str, ...]] = {}
        for table in tables:
            actor = (table.actor_column,) if table.actor_column else ()
            mapped = (*columns.get(table.table, ()), *table.key, *table.fields.values(), *actor)
            columns[table.table] = tuple(dict.fromkeys(mapped))
        source = self._reader(settings, columns)
        mapper = Mapper(settings.name, tables, plan, whole_rows=settings.snapshot == "never")
        spill = partial(SpillFile, self._directory)
        return source, SourceIngest(settings.name, mapper, settings.slot, spill, DEFAULT_LIMITS)

    def _reader(self, settings: PostgresSourceSettings, columns: Mapping[str, tuple[str, ...]]) -> Source:
        dsn, wake, observe = settings.dsn.reveal(), self._wake.set, self._observe
        reader = ReaderSettings(
            settings.name,
            dsn,
            settings.slot,
            settings.publication,
            settings.snapshot,
            columns,
            MAX_QUEUED_BYTES,
            directory=self._directory,
            on_lost_position=settings.on_lost_position,
            snapshot_workers=settings.snapshot_workers,
            heartbeat_s=None if settings.heartbeat_us is None else settings.heartbeat_us / 1e6,
            failover=settings.failover,
        )
        if self._make_source is not None:
            return self._make_source(reader, wake, observe)
        return ProcessSource(reader, wake, observe)


def open_store(settings: Settings) -> Store:
    if isinstance(settings.store, PostgresStore):
        raise ConfigError("This version does not support a store in PostgreSQL.", hint="Use store: sqlite:///….")
    return SqliteStore(settings.store.path)


def ingest_of(settings: Settings, name: str, store: Store) -> SourceIngest:
    """The stored state of one source, for commands that change it. Nothing is read from the source."""
    tables = [table for table in settings.plan.tables if table.source == name]
    source = settings.sources[name]
    slot = source.slot if isinstance(source, PostgresSourceSettings) else ""
    ingest = SourceIngest(name, Mapper(name, tables, settings.plan), slot, SpillFile)
    positions = store.positions()
    if name in positions:
        ingest.resume(*positions[name], store.awaited_identities().get(name, {}))
    ingest.resyncs.resume(store.orders().get(name, NO_ORDERS))
    return ingest


def _access(settings: Settings) -> Access:
    file = settings.access.tokens_file
    access = Access() if file is None else access_from_text(_tokens(file), settings.access.roles)
    access.is_configured = settings.access != AccessSettings()
    access.open_metrics = settings.open_metrics
    return access


def _tokens(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        sentence = f"The tokens file {file} cannot be read: {error.strerror}."
        raise ConfigError(sentence, hint="Fix access.tokens_file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The tokens file {file} is not UTF-8 text.", hint="Fix access.tokens_file.") from error


def open_queries(settings: Settings) -> QueryPort:
    """The read side over the store alone, for commands. NotFound if there is no store yet."""
    store = settings.store
    if not isinstance(store, PostgresStore) and not store.path.exists():
        raise NotFound(f"There is no store at {store.path} yet.", hint="Start cdc-merge run; it creates the store.")
    return StoreQueries(open_store(settings), settings.plan)


def run(
    settings: Settings,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_reload: Callable[[Settings], None] | None = None,
) -> int:
    """Run the sidecar until SIGTERM or SIGINT; SIGHUP reloads its configuration. The exit code."""
    logs = Logs(secrets.token_bytes(16))
    traces = traces_of(settings, logs)
    sidecar = Sidecar(settings, [logs, *traces], on_reload=on_reload)

    def stop(number: int, frame: FrameType | None) -> None:
        sidecar.request_stop()

    hung_up = threading.Event()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    try:
        sidecar.start()
        if on_ready is not None:
            on_ready(sidecar.address)
        while not sidecar.wait(0.5):
            _stop_if_every_source_refuses(sidecar)
            if hung_up.is_set():
                hung_up.clear()
                with suppress(Exception):  # already logged and counted; the previous configuration stays in force
                    sidecar.reload()
    finally:
        sidecar.stop()
        for trace in traces:
            trace.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def traces_of(settings: Settings, logs: Logs) -> list[Traces]:
    """The observer for traces, if configured. ConfigError if the extra is not installed."""
    telemetry = settings.telemetry
    if telemetry.otlp is None:
        return []
    try:
        from cdc_merge.observers.traces import Traces, otlp_provider  # noqa: PLC0415 - an extra that need not be installed
    except ImportError as error:
        raise ConfigError(
            "telemetry.otlp is set, but OpenTelemetry is not installed.",
            hint="Run pip install 'cdc-merge[otel]', or remove telemetry.otlp from the file.",
        ) from error
    return [Traces(otlp_provider(telemetry.otlp, telemetry.share, __version__), logs.record_digest)]


def _stop_if_every_source_refuses(sidecar: Sidecar) -> None:
    """End a sidecar that every source refuses, with the reasons, so that its supervisor sees the failure."""
    problems = [status for status in sidecar.statuses() if status.state == "stopped" and status.problem]
    if problems and len(problems) == len(sidecar.statuses()):
        raise CdcMergeError("Every source refuses: " + " ".join(f"{s.name}: {s.problem}" for s in problems))
