"""How soon a commit is merged and durable: an open-loop load over three sources, from commit time to durable.

The load is pgbench's throttled mode: changes are due at fixed rates whether or not earlier ones were quick, and in
processes of their own, so that neither a slow sidecar nor our own interpreter slows them down.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.demo.conflict_tally import ConflictTally
from cdc_merge.demo.initial_data import COUNTS, fill, prepare
from cdc_merge.demo.play import create_database, write_config
from cdc_merge.demo.servers import DemoServer, new_directory, start_servers
from cdc_merge.demo.source_tables import ends
from cdc_merge.demo.systems import SOURCES
from cdc_merge.demo.truth import World

SETTLE_LIMIT_S: Final = 120.0
CLIENTS: Final = 2

EDITS: Final[Mapping[str, str]] = {
    "crm": "update public.customer set remark = 'call ' || :r, points = points + 1, updated_by = 'li'"
    " where customer_no = ",
    "erp": "update erp.partner set memo = 'call ' || :r, bonus = bonus + 1 where code = ",
    "finance": "update fin.debtor set days_to_pay = 30 + :r % 60 where debtor_no = ",
}


def measure(seconds: int, rate: int) -> dict[str, object]:
    """Percentiles of detection in seconds at `rate` changes a second over three sources."""
    home = new_directory("cdc-merge-bench-")
    servers: dict[str, DemoServer] = {}
    try:
        servers = start_servers({source: home / source for source in SOURCES})
        return _measured(home, servers, seconds, rate)
    finally:
        for server in servers.values():
            server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


def _measured(home: Path, servers: Mapping[str, DemoServer], seconds: int, rate: int) -> dict[str, object]:
    dsns = {source: create_database(server, source) for source, server in servers.items()}
    world, tally = World(), ConflictTally()
    fill(world, random.Random(1))
    prepare(dsns, world)
    sidecar = Sidecar(load(write_config(home, dsns), os.environ), observers=[tally])
    try:
        sidecar.start()
        sidecar.settled(ends(dsns), SETTLE_LIMIT_S)
        loads = [_load(home, server, source, (seconds, rate // len(SOURCES))) for source, server in servers.items()]
        for process in loads:
            process.wait()
        settled = sidecar.settled(ends(dsns), SETTLE_LIMIT_S)
    finally:
        sidecar.stop()
    changes = sum(tally.changes().values())
    times = {f"{name}_s": value for name, value in tally.detection().items()}
    return {"changes": changes, "changes_per_s": round(changes / seconds, 1), **times, "settled": settled}


def _load(home: Path, server: DemoServer, source: str, pace: tuple[int, int]) -> subprocess.Popen[bytes]:
    seconds, rate = pace
    script = home / f"{source}.pgbench"
    key = "'C' || lpad(:n::text, 4, '0')"
    most = COUNTS["customer"]
    script.write_text(
        f"\\set n random(1, {most})\n\\set r random(1, 1000000)\n{EDITS[source]}{key};\n", encoding="utf-8"
    )
    arguments = ["-n", "-c", str(CLIENTS), "-T", str(seconds), "-R", str(rate), "-f", str(script)]
    return subprocess.Popen(
        [server.bin / "pgbench", *arguments, server.dsn(source)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
