"""What the log says, and what it never says."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdc_merge.model import (
    BatchMerged,
    ClockCut,
    ConfigReloaded,
    ConflictMoved,
    Fact,
    LoopDetected,
    Parked,
    QuarantineReleased,
    SnapshotProgress,
    SourceChanged,
)
from cdc_merge.observers.log_events import LOG, Logs
from cdc_merge.observers.log_format import BURST, WINDOW_S, Repeats, configure
from tests.contracts.memory_reading import phone_conflict

SECRET = "13800138000"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The process's log as JSON lines, put back as it was afterwards."""
    root = logging.getLogger()
    handlers, level, quiet = [*root.handlers], root.level, logging.getLogger("uvicorn").level
    output = io.StringIO()
    configure("json", "DEBUG", output)
    yield output
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn").setLevel(quiet)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


FACTS: list[tuple[Fact, str, str]] = [
    (BatchMerged({"all": 0.01}, {("crm", "customer", "update"): 2}, {}, {}, 0), "batch_merged", "debug"),
    (ConflictMoved("raised", phone_conflict(status="settling")), "conflict_raised", "debug"),
    (ConflictMoved("revised", phone_conflict()), "conflict_revised", "debug"),
    (ConflictMoved("announced", phone_conflict()), "conflict_announced", "warning"),
    (ConflictMoved("closed", phone_conflict(status="closed")), "conflict_closed", "info"),
    (SourceChanged("crm", "streaming", "crm streams."), "source_changed", "info"),
    (SourceChanged("crm", "stopped", "The slot is lost.", "slot_lost", "Take it anew."), "source_changed", "error"),
    (Parked("crm", "public.customer", "unreadable"), "row_parked", "warning"),
    (QuarantineReleased("crm", "public.customer", "named", 2), "row_unparked", "info"),
    (QuarantineReleased("crm", "public.customer", "expired", 2), "row_unparked", "warning"),
    (ClockCut("crm", 3_500_000), "clock_cut", "warning"),
    (SnapshotProgress("crm", "customer", 1, 2), "snapshot_progress", "debug"),
    (LoopDetected("customer", "C001", ("crm", "erp")), "loop_detected", "warning"),
    (ConfigReloaded("sha256:b"), "config_reloaded", "info"),
    (ConfigReloaded("sha256:a", "x.yaml has a problem", ("x.yaml:3: store",)), "config_reload_failed", "error"),
]


@pytest.mark.parametrize(("fact", "event", "level"), FACTS)
def test_each_fact_is_one_line_with_its_own_code(stream: io.StringIO, fact: Fact, event: str, level: str) -> None:
    Logs()(fact)
    (line,) = lines(stream)
    assert (line["event.code"], line["log.level"]) == (event, level)
    assert {"@timestamp", "message", "log.logger", "service.name", "ecs.version"} <= line.keys()


def test_no_line_holds_a_value_or_a_key(stream: io.StringIO) -> None:
    conflict = phone_conflict(key=SECRET)
    output = replace(conflict.detected, base=SECRET, provisional=SECRET)
    Logs()(ConflictMoved("announced", replace(conflict, detected=output)))
    assert SECRET not in stream.getvalue()
    (line,) = lines(stream)
    assert line["cdc_merge.sources"] == "crm erp"
    assert len(str(line["cdc_merge.record"])) == 12


def test_a_record_has_one_digest_per_installation() -> None:
    digest = Logs(b"here").record_digest("customer", "C001")
    assert digest == Logs(b"here").record_digest("customer", "C001")
    assert digest != Logs(b"here").record_digest("customer", "C002")
    assert digest != Logs(b"there").record_digest("customer", "C001")


@pytest.mark.parametrize("log", [LOG, logging.getLogger("elsewhere")], ids=["ours", "another package's"])
def test_an_exception_is_logged_by_type_and_place_without_its_message(stream: io.StringIO, log: logging.Logger) -> None:
    try:
        int(SECRET + "x")
    except ValueError:
        log.exception("It failed.")
    (line,) = lines(stream)
    assert line["error.type"] == "ValueError"
    assert "test_log_events.py" in str(line["error.stack_trace"])
    assert SECRET not in stream.getvalue()


def test_a_sentence_with_a_percent_sign_is_no_format(stream: io.StringIO) -> None:
    Logs()(SourceChanged("crm", "streaming", "50 %s done"))
    assert lines(stream)[0]["message"] == "50 %s done"


def test_a_line_for_people_stays_one_line_without_control_characters(stream: io.StringIO) -> None:
    output = io.StringIO()
    configure("console", "INFO", output)
    Logs()(SourceChanged("crm", "stopped", "broken\n\x1b[2Jfake line", "slot_lost", "Do this."))
    assert output.getvalue().count("\n") == 1
    assert "\x1b" not in output.getvalue()
    assert 'source_changed broken\\n\\x1b[2Jfake line source=crm state=stopped problem=slot_lost hint="Do this."' in (
        output.getvalue()
    )


def test_a_line_of_another_package_has_the_same_names(stream: io.StringIO) -> None:
    logging.getLogger("elsewhere").warning("%s is full", "the disk", extra={"event": "disk_full", "disk": "sda"})
    (line,) = lines(stream)
    assert (line["message"], line["event.code"], line["log.logger"]) == ("the disk is full", "disk_full", "elsewhere")
    assert line["cdc_merge.disk"] == "sda"


def test_what_is_said_again_and_again_is_written_a_few_times(stream: io.StringIO) -> None:
    for number in range(3 * BURST):
        Logs()(ConflictMoved("announced", phone_conflict(key=f"C{number}")))
        Logs()(Parked("crm", "public.customer", "unreadable"))
    Logs()(Parked("erp", "erp.partner", "unreadable"))
    codes = [line["event.code"] for line in lines(stream)]
    assert (codes.count("conflict_announced"), codes.count("row_parked")) == (BURST, BURST + 1)


def test_the_next_line_carries_the_number_of_lines_left_out(stream: io.StringIO) -> None:
    now_s = [0.0]
    repeats = Repeats(lambda: now_s[0])
    handler = logging.getLogger().handlers[0]
    handler.filters[:] = [repeats]
    for _ in range(BURST + 7):
        Logs()(Parked("crm", "public.customer", "unreadable"))
    now_s[0] += WINDOW_S
    for _ in range(2):
        Logs()(Parked("crm", "public.customer", "unreadable"))
    output = [line.get("cdc_merge.repeats_left_out") for line in lines(stream)]
    assert output == [None] * BURST + [7, None]


def test_an_error_is_never_left_out(stream: io.StringIO) -> None:
    for _ in range(3 * BURST):
        Logs()(SourceChanged("crm", "stopped", "The slot is lost.", "slot_lost", "Take it anew."))
    assert len(lines(stream)) == 3 * BURST
