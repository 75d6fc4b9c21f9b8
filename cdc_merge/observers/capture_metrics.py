"""The capture counters of all sources (model/capture_counters.py) as metric families, read at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from cdc_merge.model.capture_counters import (
    COMMIT_LAG,
    COMMIT_LAG_US,
    DUPLICATES,
    EVENT_BYTES,
    EVENT_KINDS,
    EVENTS,
    GAP_KINDS,
    GAPS,
    KEY_CHANGES,
    LAG_EDGES_S,
    LAG_KEYS,
    SNAPSHOT_CHUNKS,
    STATUS_REASONS,
    STATUS_UPDATES,
    TOAST_ABSENT,
    TRUNCATES,
    UNKNOWN_MESSAGES,
    WINDOW_DROPPED,
    Counts,
)
from cdc_merge.observers.labels import Labels

TABLE: Final = "table"


class _Captured(NamedTuple):
    """One counter family. `label`: the label beside the source, "" for none; `values`: its closed list, a table's come from
    the plan."""

    figure: str
    text: str
    label: str = ""
    values: tuple[str, ...] = ()


CAPTURED: Final = (
    _Captured(
        STATUS_UPDATES,
        "Standby status updates sent to the source's server: by the clock (timer), at once on a keepalive's request or after "
        "a confirm (forced), to request the server's position (idle).",
        "reason",
        STATUS_REASONS,
    ),
    _Captured(EVENTS, "Row changes and logical messages received in the stream.", "op", EVENT_KINDS),
    _Captured(EVENT_BYTES, "Bytes of complete transactions received in the stream, as the server sends them."),
    _Captured(UNKNOWN_MESSAGES, "Stream messages of a kind that the protocol does not define; they were skipped."),
    _Captured(
        TOAST_ABSENT, "Values left out by the stream because an update did not change them (TOAST), by table.", TABLE
    ),
    _Captured(TRUNCATES, "Truncates of tables.", TABLE),
    _Captured(KEY_CHANGES, "Changes of a row's business key.", TABLE),
    _Captured(DUPLICATES, "Transactions delivered again and dropped."),
    _Captured(
        GAPS,
        "Gaps: times when the source could not deliver everything after our position, by cause; no gap is skipped silently.",
        "kind",
        GAP_KINDS,
    ),
    _Captured(SNAPSHOT_CHUNKS, "Chunks read by initial snapshots."),
    _Captured(
        WINDOW_DROPPED,
        "Rows of incremental snapshots dropped because the stream has newer changes, of the row or of its whole chunk.",
    ),
)


def captured(prefix: str, labels: Labels, counts: Mapping[str, Counts]) -> Iterator[Metric]:
    """Every family, with a series for each label value that the plan has. `counts`: by source."""
    for each in CAPTURED:
        names = ("source", each.label) if each.label else ("source",)
        family = CounterMetricFamily(prefix + each.figure, each.text, labels=names)
        for series, count in _series(each, labels, counts).items():
            family.add_metric(series, count)
        yield family
    lags = HistogramMetricFamily(
        prefix + COMMIT_LAG,
        "From a transaction's commit to its sending, by the source's own clock.",
        labels=("source",),
    )
    for source, counted in counts.items():
        within = accumulate(counted.get(key, 0) for key in LAG_KEYS)
        edges = (*map(str, LAG_EDGES_S), "+Inf")
        total_s = counted.get((COMMIT_LAG_US, ""), 0) / 1e6
        lags.add_metric((source,), [*zip(edges, within, strict=True)], total_s)
    yield lags


def _series(each: _Captured, labels: Labels, counts: Mapping[str, Counts]) -> Counter[tuple[str, ...]]:
    series: Counter[tuple[str, ...]] = Counter()
    for source, counted in counts.items():
        if not each.label:
            series[(source,)] = counted.get((each.figure, ""), 0)
        elif each.label == TABLE:
            series.update(dict.fromkeys((place for place in labels.tables() if place[0] == source), 0))
            of_tables = {table: count for (figure, table), count in counted.items() if figure == each.figure}
            for table, count in of_tables.items():
                series[labels.table(source, table)] += count
        else:
            series.update({(source, value): counted.get((each.figure, value), 0) for value in each.values})
    return series
