"""Sources and slots: for those who own the servers."""

from __future__ import annotations

from typing import Final

from grafana.panels import (
    BY_SOURCE,
    GREEN,
    LINES,
    NONE_WANTED,
    RED,
    SOURCE,
    STAT,
    TABLE,
    YELLOW,
    Board,
    Link,
    Panel,
    Query,
    Row,
    runbook,
)

GIB: Final = 1 << 30
KNOWN: Final = "What the sidecar reports of it"
SOURCES: Final = Link(KNOWN, "http://${__data.fields.instance}/api/v1/sources")
# A line has labels where a row of a table has fields.
SOURCES_OF_LINE: Final = Link(KNOWN, "http://${__field.labels.instance}/api/v1/sources")


def by_source(metric: str) -> tuple[Query, ...]:
    return (Query(f"max by (source) ({metric}{{{SOURCE}}})", "{{source}}"),)


STATE: Final = (
    Panel(
        TABLE,
        "State",
        "The state that each source is in. Anything but streaming, snapshot: runbooks CdcMergeSourceDown and …Refused.",
        "short",
        (Query(f"max by (instance, source, state) (cdc_merge_source_state{{{SOURCE}}}) == 1"),),
        8,
        links=(SOURCES, runbook("CdcMergeSourceDown"), runbook("CdcMergeSourceRefused")),
    ),
    Panel(
        STAT,
        "Sources that refuse",
        "Sources that are not read until a person acts; the console says why.",
        "short",
        (Query(f"sum(cdc_merge_source_problem{{{SOURCE}}})"),),
        4,
        NONE_WANTED,
        (runbook("CdcMergeSourceRefused"),),
    ),
    Panel(
        LINES,
        "Reconnects",
        "In the range on display. A line that climbs: runbook CdcMergeSourceReconnecting.",
        "short",
        (Query(f"sum by (source) (increase(cdc_merge_source_reconnects_total{{{SOURCE}}}[$__range]))", "{{source}}"),),
        12,
    ),
    Panel(
        STAT,
        "Gaps",
        "Gaps behind our position in the range on display. Each is reported, none is passed over.",
        "short",
        (Query(f"sum(increase(cdc_merge_gap_detected_total{{{SOURCE}}}[$__range]))"),),
        4,
        NONE_WANTED,
        (runbook("CdcMergePositionGapDetected"),),
    ),
    Panel(
        LINES,
        "What failed",
        "Attempts to read a source that failed, in the range on display, by what failed.",
        "short",
        (Query(f"sum by (class) (increase(cdc_merge_source_errors_total{{{SOURCE}}}[$__range]))", "{{class}}"),),
        12,
        links=(runbook("CdcMergeSourceReconnecting"), runbook("CdcMergeSourceRefused")),
    ),
    Panel(
        LINES,
        "Status updates sent",
        "Standby status updates a second: by the clock, at once because an LSN was confirmed, or to request a reply.",
        "ops",
        (
            Query(
                f"sum by (source, reason) (rate(cdc_merge_status_updates_total{{{SOURCE}}}[$__rate_interval]))",
                "{{source}} {{reason}}",
            ),
        ),
        8,
        links=(runbook("CdcMergeNotConfirming"),),
    ),
)

LAG: Final = (
    Panel(
        LINES,
        "Not merged yet",
        "Bytes of each source's WAL that are not merged and durable. They may be of tables that we do not read.",
        "bytes",
        by_source("cdc_merge_source_lag_bytes"),
        8,
        ((GREEN, None), (YELLOW, 100 << 20), (RED, GIB)),
    ),
    Panel(
        LINES,
        "Merged late",
        "How far back each source's watermark lies.",
        "s",
        (
            Query(
                f"time() - min by (source) (cdc_merge_source_watermark_timestamp_seconds{{{SOURCE}}})",
                "{{source}}",
            ),
        ),
        8,
        ((GREEN, None), (YELLOW, 60), (RED, 300)),
    ),
    Panel(
        LINES,
        "Last heard",
        "Since when a source's server has sent nothing, not even a keepalive.",
        "s",
        (
            Query(
                f"time() - max by (source) (cdc_merge_source_last_message_timestamp_seconds{{{SOURCE}}})",
                "{{source}}",
            ),
        ),
        8,
        ((GREEN, None), (YELLOW, 30), (RED, 60)),
    ),
    Panel(
        LINES,
        "WAL written",
        "Bytes of WAL that each server writes a second, for all its tables.",
        "Bps",
        (
            Query(
                f"max by (source) (deriv(cdc_merge_source_server_lsn_bytes{{{SOURCE}}}[$__rate_interval]))",
                "{{source}} writes",
            ),
            Query(
                f"max by (source) (deriv(cdc_merge_source_durable_lsn_bytes{{{SOURCE}}}[$__rate_interval]))",
                "{{source}} is merged",
            ),
        ),
        8,
    ),
    Panel(
        LINES,
        "Received and not durable",
        "Bytes of WAL that were received and are not merged yet: what waits inside the sidecar.",
        "bytes",
        (
            Query(
                f"max by (source) (cdc_merge_source_received_lsn_bytes{{{SOURCE}}}"
                f" - cdc_merge_source_durable_lsn_bytes{{{SOURCE}}})",
                "{{source}}",
            ),
        ),
        8,
    ),
    Panel(
        LINES,
        "Incremental snapshots",
        "Tables of a resync by state: reading chunks, looking for missing records, failed.",
        "short",
        (Query(f"sum by (instance, source, state) (cdc_merge_resyncs{{{SOURCE}}})", "{{source}} {{state}}"),),
        8,
        links=(SOURCES_OF_LINE,),
    ),
    Panel(
        LINES,
        "Rows of incremental snapshots",
        "Rows that a resync reads beside the stream, a second.",
        "rowsps",
        (Query(f"sum by (source) (rate(cdc_merge_resync_rows_total{{{SOURCE}}}[$__rate_interval]))", "{{source}}"),),
        8,
    ),
    Panel(
        LINES,
        "Last commit",
        "Since when no commit of a source has come. A quiet source is no fault.",
        "s",
        (
            Query(
                f"time() - max by (source) (cdc_merge_source_last_commit_timestamp_seconds{{{SOURCE}}})",
                "{{source}}",
            ),
        ),
        8,
    ),
    Panel(
        LINES,
        "Last transaction",
        "Since when no transaction of a source was received, and none was merged and on disk. The two part: merging stands still.",
        "s",
        (
            Query(
                f"time() - max by (source) (cdc_merge_source_last_received_timestamp_seconds{{{SOURCE}}})",
                "{{source}} received",
            ),
            Query(
                f"time() - max by (source) (cdc_merge_source_last_durable_timestamp_seconds{{{SOURCE}}})",
                "{{source}} on disk",
            ),
        ),
        8,
        links=(runbook("CdcMergeSourceStalled"),),
    ),
)

SLOTS: Final = (
    Panel(
        TABLE,
        "Slots",
        "wal_status of each slot. unreserved: minutes remain; lost: a new initial snapshot is needed.",
        "short",
        (Query(f"max by (source, status) (cdc_merge_slot_wal_status{{{SOURCE}}}) == 1"),),
        8,
    ),
    Panel(
        LINES,
        "WAL kept for our slot",
        "What each server keeps for us, and what it may still write before the slot is lost (only with a limit).",
        "bytes",
        (
            Query(f"max by (source) (cdc_merge_slot_retained_bytes{{{SOURCE}}})", "{{source}} keeps"),
            Query(f"max by (source) (cdc_merge_slot_safe_bytes{{{SOURCE}}})", "{{source}} has left"),
        ),
        8,
        ((GREEN, None), (YELLOW, 5 * GIB), (RED, 10 * GIB)),
    ),
    Panel(
        STAT,
        "Until a slot is lost",
        "At the pace of the last 15 minutes; infinite where the server sets no limit.",
        "s",
        (Query(f"min(cdc_merge_slot_seconds_to_invalidation{{{SOURCE}}})"),),
        4,
        ((RED, None), (YELLOW, 7200), (GREEN, 86400)),
        (runbook("CdcMergeSlotInvalidationSoon"),),
    ),
    Panel(
        STAT,
        "Slots that are read",
        "Part of the slots that have a reader. A slot without one fills its server's disk.",
        "percentunit",
        (Query(f"avg(cdc_merge_slot_active{{{SOURCE}}})"),),
        4,
        ((RED, None), (GREEN, 1)),
    ),
    Panel(
        TABLE,
        "Invalidated",
        "Why a server has invalidated our slot; none: it has not. Seen while a source is paused, too.",
        "short",
        (Query(f"max by (source, reason) (cdc_merge_slot_invalidated{{{SOURCE}}}) == 1"),),
        8,
        links=(runbook("CdcMergeSlotLost"),),
    ),
    Panel(
        LINES,
        "Slots without a reader",
        "For how long our slot has had no reader; 0 while it is read.",
        "s",
        by_source("cdc_merge_slot_inactive_seconds"),
        8,
        ((GREEN, None), (YELLOW, 1800), (RED, 4 * 3600)),
        (runbook("CdcMergeSlotInactive"),),
    ),
    Panel(
        LINES,
        "Vacuum held back",
        "Transactions whose dead catalog rows a server keeps for our slot. At two thousand million it takes no more writes.",
        "short",
        by_source("cdc_merge_slot_catalog_xmin_age"),
        8,
        ((GREEN, None), (YELLOW, 200_000_000), (RED, 1_000_000_000)),
        (runbook("CdcMergeCatalogXminOld"),),
    ),
    Panel(
        TABLE,
        "What the doctor finds",
        "Checks that are not ok: 1 a warning, 2 fails, 3 unknown. `cdc-merge doctor --sql` prints what fixes them.",
        "short",
        (Query(f"max by (source, check) (cdc_merge_doctor_check_status{{{SOURCE}}}) > 0"),),
        12,
    ),
    Panel(
        LINES,
        "Clocks",
        "How far a source's clock was ahead of ours when its stamps were cut.",
        "s",
        by_source("cdc_merge_clock_skew_seconds"),
        6,
        ((GREEN, None), (RED, 5)),
    ),
    Panel(
        LINES,
        "Initial snapshots",
        "Rows of initial snapshots a second. The table's estimate is cdc_merge_snapshot_rows_expected.",
        "rowsps",
        (Query(f"sum by (source) (rate(cdc_merge_snapshot_rows_total{{{SOURCE}}}[$__rate_interval]))", "{{source}}"),),
        6,
    ),
    Panel(
        LINES,
        "Tables still to be copied",
        "Tables that a source's initial snapshot has not finished.",
        "short",
        by_source("cdc_merge_snapshot_tables_remaining"),
        6,
        links=(runbook("CdcMergeFirstCopyStuck"),),
    ),
    Panel(
        LINES,
        "Time of the initial snapshot",
        "How long a source's latest initial snapshot took, or has taken so far; 0 where none began since the sidecar did.",
        "s",
        by_source("cdc_merge_snapshot_duration_seconds"),
        6,
        links=(runbook("CdcMergeFirstCopyStuck"),),
    ),
    Panel(
        LINES,
        "Spilled",
        "Bytes spilled to disk for large transactions: at the server (raise logical_decoding_work_mem when it grows), and here.",
        "bytes",
        (Query(f"max by (source, where) (cdc_merge_spill_bytes{{{SOURCE}}})", "{{source}} {{where}}"),),
        12,
    ),
    Panel(
        LINES,
        "Heartbeats",
        "Nine in ten heartbeats are merged and on disk sooner: the round trip, measured on one clock.",
        "s",
        (
            Query(
                "histogram_quantile(0.9, sum by (le, source)"
                f" (rate(cdc_merge_heartbeat_round_trip_seconds_bucket{{{SOURCE}}}[$__rate_interval])))",
                "{{source}}",
            ),
        ),
        links=(runbook("CdcMergeHeartbeatMissing"),),
    ),
    Panel(
        LINES,
        "Times that step back",
        "Transactions with an earlier time than one before them, in the range on display. origin: applied for others.",
        "short",
        (
            Query(
                f"sum by (source, reason) (increase(cdc_merge_clock_stepped_back_total{{{SOURCE}}}[$__range]))",
                "{{source}} {{reason}}",
            ),
        ),
        links=(runbook("CdcMergeForeignTimes"),),
    ),
    Panel(
        LINES,
        "Failed attempts",
        "Attempts to read a source that failed, in the range on display. refused: a person must act.",
        "short",
        (
            Query(
                f"sum by (source, outcome) (increase(cdc_merge_source_failures_total{{{SOURCE}}}[$__range]))",
                "{{source}} {{outcome}}",
            ),
        ),
        links=(runbook("CdcMergeSourceReconnecting"),),
    ),
)

BOARD: Final = Board(
    "cdc-merge-sources",
    "Sources and slots",
    "For those who own the servers: is each read, how late, and how long its slot is safe.",
    (Row("Are they read?", STATE), Row("How late?", LAG), Row("Are the servers safe?", SLOTS)),
    (BY_SOURCE,),
)
