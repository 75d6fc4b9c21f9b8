"""The demo from start to end: servers, tables, sidecar, people, and the comparison of what it says with what they did.

Whatever happens, what was started is stopped, last first; the data is removed unless it is to be kept.
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
from cdc_merge.demo.desk import Journal
from cdc_merge.demo.inquiry import Inquiry, NotQuiet, Parsed
from cdc_merge.demo.observing import ConflictTally
from cdc_merge.demo.people import People
from cdc_merge.demo.servers import DemoServer, ServerFailed, new_directory, start_servers
from cdc_merge.demo.source_tables import ends, rows
from cdc_merge.demo.stock import fill, prepare
from cdc_merge.demo.summary import Summary
from cdc_merge.demo.systems import SOURCES, entities, template
from cdc_merge.demo.truth import World
from cdc_merge.demo.verify import verdict
from cdc_merge.errors import CdcMergeError

START_LIMIT_S: Final = 60.0
QUIET_LIMIT_S: Final = 60.0  # far more than the sidecar should lag; then it is a finding
TICK_S: Final = 0.25
ASK_EVERY_TICKS: Final = 4  # the sources' lag is asked for once a second
PREFERRED_PORT: Final = 8787


class NotReady(CdcMergeError):
    """The sidecar did not finish its first copy of the three systems in time."""

    exit_code = 75


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. `seconds` None: until `enough` is set."""

    seconds: float | None
    keep: Path | None
    seed: int
    enough: Event


@dataclass(frozen=True, slots=True)
class Scene:
    """What a screen shows: where to look, and everything that moves."""

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
    """Shows a demo. `say` is one line about what is being done, `open` the beginning of the play, `tick` a moment."""

    def say(self, sentence: str) -> None: ...
    def open(self, scene: Scene) -> None: ...
    def tick(self, scene: Scene) -> None: ...
    def close(self) -> None: ...


def play(wish: Wish, screen: Screen) -> Summary:
    """Run the demo until its time is over or `wish.enough` is set, and compare. CdcMergeError if it cannot start."""
    with ExitStack() as stack:
        stack.callback(screen.close)
        screen.say("starting three PostgreSQL servers: crm, erp, finance")
        home = stack.enter_context(_home(wish.keep))
        servers = start_servers({source: home / source for source in SOURCES})
        for server in servers.values():
            stack.callback(server.stop)
        dsns = {source: database(server, source) for source, server in servers.items()}
        world = World()
        fill(world, random.Random(wish.seed))
        prepare(dsns, world)
        config, tally = configured(home, dsns), ConflictTally()
        screen.say("starting the sidecar over their replication slots")
        sidecar = Sidecar(load(config, os.environ), observers=[tally])
        stack.callback(sidecar.stop)
        sidecar.start()
        address = f"http://{sidecar.address}"
        inquiry = Inquiry(address, lambda: sidecar.wait(0))
        _await_first_copies(inquiry)
        people = People(dsns, world, Journal(), wish.seed)
        scene = Scene(address, config, dsns, people.journal, tally, world, {}, time.monotonic(), wish.seconds)
        _watch(scene, people, inquiry, wish.enough, screen)
        return _compared(scene, people, inquiry)


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
        raise ServerFailed(f"{keep} is not empty", hint="Name a directory that does not exist yet.")
    keep.mkdir(parents=True, exist_ok=True)
    keep.chmod(0o755)  # as root, another user runs the servers in it
    yield keep.absolute()


def database(server: DemoServer, name: str) -> str:
    """Make a database; its connection string."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return server.dsn(name)


def configured(home: Path, dsns: Mapping[str, str]) -> Path:
    """The configuration file with this demo's addresses in it."""
    values = {f"{source.upper()}_DSN": dsn for source, dsn in dsns.items()}
    values |= {"CDC_MERGE_STORE": f"sqlite://{home / 'state.db'}", "CDC_MERGE_LISTEN": f"127.0.0.1:{_port()}"}
    config = home / "cdc-merge.yaml"
    config.write_text(Template(template()).substitute(values), encoding="utf-8")
    return config


def _port() -> int:
    """The usual port when it is free, otherwise another one."""
    for port in (PREFERRED_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise ServerFailed("no port is free on 127.0.0.1", hint="Stop something that listens there.")


def _await_first_copies(inquiry: Inquiry) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        sources = inquiry.sources()
        waiting = [source["name"] for source in sources if source["snapshot"]["state"] != "done"]
        if not waiting:
            return
        problems = [f"{source['name']}: {source['problem']}" for source in sources if source["problem"]]
        if time.monotonic() > deadline:
            reason = "; ".join(problems) or ", ".join(waiting)
            raise NotReady(f"the first copy was not done after {START_LIMIT_S:.0f} s ({reason})", hint="Try again.")
        time.sleep(TICK_S / 5)


def _watch(scene: Scene, people: People, inquiry: Inquiry, enough: Event, screen: Screen) -> None:
    """Let people work until the time is over, and keep the screen up to date."""
    screen.open(scene)
    people.start()
    ticks = 0
    try:
        while not enough.is_set() and scene.left_s != 0 and people.failure is None:
            if ticks % ASK_EVERY_TICKS == 0:
                scene.sources.update({source["name"]: source for source in inquiry.sources()})
            screen.tick(scene)
            enough.wait(min(TICK_S, scene.left_s if scene.left_s is not None else TICK_S))
            ticks += 1
    finally:
        screen.say("everybody goes home; waiting until the sidecar knows all that was done")
        people.stop()
        screen.tick(scene)


def _compared(scene: Scene, people: People, inquiry: Inquiry) -> Summary:
    problem = people.failure
    try:
        inquiry.wait_until_quiet(ends(scene.dsns), QUIET_LIMIT_S)
    except NotQuiet as error:
        problem = problem or str(error)
    records = [record for entity in entities() for record in inquiry.records(entity)]
    conflicts = list(inquiry.conflicts())
    return Summary(
        seconds=time.monotonic() - scene.started_s,
        acts=people.acts,
        changes={source: scene.tally.changes().get(source, 0) for source in SOURCES},
        records=len(records),
        merged_automatically=scene.tally.merged("merged"),
        conflicts=Counter(conflict["kind"] for conflict in conflicts),
        open_conflicts=sum(conflict["status"] == "open" for conflict in conflicts),
        detection_seconds=scene.tally.detection(),
        verdict=verdict(scene.world, records, conflicts, rows(scene.dsns)),
        problem=problem,
    )
