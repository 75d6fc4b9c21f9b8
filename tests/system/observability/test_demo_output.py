"""The complete output of a demo: its log at level debug and its live scrape. Neither holds a row value."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.settings import Settings
from cdc_merge.demo.play import DemoOptions, Scene, play
from cdc_merge.demo.source_tables import rows
from cdc_merge.demo.summary import Summary
from cdc_merge.demo.systems import SOURCES, entities
from cdc_merge.model.ports import Observer
from cdc_merge.observers import log_format
from cdc_merge.observers.log_events import Logs
from tests.observers.metric_contract import COUNTERS, GAUGES, HISTOGRAMS
from tests.support.alerting import program
from tests.support.log_lines import parsed_lines

# What the demo's servers and configuration give no sample of.
WITHOUT_SAMPLE = {
    "slot_safe_bytes": "no max_slot_wal_keep_size",
    "records_missing": "no on_missing: report",
    "heartbeat_permitted": "no heartbeat",
    "resyncs": "nothing is read again",
}


class DemoOutput(NamedTuple):
    """A demo that is over. `beside`: what was written on stderr past the log; `secrets`: every value and key that any
    system held."""

    log: str
    beside: str
    scrape: str
    secrets: frozenset[str]
    summary: Summary


class Snooper:
    """A screen that notes what the demo's people wrote, and scrapes."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.scrape = ""

    def say(self, sentence: str) -> None:
        return

    def open(self, scene: Scene) -> None:
        self.tick(scene)

    def tick(self, scene: Scene) -> None:
        with urllib.request.urlopen(f"{scene.address}/metrics", timeout=10) as answer:
            self.scrape = answer.read().decode()
        held = rows(scene.dsns)
        self.secrets.update(key for _, _, key in held)
        for fields in held.values():
            self.secrets.update(str(value) for value in fields.values() if is_telling(value))

    def close(self) -> None:
        return


def is_telling(value: object) -> bool:
    """Text long enough and strange enough that no sentence of ours holds it by chance."""
    return isinstance(value, str) and len(value) >= 6 and not re.fullmatch(r"[a-z_ ]+", value)


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """The process's log at its most talkative, as JSON."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = [*root.handlers], root.level
    log_format.configure("json", "DEBUG", stream)
    try:
        yield stream
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def captured_stderr() -> Iterator[io.BufferedRandom]:
    """What this process and its children write on descriptor 2."""
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield kept
        finally:
            os.dup2(before, 2)
            os.close(before)


def logged(settings: Settings, observers: Sequence[Observer]) -> Sidecar:
    """The demo's sidecar as `cdc-merge run` has it: with a log, and readers that are processes."""
    return Sidecar(settings, [*observers, Logs(b"salt")])


@pytest.fixture(scope="module")
def output() -> Iterator[DemoOutput]:
    snooper = Snooper()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("cdc_merge.demo.play.Sidecar", logged)
        beside, stream = stack.enter_context(captured_stderr()), stack.enter_context(everything_logged())
        summary = play(DemoOptions(8.0, None, 5, threading.Event()), snooper)
        beside.seek(0)
        yield DemoOutput(stream.getvalue(), beside.read().decode(), snooper.scrape, frozenset(snooper.secrets), summary)


def test_the_demo_writes_a_log_and_metrics_of_its_users(output: DemoOutput) -> None:
    assert output.summary.conflicts
    assert len(output.secrets) > 100
    codes = {line["event.code"] for line in parsed_lines(output.log)}
    assert {"batch_merged", "conflict_raised", "conflict_announced", "source_changed"} <= codes
    assert all(name in output.log and name in output.scrape for name in (*entities(), *SOURCES))


@pytest.mark.parametrize("where", ["log", "beside", "scrape"])
def test_no_output_holds_a_key_or_a_value(output: DemoOutput, where: str) -> None:
    text: str = getattr(output, where)
    assert sorted(secret for secret in output.secrets if secret in text) == []


def test_promtool_accepts_a_live_scrape(output: DemoOutput) -> None:
    command = [program("promtool", "prometheus"), "check", "metrics"]
    ended = subprocess.run(command, input=output.scrape, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_a_live_scrape_has_samples_of_every_metric_with_its_labels(output: DemoOutput) -> None:
    found = {family.name.removeprefix("cdc_merge_"): family for family in text_string_to_metric_families(output.scrape)}
    wanted = {**COUNTERS, **GAUGES, **HISTOGRAMS}
    assert wanted.keys() <= found.keys()
    empty = {name for name in wanted if not found[name].samples}
    assert empty <= WITHOUT_SAMPLE.keys(), empty
    for name in wanted.keys() - empty:
        labels = {frozenset(sample.labels) - {"le"} for sample in found[name].samples}
        assert labels == {frozenset(wanted[name])}, name


def test_a_live_scrape_is_as_long_as_the_configuration_makes_it(output: DemoOutput) -> None:
    """Three systems, three entities: hundreds of customers and orders add no series."""
    assert len(output.scrape.splitlines()) < 5_000
