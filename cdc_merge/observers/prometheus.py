"""Facts → metrics (contract §5): events are counted here, states are read at each scrape in `gauges`.

Labels come from the plan and from closed lists, never from keys or values (`labels`). Every series whose labels the plan
has exists from the start: a counter that begins with its first event has no rate to alert on.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from cdc_merge.model import (
    BatchMerged,
    ClockCut,
    ConfigReloaded,
    ConflictMoved,
    DetectionDegraded,
    Fact,
    HeartbeatPassed,
    LoopDetected,
    Parked,
    QuarantineReleased,
    ResyncProgress,
    SnapshotProgress,
    SourceChanged,
    StoreWaits,
)
from cdc_merge.model.plan import Plan
from cdc_merge.observers.conflict_metrics import ConflictMetrics
from cdc_merge.observers.gauges import GaugeCollector, Gauges
from cdc_merge.observers.labels import (
    BEHIND,
    EVALUATIONS,
    FAILURES,
    LOADS,
    OTHER,
    PAIRED,
    PROBLEMS,
    REMOVED,
    STAGES,
    Labels,
)
from cdc_merge.observers.resync_metrics import ResyncMetrics

PREFIX: Final = "cdc_merge_"
# Edges at the service objectives, so that "within 1 s" is a bucket and not an interpolation.
DETECTION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BATCH_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZE_BUCKETS: Final = (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
RELEASED: Final = ("named", "emptied", "expired")

# No fact reports that a clock is right again: the skew is shown for as long as a scrape or an alert needs to see it.
SKEW_SHOWN_S: Final = 300.0
# Pruned history never comes back, so nothing ends this state: it is shown for as long as an operator needs to look, and
# counted besides.
DEGRADED_SHOWN_S: Final = 3_600.0
FAILED: Final = {"retrying": "retried", "stopped": "refused"}


class Metrics:
    """An observer that owns the registry of all metrics. `version` is the project's; `monotonic` returns seconds."""

    def __init__(
        self, plan: Plan, gauges: Gauges, version: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        # A `_created` series beside each counter doubles the scrape, and no dashboard or alert uses it.
        disable_created_metrics()  # type: ignore[no-untyped-call] # the package leaves it untyped
        self.registry = CollectorRegistry()
        self._labels = Labels(plan)
        self._monotonic = monotonic
        self._make_counters()
        self._make_histograms()
        self._conflict_metrics = ConflictMetrics(PREFIX, self._labels, self.registry)
        self._resync_metrics = ResyncMetrics(PREFIX, self._labels, self.registry)
        self._make_gauges(version)
        self._degraded_s: float | None = None
        self._skew: dict[str, tuple[float, float]] = {}
        self._snapshot_rows: dict[tuple[str, str], int] = {}
        self._counters_of: Mapping[type, Callable[[Any], None]] = {
            BatchMerged: self._batch_merged,
            ConflictMoved: self._conflict_metrics.moved,
            Parked: self._count_parked,
            QuarantineReleased: self._count_released,
            ClockCut: self._clock_cut,
            SnapshotProgress: self._snapshot_progress,
            SourceChanged: self._source_changed,
            DetectionDegraded: self._detection_degraded,
            LoopDetected: self._loop_detected,
            ConfigReloaded: self._config_reloaded,
            HeartbeatPassed: self._heartbeat_passed,
            ResyncProgress: self._resync_metrics.moved,
            StoreWaits: self._store_waits,
        }
        self._preset_series()
        self._gauge_collector = GaugeCollector(PREFIX, self._labels, gauges)
        self.registry.register(self._gauge_collector)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def __call__(self, fact: Fact) -> None:
        """Count a fact. Never raises, never waits."""
        count = self._counters_of.get(type(fact))
        if count is not None:
            count(fact)

    def follow(self, plan: Plan) -> None:
        """Take the label values of a reloaded plan; series of the previous plan stay."""
        self._labels = Labels(plan)
        self._conflict_metrics.follow(self._labels)
        self._resync_metrics.follow(self._labels)
        self._gauge_collector.follow(self._labels)
        self._preset_series()

    # ---------------------------------------------------------------- the metrics

    def _make_counters(self) -> None:
        self._changes = self._counter("changes", "Record changes merged.", ("source", "entity", "operation"))
        self._merges = self._counter(
            "merges",
            "Fields changed, by the outcome of the merge.",
            ("entity", "field", "merge", "outcome"),
        )
        self._late = self._counter("late_changes", "Changes that arrived after a later stamp of their record.", ())
        self._parked = self._counter(
            "parked",
            "Rows skipped because a value is unreadable or the business key is unknown.",
            ("source", "table"),
        )
        self._quarantined = self._counter(
            "quarantined",
            "Parked rows that are quarantined until a snapshot, an insert or a complete old row resolves their business key.",
            ("source", "table"),
        )
        self._released = self._counter(
            "released",
            "Rows that left the quarantine, by outcome.",
            ("source", "table", "outcome"),
        )
        self._cuts = self._counter("clock_cut", "Commits whose time was too far ahead of our clock.", ("source",))
        self._evaluations = self._counter(
            "rule_evaluations", "Evaluations of rule and check expressions, by result.", ("rule", "outcome")
        )
        self._rule_errors = self._counter("rule_errors", "Evaluations of expressions that failed.", ("rule",))
        self._behind = self._counter(
            "clock_stepped_back",
            "Transactions with an earlier commit time than the one before: by the source's own clock, or by an origin's.",
            ("source", "reason"),
        )
        self._loads = self._counter(
            "record_loads", "Record states loaded by a batch, by origin (cache or store).", ("origin",)
        )
        self._loops = self._counter(
            "loops", "Write loops: two sources alternately restoring each other's value.", ("entity", "pair")
        )
        self._blind = self._counter(
            "degraded_changes",
            "Changes that refer to history that retention has pruned, by what was pruned.",
            ("source", "entity", "reason"),
        )
        self._failures = self._counter(
            "source_failures",
            "Failed attempts to read a source, by consequence (retried or refused).",
            ("source", "outcome"),
        )
        self._errors = self._counter(
            "source_errors",
            "Failed attempts to read a source, by class of failure and whether they are retried automatically.",
            ("source", "class", "retryable"),
        )
        self._beats = self._counter(
            "heartbeat_received", "Heartbeats received back in the stream, merged and on disk.", ("source",)
        )
        self._lost_beats = self._counter(
            "heartbeat_lost",
            "Heartbeats missing although later ones arrived: part of the stream was skipped.",
            ("source",),
        )
        self._rows = self._counter("snapshot_rows", "Rows of initial snapshots merged.", ("source", "entity"))

    def _make_histograms(self) -> None:
        self._detection_seconds = self._histogram(
            "detection_seconds", "From the commit at the source to merged and on disk.", ("source",), DETECTION_BUCKETS
        )
        self._round_trip = self._histogram(
            "heartbeat_round_trip_seconds",
            "From writing a heartbeat to the source to merged and on disk: the round trip.",
            ("source",),
            DETECTION_BUCKETS,
        )
        self._batch_seconds = self._histogram(
            "batch_seconds", "Duration of a batch, by stage.", ("stage",), BATCH_BUCKETS
        )
        self._batch_changes = self._histogram("batch_changes", "Record changes in a batch.", (), SIZE_BUCKETS)
        self._transaction_rows = self._histogram(
            "transaction_rows", "Rows changed by one transaction of a source.", ("source",), SIZE_BUCKETS
        )

    def _make_gauges(self, version: str) -> None:
        self._rows_expected = self._gauge(
            "snapshot_rows_expected", "Rows in the initial snapshot, as the source estimates.", ("source", "entity")
        )
        self._clock_skew = self._gauge(
            "clock_skew_seconds",
            "How far the source's clock was ahead of ours at its latest cut stamp; 0 after five minutes.",
            ("source",),
        )
        self._problems = self._gauge(
            "source_problem",
            "1 at the reason why the source refuses to be read; a person must act.",
            ("source", "problem"),
        )
        self._durable = self._gauge(
            "source_last_durable_timestamp_seconds",
            "When a transaction of the source was last merged and on disk.",
            ("source",),
        )
        self._reload = self._gauge(
            "config_last_reload_successful",
            "1 if the last reload of the configuration succeeded; 0 while the previous configuration stays in force.",
            (),
        )
        self._reload.set(1)
        self._waits = self._gauge("store_waiting", "1 while merging waits because another program holds the store.", ())
        self._reloaded = self._gauge(
            "config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded.", ()
        )
        self._reloaded.set_to_current_time()
        self._gauge(
            "detection_degraded",
            "1 for an hour after a change referred to pruned history: a conflict about its record may stay undetected.",
            (),
        ).set_function(self._is_degraded)
        build = self._gauge("build_info", "1, with the running version.", ("version", "python"))
        build.labels(version, platform.python_version()).set(1)

    def _preset_series(self) -> None:
        """Create every series whose labels the plan has, at zero."""
        labels = self._labels
        _touch(self._changes, labels.changes())
        _touch(self._merges, labels.merges())
        self._conflict_metrics.preset_series(labels)
        _touch(self._parked, labels.tables())
        _touch(self._quarantined, labels.tables())
        _touch(self._released, ((*table, outcome) for table in labels.tables() for outcome in RELEASED))
        _touch(self._problems, labels.problems())
        _touch(self._evaluations, ((rule, outcome) for rule in labels.rules for outcome in EVALUATIONS))
        _touch(self._rule_errors, ((rule,) for rule in labels.rules))
        _touch(self._batch_seconds, ((stage,) for stage in STAGES))
        _touch(self._loops, (place for place in labels.pairs() if PAIRED in place[1]))
        _touch(self._loads, ((origin,) for origin in LOADS))
        _touch(self._blind, ((*place, reason) for place in labels.mapped() for reason in REMOVED))
        _touch(self._rows, labels.mapped())
        _touch(self._rows_expected, labels.mapped())
        _touch(self._behind, ((source, reason) for source in labels.sources for reason in BEHIND))
        _touch(self._failures, ((source, outcome) for source in labels.sources for outcome in FAILURES))
        _touch(self._errors, labels.errors())
        for source in labels.sources:
            self._detection_seconds.labels(source)
            self._round_trip.labels(source)
            self._beats.labels(source)
            self._lost_beats.labels(source)
            self._transaction_rows.labels(source)
            self._cuts.labels(source)
            self._clock_skew.labels(source).set_function(partial(self._skew_of, source))

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)

    # ---------------------------------------------------------------- the facts

    def _batch_merged(self, fact: BatchMerged) -> None:
        for change, count in fact.changes.items():
            self._changes.labels(*self._labels.change(*change)).inc(count)
        for merge, count in fact.merges.items():
            self._merges.labels(*self._labels.merge(merge)).inc(count)
        for stage, seconds in fact.seconds.items():
            self._batch_seconds.labels(stage).observe(seconds)
        for source, waits in fact.detection_seconds.items():
            observe = self._detection_seconds.labels(self._labels.source(source)).observe
            for wait in waits:
                observe(max(0.0, wait))
        self._late.inc(fact.late_changes)
        self._batch_sizes(fact)
        self._rules_evaluated(fact.rules)
        for conflict in fact.raised:
            self._conflict_metrics.raised(conflict)
        for conflict in fact.closed:
            self._conflict_metrics.closed(conflict)

    def _rules_evaluated(self, evaluated: Mapping[tuple[str, str], int]) -> None:
        for (name, outcome), count in evaluated.items():
            rule = self._labels.rule(name)
            self._evaluations.labels(rule, outcome).inc(count)
            if outcome == "error":
                self._rule_errors.labels(rule).inc(count)

    def _batch_sizes(self, fact: BatchMerged) -> None:
        self._batch_changes.observe(sum(fact.changes.values()))
        for origin, count in fact.loads.items():
            self._loads.labels(origin).inc(count)
        for source, sizes in fact.transactions.items():
            self._durable.labels(self._labels.source(source)).set_to_current_time()
            observe = self._transaction_rows.labels(self._labels.source(source)).observe
            for size in sizes:
                observe(size)
        for (source, why), count in fact.behind.items():
            self._behind.labels(self._labels.source(source), why).inc(count)

    def _count_parked(self, fact: Parked) -> None:
        place = self._labels.table(fact.source, fact.table)
        self._parked.labels(*place).inc()
        if fact.is_quarantined:
            self._quarantined.labels(*place).inc()

    def _count_released(self, fact: QuarantineReleased) -> None:
        self._released.labels(*self._labels.table(fact.source, fact.table), fact.outcome).inc(fact.count)

    def _detection_degraded(self, fact: DetectionDegraded) -> None:
        self._degraded_s = self._monotonic()
        self._blind.labels(self._labels.source(fact.source), self._labels.entity(fact.entity), fact.reason).inc()

    def _is_degraded(self) -> float:
        return self._degraded_s is not None and self._monotonic() - self._degraded_s < DEGRADED_SHOWN_S

    def _loop_detected(self, fact: LoopDetected) -> None:
        pair = PAIRED.join(sorted(self._labels.source(source) for source in fact.sources))
        self._loops.labels(self._labels.entity(fact.entity), pair).inc()

    def _config_reloaded(self, fact: ConfigReloaded) -> None:
        self._reload.set(fact.problem is None)
        if fact.problem is None:
            self._reloaded.set_to_current_time()

    def _clock_cut(self, fact: ClockCut) -> None:
        source = self._labels.source(fact.source)
        self._cuts.labels(source).inc()
        self._skew[source] = (fact.ahead_us / 1e6, self._monotonic())

    def _skew_of(self, source: str) -> float:
        ahead_s, at_s = self._skew.get(source, (0.0, 0.0))
        return ahead_s if self._monotonic() - at_s < SKEW_SHOWN_S else 0.0

    def _heartbeat_passed(self, fact: HeartbeatPassed) -> None:
        source = self._labels.source(fact.source)
        self._beats.labels(source).inc()
        self._lost_beats.labels(source).inc(fact.lost)
        self._round_trip.labels(source).observe(max(0.0, fact.seconds))

    def _source_changed(self, fact: SourceChanged) -> None:
        source = self._labels.source(fact.source)
        problem = None if fact.problem is None else self._labels.problem(fact.problem)
        for listed in (*PROBLEMS, OTHER):
            self._problems.labels(source, listed).set(listed == problem)
        if fact.state in FAILED:
            self._failures.labels(source, FAILED[fact.state]).inc()
            self._errors.labels(source, *self._labels.error(fact.failure, is_retried=fact.state == "retrying")).inc()

    def _store_waits(self, fact: StoreWaits) -> None:
        self._waits.set(fact.problem is not None)

    def _snapshot_progress(self, fact: SnapshotProgress) -> None:
        labels = (self._labels.source(fact.source), self._labels.entity(fact.entity))
        before = self._snapshot_rows.get(labels, 0)
        self._snapshot_rows[labels] = fact.rows
        # Fewer rows than before: the snapshot began again.
        self._rows.labels(*labels).inc(fact.rows - before if fact.rows >= before else fact.rows)
        self._rows_expected.labels(*labels).set(fact.expected)


def _touch(metric: Counter | Gauge | Histogram, series: Iterable[tuple[str, ...]]) -> None:
    for labels in series:
        metric.labels(*labels)
