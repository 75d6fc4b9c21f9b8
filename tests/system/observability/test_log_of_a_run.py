"""The log of a real process: nothing but lines of one form, every code documented, no password in trouble."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from tests.support.alerting import ROOT, fetched, wait_until
from tests.support.databases import drop_slots
from tests.support.log_lines import parsed_lines
from tests.support.process_pool import ProcessPool
from tests.support.shop import Shop, running_sidecar, shop
from tests.system.observability.events import documented_codes, written_codes

# No runbook cites them: they are logged at level debug or info, and follow no alert.
CITED_BY_NO_RUNBOOK: Final = {
    "batch_merged",
    "config_reloaded",
    "config_warning",
    "conflict_closed",
    "conflict_raised",
    "conflict_revised",
    "log",
    "observer_failed",
    "request_failed",
    "resync_done",
    "resync_progress",
    "snapshot_progress",
    "thread_failed",
}
PASSWORD: Final = "hunter2-never-tell"
PHONES: Final = ("13800138000", "13911113333")
COMMAND: Final = [sys.executable, "-c", "from cdc_merge.cli.main import main; main()"]


# ---------------------------------------------------------------- the codes


def test_every_code_that_can_be_written_is_documented_and_no_other() -> None:
    assert written_codes() == documented_codes()


def test_a_code_is_cited_by_a_runbook_or_follows_no_alert() -> None:
    runbooks = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "runbooks").glob("*.md"))
    assert {code for code in written_codes() if f"`{code}`" not in runbooks} == CITED_BY_NO_RUNBOOK


# ---------------------------------------------------------------- what a process writes on stderr


@pytest.fixture
def place(postgres_server: DemoServer, tmp_path: Path) -> Iterator[Shop]:
    with shop(postgres_server, tmp_path) as opened:
        dsns = {name: f"{dsn} password={PASSWORD}" for name, dsn in opened.dsns.items()}
        opened.document["sources"] = {name: {"type": "postgres", "dsn": dsn} for name, dsn in dsns.items()}
        opened.write()
        yield opened


def codes(log: Path) -> list[str]:
    return [json.loads(line)["event.code"] for line in log.read_text(encoding="utf-8").splitlines()]


def test_a_process_that_meets_trouble_writes_json_only_and_no_password(
    place: Shop, process_pool: ProcessPool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with running_sidecar(process_pool, place.file, log, "--log-level", "debug") as process:
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())
        wait_until(
            lambda: all(each["snapshot"]["state"] == "done" for each in fetched(f"{address}/api/v1/sources")["items"]),
            "both first copies are done",
        )
        for source, phone in zip(("crm", "erp"), PHONES, strict=True):
            place.execute(source, f"update customer set phone = '{phone}' where no = 'C7'")
        wait_until(lambda: "conflict_announced" in codes(log), "the conflict is announced")
        with psycopg.connect(place.dsns["erp"], autocommit=True) as connection:
            drop_slots(connection, connection.info.dbname)
        wait_until(lambda: '"slot_missing"' in log.read_text(), "the lost slot is logged")
    text = log.read_text(encoding="utf-8")
    lines = parsed_lines(text)
    ours = [line["event.code"] for line in lines if line["event.code"] != "log"]
    assert (ours[0], ours[-1]) == ("sidecar_started", "sidecar_stopped")
    assert process.poll() == 0
    for secret in (PASSWORD, *PHONES, "C7"):
        assert not re.search(rf"\b{re.escape(secret)}\b", text), secret
    (raised,) = [line for line in lines if line["event.code"] == "conflict_announced"]
    assert re.fullmatch(r"[0-9a-f]{12}", raised["cdc_merge.record"])


def test_a_process_that_cannot_start_says_why_in_its_log(place: Shop, process_pool: ProcessPool) -> None:
    place.write(http={"listen": "203.0.113.1:1"})
    ended = process_pool.run_to_end(["--config", str(place.file), "run"], place.directory)
    (line,) = parsed_lines(ended.stderr)
    assert (line["event.code"], line["log.level"]) == ("sidecar_failed", "error")
    assert line["message"].startswith("The HTTP listener cannot bind 203.0.113.1:1")
    assert "http.listen" in line["cdc_merge.hint"]
    assert ended.returncode == 69


def test_on_a_terminal_the_log_is_written_for_people(place: Shop) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "--config", str(place.file), "run"], stderr=theirs) as process:
        os.close(theirs)
        text = ""
        try:
            while "sidecar_started" not in text:
                text += os.read(ours, 4096).decode()
        finally:
            process.terminate()
            with suppress(OSError):  # a terminal whose other end is closed
                while piece := os.read(ours, 4096):
                    text += piece.decode()
            os.close(ours)
            process.wait(30)
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} INFO    sidecar_started cdc-merge listens on http://127", text, re.M)
    assert PASSWORD not in text


WITH_A_BROKEN_THREAD = """
import asyncio, threading, warnings
from cdc_merge.console.http_server import task_failed
from cdc_merge.observers.fan_out import FanOut
from cdc_merge.observers import log_format
log_format.configure("json")
log_format.capture_uncaught()
thread = threading.Thread(target=lambda: int("13800138000x"), name="merge")
thread.start()
thread.join()

class Finalized:
    def __del__(self):
        int("13800138000y")

del_me = Finalized()
del del_me

async def unawaited_failure():
    asyncio.get_running_loop().set_exception_handler(task_failed)
    task = asyncio.ensure_future(asyncio.to_thread(int, "13800138000z"))
    await asyncio.wait([task])
    del task

asyncio.run(unawaited_failure())
FanOut([int])("13800138000w")
warnings.warn("this is old")
"""


def test_an_error_outside_any_handler_is_one_line_without_its_message() -> None:
    ended = subprocess.run([sys.executable, "-c", WITH_A_BROKEN_THREAD], capture_output=True, text=True, timeout=60)
    failed, unraisable, task, looker, warned = parsed_lines(ended.stderr)
    assert (unraisable["event.code"], unraisable["error.type"]) == ("thread_failed", "ValueError")
    assert task["event.code"] == "request_failed"
    assert task["message"].startswith("A task of the HTTP listener ended by an unexpected ValueError in ")
    assert looker["event.code"] == "observer_failed"
    assert looker["message"].startswith("An observer of str failed with an unexpected ValueError in ")
    assert (failed["event.code"], failed["error.type"], failed["cdc_merge.thread"]) == (
        "thread_failed",
        "ValueError",
        "merge",
    )
    assert "13800138000" not in ended.stderr
    assert "this is old" in warned["message"]
