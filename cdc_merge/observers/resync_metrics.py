"""Metrics of incremental snapshots (resyncs): rows read, records deleted, failures."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from cdc_merge.model import ResyncProgress
from cdc_merge.observers.labels import Labels

FAILED: Final = "failed"


class ResyncMetrics:
    """Counters by source; every series exists from the start."""

    def __init__(self, prefix: str, labels: Labels, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(prefix + name, text, ("source",), registry=registry)

        self._rows = counter("resync_rows", "Rows read by incremental snapshots.")
        self._deleted = counter(
            "resync_gone", "Records that incremental snapshots did not find in their table any more."
        )
        self._failures = counter("resync_failures", "Incremental snapshots of tables that failed.")
        self.follow(labels)

    def follow(self, labels: Labels) -> None:
        self._labels = labels
        for source in labels.sources:
            for counter in (self._rows, self._deleted, self._failures):
                counter.labels(source)

    def moved(self, fact: ResyncProgress) -> None:
        source = self._labels.source(fact.source)
        self._rows.labels(source).inc(fact.read)
        self._deleted.labels(source).inc(fact.deleted)
        if fact.state == FAILED:
            self._failures.labels(source).inc()
