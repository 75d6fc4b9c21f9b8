"""Conflicts: what they are about, who disagrees, how they end."""

from __future__ import annotations

from typing import Final

from grafana.panels import BARS, BY_ENTITY, ENTITY, HEATMAP, LINES, TABLE, Board, Link, Panel, Query, Row, runbook

RAISED: Final = f"cdc_merge_conflicts_total{{{ENTITY}}}"
CONFLICTS_OF: Final = "http://${__data.fields.instance}/?status=open&entity=${__data.fields.entity}"


def raised_by(label: str) -> tuple[Query, ...]:
    return (Query(f"sum by ({label}) (rate({RAISED}[$__rate_interval]))", f"{{{{{label}}}}}"),)


ABOUT: Final = (
    Panel(LINES, "By entity", "Conflicts raised a second, by entity.", "cps", raised_by("entity")),
    Panel(
        LINES,
        "By field",
        "Conflicts raised a second, by field. One field alone: its format or its merge type. No field: whole rows.",
        "cps",
        raised_by("field"),
    ),
    Panel(LINES, "By kind", "Conflicts raised a second, by kind.", "cps", raised_by("kind")),
    Panel(
        LINES,
        "Conflicts per merge",
        "Part of the merges of a field that ended in a conflict, by kind: comparable between busy and quiet fields.",
        "percentunit",
        (
            Query(
                f"entity_field_kind:cdc_merge_conflicts_per_merge:ratio_rate5m{{{ENTITY}}}",
                "{{entity}} {{field}} {{kind}}",
            ),
        ),
        12,
    ),
    Panel(
        BARS,
        "Who disagrees",
        "Conflicts in the range on display by the two sources that disagree; one name alone: a conflict of that source only. "
        "One pair far ahead: a job between them.",
        "short",
        (Query(f"sum by (pair) (increase(cdc_merge_conflict_pairs_total{{{ENTITY}}}[$__range])) > 0", "{{pair}}"),),
        12,
    ),
    Panel(
        LINES,
        "Loops",
        "Write loops in the range on display: two sources alternately restoring each other's value; jobs do this, people do not.",
        "short",
        (
            Query(
                f"sum by (entity, pair) (increase(cdc_merge_loops_total{{{ENTITY}}}[$__range]))", "{{entity}} {{pair}}"
            ),
        ),
        24,
        links=(runbook("CdcMergeLoopDetected"),),
    ),
    Panel(
        TABLE,
        "Raised in this range",
        "Conflicts in the range on display; a click lists the open ones of the entity.",
        "short",
        (Query(f"sum by (instance, entity, field, kind, severity) (increase({RAISED}[$__range])) > 0"),),
        24,
        links=(Link("Open conflicts of this entity", CONFLICTS_OF),),
    ),
)

ENDS: Final = (
    Panel(
        LINES,
        "How they end",
        "Conflicts closed a second: by a rule (auto), by people (decided, dismissed), else by themselves.",
        "cps",
        (
            Query(
                f"sum by (resolution) (rate(cdc_merge_resolutions_total{{{ENTITY}}}[$__rate_interval]))",
                "{{resolution}}",
            ),
        ),
        12,
    ),
    Panel(
        HEATMAP,
        "How long they take",
        "From raising a conflict to closing it. Two bands are usual: resolved at once, and decided by people.",
        "s",
        (
            Query(
                f"sum by (le) (rate(cdc_merge_resolution_seconds_bucket{{{ENTITY}}}[$__rate_interval]))",
                "{{le}}",
            ),
        ),
        12,
    ),
    Panel(
        LINES,
        "Open",
        "Conflicts that wait, by severity.",
        "short",
        (Query(f"sum by (severity) (cdc_merge_conflicts_open{{{ENTITY}}})", "{{severity}}"),),
        12,
    ),
    Panel(
        LINES,
        "Age of the oldest",
        "For how long the oldest open conflict has waited, by entity and severity.",
        "s",
        (
            Query(
                f"time() - min by (entity, severity) (cdc_merge_conflict_oldest_open_timestamp_seconds{{{ENTITY}}})",
                "{{entity}} {{severity}}",
            ),
        ),
        12,
    ),
)

BOARD: Final = Board(
    "cdc-merge-conflicts",
    "Conflicts",
    "What conflicts are about, who disagrees, how they end.",
    (Row("What are they about?", ABOUT), Row("How do they end?", ENDS)),
    (BY_ENTITY,),
)
