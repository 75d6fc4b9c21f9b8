"""One transaction of very many rows: how much memory the merging process and its reader ever hold, and how long it takes.

A table of 10 columns with REPLICA IDENTITY FULL; one transaction inserts all rows, a second one updates 3 columns of each.
The sidecar is a process of its own, as in production; the kernel's high-water mark of each process is the figure.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.throughput import CONFIGURATION, SCHEMA
from cdc_merge.demo.servers import DemoServer, new_directory, start_server
from cdc_merge.model import lsn_from_text

LIMIT_S: Final = 7_200.0

INSERT: Final = """
insert into item
select n, 'item ' || n, '400' || lpad(n::text, 10, '0'), n * 1.25, 100, 'A' || n % 40, 'supplier ' || n % 90,
       n % 90000 * 0.125, date '2026-01-01', 'as ordered'
from generate_series(1, {rows}) n
"""
UPDATE: Final = "update item set price = price + 0.01, stock = stock + 1, remark = 'counted'"


class Process:
    """`cdc-merge run` over one configuration; its readers are its children."""

    def __init__(self, config: Path, port: int) -> None:
        command = [sys.executable, "-c", "from cdc_merge.cli.main import main; main()", "--config", str(config), "run"]
        self._port = port
        self.log = config.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    def ask(self, path: str) -> Any:
        """The answer of its API, as JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
            return json.load(answer)

    def source(self) -> Mapping[str, Any]:
        """Its only source as the API shows it; nothing when it does not answer yet."""
        try:
            (source,) = self.ask("/api/v1/sources")["items"]
        except OSError:
            return {}
        found: Mapping[str, Any] = source
        return found

    def durable_lsn(self) -> int:
        """How far its only source is on disk; 0 before its first copy is."""
        source = self.source()
        if not source or source["snapshot"]["state"] == "running":
            return 0
        return lsn_from_text(source["durable_lsn"] or "0/0")

    def peak_mb(self) -> dict[str, int]:
        """The high-water marks of the merging process and of the largest of its children, in MB."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        readers = [_high_water_mb(int(child)) for child in children.split()]
        return {"merging": _high_water_mb(self.process.pid), "reader": max(readers, default=0)}

    def wait(self, fact: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not fact():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(self.log.read_text(encoding="utf-8")[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def _high_water_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


@contextmanager
def running(config: Path, port: int) -> Iterator[Process]:
    process = Process(config, port)
    try:
        yield process
    finally:
        process.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configured(home: Path, server: DemoServer) -> tuple[Path, int]:
    """An empty table in the server, and a configuration that follows it with its console on that port."""
    port = _free_port()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("truncate item")
    config = home / "cdc-merge.yaml"
    text = CONFIGURATION.format(home=home, dsn=server.dsn()).replace("127.0.0.1:0", f"127.0.0.1:{port}")
    config.write_text(text, encoding="utf-8")
    return config, port


def run(server: DemoServer, statement: str) -> int:
    """Run a statement as one transaction; where the WAL is behind it."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())
        row = connection.execute("select pg_current_wal_flush_lsn()").fetchone()
    assert row is not None
    return lsn_from_text(row[0])


def measure(rows: int) -> dict[str, object]:
    """Seconds and peak memory of both transactions."""
    home = new_directory("cdc-merge-bench-")
    figures: dict[str, object] = {"rows": rows}
    try:
        with start_server(home / "shop", settings={"max_wal_size": "8GB", "shared_buffers": "128MB"}) as server:
            config, port = configured(home, server)
            with running(config, port) as sidecar:
                sidecar.wait(lambda: sidecar.durable_lsn() > 0, LIMIT_S)
                figures["before_mb"] = sidecar.peak_mb()
                for name, statement in (("insert", INSERT.format(rows=rows)), ("update", UPDATE)):
                    end = run(server, statement)
                    started = time.perf_counter()
                    sidecar.wait(lambda end=end: sidecar.durable_lsn() >= end, LIMIT_S)  # type: ignore[misc] # a fact
                    figures[f"{name}_s"] = round(time.perf_counter() - started, 1)
                    figures[f"{name}_peak_mb"] = sidecar.peak_mb()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return figures
