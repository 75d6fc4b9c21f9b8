"""Metrics of sources, slots and conflicts, and the upper bound of their series."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cdc_merge.model import (
    BatchMerged,
    Candidate,
    ClockCut,
    ConfigReloaded,
    Conflict,
    ConflictMoved,
    DetectedConflict,
    DetectionDegraded,
    Fact,
    HeartbeatPassed,
    LoopDetected,
    Parked,
    Place,
    ResyncProgress,
    SnapshotProgress,
    SourceChanged,
    SourceStatus,
    Stamp,
    StoreFigures,
)
from cdc_merge.model.capture_counters import Counts, Tally
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.observers.capture_metrics import CAPTURED
from cdc_merge.observers.gauges import Gauges
from cdc_merge.observers.labels import FAILURE_CLASSES, PROBLEMS
from cdc_merge.observers.prometheus import Metrics

GIB = 1 << 30
NOTHING: Counts = {}
FIELDS = {"phone": FieldPlan("phone", "mv"), "prefs": FieldPlan("prefs", "map")}
SOURCES = ("crm", "erp", "finance")
PLAN = Plan(
    {"customer": EntityPlan("customer", SOURCES, {name: frozenset(FIELDS) for name in SOURCES}, FIELDS)},
    tuple(TableMap(name, "customer", "public.customer", ("no",), {}) for name in SOURCES),
)
CRM = SourceStatus("crm", "postgres", up=True, state="streaming", server_lsn=GIB, wal_status="reserved")


class World:
    """Metrics over a source whose status the test changes, and a clock that it turns."""

    def __init__(self, status: SourceStatus = CRM, merging: Counts = NOTHING) -> None:
        self.status = status
        self.now_s = 1000.0
        gauges = Gauges(
            StoreFigures, lambda: [self.status], monotonic=lambda: self.now_s, merging=lambda: {"crm": merging}
        )
        self.metrics = Metrics(PLAN, gauges, "1.2.3", monotonic=lambda: self.now_s)

    def series(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(generate_latest(self.metrics.registry).decode())
        samples = (sample for family in families for sample in family.samples)
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}

    def value(self, name: str, /, **labels: str) -> float | None:
        return self.series().get((f"cdc_merge_{name}", frozenset(labels.items())))


def conflict(number: int = 1, sources: tuple[str, ...] = ("crm", "erp"), **differences: str) -> Conflict:
    place = Place("7", 1, 1, "public.customer", 0)
    candidates = tuple(Candidate(source, "x", Stamp(1, 0, source), 1, None, place) for source in sources)
    detected = DetectedConflict("customer", f"C{number}", "phone", None, "concurrent_update", "high", candidates)
    return Conflict(f"c{number}", replace(detected, **differences), "open", 1, 1_000_000)  # type: ignore[arg-type] # text fields


# ---------------------------------------------------------------- sources


def test_a_source_is_in_exactly_one_state_also_in_one_that_has_no_name_here() -> None:
    world = World()
    for state, differences in (("streaming", "streaming"), ("retrying", "retrying"), ("hibernating", "other")):
        world.status = replace(CRM, state=state)
        series = {labels: value for (name, labels), value in world.series().items() if name == "cdc_merge_source_state"}
        at_one = [dict(labels)["state"] for labels, value in series.items() if value and ("source", "crm") in labels]
        assert at_one == [differences]


def test_a_refusal_is_shown_by_its_name_until_the_source_streams_again() -> None:
    world = World()
    assert world.value("source_problem", source="crm", problem="slot_lost") == 0
    world.metrics(SourceChanged("crm", "stopped", "It is lost.", "slot_lost", "Resync."))
    assert world.value("source_problem", source="crm", problem="slot_lost") == 1
    world.metrics(SourceChanged("crm", "stopped", "Strange.", "never_heard_of", ""))
    assert world.value("source_problem", source="crm", problem="slot_lost") == 0
    assert world.value("source_problem", source="crm", problem="other") == 1
    world.metrics(SourceChanged("crm", "streaming", "It streams."))
    assert sum(world.value("source_problem", source="crm", problem=name) or 0 for name in (*PROBLEMS, "other")) == 0


def test_positions_are_bytes_whose_differences_are_lag() -> None:
    world = World(replace(CRM, received_lsn=GIB - 200, last_message_us=1_790_000_000_000_000))
    assert world.value("source_server_lsn_bytes", source="crm") == GIB
    assert world.value("source_received_lsn_bytes", source="crm") == GIB - 200
    assert world.value("source_last_message_timestamp_seconds", source="crm") == 1_790_000_000
    assert world.value("source_durable_lsn_bytes", source="crm") is None
    assert world.value("source_watermark_timestamp_seconds", source="crm") is None


def test_a_slot_has_exactly_one_reason_also_one_that_has_no_name_here() -> None:
    world = World()
    assert world.value("slot_invalidated", source="crm", reason="none") is None
    differences = {"": "none", "idle_timeout": "idle_timeout", "untold": "other", "moon_phase": "other"}
    for invalidation, reason in differences.items():
        world.status = replace(CRM, invalidation=invalidation)
        series = {
            labels: value for (name, labels), value in world.series().items() if name.endswith("slot_invalidated")
        }
        assert [dict(labels)["reason"] for labels, value in series.items() if value] == [reason]
        assert len(series) == 6


def test_a_slot_is_unread_since_a_scrape_saw_it_so_and_not_once_it_is_read_again() -> None:
    world = World()
    assert world.value("slot_inactive_seconds", source="crm") is None
    for at_s, active, shown_s in ((0, False, 0), (60, False, 60), (70, True, 0), (80, False, 0), (95, False, 15)):
        world.now_s = 1000.0 + at_s
        world.status = replace(CRM, slot_active=active)
        assert world.value("slot_inactive_seconds", source="crm") == shown_s


def test_a_transaction_on_disk_says_when_and_an_empty_batch_says_nothing() -> None:
    world = World()
    world.metrics(BatchMerged({}, {}, {}, {}, 0))
    assert world.value("source_last_durable_timestamp_seconds", source="crm") is None
    before_s = time.time()
    world.metrics(BatchMerged({}, {}, {}, {}, 0, transactions={"crm": (1,)}))
    assert before_s <= (world.value("source_last_durable_timestamp_seconds", source="crm") or 0) <= time.time()
    assert world.value("source_last_durable_timestamp_seconds", source="erp") is None


# ---------------------------------------------------------------- what was counted


def test_every_counter_is_zero_before_a_reader_reports() -> None:
    series = World().series()
    sources = [{"source": source} for source in SOURCES]
    families = {each.figure: (each.label, each.values or ("public.customer", "other")) for each in CAPTURED}
    for figure, (label, values) in families.items():
        expected = [{**source, label: value} for source in sources for value in values] if label else sources
        for labels in expected:
            assert series[(f"cdc_merge_{figure}_total", frozenset(labels.items()))] == 0, (figure, labels)
    for source in SOURCES:
        errors = [
            labels
            for name, labels in series
            if name == "cdc_merge_source_errors_total" and ("source", source) in labels
        ]
        assert len(errors) == 2 * (len(FAILURE_CLASSES) + 1)
        assert series[("cdc_merge_commit_lag_seconds_count", frozenset({("source", source)}))] == 0


def test_what_reader_and_merging_have_counted_is_one_figure() -> None:
    tally = Tally(["public.customer"])
    tally.add("duplicates_dropped")
    tally.of_table("truncates", "public.elsewhere")
    merging = {("duplicates_dropped", ""): 2, ("truncates", "public.gone"): 1}
    world = World(replace(CRM, counts=tally.counts()), merging)
    assert world.value("duplicates_dropped_total", source="crm") == 3
    assert world.value("truncates_total", source="crm", table="other") == 2
    assert world.value("truncates_total", source="crm", table="public.customer") == 0


def test_a_lag_is_in_every_bucket_from_its_own_on() -> None:
    tally = Tally()
    for lag_us in (-3_000_000, 250_000, 250_001, 400_000_000):
        tally.committed(100, lag_us)
    world = World(replace(CRM, counts=tally.counts()))
    differences = {
        le: world.value("commit_lag_seconds_bucket", source="crm", le=le)
        for le in ("0.1", "0.25", "0.5", "300.0", "+Inf")
    }
    assert differences == {"0.1": 1, "0.25": 2, "0.5": 3, "300.0": 3, "+Inf": 4}
    assert world.value("commit_lag_seconds_sum", source="crm") == 400.500001
    assert world.value("event_bytes_total", source="crm") == 400


def test_a_failure_is_counted_by_its_class_and_by_what_follows() -> None:
    world = World()
    world.metrics(SourceChanged("crm", "retrying", "It is away.", failure="connection"))
    world.metrics(SourceChanged("crm", "stopped", "It is lost.", "slot_lost", failure="position"))
    world.metrics(SourceChanged("crm", "stopped", "Strange.", failure="weather"))
    world.metrics(SourceChanged("crm", "streaming", "It streams."))
    series = {
        labels: value for (name, labels), value in world.series().items() if name == "cdc_merge_source_errors_total"
    }
    counted = {(dict(labels)["class"], dict(labels)["retryable"]): value for labels, value in series.items() if value}
    assert counted == {("connection", "true"): 1, ("position", "false"): 1, ("other", "false"): 1}


# ---------------------------------------------------------------- time until a slot is lost


class QueryPort(NamedTuple):
    at_s: float
    server_lsn: int


def seconds_left(
    readings: list[QueryPort], safe_bytes: int | None, wal_status: str | None = "reserved"
) -> float | None:
    world = World()
    left = None
    for reading in readings:
        world.now_s = 1000.0 + reading.at_s
        world.status = replace(CRM, server_lsn=reading.server_lsn, safe_bytes=safe_bytes, wal_status=wal_status)
        left = world.value("slot_seconds_to_invalidation", source="crm")
    return left


def test_a_slot_is_lost_when_its_safe_bytes_are_written_at_the_present_pace() -> None:
    assert seconds_left([QueryPort(0, GIB), QueryPort(60, GIB + 60_000)], safe_bytes=3_600_000) == 3600.0


def test_a_slot_without_a_limit_or_beside_an_idle_log_is_never_lost() -> None:
    assert seconds_left([QueryPort(0, GIB), QueryPort(60, GIB + 60_000)], safe_bytes=None) == math.inf
    assert seconds_left([QueryPort(0, GIB), QueryPort(60, GIB)], safe_bytes=3_600_000) == math.inf


def test_one_reading_says_nothing_of_the_pace() -> None:
    assert seconds_left([QueryPort(0, GIB)], safe_bytes=3_600_000) is None
    assert seconds_left([QueryPort(0, GIB), QueryPort(60, GIB + 1)], safe_bytes=1, wal_status=None) is None


def test_a_lost_slot_has_no_second_left() -> None:
    assert seconds_left([QueryPort(0, GIB)], safe_bytes=None, wal_status="lost") == 0.0


def test_the_pace_is_that_of_the_last_fifteen_minutes() -> None:
    busy_then_quiet = [QueryPort(at_s, GIB + min(at_s, 600) * 1_000_000) for at_s in range(0, 3000, 30)]
    assert seconds_left(busy_then_quiet, safe_bytes=3_600_000) == math.inf


# ---------------------------------------------------------------- conflicts by who disagrees


def test_a_conflict_counts_for_every_two_sources_that_disagree_in_it() -> None:
    world = World()
    world.metrics(ConflictMoved("raised", conflict(1, ("crm", "erp"))))
    world.metrics(ConflictMoved("raised", conflict(2, ("crm", "erp", "finance"))))
    world.metrics(ConflictMoved("raised", conflict(3, ("finance",))))
    pairs = {
        pair: world.value("conflict_pairs_total", entity="customer", pair=pair)
        for pair in ("crm / erp", "crm / finance", "erp / finance", "crm", "finance")
    }
    assert pairs == {"crm / erp": 2, "crm / finance": 1, "erp / finance": 1, "crm": 0, "finance": 1}


# ---------------------------------------------------------------- bound of the series


def test_no_fact_however_strange_adds_series_without_bound() -> None:
    """Thousands of facts full of keys, people and values: sooner or later every one of them is `other`."""
    world = World()
    before = len(world.series())
    chance = random.Random(7)

    def strange() -> str:
        return chance.choice(["customer", "phone", "crm", "erp", "mv", "applied", f"wang-{chance.random()}"])

    counts = []
    for _ in range(3):
        for number in range(4000):
            world.metrics(chance.choice(FACTS)(strange, number))
        counts.append(len(world.series()))
    assert counts[2] < 2 * before
    assert counts[2] - counts[1] < 10
    assert "wang" not in generate_latest(world.metrics.registry).decode()


def _batch(strange: Callable[[], str], number: int) -> BatchMerged:
    changes = {(strange(), strange(), strange()): 1}
    merges = {(strange(), strange(), strange(), strange()): 1}
    batch = BatchMerged({"map": 0.1}, changes, merges, {strange(): (0.1,)}, 1)
    return replace(
        batch, rules={(strange(), "true"): 1}, transactions={strange(): (1,)}, behind={(strange(), "own"): 1}
    )


def _moved(strange: Callable[[], str], number: int) -> ConflictMoved:
    differences = {name: strange() for name in ("entity", "field", "kind", "severity")}
    moved = conflict(number, (strange(), strange()), **differences)
    return ConflictMoved("closed", replace(moved, status="closed", closed_us=2_000_000, resolution=strange()))


FACTS: list[Callable[[Callable[[], str], int], Fact]] = [
    _batch,
    _moved,
    lambda strange, _: Parked(strange(), strange(), strange()),
    lambda strange, _: ClockCut(strange(), 1),
    lambda strange, _: DetectionDegraded(strange(), strange(), "tombstone_removed"),
    lambda strange, _: LoopDetected(strange(), strange(), (strange(), strange())),
    lambda strange, _: HeartbeatPassed(strange(), 0.1, 0),
    lambda strange, _: ResyncProgress(strange(), strange(), "failed", 1, 1, 1, 1, strange()),
    lambda strange, _: ConfigReloaded(strange(), strange(), (strange(),)),
    lambda strange, _: SnapshotProgress(strange(), strange(), 1, 2),
    lambda strange, _: SourceChanged(strange(), strange(), strange(), strange(), strange()),
]
