"""Metrics that show a state: read at each scrape, so they cost nothing in between and are never stale.

An unknown figure has no sample. A reader of figures that fails loses only its own families, is counted and logged; the
rest of the scrape is complete.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc_merge.model import SourceStatus, StoreFigures
from cdc_merge.model.capture_counters import SPILLED, Counts, sum_counts
from cdc_merge.observers.capture_metrics import captured
from cdc_merge.observers.labels import INVALIDATIONS, NOT_INVALIDATED, OTHER, STATES, WAL_STATUSES, Labels
from cdc_merge.observers.slot_inactivity import SlotInactivity
from cdc_merge.observers.wal_rate import WalRate

LOG: Final = logging.getLogger("cdc_merge.metrics")


def _no_figures() -> Mapping[str, int]:
    return {}


def _no_resyncs() -> Mapping[tuple[str, str], int]:
    return {}


def _no_counts() -> Mapping[str, Counts]:
    return {}


@dataclass(frozen=True, slots=True)
class Gauges:
    """The readers of the state. Each is called on the scraper's thread.

    `durable_lsns`: per source, the LSN up to which everything is on disk; a source without one is measured by its received
    LSN. `watermarks`: per source, the stamp time that it has passed, in microseconds. `resyncs`: the number of incremental
    snapshots by source and state. `merging`: the capture counters of the merging thread, by source.
    """

    figures: Callable[[], StoreFigures]
    statuses: Callable[[], Sequence[SourceStatus]]
    durable_lsns: Callable[[], Mapping[str, int]] = _no_figures
    watermarks: Callable[[], Mapping[str, int]] = _no_figures
    monotonic: Callable[[], float] = time.monotonic
    resyncs: Callable[[], Mapping[tuple[str, str], int]] = _no_resyncs
    wall: Callable[[], float] = time.time
    merging: Callable[[], Mapping[str, Counts]] = _no_counts


def _lag_bytes(status: SourceStatus, durable_lsns: Mapping[str, int]) -> float | None:
    if not status.server_lsn:
        return None
    return max(0, status.server_lsn - durable_lsns.get(status.name, status.received_lsn))


def _seconds(us: int | None) -> float | None:
    return None if us is None else us / 1e6


# name, help, the figure of one source
SOURCE_GAUGES: Final[tuple[tuple[str, str, Callable[[SourceStatus], float | None]], ...]] = (
    ("source_up", "1 while the source is connected and streams.", lambda status: status.up),
    (
        "source_last_commit_timestamp_seconds",
        "Commit time of the newest change read from the source.",
        lambda status: _seconds(status.last_commit_us),
    ),
    (
        "source_last_message_timestamp_seconds",
        "When the source's server last sent a message, keepalives included.",
        lambda status: _seconds(status.last_message_us),
    ),
    (
        "source_last_received_timestamp_seconds",
        "When a transaction of the source was last received.",
        lambda status: _seconds(status.last_received_us),
    ),
    (
        "source_received_lsn_bytes",
        "LSN up to which the source was read; differences are bytes.",
        lambda status: status.received_lsn or None,
    ),
    (
        "source_server_lsn_bytes",
        "Current WAL LSN of the source's server.",
        lambda status: status.server_lsn or None,
    ),
    (
        "source_confirmed_lsn_bytes",
        "Confirmed flush LSN of the slot.",
        lambda status: status.confirmed_lsn or None,
    ),
    (
        "source_queued_bytes",
        "Bytes received and waiting to be merged.",
        lambda status: status.queued_bytes if status.queue_limit_bytes else None,
    ),
    (
        "source_queue_limit_bytes",
        "Limit of the bytes that wait to be merged; reading from the source pauses above it.",
        lambda status: status.queue_limit_bytes or None,
    ),
    (
        "slot_retained_bytes",
        "WAL that the source keeps for our slot.",
        lambda status: status.retained_bytes,
    ),
    (
        "slot_safe_bytes",
        "WAL that the source may still write before our slot is lost; no sample without a limit.",
        lambda status: status.safe_bytes,
    ),
    (
        "open_transaction_bytes",
        "Bytes received of a transaction whose commit has not been received.",
        lambda status: status.open_bytes,
    ),
    (
        "backpressure_active",
        "1 while reading from the source pauses because too much waits to be merged.",
        lambda status: status.waits,
    ),
    (
        "snapshot_tables_remaining",
        "Tables that the source's initial snapshot has not finished.",
        lambda status: status.copy_tables_left,
    ),
    (
        "snapshot_duration_seconds",
        "Duration of the latest initial snapshot, so far or in total; 0 if none began since the start.",
        lambda status: status.copy_s,
    ),
    ("slot_active", "1 while a client reads our slot.", lambda status: status.slot_active),
    (
        "slot_catalog_xmin_age",
        "Transactions for which our slot holds back vacuum of the source's catalogs.",
        lambda status: status.catalog_xmin_age,
    ),
    (
        "heartbeat_permitted",
        "1 while heartbeats can be written to the source, 0 while it refuses them; no sample when heartbeats are off.",
        lambda status: status.heartbeats_permitted,
    ),
)


class GaugeCollector(Collector):
    """The families of `Gauges`, as a collector of the registry."""

    def __init__(self, prefix: str, labels: Labels, gauges: Gauges) -> None:
        self._prefix = prefix
        self._labels = labels
        self._gauges = gauges
        self._failures = 0
        self._wal_rate = WalRate(gauges.monotonic)
        self._inactivity = SlotInactivity(gauges.monotonic, gauges.wall)

    def follow(self, labels: Labels) -> None:
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        yield from self._read(self._of_sources)
        yield from self._read(self._of_figures)
        failures = self._counter("scrape_failures", "Reads of a state for a scrape that failed.", ())
        failures.add_metric((), self._failures)
        yield failures

    def _read(self, families: Callable[[], Iterable[Metric]]) -> Sequence[Metric]:
        try:
            return [*families()]
        except Exception as error:  # noqa: BLE001 the edge of a scrape: one reader that fails leaves the others complete
            self._failures += 1
            event = {"event": "scrape_failed"}
            # Not `exception`: a traceback ends in the message, which may hold values.
            LOG.warning("Reading figures for /metrics failed with %s.", type(error).__name__, extra=event)
            return []

    def _of_sources(self) -> Iterator[Metric]:
        configured = dict.fromkeys(self._labels.sources)
        reported = {status.name: status for status in self._gauges.statuses()}
        statuses = [reported.get(name) or SourceStatus(name, "") for name in configured | dict.fromkeys(reported)]
        for name, text, figure in SOURCE_GAUGES:
            yield self._gauge(name, text, ("source",), (((each.name,), figure(each)) for each in statuses))
        yield from self._progress(statuses)
        yield self._states(statuses)
        yield from self._slots(statuses)
        yield from self._captured(statuses)
        pending = ((labels, count) for labels, count in self._gauges.resyncs().items())
        text = "Incremental snapshots by state: reading rows, checking for missing records, failed."
        yield self._gauge("resyncs", text, ("source", "state"), pending)
        reconnects = self._counter("source_reconnects", "Reconnects to the source.", ("source",))
        sent = self._counter("heartbeat_sent", "Heartbeats written to the source.", ("source",))
        waited = self._counter(
            "source_backpressure_seconds",
            "Time during which reading from the source paused because too much waited to be merged.",
            ("source",),
        )
        for each in statuses:
            waited.add_metric((each.name,), each.waited_s)
            reconnects.add_metric((each.name,), each.reconnects)
            sent.add_metric((each.name,), each.heartbeats_sent)
        yield reconnects
        yield waited
        yield sent

    def _captured(self, statuses: Sequence[SourceStatus]) -> Iterator[Metric]:
        merging = self._gauges.merging()
        counts = {each.name: sum_counts(each.counts, merging.get(each.name, {})) for each in statuses}
        yield from captured(self._prefix, self._labels, counts)
        text = (
            "Bytes spilled for large transactions since counting began: by the source's server while it decoded them, by us "
            "(local) when their rows exceeded memory."
        )
        spilled = {(each.name, "server"): each.server_spilled_bytes for each in statuses}
        spilled |= {(name, "local"): counted.get((SPILLED, ""), 0) for name, counted in counts.items()}
        yield self._gauge("spill_bytes", text, ("source", "where"), spilled.items())

    def _progress(self, statuses: Sequence[SourceStatus]) -> Iterator[Metric]:
        durable = self._gauges.durable_lsns()
        lag = "WAL bytes of the source that are not yet merged and on disk."
        yield self._gauge(
            "source_lag_bytes", lag, ("source",), (((each.name,), _lag_bytes(each, durable)) for each in statuses)
        )
        on_disk = "LSN up to which everything of the source is merged and on disk."
        lsns = (((each.name,), durable.get(each.name) or None) for each in statuses)
        yield self._gauge("source_durable_lsn_bytes", on_disk, ("source",), lsns)
        passed = self._gauges.watermarks()
        text = "The stamp time that the source has passed; it delivers no earlier change."
        marks = (((each.name,), _seconds(passed.get(each.name) or None)) for each in statuses)
        yield self._gauge("source_watermark_timestamp_seconds", text, ("source",), marks)

    def _states(self, statuses: Iterable[SourceStatus]) -> Metric:
        """A source is in exactly one state."""
        reported = ((each.name, each.state if each.state in STATES else OTHER) for each in statuses)
        samples = (((source, name), state == name) for source, state in reported for name in (*STATES, OTHER))
        return self._gauge(
            "source_state", "1 at the source's present state, 0 at the others.", ("source", "state"), samples
        )

    def _slots(self, statuses: Sequence[SourceStatus]) -> Iterator[Metric]:
        yield self._wal_statuses(statuses)
        yield self._invalidations(statuses)
        left = "Seconds until our slot is lost at the WAL rate of the last 15 minutes; +Inf without limit or growth."
        lefts = (((each.name,), self._wal_rate.seconds_left(each)) for each in statuses)
        yield self._gauge("slot_seconds_to_invalidation", left, ("source",), lefts)
        text = (
            "Time since a client last read our slot, as its server reports it; before version 17 since we first saw it."
        )
        inactive = (((each.name,), self._inactivity.seconds(each)) for each in statuses)
        yield self._gauge("slot_inactive_seconds", text, ("source",), inactive)

    def _invalidations(self, statuses: Iterable[SourceStatus]) -> Metric:
        """A slot has exactly one of the reasons, or none."""
        reasons = (NOT_INVALIDATED, *INVALIDATIONS, OTHER)
        reported = (
            (each.name, each.invalidation or NOT_INVALIDATED) for each in statuses if each.invalidation is not None
        )
        listed = ((source, reason if reason in reasons else OTHER) for source, reason in reported)
        samples = (((source, reason), reason == current) for source, current in listed for reason in reasons)
        text = "1 at the reason why the source's server invalidated our slot; none while it is valid."
        return self._gauge("slot_invalidated", text, ("source", "reason"), samples)

    def _wal_statuses(self, statuses: Iterable[SourceStatus]) -> Metric:
        reported = [each for each in statuses if each.wal_status is not None]
        samples = (((each.name, name), each.wal_status == name) for each in reported for name in WAL_STATUSES)
        text = "1 at the wal_status of our slot (pg_replication_slots), 0 at the others."
        return self._gauge("slot_wal_status", text, ("source", "status"), samples)

    def _of_figures(self) -> Iterator[Metric]:
        figures = self._gauges.figures()
        yield self._gauge("history_changes", "Changes in the history log.", (), [((), figures.history_changes)])
        yield self._gauge("records_cached", "Record states in memory.", (), [((), figures.records_cached)])
        text = "Records missing at a source, of entities with on_missing: report; no sample where none is missing."
        yield self._gauge("records_missing", text, ("entity", "source"), figures.missing.items())
        quarantined = Counter(dict.fromkeys(self._labels.tables(), 0))
        for place, count in figures.parked.items():
            quarantined[self._labels.table(*place)] += count
        text = "Changes whose business key is unknown; they wait for a snapshot, an insert or a complete old row."
        yield self._gauge("quarantined_events", text, ("source", "table"), quarantined.items())
        watermark = figures.watermark_us / 1e6 if figures.watermark_us else None
        text = "The stamp time that every live source has passed."
        yield self._gauge("watermark_timestamp_seconds", text, (), [((), watermark)])
        yield self._open(figures)
        oldest = ((labels, _seconds(us)) for labels, us in figures.oldest_open_us.items())
        text = "When the oldest open conflict was raised; no sample when none is open."
        yield self._gauge("conflict_oldest_open_timestamp_seconds", text, ("entity", "severity"), oldest)

    def _open(self, figures: StoreFigures) -> Metric:
        expected = {(entity, kind, severity): 0 for entity, _, kind, severity in self._labels.conflicts()}
        counts = {**expected, **figures.conflicts_open}
        return self._gauge("conflicts_open", "Open conflicts.", ("entity", "kind", "severity"), counts.items())

    def _gauge(
        self, name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[tuple[str, ...], float | None]]
    ) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, text, labels=labels)
        for values, figure in samples:
            if figure is not None:
                family.add_metric(values, figure)
        return family

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> CounterMetricFamily:
        return CounterMetricFamily(self._prefix + name, text, labels=labels)
