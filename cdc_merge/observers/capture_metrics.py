"""What was counted while sources were captured (capture.py), as families: read when somebody scrapes."""

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
    """`label` is the one beside the source, "" for none; `values` are all that it may have, those of a table from the plan."""

    figure: str
    text: str
    label: str = ""
    values: tuple[str, ...] = ()


CAPTURED: Final = (
    _Captured(
        STATUS_UPDATES,
        "Messages in which the source's server was told how far we are: by the clock (timer), at once because it asked or "
        "something was confirmed (forced), to ask how far it is (idle).",
        "reason",
        STATUS_REASONS,
    ),
    _Captured(EVENTS, "Row changes and logical messages that came in the stream.", "op", EVENT_KINDS),
    _Captured(EVENT_BYTES, "Bytes of transactions that came whole in the stream, as the server sends them."),
    _Captured(
        UNKNOWN_MESSAGES, "Messages of the stream of a kind that its protocol does not have; they were passed over."
    ),
    _Captured(
        TOAST_ABSENT, "Values that the stream left out because an update did not change them (TOAST), by table.", TABLE
    ),
    _Captured(TRUNCATES, "Tables that were emptied.", TABLE),
    _Captured(KEY_CHANGES, "Rows that were given another business key.", TABLE),
    _Captured(DUPLICATES, "Transactions that came again and were dropped."),
    _Captured(
        GAPS,
        "Times when what follows our position could not be had whole from the source, by why; it is not read on in silence.",
        "kind",
        GAP_KINDS,
    ),
    _Captured(SNAPSHOT_CHUNKS, "Pieces of first copies that were read."),
    _Captured(
        WINDOW_DROPPED,
        "Rows that were read again and not taken so: the stream said something newer, of each or of the whole piece.",
    ),
)


def captured(prefix: str, labels: Labels, counts: Mapping[str, Counts]) -> Iterator[Metric]:
    """Every family, with all series that can be foreseen. `counts`: by source."""
    for each in CAPTURED:
        names = ("source", each.label) if each.label else ("source",)
        family = CounterMetricFamily(prefix + each.figure, each.text, labels=names)
        for series, count in _series(each, labels, counts).items():
            family.add_metric(series, count)
        yield family
    lags = HistogramMetricFamily(
        prefix + COMMIT_LAG, "From a commit to its sending, by the source's own clock.", labels=("source",)
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
            found = {table: count for (figure, table), count in counted.items() if figure == each.figure}
            for table, count in found.items():
                series[labels.table(source, table)] += count
        else:
            series.update({(source, value): counted.get((each.figure, value), 0) for value in each.values})
    return series
