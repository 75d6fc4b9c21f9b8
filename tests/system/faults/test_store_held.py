"""The store's file is held by another program, or the disk refuses: nothing is confirmed, and it is said."""

from __future__ import annotations

import resource
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.demo.servers import DemoServer
from cdc_merge.errors import StoreUnavailable
from cdc_merge.model import RecordKey
from tests.support.databases import fresh_database
from tests.support.log_lines import parsed_lines
from tests.system.faults.sidecars import SETUP, configured, held, in_table, sidecar, until_present, until_streaming
from tests.system.postgres.reading import confirmed_lsn, run, wait_for, wal_lsn

SLOT = "cdc_merge_crm"
COMMAND = [sys.executable, "-c", "from cdc_merge.cli.main import main; main()"]


@pytest.fixture
def dsn(postgres_server: DemoServer) -> Iterator[str]:
    with fresh_database(postgres_server) as made:
        run(made, *SETUP, "INSERT INTO customer SELECT g, 'same', 0 FROM generate_series(1, 60) g")
        yield made


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the file; it releases the file at the end."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); print(1, flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        with suppress(BrokenPipeError):
            yield


def answer(running: Sidecar, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{running.address}{path}", timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def waiting(running: Sidecar) -> float | None:
    return running.metrics.registry.get_sample_value("cdc_merge_store_waiting")


def test_a_locked_store_delays_the_merging_and_costs_no_change(dsn: str, tmp_path: Path) -> None:
    config = configured(tmp_path / "cdc-merge.json", {"crm": dsn})
    with sidecar(config) as running, ThreadPoolExecutor(1) as asking:
        until_streaming(running)
        until_present(running, {"crm": dsn})
        assert waiting(running) == 0
        with locked(config.with_suffix(".db")):
            confirmed, before = confirmed_lsn(dsn, SLOT), wal_lsn(dsn)
            run(dsn, "UPDATE customer SET points = points + 1 WHERE id <= 30", "DELETE FROM customer WHERE id > 50")
            wait_for(lambda: waiting(running) == 1, "the sidecar says that it waits", 30)
            status, reason = answer(running, "/-/ready")
            assert (status, "Another program has held the store" in reason) == (503, True)
            assert answer(running, "/-/healthy")[0] == 200
            paused = asking.submit(running.source_control.pause, "crm")
            assert confirmed_lsn(dsn, SLOT) == confirmed <= before
            assert not paused.done()
        assert paused.result(30).paused
        assert running.store.orders()["crm"].paused
        running.source_control.resume("crm")
        until_present(running, {"crm": dsn})
        assert held(running, "crm") == in_table(dsn)
        assert waiting(running) == 0
        wait_for(lambda: answer(running, "/-/ready")[0] == 200, "it is ready again")
        changes = running.queries.history(RecordKey("customer", "7"), None, 100).items
        assert [change.operation for change in changes] == ["snapshot", "update"]


def test_a_full_disk_ends_the_merging_with_an_error_and_the_next_start_resumes_without_loss(
    dsn: str, tmp_path: Path
) -> None:
    config = configured(tmp_path / "cdc-merge.json", {"crm": dsn})
    with sidecar(config) as running:
        until_streaming(running)
        until_present(running, {"crm": dsn})
        writer = running.store._writer  # type: ignore[attr-defined] # the pragma holds for one connection
        writer.execute(f"PRAGMA max_page_count = {writer.execute('PRAGMA page_count').fetchone()[0]}")
        before = wal_lsn(dsn)
        run(dsn, "UPDATE customer SET name = repeat(md5(id::text), 300), points = points + 1")
        with pytest.raises(StoreUnavailable, match="has no space left to write") as refusal:
            running.wait(30)
        assert "Free disk space" in refusal.value.hint
        status, said = answer(running, "/-/healthy")
        assert (status, "no space left" in said) == (503, True)
        assert answer(running, "/-/ready")[0] == 503
        assert confirmed_lsn(dsn, SLOT) <= before
    with sidecar(config) as running:
        until_present(running, {"crm": dsn})
        assert held(running, "crm") == in_table(dsn)


def test_an_io_error_ends_the_process_with_a_message_and_a_supervisor_may_start_it_again(
    dsn: str, tmp_path: Path
) -> None:
    config = configured(tmp_path / "cdc-merge.json", {"crm": dsn})
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen([*COMMAND, "--config", config, "run"], stderr=output) as process:
        wait_for(lambda: "now streams" in log.read_text() or '"streaming"' in log.read_text(), "the source streams", 60)
        # The kernel refuses every write behind that: EFBIG, as a failing disk says EIO.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (16384, 16384))
        run(dsn, "UPDATE customer SET points = points + 1")
        assert process.wait(60) == 69
    last = parsed_lines(log.read_text())[-1]
    assert (last["event.code"], last["log.level"]) == ("sidecar_failed", "error")
    assert "could not be read or written by the operating system" in last["message"]
    assert "Check the disk" in last["cdc_merge.hint"]
    with sidecar(config) as running:
        until_present(running, {"crm": dsn})
        assert held(running, "crm") == in_table(dsn)
