"""What the log says, and what it never says."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdc_merge.model import BatchMerged, ClockCut, ConflictMoved, Fact, Parked, SnapshotProgress, SourceChanged
from cdc_merge.observers.logs import LOG, Logs, configure
from tests.contracts.memory_reading import phone_conflict

SECRET = "13800138000"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The process's log as JSON lines, put back as it was afterwards."""
    root = logging.getLogger()
    handlers, level, quiet = [*root.handlers], root.level, logging.getLogger("uvicorn").level
    told = io.StringIO()
    configure("json", "DEBUG", told)
    yield told
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
    (ClockCut("crm", 3_500_000), "clock_cut", "warning"),
    (SnapshotProgress("crm", "customer", 1, 2), "snapshot_progress", "debug"),
]


@pytest.mark.parametrize(("fact", "event", "level"), FACTS)
def test_each_fact_is_one_line_with_its_own_code(stream: io.StringIO, fact: Fact, event: str, level: str) -> None:
    Logs()(fact)
    (line,) = lines(stream)
    assert (line["event"], line["level"]) == (event, level)
    assert {"ts", "message", "logger"} <= line.keys()


def test_no_line_tells_a_value_or_a_key(stream: io.StringIO) -> None:
    conflict = phone_conflict(key=SECRET)
    told = replace(conflict.question, base=SECRET, provisional=SECRET)
    Logs()(ConflictMoved("announced", replace(conflict, question=told)))
    assert SECRET not in stream.getvalue()
    (line,) = lines(stream)
    assert line["sources"] == "crm erp"
    assert len(str(line["record"])) == 12


def test_a_record_has_one_digest_per_installation() -> None:
    digest = Logs(b"here").record_digest("customer", "C001")
    assert digest == Logs(b"here").record_digest("customer", "C001")
    assert digest != Logs(b"here").record_digest("customer", "C002")
    assert digest != Logs(b"there").record_digest("customer", "C001")


def test_an_exception_is_told_by_type_and_place_without_its_message(stream: io.StringIO) -> None:
    try:
        int(SECRET + "x")
    except ValueError:
        LOG.exception("It failed.")
    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert "test_logs.py" in str(line["where"])
    assert SECRET not in stream.getvalue()


def test_a_sentence_with_a_percent_sign_is_no_format(stream: io.StringIO) -> None:
    Logs()(SourceChanged("crm", "streaming", "50 %s done"))
    assert lines(stream)[0]["message"] == "50 %s done"


def test_a_line_for_people_stays_one_line_without_control_characters(stream: io.StringIO) -> None:
    told = io.StringIO()
    configure("console", "INFO", told)
    Logs()(SourceChanged("crm", "stopped", "broken\n\x1b[2Jfake line", "slot_lost", "Do this."))
    assert told.getvalue().count("\n") == 1
    assert "\x1b" not in told.getvalue()
    assert 'source_changed broken\\n\\x1b[2Jfake line source=crm state=stopped problem=slot_lost hint="Do this."' in (
        told.getvalue()
    )
