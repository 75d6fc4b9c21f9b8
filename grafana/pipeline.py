"""Pipeline: how fast, where the time goes, what comes out of order."""

from __future__ import annotations

from typing import Final

from grafana.panels import GREEN, HEATMAP, JOB, LINES, RED, STAT, Board, Panel, Query, Row, runbook


def quantile(part: float, metric: str, label: str) -> Query:
    expr = f"histogram_quantile({part}, sum by (le, {label}) (rate({metric}_bucket{{{JOB}}}[$__rate_interval])))"
    return Query(expr, f"{{{{{label}}}}} p{part * 100:g}")


def rate_by(metric: str, label: str) -> tuple[Query, ...]:
    return (Query(f"sum by ({label}) (rate({metric}{{{JOB}}}[$__rate_interval]))", f"{{{{{label}}}}}"),)


SPEED: Final = (
    Panel(
        HEATMAP,
        "From commit to merged",
        "From the commit at the source to merged and on disk. A source whose clock is wrong shows wrong times.",
        "s",
        (Query(f"sum by (le) (rate(cdc_merge_detection_seconds_bucket{{{JOB}}}[$__rate_interval]))", "{{le}}"),),
        12,
    ),
    Panel(
        LINES,
        "From commit to merged, by source",
        "Half of the transactions, and all but one in a hundred, are faster.",
        "s",
        (
            quantile(0.5, "cdc_merge_detection_seconds", "source"),
            quantile(0.99, "cdc_merge_detection_seconds", "source"),
        ),
        12,
    ),
    Panel(
        LINES,
        "Where a batch's time goes",
        "All but one batch in a hundred are faster, by stage; all includes the commit to the store.",
        "s",
        (quantile(0.99, "cdc_merge_batch_seconds", "stage"),),
        12,
    ),
    Panel(
        LINES,
        "Changes by source",
        "Changes of records a second.",
        "ops",
        rate_by("cdc_merge_changes_total", "source"),
        6,
    ),
    Panel(
        LINES,
        "Changes by operation",
        "Changes of records a second, by what happened to the row.",
        "ops",
        rate_by("cdc_merge_changes_total", "operation"),
        6,
    ),
    Panel(
        LINES,
        "From commit to sending",
        "By the source's own clock: half of the transactions, and all but one in a hundred, are sent sooner.",
        "s",
        (
            quantile(0.5, "cdc_merge_commit_lag_seconds", "source"),
            quantile(0.99, "cdc_merge_commit_lag_seconds", "source"),
        ),
        8,
    ),
    Panel(
        LINES,
        "What comes in the streams",
        "Row changes and messages a second, before they are mapped to records.",
        "ops",
        rate_by("cdc_merge_events_total", "op"),
        8,
    ),
    Panel(
        LINES,
        "Bytes of the streams",
        "Bytes of whole transactions a second, as the servers send them.",
        "Bps",
        rate_by("cdc_merge_event_bytes_total", "source"),
        8,
    ),
)

WAITING: Final = (
    Panel(
        LINES,
        "Waits to be merged",
        "Bytes that were received and are not merged; at the limit the source is not read until there is room.",
        "bytes",
        (
            Query(f"max by (source) (cdc_merge_source_queued_bytes{{{JOB}}})", "{{source}}"),
            Query(f"max by (source) (cdc_merge_open_transaction_bytes{{{JOB}}})", "{{source}}, not committed yet"),
            Query(f"max(cdc_merge_source_queue_limit_bytes{{{JOB}}})", "limit"),
        ),
        links=(runbook("CdcMergeBackPressure"),),
    ),
    Panel(
        LINES,
        "Sources that have to wait",
        "Part of the time for which a source was not read because its queue was full; 1 while another program locks the store.",
        "percentunit",
        (
            *rate_by("cdc_merge_source_backpressure_seconds_total", "source"),
            Query(f"max(cdc_merge_store_waiting{{{JOB}}})", "all, for the store"),
        ),
        steps=((GREEN, None), (RED, 0.5)),
        links=(runbook("CdcMergeBackPressure"), runbook("CdcMergeStoreHeld")),
    ),
    Panel(
        LINES,
        "Sizes",
        "Nine in ten batches hold fewer changes, and nine in ten transactions of a source change fewer rows.",
        "short",
        (
            Query(
                f"histogram_quantile(0.9, sum by (le) (rate(cdc_merge_batch_changes_bucket{{{JOB}}}[$__rate_interval])))",
                "batch",
            ),
            Query(
                "histogram_quantile(0.9, sum by (le, source)"
                f" (rate(cdc_merge_transaction_rows_bucket{{{JOB}}}[$__rate_interval])))",
                "transaction of {{source}}",
            ),
        ),
    ),
)

MERGING: Final = (
    Panel(
        LINES,
        "What the merge makes of fields",
        "Fields a second, by outcome. Many copy_unmatched: a job marks as copies what it changes on the way.",
        "ops",
        rate_by("cdc_merge_merges_total", "outcome"),
        12,
    ),
    Panel(
        LINES,
        "Out of order, parked, quarantined",
        "Changes that came after a later stamp, and rows that could not be read, in the range on display. quarantined now:"
        " changes whose business key is unknown; a snapshot resolves it.",
        "short",
        (
            Query(f"sum(increase(cdc_merge_late_changes_total{{{JOB}}}[$__range]))", "late"),
            Query(f"sum(increase(cdc_merge_parked_total{{{JOB}}}[$__range]))", "parked"),
            Query(f"sum(increase(cdc_merge_quarantined_total{{{JOB}}}[$__range]))", "of these: quarantined"),
            Query(f"sum(cdc_merge_quarantined_events{{{JOB}}})", "quarantined now"),
            Query(f"sum(increase(cdc_merge_clock_cut_total{{{JOB}}}[$__range]))", "clock cut"),
            Query(f"sum(increase(cdc_merge_unknown_messages_total{{{JOB}}}[$__range]))", "unknown message"),
        ),
        12,
        links=(runbook("CdcMergeRowsParked"), runbook("CdcMergeRowsUnnamed")),
    ),
    Panel(
        LINES,
        "Expressions",
        "Expressions of checks and rules that were evaluated a second, by what they gave. error: look into the rule.",
        "ops",
        rate_by("cdc_merge_rule_evaluations_total", "outcome"),
        12,
        links=(runbook("CdcMergeRuleErrors"),),
    ),
    Panel(
        LINES,
        "Left out and repeated",
        "In the range on display: large values that an update did not send, transactions that came twice, rows of incremental"
        " snapshots that the stream had newer.",
        "short",
        (
            Query(f"sum(increase(cdc_merge_toast_absent_fields_total{{{JOB}}}[$__range]))", "values not sent"),
            Query(f"sum(increase(cdc_merge_duplicates_dropped_total{{{JOB}}}[$__range]))", "repeated transactions"),
            Query(f"sum(increase(cdc_merge_snapshot_window_dropped_rows_total{{{JOB}}}[$__range]))", "rows outdated"),
        ),
        12,
    ),
    Panel(
        LINES,
        "Changed keys and truncated tables",
        "Rows that were given another business key, and TRUNCATEs, in the range on display.",
        "short",
        (
            Query(f"sum by (source) (increase(cdc_merge_key_changes_total{{{JOB}}}[$__range]))", "{{source}} new key"),
            Query(f"sum by (source) (increase(cdc_merge_truncates_total{{{JOB}}}[$__range]))", "{{source}} emptied"),
        ),
        12,
    ),
    Panel(
        LINES,
        "Cache hits",
        "Part of the wanted records whose state was in memory; the rest is folded from the store.",
        "percentunit",
        (
            Query(
                f'sum by (instance) (rate(cdc_merge_record_loads_total{{{JOB}, origin="memory"}}[$__rate_interval]))'
                f" / sum by (instance) (rate(cdc_merge_record_loads_total{{{JOB}}}[$__rate_interval]))",
                "{{instance}}",
            ),
        ),
        12,
        most=1,
    ),
)

HOLDING: Final = (
    Panel(
        STAT,
        "Watermark",
        "How far back the time lies that every source has passed. Settling conflicts wait for it.",
        "s",
        (Query(f"time() - min(cdc_merge_watermark_timestamp_seconds{{{JOB}}})"),),
        4,
    ),
    Panel(
        STAT,
        "Records in memory",
        "Records whose state is in the cache.",
        "short",
        (Query(f"sum(cdc_merge_records_cached{{{JOB}}})"),),
        4,
    ),
    Panel(
        LINES,
        "History",
        "Changes that the store holds.",
        "short",
        (Query(f"sum by (instance) (cdc_merge_history_changes{{{JOB}}})", "{{instance}}"),),
        8,
    ),
    Panel(
        LINES,
        "Processor",
        "Cores in use by the merging process. Near one: merging is the limit.",
        "short",
        rate_by("process_cpu_seconds_total", "instance"),
        4,
    ),
    Panel(
        LINES,
        "Memory",
        "Resident memory of the merging process.",
        "bytes",
        (Query(f"sum by (instance) (process_resident_memory_bytes{{{JOB}}})", "{{instance}}"),),
        4,
    ),
)

BOARD: Final = Board(
    "cdc-merge-pipeline",
    "Pipeline",
    "How fast, where the time goes, what comes out of order.",
    (
        Row("How fast is it?", SPEED),
        Row("What waits?", WAITING),
        Row("What does the merge do?", MERGING),
        Row("What does it keep?", HOLDING),
    ),
)
