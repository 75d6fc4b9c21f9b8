"""End to end against the server alone: one backlog drained by the sidecar and by `pg_recvlogical` to /dev/null.

The sidecar decodes, merges and makes durable in SQLite. The backlog: updates of a 10-column table with REPLICA
IDENTITY FULL, 1,000 a transaction, 3 changed columns, 10,000 rows. Both readers start with the whole backlog waiting
in a slot of their own that was created before it.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

import psycopg

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.demo.servers import DemoServer, new_directory, start_server
from cdc_merge.demo.source_tables import ends
from cdc_merge.model import lsn_text

ROWS: Final = 10_000
PER_TRANSACTION: Final = 1_000
LIMIT_S: Final = 3_600.0
SAMPLE_S: Final = 1.0
SAMPLES_SHOWN: Final = 20

SCHEMA: Final = """
create table item (
    item_no integer primary key, name text not null, barcode text, price numeric(12,2), stock integer, shelf text,
    supplier text, weight numeric(8,3), changed date, remark text
);
alter table item replica identity full;
insert into item
select n, 'item ' || n, '400' || lpad(n::text, 10, '0'), n * 1.25, 100, 'A' || n % 40, 'supplier ' || n % 90,
       n * 0.125, date '2026-01-01', 'as ordered'
from generate_series(0, 9999) n;
create publication cdc_merge for table item;
"""

UPDATE: Final = """
update item set price = price + 0.01, stock = stock + 1, remark = 'round ' || %(round)s
where item_no between %(first)s and %(last)s
"""

CONFIGURATION: Final = """
store: sqlite://{home}/state.db
http: {{ listen: "127.0.0.1:0" }}
sources:
  shop: {{ type: postgres, dsn: "{dsn}" }}
entities:
  item:
    from:
      shop:
        table: public.item
        key: item_no
        fields: {{ name: name, barcode: barcode, price: price, stock: stock, shelf: shelf, supplier: supplier,
                   weight: weight, changed: changed, remark: remark }}
    fields:
      price: {{ merge: mv }}
      stock: {{ merge: counter }}
      remark: {{ merge: lww }}
"""


def measure(updates: int) -> dict[str, object]:
    """Rates in rows per second, their ratio, and the sidecar's resident memory over time in MB."""
    home = new_directory("cdc-merge-bench-")
    try:
        with start_server(home / "shop", settings={"max_wal_size": "8GB", "shared_buffers": "128MB"}) as server:
            return _measured(home, server, updates)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _measured(home: Path, server: DemoServer, updates: int) -> dict[str, object]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(SCHEMA)
    config = home / "cdc-merge.yaml"
    config.write_text(CONFIGURATION.format(home=home, dsn=server.dsn()), encoding="utf-8")
    _drain(config, server)  # the first copy, which is not measured
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot('alone', 'pgoutput')")
        for number in range(updates // PER_TRANSACTION):
            first = number * PER_TRANSACTION % ROWS
            connection.execute(UPDATE, {"round": number, "first": first, "last": first + PER_TRANSACTION - 1})
    alone_s = _alone(server)
    seconds, memory = _drain(config, server)
    rows = updates // PER_TRANSACTION * PER_TRANSACTION
    return {
        "updates": rows,
        "pg_recvlogical_rows_per_s": round(rows / alone_s),
        "sidecar_rows_per_s": round(rows / seconds),
        "ratio": round(alone_s / seconds, 4),
        "rss_mb": memory[:: max(1, len(memory) // SAMPLES_SHOWN)],
        "rss_peak_mb": max(memory),
    }


def _alone(server: DemoServer) -> float:
    """Seconds that pg_recvlogical needs for the backlog."""
    end = lsn_text(ends({"shop": server.dsn()})["shop"])
    arguments = [
        "--slot=alone",
        "--start",
        f"--endpos={end}",
        "--no-loop",
        "--file=/dev/null",
        f"--dbname={server.dsn()}",
    ]
    options = ["--option=proto_version=1", "--option=publication_names=cdc_merge", "--option=messages=true"]
    started = time.perf_counter()
    subprocess.run([server.bin / "pg_recvlogical", *arguments, *options], check=True, timeout=LIMIT_S)
    return time.perf_counter() - started


def _drain(config: Path, server: DemoServer) -> tuple[float, list[int]]:
    """Seconds from the sidecar's start until everything is durable, and its resident memory meanwhile."""
    end = ends({"shop": server.dsn()})
    sidecar = Sidecar(load(config, {}))
    memory: list[int] = [rss_mb()]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            memory.append(rss_mb())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    started = time.perf_counter()
    try:
        sidecar.start()
        if not sidecar.settled(end, LIMIT_S):
            sidecar.wait(0)  # raises what ended it
            raise TimeoutError(f"not drained after {LIMIT_S:.0f} s")
        return time.perf_counter() - started, memory
    finally:
        done.set()
        sampler.join()
        sidecar.stop()


def rss_mb() -> int:
    """Our resident memory now, in MB; 0 where /proc is not there."""
    try:
        fields = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) // 1024 for line in fields if line.startswith("VmRSS"))
