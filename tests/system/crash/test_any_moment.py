"""`kill -9` anywhere, any number of times: the same as if nothing had happened (scenario 40).

One working day on three real databases. A sidecar process is killed at many moments, some drawn by lot and some in the
middle of an initial snapshot; a second sidecar over the same databases, with slots and a store of its own, lives undisturbed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from psycopg import sql

from tests.system.scenarios.incident import Incident, Setting, Site
from tests.system.scenarios.merged_state import Document
from tests.system.scenarios.people import System
from tests.system.scenarios.random_work import ENTITY, FIELDS, RandomWork
from tests.system.scenarios.sidecars import WatchingSidecar, fetched_over_http, items, wait_for

SEED = 20261123
ROWS = 10_000  # an initial snapshot that takes long enough to be killed in, whatever else this machine does
KILLS_IN_FIRST_COPY = 4
KILLS_AT_WORK = 22
ALL_THREE = ("crm", "erp", "finance")


def test_40_a_sidecar_killed_many_times_ends_in_the_state_of_an_undisturbed_one(site: Site) -> None:
    chance = random.Random(SEED)
    it = Incident(site, "killed", Setting(FIELDS, systems=ALL_THREE, entity=ENTITY))
    try:
        for system in it.systems.values():
            _fill(system)
        assert sum(_kill_in_first_copy(it, n) for n in range(KILLS_IN_FIRST_COPY)) > 1, "they were too late"
        it.killed.start()
        it.plain.start()
        it.wait_until_copied()
        work = RandomWork(it, SEED, keys=60)
        for _ in range(KILLS_AT_WORK):
            for _ in range(chance.randint(5, 30)):
                work.act()
            _wait_for_a_moment(it, chance)
            it.killed.kill_and_start()
            work.act()
        undisturbed, killed = it.answers_of_both()
        it.compare("the sidecar that was killed", killed.merged_state, undisturbed.merged_state)
        assert undisturbed.open_conflicts, "a day without any question proves little"
        keys = [f"C{n}" for n in range(1, 61) if f"C{n}" in undisturbed.records]
        assert [_history_without_cuts(it.plain, key) for key in keys] == [
            _history_without_cuts(it.killed, key) for key in keys
        ]
    finally:
        it.end()


def _fill(system: System) -> None:
    text = sql.SQL("insert into {} ({}, {}, {}) select 'C' || n, n::text, n from generate_series(1, %s) n")
    names = (system.table.key, system.table.columns["phone"], system.table.columns["points"])
    system.connection.execute(text.format(system.table.identifier, *map(sql.Identifier, names)), [ROWS])


def _thin_out(system: System, left_over: int) -> None:
    """Delete every tenth row that the random work does not use."""
    text = sql.SQL("delete from {} where {} %% 10 = %s and {} > 60")
    points = sql.Identifier(system.table.columns["points"])
    system.connection.execute(text.format(system.table.identifier, points, points), [left_over])


def _kill_in_first_copy(it: Incident, left_over: int) -> bool:
    """Whether an initial snapshot was running when the process was killed. Rows that it may have copied go afterwards."""
    it.killed.start()
    seen: list[str] = []

    def is_copying() -> bool:
        sources = fetched_over_http(it.killed, "/api/v1/sources")
        seen[:] = [] if sources is None else [each["snapshot"]["state"] for each in sources["items"]]
        return "running" in seen or seen.count("done") == len(ALL_THREE)

    wait_for(it.killed, is_copying, "an initial snapshot runs")
    it.killed.kill()
    for system in it.systems.values():
        _thin_out(system, left_over)
    return "running" in seen


def _wait_for_a_moment(it: Incident, chance: random.Random) -> None:
    """A moment in the life of the process that was started last: at once, when it listens, when it merges."""
    before = _reached(it)
    facts: list[Callable[[], bool]] = [
        lambda: True,
        lambda: it.killed.address is not None,
        lambda: _reached(it) not in ({}, before),
        lambda: _reached(it) not in ({}, before),
    ]
    wait_for(it.killed, chance.choice(facts), "the process comes to life")
    time.sleep(chance.uniform(0, 0.05))  # no synchronisation: a moment drawn by lot


def _reached(it: Incident) -> dict[str, str]:
    sources = fetched_over_http(it.killed, "/api/v1/sources")
    return {} if sources is None else {each["name"]: each["durable_lsn"] for each in sources["items"]}


def _history_without_cuts(sidecar: WatchingSidecar, key: str) -> list[Document]:
    """The history of a record since the initial snapshots."""
    return [each for each in items(sidecar, f"/api/v1/records/customer/{key}/history") if each["kind"] != "snapshot"]
