"""Facts → OpenTelemetry traces; needs the package extra `otel`.

A trace is a batch: its stages, and the changes from each source. Spans are created when a batch is on disk, from its
measured durations: a stage's length is exact, and stages are drawn one after the other. No span holds a key or a value; a
conflict is an event of its batch that identifies its record by the digest of the log. Nothing links to records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from cdc_merge.model import BatchMerged, Conflict, Fact, SourceChanged

PREFIX: Final = "cdc_merge."
# In the order of a batch.
STAGES: Final = ("map", "merge", "questions", "commit")
# Conflicts of one batch that become events; their number is an attribute.
EVENTS: Final = 32
# Spans that wait to be exported; when the collector is slow the rest is dropped, and no batch waits.
QUEUED: Final = 2_048
FLUSH_LIMIT_MS: Final = 2_000
Attributes = dict[str, str | int | float]


class Traces:
    """An observer that creates spans from facts; `provider` samples and exports them. `digest` identifies a record without
    revealing its key; `now_ns` returns our clock."""

    def __init__(
        self,
        provider: TracerProvider,
        digest: Callable[[str, str], str],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("cdc_merge")
        self._digest = digest
        self._now_ns = now_ns

    def __call__(self, fact: Fact) -> None:
        """Create the spans of a fact. Never raises, never waits."""
        if isinstance(fact, BatchMerged):
            self._batch(fact)
        elif isinstance(fact, SourceChanged):
            self._source_changed(fact)

    def close(self) -> None:
        """Export the spans that wait, for at most FLUSH_LIMIT_MS."""
        self._provider.force_flush(FLUSH_LIMIT_MS)
        self._provider.shutdown()

    def _batch(self, fact: BatchMerged) -> None:
        ended_ns = self._now_ns()
        began_ns = ended_ns - _ns(fact.seconds.get("all", 0.0))
        batch = self._tracer.start_span(f"{PREFIX}batch", start_time=began_ns)
        if batch.is_recording():
            batch.set_attributes(_figures(fact))
            self._stages(batch, fact.seconds, began_ns)
            self._sources(batch, fact, (began_ns, ended_ns))
            moved = (*(("conflict_raised", c) for c in fact.raised), *(("conflict_closed", c) for c in fact.closed))
            for event, conflict in moved[:EVENTS]:
                batch.add_event(event, self._conflict_attributes(conflict), ended_ns)
        batch.end(ended_ns)

    def _stages(self, batch: Span, seconds: Mapping[str, float], began_ns: int) -> None:
        for stage in STAGES:
            if stage in seconds:
                ended_ns = began_ns + _ns(seconds[stage])
                self._child(batch, stage, {}, (began_ns, ended_ns))
                began_ns = ended_ns

    def _sources(self, batch: Span, fact: BatchMerged, span: tuple[int, int]) -> None:
        for source, waits in fact.detection_seconds.items():
            attributes: Attributes = {
                f"{PREFIX}source": source,
                f"{PREFIX}transactions": len(waits),
                f"{PREFIX}rows": sum(fact.transactions.get(source, ())),
                f"{PREFIX}detection_seconds.most": max(waits, default=0.0),
            }
            self._child(batch, "source", attributes, span)

    def _child(self, batch: Span, name: str, attributes: Attributes, span: tuple[int, int]) -> None:
        context = set_span_in_context(batch)
        child = self._tracer.start_span(f"{PREFIX}{name}", context, attributes=attributes, start_time=span[0])
        child.end(span[1])

    def _conflict_attributes(self, conflict: Conflict) -> Attributes:
        detected = conflict.detected
        return {
            f"{PREFIX}conflict": conflict.id,
            f"{PREFIX}entity": detected.entity,
            f"{PREFIX}record": self._digest(detected.entity, detected.key),
            f"{PREFIX}kind": detected.kind,
            f"{PREFIX}severity": detected.severity,
            f"{PREFIX}resolution": conflict.resolution or "",
        }

    def _source_changed(self, fact: SourceChanged) -> None:
        """A span without length. The server's message may hold row values and stays in the log."""
        now_ns = self._now_ns()
        attributes: Attributes = {f"{PREFIX}source": fact.source, f"{PREFIX}state": fact.state}
        span = self._tracer.start_span(f"{PREFIX}source_changed", attributes=attributes, start_time=now_ns)
        if fact.problem is not None:
            span.set_attribute(f"{PREFIX}problem", fact.problem)
            span.set_status(Status(StatusCode.ERROR, fact.problem))
        span.end(now_ns)


def otlp_provider(otlp: str, share: float, version: str) -> TracerProvider:
    """A provider that exports a share of the traces to a collector, by OTLP over HTTP: protobuf to `<otlp>/v1/traces`."""
    resource = Resource.create({"service.name": "cdc-merge", "service.version": version})
    provider = TracerProvider(sampler=TraceIdRatioBased(share), resource=resource, shutdown_on_exit=False)
    address = f"{otlp.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=5), QUEUED))
    return provider


def _figures(fact: BatchMerged) -> Attributes:
    return {
        f"{PREFIX}changes": sum(fact.changes.values()),
        f"{PREFIX}late_changes": fact.late_changes,
        f"{PREFIX}raised": len(fact.raised),
        f"{PREFIX}closed": len(fact.closed),
        **{f"{PREFIX}loads.{origin}": count for origin, count in fact.loads.items()},
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
