"""The checkpoints of a record, log-structured: cheap late changes at any depth of its history.

Each new checkpoint goes to slot 0, and every fourth one that a slot has had moves to the slot above: eight slots, each four
times sparser than the one below, reach back over 2 million changes. A late change drops the checkpoints that lack it, and
its record is folded from the one before: at most a few times the number of changes by which it is late.
The store's last slot is not part of this: it has the checkpoint whose log retention pruned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc_merge.merge.checkpoint import dump_state
from cdc_merge.merge.record_state import Record
from cdc_merge.model import Checkpoint, RecordKey, Stamp
from cdc_merge.model.ports import StoreTransaction

SLOTS: Final = 8
SPARSENESS: Final = 4
BEGINNING: Final = Stamp(0, 0, "")


class CheckpointLadder:
    """`policy`: the merge policy under which checkpoints are valid."""

    def __init__(self, policy: str) -> None:
        self._policy = policy

    def newest(self, wanted: Mapping[RecordKey, Stamp | None], tx: StoreTransaction) -> dict[RecordKey, Checkpoint]:
        """The newest valid checkpoint of each record that has one, before the stamp where one is given. Those of another
        policy are dropped."""
        valid = {}
        for key, checkpoint in tx.checkpoints(wanted).items():
            if checkpoint.pruned or checkpoint.policy == self._policy:
                valid[key] = checkpoint
            else:
                self.drop_since(key, BEGINNING, tx)
        return valid

    def add(self, key: RecordKey, record: Record, number: int, tx: StoreTransaction) -> None:
        """Save the record's state at the end of its history as its checkpoint of this number."""
        assert record.last is not None, "a checkpoint without changes"
        for slot in reversed(range(_promoted_slots(number))):
            tx.promote_checkpoint(key, slot)
        tx.save_checkpoint(key, Checkpoint(record.last, number, self._policy, dump_state(record)), 0)

    def drop_since(self, key: RecordKey, stamp: Stamp, tx: StoreTransaction) -> None:
        """Drop the checkpoints that lack a late change of this stamp."""
        tx.forget_checkpoints(key, stamp)


def _promoted_slots(number: int) -> int:
    """How many slots move up before the checkpoint of that number is saved."""
    slots = 1
    while number % SPARSENESS == 0 and slots < SLOTS:
        number, slots = number // SPARSENESS, slots + 1
    return slots
