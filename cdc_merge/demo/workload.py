"""The workload: a few threads that play one act after the other until they are stopped.

A thread that loses a database (the demo is ending, or a server was stopped) ends with a failure: its last act is not in
the ground truth, so the summary is not verified.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from cdc_merge.demo.acts import conflict_acts, merge_acts, row_acts
from cdc_merge.demo.acts.stage import Stage
from cdc_merge.demo.editor import Editor, Journal, SyncJob
from cdc_merge.demo.truth import World

THREADS: Final = 3
PAUSE_S: Final = (0.02, 0.25)  # between two acts of one thread: some twenty acts a second, a pace one can watch

Act = Callable[[Stage], bool]

# Act → its relative frequency.
ACTS: Final[Mapping[Act, int]] = {
    merge_acts.one_edits: 30,
    merge_acts.two_type_the_same: 4,
    merge_acts.two_book: 12,
    merge_acts.one_adds_one_removes: 8,
    merge_acts.two_move_a_bound: 4,
    merge_acts.all_enter_the_bound: 3,
    merge_acts.two_remark: 5,
    merge_acts.twice_in_one_transaction: 3,
    conflict_acts.neither_had_seen: 6,
    conflict_acts.concurrent_edit_is_resolved: 2,
    conflict_acts.below_its_bound: 2,
    conflict_acts.points_are_given_back: 1,
    conflict_acts.above_the_limit: 1,
    conflict_acts.points_are_taken_back: 1,
    conflict_acts.a_job_undoes_an_edit: 2,
    conflict_acts.a_first_difference_ends: 1,
    conflict_acts.deleted_here_edited_there: 2,
    conflict_acts.both_create_it: 2,
    row_acts.a_new_record: 4,
    row_acts.a_record_ends: 2,
    row_acts.a_record_returns: 2,
    row_acts.two_keys_swap: 2,
    row_acts.an_order_is_renumbered: 1,
}


class Workload:
    """The simulated users of the three systems. `failure` is the reason why a thread stopped early, or None."""

    def __init__(self, dsns: Mapping[str, str], world: World, journal: Journal, seed: int) -> None:
        self._dsns = dsns
        self._world = world
        self.journal = journal
        self._seed = seed
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sync: SyncJob | None = None
        self.failure: str | None = None
        self.acts = 0

    def start(self) -> None:
        self._sync = SyncJob(self._dsns)
        for number in range(THREADS):
            thread = threading.Thread(target=self._work, args=(number,), name=f"workload-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Each thread finishes its act and ends."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._sync is not None:
            self._sync.close()

    def _work(self, number: int) -> None:
        assert self._sync is not None
        dice = random.Random(f"{self._seed}/{number}")
        try:
            editor = Editor(self._dsns, self._sync, self.journal)
            self._play(Stage(self._world, editor, dice, self._pause))
            editor.close()
        except psycopg.Error as error:
            self.failure = f"the workload stopped early: {type(error).__name__}"

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _play(self, stage: Stage) -> None:
        while not self._stopping.is_set():
            act = stage.dice.choices(list(ACTS), list(ACTS.values()))[0]
            if act(stage):
                self.acts += 1
                stage.wait(stage.dice.uniform(*PAUSE_S))
