"""Two systems with one table of customers, and the configuration of a sidecar that watches them."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.demo.servers import DemoServer
from tests.support import alerting
from tests.support.alerting import Parsed, fetched, wait_until
from tests.support.databases import fresh_database
from tests.support.process_pool import ChildProcess, ProcessPool

TABLE = """
create table customer (no text primary key, phone text);
alter table customer replica identity full;
create publication cdc_merge for table customer;
"""
MAPPED = {"table": "public.customer", "key": "no", "fields": {"phone": "phone"}}
TOKEN = alerting.TOKEN


@dataclass
class Shop:
    """`dsns`: source → conninfo. `document` is written to `file` by `write`."""

    directory: Path
    dsns: Mapping[str, str]
    document: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.directory / "tokens").write_text(f"{TOKEN} ann\n")
        self.document |= {
            "store": f"sqlite://{self.directory}/state.db",
            "http": {"listen": "127.0.0.1:0"},
            "settle": "200ms",
            "access": {"tokens_file": "tokens"},
            "sources": {name: {"type": "postgres", "dsn": dsn} for name, dsn in self.dsns.items()},
            "entities": {"customer": {"from": dict.fromkeys(self.dsns, MAPPED), "fields": {"phone": {"merge": "mv"}}}},
        }
        self.write()

    @property
    def file(self) -> Path:
        return self.directory / "cdc-merge.yaml"

    def write(self, **more: object) -> None:
        self.file.write_text(json.dumps({**self.document, **more}))

    def execute(self, source: str, statement: str) -> None:
        with psycopg.connect(self.dsns[source], autocommit=True) as connection:
            connection.execute(statement)

    def make_conflict(self, address: str, key: str) -> Parsed:
        """Enter different phones of one customer in the two systems; the conflict, once the sidecar at the address has it open."""
        for source in self.dsns:
            self.execute(source, f"update customer set phone = '{source}' where no = '{key}'")
        found: list[Parsed] = []

        def is_open() -> bool:
            answered = fetched(f"{address}/api/v1/conflicts?status=open")["items"]
            found[:] = [conflict for conflict in answered if conflict["key"] == key]
            return bool(found)

        wait_until(is_open, f"a conflict of {key} is open")
        return found[0]


@contextmanager
def shop(server: DemoServer, directory: Path, customers: int = 9) -> Iterator[Shop]:
    """The two systems, each in a database of its own."""
    with ExitStack() as stack:
        dsns = {name: stack.enter_context(fresh_database(server)) for name in ("crm", "erp")}
        for dsn in dsns.values():
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(TABLE)
                connection.execute(
                    "insert into customer select 'C' || n, 'same' from generate_series(1, %s) n", [customers]
                )
        yield Shop(directory, dsns)


@contextmanager
def watching_sidecar(place: Shop) -> Iterator[tuple[Sidecar, str]]:
    """A sidecar in this process whose initial snapshots are done, and its address."""
    sidecar = Sidecar(load(place.file, {}), environment={})
    try:
        sidecar.start()
        address = f"http://{sidecar.address}"

        def is_copied() -> bool:
            return all(
                source["snapshot"]["state"] == "done" for source in fetched(f"{address}/api/v1/sources")["items"]
            )

        wait_until(is_copied, "both initial snapshots are done")
        yield sidecar, address
    finally:
        sidecar.stop()


@contextmanager
def running_sidecar(process_pool: ProcessPool, file: Path, log: Path, *options: str) -> Iterator[ChildProcess]:
    """`cdc-merge run` in a process of its own, from when it listens; ended by SIGTERM after the block."""
    process = process_pool.start(["--config", str(file), "run", *options], log, log)
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            return "listens on" in log.read_text()

        wait_until(listens, "it listens")
        yield process
    finally:
        process.end(signal.SIGTERM)


def metric(address: str, series: str) -> float:
    """One sample of /metrics."""
    request = urllib.request.Request(f"{address}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (found,) = [line for line in lines if line.startswith(f"{series} ")]
    return float(found.rpartition(" ")[2])
