"""The workload: a few threads, each a busy office that plays one act after the other until it is told to stop.

An office that loses a database (the demo is ending, or somebody stopped a server) goes home and says so; the truth then
no longer covers what it was doing, so the summary must not be trusted and says that too.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from cdc_merge.demo.acts import edits, questions, rows
from cdc_merge.demo.acts.stage import Stage
from cdc_merge.demo.desk import Desk, Journal, SyncJob
from cdc_merge.demo.truth import World

OFFICES: Final = 3
PAUSE_S: Final = (0.02, 0.25)  # between two acts of one office: some twenty acts a second, a pace one can watch

Act = Callable[[Stage], bool]

# How often each act is played, in proportion.
ACTS: Final[Mapping[Act, int]] = {
    edits.one_edits: 30,
    edits.two_type_the_same: 4,
    edits.two_book: 12,
    edits.one_adds_one_removes: 8,
    edits.two_move_a_bound: 4,
    edits.all_enter_the_bound: 3,
    edits.two_remark: 5,
    edits.twice_in_one_transaction: 3,
    questions.neither_had_seen: 6,
    questions.somebody_settles_it: 2,
    questions.below_its_bound: 2,
    questions.points_are_given_back: 1,
    questions.above_the_limit: 1,
    questions.points_are_taken_back: 1,
    questions.a_job_undoes_an_edit: 2,
    questions.a_first_difference_ends: 1,
    questions.deleted_here_edited_there: 2,
    questions.both_create_it: 2,
    rows.a_new_record: 4,
    rows.a_record_ends: 2,
    rows.a_record_returns: 2,
    rows.two_keys_swap: 2,
    rows.an_order_is_renumbered: 1,
}


class People:
    """Everybody who works in the three systems. `failure` is the first reason why an office stopped early, or None."""

    def __init__(self, dsns: Mapping[str, str], world: World, journal: Journal, seed: int) -> None:
        self._dsns = dsns
        self._world = world
        self.journal = journal
        self._seed = seed
        self._home = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sync: SyncJob | None = None
        self.failure: str | None = None
        self.acts = 0

    def start(self) -> None:
        self._sync = SyncJob(self._dsns)
        for number in range(OFFICES):
            thread = threading.Thread(target=self._work, args=(number,), name=f"office-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Everybody finishes the act they are in and goes home."""
        self._home.set()
        for thread in self._threads:
            thread.join()
        if self._sync is not None:
            self._sync.close()

    def _work(self, number: int) -> None:
        assert self._sync is not None
        dice = random.Random(f"{self._seed}/{number}")
        try:
            desk = Desk(self._dsns, self._sync, self.journal)
            self._play(Stage(self._world, desk, dice, lambda seconds: void(self._home.wait(seconds))))
            desk.close()
        except psycopg.Error as error:
            self.failure = f"an office stopped early: {type(error).__name__}"

    def _play(self, stage: Stage) -> None:
        while not self._home.is_set():
            act = stage.dice.choices(list(ACTS), list(ACTS.values()))[0]
            if act(stage):
                self.acts += 1
                stage.wait(stage.dice.uniform(*PAUSE_S))


def void(_: object) -> None:
    """Forget an answer."""
