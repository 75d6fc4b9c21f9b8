"""The world stops between any two steps of any batch; the worker that comes after says what an undisturbed one says.

The deliveries are those of a real day on three real servers. For every step `k` that a batch can have, a worker lives
through the day whose every batch dies at step `k` at its first attempt: before the take, between any two calls of the
store, on either side of the commit, before a confirmation. Its successor knows only what is in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cdc_merge.model.ports import Store
from cdc_merge.stores.memory.disk import Disk
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.limits import DEFAULT_LIMITS, Limits
from tests.system.crash.killable_worker import KillableWorker, KillSwitch, Script, WorkerKilled, with_final_idle
from tests.system.scenarios.incident import Incident
from tests.system.scenarios.merged_state import MergedState
from tests.system.scenarios.random_work import ENTITY, FIELDS, RandomWork
from tests.system.scenarios.replay import merged_state_of

SEED = 7
ACTS = 40
Open = Callable[[], Store]


# Every transaction counts as a large one, which is merged record by record.
ALL_LARGE = Limits(large_rows=0, piece_rows=1, bucket_rows=1)


def test_40_a_worker_killed_in_any_part_of_a_large_transaction_ends_in_the_same_state(
    incident: Callable[..., Incident], tmp_path: Path
) -> None:
    _kill_at_every_step(incident, tmp_path, 3, ALL_LARGE)


@pytest.mark.parametrize("at_a_time", [1, 6])
def test_40_a_worker_killed_at_any_step_of_every_batch_ends_in_the_same_state(
    incident: Callable[..., Incident], tmp_path: Path, at_a_time: int
) -> None:
    _kill_at_every_step(incident, tmp_path, at_a_time)


def _kill_at_every_step(
    incident: Callable[..., Incident], tmp_path: Path, at_a_time: int, limits: Limits = DEFAULT_LIMITS
) -> None:
    held = {f"C{n}": {"phone": "a", "points": 5, "tags": ["a"], "stage": "draft"} for n in range(1, 7)}
    it = incident(fields=FIELDS, held=held, systems=("crm", "erp", "finance"), entity=ENTITY)
    work = RandomWork(it, SEED)
    for _ in range(ACTS):
        work.act()
    expected = it.answers_of_both()[0].merged_state
    script = Script(it.plain.settings, with_final_idle(it.delivery_logs()), at_a_time, limits)

    died: list[int] = []
    while not died or died[-1]:
        found, deaths = _run_with_kills(script, partial(MemoryStore, Disk()), k=len(died))
        it.compare(f"dying {deaths} times, at step {len(died)}", found, expected)
        died.append(deaths)
    assert len(died) > 20, "a batch has more steps than that"
    for k in range(at_a_time, 20, 5):
        found, deaths = _run_with_kills(script, partial(SqliteStore, tmp_path / f"{k}.db"), k)
        it.compare(f"dying {deaths} times, at step {k}, on disk", found, expected)
        assert deaths == died[k], "a store on disk is used in the same steps"


def _run_with_kills(script: Script, open_store: Open, k: int) -> tuple[MergedState, int]:
    """What is said at the end of a day, and how often a worker died in it."""
    kill_switch = KillSwitch()
    deaths = 0
    worker = KillableWorker(script, open_store(), kill_switch)
    is_final = False
    while not is_final:
        is_final = worker.is_over
        kill_switch.arm(k)
        try:
            worker.step(is_final=is_final)
        except WorkerKilled:
            deaths += 1
            worker.store.close()
            kill_switch.arm(None)
            worker = KillableWorker(script, open_store(), kill_switch)
            # An initial snapshot starts over after each kill: it ends only if each worker runs a little longer.
            for _ in range(deaths if worker.is_copying else 1):
                worker.step(is_final=is_final)
    kill_switch.arm(None)
    while worker.step(is_final=True):
        pass
    said = merged_state_of(worker.store, script.settings)
    worker.store.close()
    return said, deaths
