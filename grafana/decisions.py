"""Decisions: the queue, whether answers come in time, and how conflicts were closed."""

from __future__ import annotations

from typing import Final

from grafana.panels import (
    BY_ENTITY,
    ENTITY,
    GREEN,
    HEATMAP,
    LINES,
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

LIST: Final = "http://${__data.fields.instance}/?status=open&entity=${__data.fields.entity}"
OLDEST: Final = "cdc_merge_conflict_oldest_open_timestamp_seconds"
CLOSED: Final = f"cdc_merge_resolution_seconds_bucket{{{ENTITY}}}"


def oldest(severity: str, limit_s: int) -> Panel:
    """A light for the oldest conflict of a severity; red when the agreed time is over."""
    return Panel(
        STAT,
        f"Oldest {severity} conflict",
        f"For how long it has waited; no value when none is open. {limit_s // 3600} hours are agreed.",
        "s",
        (Query(f'time() - min({OLDEST}{{{ENTITY}, severity="{severity}"}})'),),
        4,
        ((GREEN, None), (YELLOW, limit_s / 2), (RED, limit_s)),
        (runbook("CdcMergeConflictUnanswered"),),
    )


QUEUE: Final = (
    oldest("critical", 4 * 3600),
    oldest("high", 24 * 3600),
    oldest("medium", 7 * 24 * 3600),
    Panel(
        LINES,
        "Raised and closed",
        "Conflicts raised and closed a second. The first above the second: the queue grows.",
        "cps",
        (
            Query(f"sum(rate(cdc_merge_conflicts_total{{{ENTITY}}}[$__rate_interval]))", "raised"),
            Query(f"sum(rate(cdc_merge_resolutions_total{{{ENTITY}}}[$__rate_interval]))", "closed"),
        ),
        12,
    ),
    Panel(
        LINES,
        "Queue",
        "Open conflicts by entity.",
        "short",
        (Query(f"sum by (entity) (cdc_merge_conflicts_open{{{ENTITY}}})", "{{entity}}"),),
        12,
        ((GREEN, None), (RED, 500)),
    ),
    Panel(
        TABLE,
        "Queue by kind",
        "Open conflicts; a click lists those of the entity.",
        "short",
        (Query(f"sum by (instance, entity, kind, severity) (cdc_merge_conflicts_open{{{ENTITY}}}) > 0"),),
        12,
        links=(Link("Open conflicts of this entity", LIST),),
    ),
)

LATE: Final = "max by (entity) (entity:cdc_merge_answers_late:ratio_rate{}{{" + ENTITY + "}}) / 0.05"

ANSWERS: Final = (
    Panel(
        LINES,
        "Answers in time and late",
        "Announced conflicts that ended in the range on display, by whether that was in time.",
        "short",
        (
            Query(
                f"sum by (severity, outcome) (increase(cdc_merge_conflicts_answered_total{{{ENTITY}}}[$__range]))",
                "{{severity}} {{outcome}}",
            ),
        ),
        8,
        links=(runbook("CdcMergeAnswerBudgetBurning"),),
    ),
    Panel(
        LINES,
        "Answer budget used",
        "How much of what may be answered late was late: 100 % is all of it. Over an hour, a day and three days.",
        "percentunit",
        tuple(
            Query(LATE.format(window), "{{entity}}, " + words)
            for window, words in (("1h", "1 h"), ("1d", "1 d"), ("3d", "3 d"))
        ),
        8,
        ((GREEN, None), (YELLOW, 1), (RED, 6)),
        (runbook("CdcMergeAnswerBudgetBurning"),),
    ),
    Panel(
        LINES,
        "Closed within four hours",
        "Part of the conflicts closed in the range on display that took at most four hours, however they ended.",
        "percentunit",
        (
            Query(
                f'sum by (entity) (increase(cdc_merge_resolution_seconds_bucket{{{ENTITY}, le="14400.0"}}[$__range]))'
                f" / sum by (entity) (increase(cdc_merge_resolution_seconds_count{{{ENTITY}}}[$__range]))",
                "{{entity}}",
            ),
        ),
        8,
        most=1,
    ),
    Panel(
        HEATMAP,
        "Time to close, all of them",
        "From raising a conflict to closing it: resolved at once below, decided by people above.",
        "s",
        (
            Query(
                f"sum by (le) (rate({CLOSED}[$__rate_interval]))",
                "{{le}}",
            ),
        ),
        12,
    ),
    Panel(
        LINES,
        "Time to close",
        "Nine in ten conflicts are closed faster, by how they ended.",
        "s",
        (
            Query(
                f"histogram_quantile(0.9, sum by (le, resolution) (rate({CLOSED}[$__rate_interval])))",
                "{{resolution}}",
            ),
        ),
        12,
    ),
    Panel(
        TABLE,
        "How they were closed",
        "Conflicts closed in the range on display.",
        "short",
        (
            Query(
                f"sum by (entity, kind, resolution) (increase(cdc_merge_resolutions_total{{{ENTITY}}}[$__range])) > 0"
            ),
        ),
        24,
    ),
)

BOARD: Final = Board(
    "cdc-merge-decisions",
    "Decisions",
    "The queue of conflicts, whether answers come in time, and how conflicts were closed.",
    (Row("What waits?", QUEUE), Row("How was it answered?", ANSWERS)),
    (BY_ENTITY,),
    "now-24h",
)
