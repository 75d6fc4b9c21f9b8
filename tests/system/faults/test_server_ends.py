"""Servers of every version that stop or crash under the whole sidecar, and a sidecar that has an hour to catch up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from cdc_merge.demo.binaries import account
from cdc_merge.demo.servers import DemoServer
from tests.support.databases import skip_unless_installed
from tests.system.faults.sidecars import SETUP, configured, held, in_table, sidecar, until_present, until_streaming
from tests.system.postgres.reading import run, wait_for

VERSIONS = ("15", "17", "18")


def server_of(version: str, new_server: Callable[..., DemoServer]) -> DemoServer:
    skip_unless_installed(version)
    server = new_server(version=version)
    run(server.dsn(), *SETUP, "INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, 200) g")
    return server


@contextmanager
def busy(dsn: str) -> Iterator[threading.Event]:
    """Two people who edit as fast as they can until the server goes; the event is set when edits have flowed."""
    flowing, ended = threading.Event(), threading.Event()

    def work(number: int) -> None:
        with suppress(psycopg.OperationalError), psycopg.connect(dsn, autocommit=True) as connection:
            for step in range(1_000_000):
                edit = "UPDATE customer SET points = points + 1, name = %s WHERE id %% 20 = %s"
                connection.execute(edit, [f"n{step}", (step + 10 * number) % 20])
                if step == 50:
                    flowing.set()
                if ended.is_set():
                    return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield flowing
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def pg_ctl_stop(server: DemoServer) -> float:
    """How many seconds `pg_ctl stop -m fast` took; it must succeed."""
    who = account()
    command = [str(server.bin / "pg_ctl"), "stop", "-m", "fast", "-w", "-t", "20", "-D", str(server.data)]
    begun_s = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, user=who.uid, group=who.gid, cwd="/")
    return time.monotonic() - begun_s


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fast_stop_ends_within_two_seconds_with_a_busy_sidecar_attached_and_a_crash_costs_nothing(
    new_server: Callable[..., DemoServer], tmp_path: Path, version: str
) -> None:
    server = server_of(version, new_server)
    dsns = {"crm": server.dsn()}
    with sidecar(configured(tmp_path / "one.yaml", dsns)) as running:
        until_streaming(running)
        with busy(server.dsn()) as flowing:
            assert flowing.wait(20)
            assert pg_ctl_stop(server) < 2
        server.stop()
        server.start()
        until_present(running, dsns)
        assert held(running, "crm") == in_table(server.dsn())
        with busy(server.dsn()) as flowing:
            assert flowing.wait(20)
            server.kill()
        server.start()
        until_present(running, dsns)
        assert held(running, "crm") == in_table(server.dsn())
        wait_for(lambda: running.statuses()[0].reconnects == 2, "both returns were counted")
        assert running.statuses()[0].problem is None


# ---------------------------------------------------------------- an hour to catch up

BACKLOG = int(os.environ.get("CDC_MERGE_BACKLOG", "20000"))  # changes; an hour of a hundred a second is 360000
ROWS = 500
MAX_RSS_MIB = 400  # of the merging process; it grows with the records, not with what waits


def peak_rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@contextmanager
def process(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`cdc-merge run`, ended by SIGTERM."""
    start = "from cdc_merge.cli.main import main; main()"
    command = [sys.executable, "-c", start, "--config", str(config), "run"]
    with (config.parent / "log").open("ab") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


def lag_bytes(dsn: str) -> int:
    lag = "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots"
    return int(run(dsn, lag)[0][0])


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak memory is read from /proc: run this on Linux")
def test_an_hour_of_changes_is_caught_up_while_new_ones_come_in_bounded_memory(
    new_server: Callable[..., DemoServer], tmp_path: Path
) -> None:
    server = new_server()
    dsn = server.dsn()
    run(dsn, *SETUP, f"INSERT INTO customer SELECT g, 'old', 0 FROM generate_series(1, {ROWS}) g")
    config = configured(tmp_path / "late.yaml", {"crm": dsn})
    with sidecar(config) as running:
        until_streaming(running)
        until_present(running, {"crm": dsn})
    edits = "UPDATE customer SET points = points + 1, name = 'step ' || {0} WHERE id % 10 = {0} % 10"
    run(dsn, *(edits.format(step) for step in range(BACKLOG // (ROWS // 10))))
    waiting = lag_bytes(dsn)
    assert waiting > BACKLOG * 100
    with process(config) as running_alone, slow_editor(dsn):
        wait_for(lambda: lag_bytes(dsn) < waiting / 100, "the backlog was caught up", limit_s=30 + BACKLOG / 1000)
        assert peak_rss_mib(running_alone.pid) < MAX_RSS_MIB
        wait_for(lambda: lag_bytes(dsn) < 10_000, "next to nothing waits although edits go on")
    with sidecar(config) as running:
        until_present(running, {"crm": dsn})
        assert held(running, "crm") == in_table(dsn)


@contextmanager
def slow_editor(dsn: str) -> Iterator[None]:
    """A writer that changes ten rows fifty times a second."""
    ended = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not ended.wait(0.02):
                connection.execute("UPDATE customer SET points = points + 1 WHERE id <= 10")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)
