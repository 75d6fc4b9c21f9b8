"""Traces: what a batch's spans say and never say, with the SDK's own exporter and with a receiver that reads the wire."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import BatchMerged, Fact, Parked, SourceChanged
from cdc_merge.observers.log_events import Logs
from cdc_merge.observers.traces import EVENTS, Traces
from tests.contracts.memory_reading import phone_conflict
from tests.support.alerting import wait_until
from tests.support.process_pool import ProcessPool
from tests.support.shop import Shop, running_sidecar, shop

NOW_NS = 1_790_000_000_000_000_000
BATCH = BatchMerged(
    seconds={"map": 0.002, "merge": 0.003, "questions": 0.001, "commit": 0.004, "all": 0.011},
    changes={("crm", "customer", "update"): 5, ("erp", "customer", "insert"): 2},
    merges={},
    detection_seconds={"crm": (0.1, 0.3), "erp": (0.2,)},
    late_changes=1,
    raised=(phone_conflict(status="settling"),),
    transactions={"crm": (2, 3), "erp": (2,)},
    loads={"memory": 6, "store": 1},
)


def spans(*facts: Fact, sampler: Sampler = ALWAYS_ON) -> list[ReadableSpan]:
    kept, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces = Traces(provider, Logs(b"salt").record_digest, lambda: NOW_NS)
    for fact in facts:
        traces(fact)
    traces.close()
    return [*kept.get_finished_spans()]


def test_a_batch_is_a_trace_of_its_stages_in_order_and_of_its_sources() -> None:
    *children, batch = spans(BATCH)
    assert (batch.name, batch.start_time, batch.end_time) == ("cdc_merge.batch", NOW_NS - 11_000_000, NOW_NS)
    assert batch.context is not None
    assert {child.parent.span_id for child in children if child.parent} == {batch.context.span_id}
    stages = [(child.name, child.start_time, child.end_time) for child in children[:4]]
    begins = [NOW_NS - 11_000_000 + ns for ns in (0, 2_000_000, 5_000_000, 6_000_000, 10_000_000)]
    names = [f"cdc_merge.{stage}" for stage in ("map", "merge", "questions", "commit")]
    assert stages == [*zip(names, begins, begins[1:], strict=False)]
    crm, erp = (dict(child.attributes or {}) for child in children[4:])
    assert crm == {
        "cdc_merge.source": "crm",
        "cdc_merge.transactions": 2,
        "cdc_merge.rows": 5,
        "cdc_merge.detection_seconds.most": 0.3,
    }
    assert erp["cdc_merge.rows"] == 2
    attributes = dict(batch.attributes or {})
    assert (attributes["cdc_merge.changes"], attributes["cdc_merge.raised"], attributes["cdc_merge.loads.store"]) == (
        7,
        1,
        1,
    )


def test_a_conflict_is_an_event_that_names_its_record_by_the_digest_of_the_log() -> None:
    batch = spans(BATCH)[-1]
    (event,) = batch.events
    assert event.name == "conflict_raised"
    assert event.attributes is not None
    assert event.attributes["cdc_merge.record"] == Logs(b"salt").record_digest("customer", "C001")


def test_no_span_holds_a_key_or_a_value_and_nothing_links_to_records() -> None:
    secret = phone_conflict(key="13800138000", status="closed")
    facts = (replace(BATCH, closed=(secret,)), SourceChanged("crm", "stopped", "13800138000 is taken", "slot_lost"))
    exported = spans(*facts)
    assert not any("13800138000" in span.to_json() for span in exported)
    assert not any(span.links for span in exported)


def test_a_storm_does_not_make_a_span_without_end() -> None:
    many = tuple(phone_conflict(f"c{number}", status="settling") for number in range(10 * EVENTS))
    batch = spans(replace(BATCH, raised=many))[-1]
    assert len(batch.events) == EVENTS
    assert dict(batch.attributes or {})["cdc_merge.raised"] == 10 * EVENTS


def test_a_source_that_refuses_is_a_span_with_an_error() -> None:
    (span,) = spans(SourceChanged("crm", "stopped", "The slot is lost.", "slot_lost"), Parked("crm", "t", "x"))
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["cdc_merge.problem"] == "slot_lost"


def test_what_is_not_sampled_costs_no_spans() -> None:
    assert spans(BATCH, sampler=ALWAYS_OFF) == []


# ---------------------------------------------------------------- over the wire


class Collector:
    """Takes OTLP over HTTP on the loopback and reads the protobuf."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Posts(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Posts)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            names = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            self.services.update(names)
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


@pytest.fixture
def place(postgres_server: DemoServer, tmp_path: Path) -> Iterator[Shop]:
    with shop(postgres_server, tmp_path) as opened:
        yield opened


def test_a_running_sidecar_sends_its_batches_to_a_collector(
    place: Shop, collector: Collector, process_pool: ProcessPool, tmp_path: Path
) -> None:
    place.write(telemetry={"otlp": collector.address})
    log = tmp_path / "log"
    with running_sidecar(process_pool, place.file, log) as process:
        wait_until(lambda: any(span.name == "cdc_merge.source_changed" for span in collector.spans), "they are sent")
        place.execute("crm", "update customer set phone = 'crm' where no = 'C7'")
    assert process.poll() == 0, log.read_text()
    batches = {span.span_id for span in collector.spans if span.name == "cdc_merge.batch"}
    assert batches
    assert collector.services == {"cdc-merge"}
    children = [span for span in collector.spans if span.parent_span_id]
    assert {span.parent_span_id for span in children} <= batches
    stages = {"cdc_merge.map", "cdc_merge.merge", "cdc_merge.commit"}
    assert stages <= {span.name for span in children}


def test_a_collector_that_is_not_there_stops_nothing(
    place: Shop, collector: Collector, process_pool: ProcessPool, tmp_path: Path
) -> None:
    collector.close()
    place.write(telemetry={"otlp": collector.address})
    log = tmp_path / "log"
    with running_sidecar(process_pool, place.file, log) as process:
        pass
    assert process.poll() == 0, log.read_text()


WITHOUT = """
import sys
sys.modules["opentelemetry.sdk"] = sys.modules["opentelemetry.exporter"] = None  # as if they were not installed
from cdc_merge.cli.main import main
main()
"""


def test_a_configuration_with_traces_but_without_the_extra_gets_an_install_hint(place: Shop) -> None:
    place.write(telemetry={"otlp": "http://127.0.0.1:4318"})
    command = [sys.executable, "-c", WITHOUT, "--config", str(place.file), "run"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert ended.returncode == 78
    assert "OpenTelemetry is not installed" in ended.stderr
    assert "pip install 'cdc-merge[otel]'" in ended.stderr


def test_without_the_extra_and_without_asking_it_runs(place: Shop, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", WITHOUT, "--config", str(place.file), "run"]
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            wait_until(lambda: "listens on" in log.read_text(), "it listens")
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode == 0
