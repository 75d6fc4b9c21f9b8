"""Every metric name and label of the contract, as a scraper reads them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cdc_merge.model import (
    BatchMerged,
    ClockCut,
    ConfigReloaded,
    Conflict,
    ConflictMoved,
    DetectedConflict,
    DetectionDegraded,
    LoopDetected,
    Parked,
    QuarantineReleased,
    ResyncProgress,
    SnapshotProgress,
    SourceChanged,
    SourceStatus,
    StoreFigures,
)
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.observers.gauges import Gauges
from cdc_merge.observers.prometheus import Metrics
from tests.observers.metric_contract import COUNTERS, GAUGES, HISTOGRAMS

FIELDS = {
    "phone": FieldPlan("phone", "mv", severity="high"),
    "points": FieldPlan("points", "counter"),
    "name": FieldPlan("name", "lww"),
    "prefs": FieldPlan("prefs", "map"),
}
CUSTOMER = EntityPlan(
    "customer",
    ("crm", "erp"),
    {"crm": frozenset(FIELDS), "erp": frozenset(FIELDS)},
    FIELDS,
    groups={"address": FieldPlan("address", "mv", members=("city", "street"))},
    checks=(Check("limit", "true", "critical"),),
)
PLAN = Plan(
    {"customer": CUSTOMER},
    (
        TableMap("crm", "customer", "public.customer", ("no",), {}),
        TableMap("erp", "customer", "erp.partner", ("code",), {}),
    ),
)
CRM = SourceStatus(
    "crm",
    "postgres",
    up=True,
    state="streaming",
    received_lsn=0x900,
    server_lsn=0x1000,
    last_commit_us=1_790_000_000_500_000,
    reconnects=2,
    confirmed_lsn=0x700,
    queued_bytes=512,
    queue_limit_bytes=1024,
    waited_s=2.5,
    heartbeats_permitted=True,
    slot="cdc_merge_crm",
    slot_active=True,
    wal_status="extended",
    retained_bytes=4096,
    safe_bytes=None,
)
FIGURES = StoreFigures(
    records_cached=7,
    history_changes=12,
    watermark_us=1_790_000_000_000_000,
    conflicts_open={("customer", "concurrent_update", "high"): 2},
    oldest_open_us={("customer", "high"): 1_789_999_999_000_000},
)
PHONE = DetectedConflict("customer", "C001", "phone", None, "concurrent_update", "high", ())
OPEN = Conflict("c1", PHONE, "open", 1, 1_000_000)
CLOSED = replace(OPEN, status="closed", closed_us=6_000_000, resolution="converged")


def batch(**differences: object) -> BatchMerged:
    nothing = BatchMerged(seconds={}, changes={}, merges={}, detection_seconds={}, late_changes=0)
    return replace(nothing, **differences)  # type: ignore[arg-type] # the tests name fields of BatchMerged


def made(
    figures: Callable[[], StoreFigures] = lambda: FIGURES, monotonic: Callable[[], float] = lambda: 0.0
) -> Metrics:
    watermarks = {"crm": 1_790_000_000_250_000}
    gauges = Gauges(
        figures, lambda: [CRM], lambda: {"crm": 0x800}, lambda: watermarks, monotonic, lambda: {("crm", "rows"): 2}
    )
    return Metrics(PLAN, gauges, "1.2.3", monotonic=monotonic)


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    """What a scrape says; None when it says nothing of this series."""
    for family in text_string_to_metric_families(text(metrics)):
        for sample in family.samples:
            if sample.name == f"cdc_merge_{name}" and sample.labels == labels:
                return float(sample.value)
    return None


def busy() -> Metrics:
    """Metrics in which every series has been touched."""
    metrics = made()
    metrics(
        batch(
            seconds={"merge": 0.002, "store": 0.01},
            changes={("crm", "customer", "update"): 3},
            merges={("customer", "phone", "mv", "conflict"): 1},
            detection_seconds={"crm": (0.2, 0.8)},
            late_changes=1,
            raised=(OPEN,),
            closed=(CLOSED,),
            rules={("limit", "true"): 5, ("limit", "error"): 2},
        )
    )
    metrics(Parked("crm", "public.customer", "unreadable"))
    metrics(ClockCut("crm", 3_500_000))
    metrics(SnapshotProgress("crm", "customer", 100, 250))
    metrics(DetectionDegraded("crm", "customer", "tombstone_removed"))
    return metrics


# ---------------------------------------------------------------- what a scrape looks like


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_every_metric_of_the_contract_is_exposed_with_its_type_and_labels(kind: str) -> None:
    wanted = {"counter": COUNTERS, "gauge": GAUGES, "histogram": HISTOGRAMS}[kind]
    families = {family.name: family for family in text_string_to_metric_families(text(busy()))}
    for name, labels in wanted.items():
        family = families[f"cdc_merge_{name}"]
        assert family.type == kind, name
        assert family.documentation.endswith("."), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(labels), name


def test_nothing_of_ours_is_exposed_beyond_the_list_here() -> None:
    names = {family.name for family in text_string_to_metric_families(text(busy())) if family.name.startswith("cdc_")}
    assert names == {f"cdc_merge_{name}" for name in (*COUNTERS, *GAUGES, *HISTOGRAMS, "scrape_failures")}


def test_detection_is_degraded_for_an_hour_after_the_last_change_that_met_what_was_removed() -> None:
    now = [1000.0]
    metrics = made(monotonic=lambda: now[0])
    assert value(metrics, "detection_degraded") == 0
    for _ in range(2):
        metrics(DetectionDegraded("crm", "customer", "history_removed"))
        now[0] += 3_599
        assert value(metrics, "detection_degraded") == 1
    now[0] += 1
    assert value(metrics, "detection_degraded") == 0
    met = {"source": "crm", "entity": "customer"}
    assert value(metrics, "degraded_changes_total", reason="history_removed", **met) == 2
    assert value(metrics, "degraded_changes_total", reason="tombstone_removed", **met) == 0


@pytest.mark.parametrize(
    ("severity", "agreed_s"), [("critical", 4 * 3600), ("high", 24 * 3600), ("medium", 7 * 24 * 3600)]
)
def test_an_answer_is_in_time_up_to_the_agreed_second(severity: str, agreed_s: int) -> None:
    metrics = made()
    detected = replace(PHONE, severity=severity)
    for number, took_s in enumerate((agreed_s, agreed_s + 1)):
        closed_us = OPEN.raised_us + took_s * 1_000_000
        conflict = replace(CLOSED, id=f"c{number}", detected=detected, announced_us=2_000_000, closed_us=closed_us)
        metrics(ConflictMoved("closed", conflict))
        metrics(ConflictMoved("closed", conflict))
    for outcome in ("in_time", "late"):
        labels = {"entity": "customer", "severity": severity, "outcome": outcome}
        assert value(metrics, "conflicts_answered_total", **labels) == 1


def test_an_unannounced_conflict_is_not_answered_and_low_has_no_agreed_time() -> None:
    metrics = made()
    metrics(ConflictMoved("closed", CLOSED))
    low = replace(CLOSED, id="c2", detected=replace(PHONE, severity="low"), announced_us=2_000_000)
    metrics(ConflictMoved("closed", low))
    assert value(metrics, "conflicts_answered_total", entity="customer", severity="high", outcome="in_time") == 0
    assert 'cdc_merge_conflicts_answered_total{entity="customer",outcome="in_time",severity="low"}' not in text(metrics)


def test_sizes_and_loads_of_batches_are_counted() -> None:
    metrics = made()
    changes = {("crm", "customer", "update"): 30, ("erp", "customer", "insert"): 12}
    differences = batch(changes=changes, transactions={"crm": (1, 29)}, loads={"memory": 40, "store": 2})
    metrics(replace(differences, behind={("erp", "origin"): 3}))
    assert value(metrics, "batch_changes_bucket", le="10.0") == 0
    assert value(metrics, "batch_changes_bucket", le="100.0") == 1
    assert value(metrics, "transaction_rows_sum", source="crm") == 30
    assert value(metrics, "transaction_rows_bucket", source="crm", le="1.0") == 1
    assert value(metrics, "record_loads_total", origin="memory") == 40
    assert value(metrics, "record_loads_total", origin="store") == 2
    assert value(metrics, "clock_stepped_back_total", source="erp", reason="origin") == 3
    assert value(metrics, "clock_stepped_back_total", source="erp", reason="own") == 0


def test_what_is_read_again_is_counted_as_it_goes_on_and_what_fails_once() -> None:
    metrics = made()
    metrics(ResyncProgress("crm", "public.customer", "rows", 5, 9, read=5, deleted=0))
    metrics(ResyncProgress("crm", "public.customer", "missing", 9, 9, read=4, deleted=2))
    metrics(ResyncProgress("crm", "public.order", "failed", 0, 0, read=0, deleted=0, problem="no"))
    assert value(metrics, "resync_rows_total", source="crm") == 9
    assert value(metrics, "resync_gone_total", source="crm") == 2
    assert value(metrics, "resync_failures_total", source="crm") == 1
    assert value(metrics, "resync_rows_total", source="erp") == 0
    assert value(metrics, "resyncs", source="crm", state="rows") == 2


def test_a_loop_is_counted_for_its_pair_in_either_order() -> None:
    metrics = made()
    metrics(LoopDetected("customer", "C001", ("erp", "crm")))
    metrics(LoopDetected("customer", "C002", ("crm", "erp")))
    assert value(metrics, "loops_total", entity="customer", pair="crm / erp") == 2


def test_failed_attempts_to_read_are_counted_by_what_follows() -> None:
    metrics = made()
    for state in ("connecting", "retrying", "retrying", "streaming", "stopped"):
        metrics(SourceChanged("crm", state, "It says so."))
    assert value(metrics, "source_failures_total", source="crm", outcome="retried") == 2
    assert value(metrics, "source_failures_total", source="crm", outcome="refused") == 1
    assert value(metrics, "source_failures_total", source="erp", outcome="refused") == 0


def test_each_family_has_one_help_one_type_and_no_series_twice() -> None:
    lines = text(busy()).splitlines()
    for word in ("# HELP", "# TYPE"):
        names = [line.split()[2] for line in lines if line.startswith(word)]
        assert len(names) == len(set(names))
    series = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_promtool_finds_nothing_to_mend() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    command = [promtool, "check", "metrics"]
    answer = subprocess.run(command, input=text(busy()), capture_output=True, text=True, timeout=30)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_counters_exist_at_zero_before_anything_happened() -> None:
    metrics = made()
    assert value(metrics, "changes_total", source="erp", entity="customer", operation="delete") == 0
    assert value(metrics, "merges_total", entity="customer", field="address", merge="mv", outcome="late") == 0
    assert (
        value(metrics, "conflicts_total", entity="customer", field="phone", kind="concurrent_update", severity="high")
        == 0
    )
    assert value(metrics, "conflicts_total", entity="customer", field="", kind="invariant", severity="critical") == 0
    assert value(metrics, "resolutions_total", entity="customer", kind="bound", resolution="decided") == 0
    assert value(metrics, "parked_total", source="erp", table="erp.partner") == 0
    assert value(metrics, "detection_seconds_count", source="erp") == 0


def test_an_automatic_field_promises_no_series_of_concurrent_conflicts() -> None:
    name = {"entity": "customer", "field": "name", "kind": "concurrent_update", "severity": "medium"}
    assert value(made(), "conflicts_total", **name) is None


# ---------------------------------------------------------------- facts


def test_a_batch_is_counted_as_its_fact_reports_it() -> None:
    metrics = busy()
    assert value(metrics, "changes_total", source="crm", entity="customer", operation="update") == 3
    assert value(metrics, "merges_total", entity="customer", field="phone", merge="mv", outcome="conflict") == 1
    assert value(metrics, "late_changes_total") == 1
    assert value(metrics, "batch_seconds_count", stage="store") == 1
    assert value(metrics, "detection_seconds_bucket", source="crm", le="0.25") == 1
    assert value(metrics, "detection_seconds_bucket", source="crm", le="1.0") == 2


def test_a_conflict_reported_twice_is_counted_once() -> None:
    metrics = busy()
    metrics(ConflictMoved("raised", OPEN))
    metrics(ConflictMoved("closed", CLOSED))
    labels = {"entity": "customer", "field": "phone", "kind": "concurrent_update", "severity": "high"}
    assert value(metrics, "conflicts_total", **labels) == 1
    assert value(metrics, "resolutions_total", entity="customer", kind="concurrent_update", resolution="converged") == 1


@pytest.mark.parametrize(("announced_us", "times"), [(None, 1), (2_000_000, 0)])
def test_a_conflict_first_reported_when_closed_was_raised_unless_it_was_announced_before(
    announced_us: int | None, times: int
) -> None:
    metrics = made()
    metrics(ConflictMoved("closed", replace(CLOSED, announced_us=announced_us)))
    labels = {"entity": "customer", "field": "phone", "kind": "concurrent_update", "severity": "high"}
    assert value(metrics, "conflicts_total", **labels) == times


@pytest.mark.parametrize("what", ["revised", "announced"])
def test_a_conflict_that_only_moves_is_not_counted(what: str) -> None:
    metrics = made()
    metrics(ConflictMoved(what, OPEN))
    labels = {"entity": "customer", "field": "phone", "kind": "concurrent_update", "severity": "high"}
    assert value(metrics, "conflicts_total", **labels) == 0


def test_resolution_takes_from_raised_to_closed() -> None:
    metrics = made()
    metrics(ConflictMoved("closed", CLOSED))
    assert value(metrics, "resolution_seconds_sum", entity="customer", resolution="converged") == 5.0


def test_labels_that_the_plan_does_not_know_become_other() -> None:
    metrics = made()
    stranger = replace(PHONE, entity="13800138000", field="wang", kind="strange", severity="loud")
    metrics(batch(changes={("x", "y", "z"): 1}, merges={("customer", "secret", "mv", "applied"): 1}))
    metrics(ConflictMoved("raised", replace(OPEN, detected=stranger)))
    metrics(Parked("crm", "public.customer_13800138000", "unreadable"))
    metrics(QuarantineReleased("crm", "public.customer_13800138000", "named", 1))
    metrics(ClockCut("nobody", 1))
    assert value(metrics, "changes_total", source="other", entity="other", operation="other") == 1
    assert value(metrics, "merges_total", entity="customer", field="other", merge="mv", outcome="applied") == 1
    assert value(metrics, "conflicts_total", entity="other", field="other", kind="other", severity="other") == 1
    assert value(metrics, "parked_total", source="crm", table="other") == 1
    assert value(metrics, "released_total", source="crm", table="other", outcome="named") == 1
    assert "13800138000" not in text(metrics)


def test_rows_that_are_kept_until_they_are_named_are_counted_apart() -> None:
    metrics = made()
    metrics(Parked("crm", "public.customer", "unreadable"))
    metrics(Parked("crm", "public.customer", "unknown identity", is_quarantined=True))
    metrics(QuarantineReleased("crm", "public.customer", "expired", 3))
    assert value(metrics, "parked_total", source="crm", table="public.customer") == 2
    assert value(metrics, "quarantined_total", source="crm", table="public.customer") == 1
    assert value(metrics, "released_total", source="crm", table="public.customer", outcome="expired") == 3
    assert value(metrics, "released_total", source="crm", table="public.customer", outcome="named") == 0


def test_a_key_inside_a_map_counts_as_its_map() -> None:
    metrics = made()
    metrics(ConflictMoved("raised", replace(OPEN, detected=replace(PHONE, field="prefs.city"))))
    labels = {"entity": "customer", "field": "prefs", "kind": "concurrent_update", "severity": "high"}
    assert value(metrics, "conflicts_total", **labels) == 1


def test_a_group_counts_under_its_name_and_a_row_under_none() -> None:
    metrics = made()
    metrics(ConflictMoved("raised", replace(OPEN, detected=replace(PHONE, field=None, group="address"))))
    metrics(ConflictMoved("raised", replace(OPEN, id="c2", detected=replace(PHONE, field=None, kind="update_delete"))))
    group = {"entity": "customer", "field": "address", "kind": "concurrent_update", "severity": "high"}
    row = {"entity": "customer", "field": "", "kind": "update_delete", "severity": "high"}
    assert value(metrics, "conflicts_total", **group) == 1
    assert value(metrics, "conflicts_total", **row) == 1


def test_snapshot_rows_go_on_counting_when_a_copy_begins_again() -> None:
    metrics = made()
    for rows in (100, 250, 30):
        metrics(SnapshotProgress("crm", "customer", rows, 250))
    assert value(metrics, "snapshot_rows_total", source="crm", entity="customer") == 280
    assert value(metrics, "snapshot_rows_expected", source="crm", entity="customer") == 250


def test_clock_skew_is_shown_and_then_forgotten() -> None:
    now = [1000.0]
    metrics = made(monotonic=lambda: now[0])
    metrics(ClockCut("crm", 3_500_000))
    assert value(metrics, "clock_skew_seconds", source="crm") == 3.5
    assert value(metrics, "clock_skew_seconds", source="erp") == 0
    now[0] += 301
    assert value(metrics, "clock_skew_seconds", source="crm") == 0
    assert value(metrics, "clock_cut_total", source="crm") == 1


def test_a_negative_detection_time_of_a_fast_clock_does_not_break_the_sum() -> None:
    metrics = made()
    metrics(batch(detection_seconds={"crm": (-3.0,)}))
    assert value(metrics, "detection_seconds_sum", source="crm") == 0


def test_a_fact_without_a_metric_is_ignored() -> None:
    before = value(made(), "changes_total", source="crm", entity="customer", operation="update")
    metrics = made()
    metrics(SourceChanged("crm", "streaming", "It streams."))
    assert value(metrics, "changes_total", source="crm", entity="customer", operation="update") == before


def test_a_reload_says_whether_it_succeeded() -> None:
    metrics = made()
    assert value(metrics, "config_last_reload_successful") == 1
    since = value(metrics, "config_last_reload_success_timestamp_seconds") or 0
    metrics(ConfigReloaded("sha256:a", "A line is wrong."))
    assert value(metrics, "config_last_reload_successful") == 0
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == since
    metrics(ConfigReloaded("sha256:b"))
    assert value(metrics, "config_last_reload_successful") == 1
    assert (value(metrics, "config_last_reload_success_timestamp_seconds") or 0) > since


# ---------------------------------------------------------------- mirrored states


def test_a_source_is_mirrored_when_it_is_scraped() -> None:
    metrics = made()
    assert value(metrics, "source_up", source="crm") == 1
    assert value(metrics, "source_lag_bytes", source="crm") == 0x800
    assert value(metrics, "source_last_commit_timestamp_seconds", source="crm") == 1_790_000_000.5
    assert value(metrics, "source_reconnects_total", source="crm") == 2
    assert value(metrics, "slot_retained_bytes", source="crm") == 4096
    assert value(metrics, "slot_active", source="crm") == 1
    assert value(metrics, "slot_wal_status", source="crm", status="extended") == 1
    assert value(metrics, "slot_wal_status", source="crm", status="lost") == 0


def test_what_is_unknown_has_no_sample() -> None:
    metrics = made()
    assert value(metrics, "slot_safe_bytes", source="crm") is None
    assert value(metrics, "slot_active", source="erp") is None
    assert value(metrics, "slot_wal_status", source="erp", status="lost") is None


def test_a_configured_source_without_a_status_is_down_and_not_missing() -> None:
    assert value(made(), "source_up", source="erp") == 0


def test_the_queue_is_mirrored_with_zeros_for_what_is_not_open() -> None:
    metrics = made()
    assert value(metrics, "conflicts_open", entity="customer", kind="concurrent_update", severity="high") == 2
    assert value(metrics, "conflicts_open", entity="customer", kind="concurrent_insert", severity="high") == 0
    assert value(metrics, "conflict_oldest_open_timestamp_seconds", entity="customer", severity="high") == 1_789_999_999


def test_figures_that_cannot_be_read_leave_the_rest_of_the_scrape_alone(caplog: pytest.LogCaptureFixture) -> None:
    def locked() -> StoreFigures:
        raise RuntimeError("phone 13800138000")

    metrics = made(figures=locked)
    assert value(metrics, "source_up", source="crm") == 1
    assert value(metrics, "history_changes") is None
    assert value(metrics, "scrape_failures_total") == 3, "one for each of the three scrapes"
    assert "RuntimeError" in caplog.text
    assert "13800138000" not in caplog.text


def test_the_process_itself_is_measured() -> None:
    assert "process_resident_memory_bytes" in text(made())


def test_queued_bytes_are_shown_beside_their_limit() -> None:
    metrics = made()
    assert value(metrics, "source_queued_bytes", source="crm") == 512
    assert value(metrics, "source_queue_limit_bytes", source="crm") == 1024
    assert value(metrics, "source_backpressure_seconds_total", source="crm") == 2.5
    assert value(metrics, "source_confirmed_lsn_bytes", source="crm") == 0x700
