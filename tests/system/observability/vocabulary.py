"""The metrics of the sidecar's registry over the demo's configuration, and of the rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import NamedTuple

import promql_parser
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cdc_merge.config.load import load
from cdc_merge.demo.systems import SOURCES, template
from cdc_merge.doctor.background import DoctorCollector, Rounds
from cdc_merge.doctor.preflight import Doctor
from cdc_merge.model import SourceStatus, StoreFigures
from cdc_merge.observers.gauges import Gauges
from cdc_merge.observers.prometheus import Metrics
from tests.support.alerting import RULES, parsed

# What Prometheus itself says of a target, and of alerts.
BY_PROMETHEUS = frozenset({"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped"})
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


class Described(NamedTuple):
    """A metric as documentation speaks of it; a histogram without the suffixes of its series."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


@cache
def metric_types() -> dict[str, str]:
    """Every metric by the name that a query uses (`…_total`, `…_bucket`), with its type."""
    return {name: family.type for family in exposed() for name in _names(family.name, family.type)}


@cache
def described() -> tuple[Described, ...]:
    """Every metric, by name."""
    labels = dict(_labels())
    found = []
    for family in exposed():
        name = f"{family.name}_total" if family.type == COUNTER else family.name
        found.append(Described(name, family.type, tuple(sorted(labels.get(family.name, ()))), family.documentation))
    return tuple(sorted(found))


def _labels() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(metric, labels). The client's own notes of them: what has no sample shows none."""
    registry = _metrics().registry
    for collector in registry._collector_to_names:
        for family in collector.collect():
            labels: tuple[str, ...] = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            yield family.name, labels


@cache
def exposed() -> tuple[Metric, ...]:
    """What a sidecar over the demo's configuration exposes."""
    return tuple(text_string_to_metric_families(generate_latest(_metrics().registry).decode()))


@cache
def _metrics() -> Metrics:
    with TemporaryDirectory() as directory:
        config = Path(directory) / "cdc-merge.yaml"
        addresses = {f"{source.upper()}_DSN": "host=nowhere" for source in SOURCES}
        more = {"CDC_MERGE_STORE": f"sqlite://{directory}/state.db", "CDC_MERGE_LISTEN": "127.0.0.1:0"}
        config.write_text(Template(template()).substitute(addresses | more), encoding="utf-8")
        plan = load(config, {}).plan
    status = SourceStatus("crm", "postgres", slot_active=True, wal_status="reserved", retained_bytes=1, safe_bytes=1)
    metrics = Metrics(plan, Gauges(StoreFigures, lambda: [status]), "0")
    metrics.registry.register(DoctorCollector(Rounds(Doctor(dict, lambda: 0, probing=False), list)))
    return metrics


def _names(name: str, kind: str) -> tuple[str, ...]:
    if kind == COUNTER:
        return (f"{name}_total",)
    return (f"{name}_bucket", f"{name}_sum", f"{name}_count") if kind == HISTOGRAM else (name,)


def metric_names() -> frozenset[str]:
    return frozenset(metric_types()) | BY_PROMETHEUS


@cache
def recorded_names() -> frozenset[str]:
    groups = parsed(RULES / "recording.yaml")["groups"]
    return frozenset(rule["record"] for group in groups for rule in group["rules"])


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of an expression, those inside ranges and subqueries included."""
    yield from _selectors(promql_parser.parse(expression))


def _selectors(node: object) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    else:
        for child in ("expr", "lhs", "rhs", "param"):
            if (inner := getattr(node, child, None)) is not None:
                yield from _selectors(inner)
        for argument in getattr(node, "args", None) or ():
            yield from _selectors(argument)


def selected_names(expression: str) -> set[str]:
    return {str(selector.name) for selector in selectors(expression)}
