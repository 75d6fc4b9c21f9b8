"""The demo from start to end: servers, tables, sidecar, workload, and the comparison with the ground truth.

Everything that was started is stopped in reverse order in any case; the data is removed unless `--keep` is given.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from threading import Event
from typing import Final, Protocol

import psycopg
from psycopg import sql

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.demo.api_client import ApiClient, NotCaughtUp, Parsed
from cdc_merge.demo.conflict_tally import ConflictTally
from cdc_merge.demo.editor import Journal
from cdc_merge.demo.initial_data import fill, prepare
from cdc_merge.demo.servers import DemoServer, ServerFailed, new_directory, start_servers
from cdc_merge.demo.source_tables import ends, rows
from cdc_merge.demo.summary import Summary
from cdc_merge.demo.systems import SOURCES, entities, template
from cdc_merge.demo.truth import World
from cdc_merge.demo.verify import verdict
from cdc_merge.demo.workload import Workload
from cdc_merge.errors import CdcMergeError

START_LIMIT_S: Final = 60.0
QUIET_LIMIT_S: Final = 60.0  # far more than the expected lag; beyond it the demo is not verified
TICK_S: Final = 0.25
POLL_EVERY_TICKS: Final = 4  # the sources' lag is read once a second
PREFERRED_PORT: Final = 8787


class NotReady(CdcMergeError):
    """The sidecar did not finish the initial snapshots of the three systems in time."""

    exit_code = 75


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of the demo. `seconds` None: until `stop` is set."""

    seconds: float | None
    keep: Path | None
    seed: int
    stop: Event


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a screen: the addresses and everything that changes."""

    address: str
    config: Path
    dsns: Mapping[str, str]
    journal: Journal
    tally: ConflictTally
    world: World
    sources: dict[str, Parsed]
    started_s: float
    seconds: float | None

    @property
    def left_s(self) -> float | None:
        """Seconds until the end, None without one."""
        return None if self.seconds is None else max(0.0, self.started_s + self.seconds - time.monotonic())


class Screen(Protocol):
    """Shows a demo. `say` prints one line about the current step, `open` starts the display, `tick` updates it."""

    def say(self, sentence: str) -> None: ...
    def open(self, scene: Scene) -> None: ...
    def tick(self, scene: Scene) -> None: ...
    def close(self) -> None: ...


def play(options: DemoOptions, screen: Screen) -> Summary:
    """Run the demo until its time is over or `options.stop` is set, and verify. CdcMergeError if it cannot start."""
    with ExitStack() as stack:
        stack.callback(screen.close)
        screen.say("Starting three PostgreSQL servers: crm, erp, finance.")
        home = stack.enter_context(_home(options.keep))
        servers = start_servers({source: home / source for source in SOURCES})
        for server in servers.values():
            stack.callback(server.stop)
        dsns = {source: create_database(server, source) for source, server in servers.items()}
        world = World()
        fill(world, random.Random(options.seed))
        prepare(dsns, world)
        config, tally = write_config(home, dsns), ConflictTally()
        screen.say("Starting the sidecar; it takes an initial snapshot of each server through its replication slot.")
        sidecar = Sidecar(load(config, os.environ), observers=[tally])
        stack.callback(sidecar.stop)
        sidecar.start()
        address = f"http://{sidecar.address}"
        api = ApiClient(address, lambda: sidecar.wait(0))
        _await_initial_snapshots(api)
        workload = Workload(dsns, world, Journal(), options.seed)
        scene = Scene(address, config, dsns, workload.journal, tally, world, {}, time.monotonic(), options.seconds)
        _watch(scene, workload, api, options.stop, screen)
        return _verify(scene, workload, api)


@contextmanager
def _home(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        home = new_directory("cdc-merge-demo-")
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)
        return
    if keep.exists() and any(keep.iterdir()):
        raise ServerFailed(f"{keep} is not empty", hint="Choose a directory that does not exist yet.")
    keep.mkdir(parents=True, exist_ok=True)
    keep.chmod(0o755)  # as root, another user runs the servers in it
    yield keep.absolute()


def create_database(server: DemoServer, name: str) -> str:
    """Create a database; its connection string."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return server.dsn(name)


def write_config(home: Path, dsns: Mapping[str, str]) -> Path:
    """Write the configuration file with this demo's addresses."""
    values = {f"{source.upper()}_DSN": dsn for source, dsn in dsns.items()}
    values |= {"CDC_MERGE_STORE": f"sqlite://{home / 'state.db'}", "CDC_MERGE_LISTEN": f"127.0.0.1:{_port()}"}
    config = home / "cdc-merge.yaml"
    config.write_text(Template(template()).substitute(values), encoding="utf-8")
    return config


def _port() -> int:
    """The default port when it is free, otherwise another one."""
    for port in (PREFERRED_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise ServerFailed("no port is free on 127.0.0.1", hint="Stop a program that listens there.")


def _await_initial_snapshots(api: ApiClient) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        sources = api.sources()
        waiting = [source["name"] for source in sources if source["snapshot"]["state"] != "done"]
        if not waiting:
            return
        problems = [f"{source['name']}: {source['problem']}" for source in sources if source["problem"]]
        if time.monotonic() > deadline:
            reason = "; ".join(problems) or ", ".join(waiting)
            raise NotReady(
                f"the initial snapshots were not done after {START_LIMIT_S:.0f} s ({reason})", hint="Try again."
            )
        time.sleep(TICK_S / 5)


def _watch(scene: Scene, workload: Workload, api: ApiClient, stop: Event, screen: Screen) -> None:
    """Run the workload until the time is over, and update the screen."""
    screen.open(scene)
    workload.start()
    ticks = 0
    try:
        while not stop.is_set() and scene.left_s != 0 and workload.failure is None:
            if ticks % POLL_EVERY_TICKS == 0:
                scene.sources.update({source["name"]: source for source in api.sources()})
            screen.tick(scene)
            stop.wait(min(TICK_S, scene.left_s if scene.left_s is not None else TICK_S))
            ticks += 1
    finally:
        screen.say("Stopping the workload; waiting until the sidecar has merged every commit.")
        workload.stop()
        screen.tick(scene)


def _verify(scene: Scene, workload: Workload, api: ApiClient) -> Summary:
    problem = workload.failure
    try:
        api.wait_until_caught_up(ends(scene.dsns), QUIET_LIMIT_S)
    except NotCaughtUp as error:
        problem = problem or str(error)
    records = [record for entity in entities() for record in api.records(entity)]
    conflicts = list(api.conflicts())
    return Summary(
        seconds=time.monotonic() - scene.started_s,
        acts=workload.acts,
        changes={source: scene.tally.changes().get(source, 0) for source in SOURCES},
        records=len(records),
        merged_automatically=scene.tally.merged("merged"),
        conflicts=Counter(conflict["kind"] for conflict in conflicts),
        open_conflicts=sum(conflict["status"] == "open" for conflict in conflicts),
        detection_seconds=scene.tally.detection(),
        verdict=verdict(scene.world, records, conflicts, rows(scene.dsns)),
        problem=problem,
    )
