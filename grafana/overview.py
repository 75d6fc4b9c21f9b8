"""Overview: is action needed, and how does it run."""

from __future__ import annotations

from typing import Final

from grafana.panels import (
    ALL_WANTED,
    FIRING,
    GREEN,
    JOB,
    LINES,
    NONE_WANTED,
    RED,
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

CONFLICTS_OF: Final = (
    "http://${__data.fields.instance}/?status=open&entity=${__data.fields.entity}"
    "&kind=${__data.fields.kind}&severity=${__data.fields.severity}"
)

LIGHTS: Final = (
    Panel(
        STAT,
        "Sidecar answers",
        "1 when every sidecar can be scraped. 0: runbook CdcMergeDown.",
        "short",
        (Query(f"min(up{{{JOB}}})"),),
        4,
        ALL_WANTED,
        (runbook("CdcMergeDown"),),
    ),
    Panel(
        STAT,
        "Sources connected",
        "Part of the sources that are read. Below 100 %: dashboard Sources and slots says which, and why.",
        "percentunit",
        (Query(f"avg(cdc_merge_source_up{{{JOB}}})"),),
        4,
        ALL_WANTED,
        (runbook("CdcMergeSourceDown"), runbook("CdcMergeSourceRefused")),
        most=1,
    ),
    Panel(
        STAT,
        "Alerts firing",
        "Alerts of cdc_merge that fire now. Each has a runbook.",
        "short",
        (Query(f"count({FIRING}) or vector(0)"),),
        4,
        NONE_WANTED,
    ),
    Panel(
        STAT,
        "Critical and high open",
        "Conflicts that people must decide soon.",
        "short",
        (Query(f'sum(cdc_merge_conflicts_open{{{JOB}, severity=~"critical|high"}})'),),
        4,
        ((GREEN, None), (YELLOW, 1), (RED, 50)),
    ),
    Panel(
        STAT,
        "Conflicts open",
        "All conflicts that wait for a decision.",
        "short",
        (Query(f"sum(cdc_merge_conflicts_open{{{JOB}}})"),),
        4,
        ((GREEN, None), (YELLOW, 100), (RED, 500)),
    ),
    Panel(
        STAT,
        "Oldest open conflict",
        "For how long the oldest conflict has waited. A critical one should not wait for more than four hours.",
        "s",
        (Query(f"time() - min(cdc_merge_conflict_oldest_open_timestamp_seconds{{{JOB}}})"),),
        4,
        ((GREEN, None), (YELLOW, 14400), (RED, 604800)),
        (runbook("CdcMergeConflictUnanswered"),),
    ),
    Panel(
        STAT,
        "Configuration file in force",
        "1 when the file was used when it was last read; 0 when an older one is in force.",
        "short",
        (Query(f"min(cdc_merge_config_last_reload_successful{{{JOB}}})"),),
        6,
        ALL_WANTED,
        (runbook("CdcMergeConfigReloadFailed"),),
    ),
    Panel(
        STAT,
        "Detection degraded",
        "1 for an hour after a change met what retention had removed: a conflict about its record may go unseen.",
        "short",
        (Query(f"max(cdc_merge_detection_degraded{{{JOB}}})"),),
        6,
        NONE_WANTED,
        (runbook("CdcMergeDetectionDegraded"),),
    ),
    Panel(
        STAT,
        "Answered in time",
        "Part of a day's conflicts that ended within the time agreed for their severity; 95 % is the objective.",
        "percentunit",
        (Query(f"1 - max(entity:cdc_merge_answers_late:ratio_rate1d{{{JOB}}})"),),
        6,
        ((RED, None), (GREEN, 0.95)),
        (runbook("CdcMergeAnswerBudgetBurning"),),
        most=1,
    ),
    Panel(
        STAT,
        "Version",
        "How many sidecars run which version; more than one value while an update is rolled out.",
        "short",
        (Query(f"sum by (version) (cdc_merge_build_info{{{JOB}}})", "{{version}}"),),
        6,
    ),
)

COURSE: Final = (
    Panel(
        LINES,
        "Conflicts per merge",
        "Part of the merged fields that ended in a conflict. A jump is a job or a format that went wrong.",
        "percentunit",
        (Query(f"entity:cdc_merge_conflicts_per_merge:ratio_rate5m{{{JOB}}}", "{{entity}}"),),
        12,
    ),
    Panel(
        LINES,
        "Changes merged",
        "Changes of records a second, by source.",
        "ops",
        (Query(f"sum by (source) (rate(cdc_merge_changes_total{{{JOB}}}[$__rate_interval]))", "{{source}}"),),
        12,
    ),
    Panel(
        TABLE,
        "What needs a person now",
        "Open conflicts by what they are about; a click lists them.",
        "short",
        (Query(f"sum by (instance, entity, kind, severity) (cdc_merge_conflicts_open{{{JOB}}}) > 0"),),
        12,
        links=(Link("These conflicts", CONFLICTS_OF),),
    ),
    Panel(
        LINES,
        "Ended without people",
        "Part of the closed conflicts that rules, agreement of the sources or later writes settled.",
        "percentunit",
        (Query(f"entity:cdc_merge_resolutions_without_people:ratio_rate1h{{{JOB}}}", "{{entity}}"),),
        12,
        most=1,
    ),
)

OBJECTIVE: Final = (
    Panel(
        LINES,
        "Merged within a second",
        "Part of the committed transactions that were merged and on disk within a second; 99 % is the objective.",
        "percentunit",
        (Query(f"1 - source:cdc_merge_detection_slow:ratio_rate5m{{{JOB}}}", "{{source}}"),),
        12,
        ((RED, None), (GREEN, 0.99)),
        most=1,
    ),
    Panel(
        LINES,
        "Budget used",
        "How much of what may be late was late: 100 % is all of it. Over an hour, a day and three days.",
        "percentunit",
        (
            Query(f"max by (source) (source:cdc_merge_detection_slow:ratio_rate1h{{{JOB}}}) / 0.01", "{{source}}, 1 h"),
            Query(f"max by (source) (source:cdc_merge_detection_slow:ratio_rate1d{{{JOB}}}) / 0.01", "{{source}}, 1 d"),
            Query(f"max by (source) (source:cdc_merge_detection_slow:ratio_rate3d{{{JOB}}}) / 0.01", "{{source}}, 3 d"),
        ),
        12,
        ((GREEN, None), (YELLOW, 1), (RED, 6)),
    ),
)

BOARD: Final = Board(
    "cdc-merge-overview",
    "Overview",
    "Is action needed, and how does it run.",
    (
        Row("Is action needed?", LIGHTS),
        Row("How does it run?", COURSE),
        Row("Is it as fresh as promised?", OBJECTIVE),
    ),
)
