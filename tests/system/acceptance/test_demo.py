"""The demo's servers and, further below, the demo itself, as a stranger meets it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from cdc_merge.demo.acts.stage import Stage
from cdc_merge.demo.editor import Editor, Journal, SyncJob
from cdc_merge.demo.initial_data import fill, prepare
from cdc_merge.demo.servers import DemoServer, new_directory
from cdc_merge.demo.source_tables import rows
from cdc_merge.demo.truth import World
from cdc_merge.demo.verify import readable
from cdc_merge.demo.workload import ACTS
from tests.support.databases import fresh_database


def test_a_fresh_server_decodes_logically_and_answers_on_its_socket(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("show wal_level").fetchone() == ("logical",)
        assert connection.info.host.startswith("/")


def test_each_of_three_servers_has_its_own_system_identifier(three_servers: Mapping[str, DemoServer]) -> None:
    found = set()
    for server in three_servers.values():
        with psycopg.connect(server.dsn()) as connection:
            found.add(connection.execute("select system_identifier from pg_control_system()").fetchone())
    assert len(found) == 3


def test_a_killed_server_comes_back_with_what_was_committed(new_server: Callable[..., DemoServer]) -> None:
    server = new_server()
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("create table kept as select 1 as one")
    server.kill()
    server.start()
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("select one from kept").fetchone() == (1,)


def test_older_versions_start_the_same_way(old_server: DemoServer) -> None:
    with psycopg.connect(old_server.dsn()) as connection:
        assert connection.info.server_version // 10000 in (15, 17)


STARTS_ONE_AND_WAITS = """
import signal

# A shell that runs us in the background has SIGINT ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, time
from pathlib import Path
from cdc_merge.demo.servers import start_server
print(start_server(Path(sys.argv[1])).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux only")
def test_no_server_outlives_the_process_that_started_it(how: signal.Signals) -> None:
    directory = new_directory("cdcm-test-")
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE_AND_WAITS, str(directory / "one")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.kill(process.pid, how)
        process.wait(30)
    subprocess.run(["timeout", "30", "tail", f"--pid={pid}", "-f", "/dev/null"], check=True)
    assert not Path(f"/proc/{pid}").exists()


# ---------------------------------------------------------------- the workload, without a sidecar


def test_after_every_act_the_truth_knows_what_each_table_holds(three_servers: Mapping[str, DemoServer]) -> None:
    with ExitStack() as stack:
        dsns = {name: stack.enter_context(fresh_database(server)) for name, server in three_servers.items()}
        world = World()
        fill(world, random.Random(7))
        prepare(dsns, world)
        sync = SyncJob(dsns)
        desk = Editor(dsns, sync, Journal())
        stack.callback(sync.close)
        stack.callback(desk.close)
        stage = Stage(world, desk, random.Random(7), lambda _: None)
        played = {act for act in [*ACTS] * 16 if act(stage)}
        found = rows(dsns)
    assert played == set(ACTS)
    assert {place: read(world, place, row) for place, row in found.items()} == held_rows(world)


def held_rows(world: World) -> dict[tuple[str, str, str], dict[str, object]]:
    return {
        (source, entity, key): {name: readable(record, name, value) for name, value in held.items()}
        for entity, records in world.records.items()
        for key, record in records.items()
        for source, held in record.rows.items()
    }


def read(world: World, place: tuple[str, str, str], row: Mapping[str, object]) -> dict[str, object]:
    record = world.records[place[1]][place[2]]
    return {name: readable(record, name, value) for name, value in row.items()}


# ---------------------------------------------------------------- the whole demo


DEMO = [sys.executable, "-c", "from cdc_merge.cli.main import main; main()", "demo"]
LONG_ENOUGH_S = 120  # for a machine that does other things besides


def test_a_short_demo_is_verified_and_prints_nothing_but_its_summary_on_stdout() -> None:
    with new_process("--seconds", "6", "--output", "json") as process:
        out, err = process.communicate(timeout=LONG_ENOUGH_S)
        summary = json.loads(out)
        assert process.returncode == 0, (summary["deviations"], summary["problem"], err)
    assert summary["verified"]["records_checked"] == summary["records"] > 400
    assert {summary["verified"][name] for name in ("mismatches", "conflicts_missed", "conflicts_unplanned")} == {0}
    assert {name for name, told in summary["sources"].items() if told["changes"] > 0} == {"crm", "erp", "finance"}
    assert summary["merged_automatically"] > 0
    assert summary["conflicts"]["concurrent_update"] > 0
    assert 0 < summary["detection_seconds"]["p50"] <= summary["detection_seconds"]["p99"]
    assert "metrics" in err
    assert "neither had seen the other" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_gets_a_signal_ends_with_its_summary_and_leaves_no_process(how: signal.Signals) -> None:
    with new_process() as process:
        begun = wait_for_conflict(process)
        process.send_signal(how)
        out, _ = process.communicate(timeout=LONG_ENOUGH_S)
        assert process.returncode == 0, out
    assert "compared with the ground truth" in out
    wait_for_their_ends(begun)


def test_a_killed_demo_leaves_no_process() -> None:
    with new_process() as process:
        begun = wait_for_conflict(process)
        assert len(begun) > 6, "three servers and three readers, and what these begin"
        process.kill()
        process.communicate(timeout=LONG_ENOUGH_S)
    wait_for_their_ends(begun)


def test_what_is_kept_can_be_read_with_the_configuration_that_is_kept_too() -> None:
    keep = new_directory("cdcm-test-") / "kept"
    with new_process("--seconds", "1", "--keep", str(keep), "--output", "json") as process:
        process.communicate(timeout=LONG_ENOUGH_S)
    assert {"cdc-merge.yaml", "state.db", "crm", "erp", "finance"} <= {path.name for path in keep.iterdir()}
    with new_process("--seconds", "1", "--keep", str(keep)) as again:
        _, err = again.communicate(timeout=LONG_ENOUGH_S)
        assert again.returncode == 1
    assert "is not empty" in err
    shutil.rmtree(keep.parent)


def new_process(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*DEMO, *arguments], stdout=pipe, stderr=pipe, text=True)


def wait_for_conflict(process: subprocess.Popen[str]) -> list[int]:
    """Read until people disagree; the process ids of all that it has begun: servers, readers, and theirs."""
    assert process.stdout is not None
    assert any("neither had seen the other" in line for line in iter(process.stdout.readline, ""))
    begun: list[int] = []
    parents = [process.pid]
    while parents:
        asked = ["pgrep", "-P", ",".join(map(str, parents))]
        parents = [int(pid) for pid in subprocess.run(asked, stdout=subprocess.PIPE, check=False).stdout.split()]
        begun += parents
    return begun


def wait_for_their_ends(pids: Sequence[int]) -> None:
    for pid in pids:
        subprocess.run(["timeout", "30", "tail", f"--pid={pid}", "-f", "/dev/null"], check=True)
