"""Checkpoints inside SQLite: at most sixteen of a record, in adjacent rows; see ports.CheckpointStore.

Rules: the log stays the truth. A checkpoint stores the newest entry of its record's trail when it was saved, so the
changes after it are read from the trail's newer end alone. The trail of a pruned checkpoint is short: all of it is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from cdc_merge.model import Checkpoint, RecordKey, Stamp
from cdc_merge.model.ports import PRUNED_SLOT
from cdc_merge.stores.row_codec import decode_checkpoint, encode_checkpoint
from cdc_merge.stores.sqlite.database_file import SQL
from cdc_merge.stores.sqlite.log import HistoryLog

_SLOTS: Final = PRUNED_SLOT + 1


def newest_checkpoint(cursor: sqlite3.Cursor, record_id: int, before: Stamp | None) -> tuple[Checkpoint, int] | None:
    """The newest checkpoint of a record, earlier than `before` if given, and the trail entry that it reaches to."""
    slots = {"first": record_id * _SLOTS, "last": record_id * _SLOTS + PRUNED_SLOT}
    if before is None:
        row = cursor.execute(SQL["newest_base"], slots).fetchone()
    else:
        wall_us, counter, source = before
        limit = {"wall_us": wall_us, "counter": counter, "source": source}
        row = cursor.execute(SQL["newest_base_before"], slots | limit).fetchone()
    return _checkpoint(row) if row else None


def pruned_checkpoint(cursor: sqlite3.Cursor, record_id: int) -> tuple[Checkpoint, int] | None:
    """The record's pruned checkpoint, if it has one."""
    row = cursor.execute(SQL["base_at"], (record_id * _SLOTS + PRUNED_SLOT,)).fetchone()
    return _checkpoint(row) if row else None


def _checkpoint(row: tuple[int, int, int, int, str, bytes]) -> tuple[Checkpoint, int]:
    checkpoint_id, seq, wall_us, counter, source, body = row
    number, policy, tree = decode_checkpoint(body)
    pruned = checkpoint_id % _SLOTS == PRUNED_SLOT
    return Checkpoint(Stamp(wall_us, counter, source), number, policy, tree, pruned), 0 if pruned else seq


class CheckpointTable:
    """The checkpoints, as one transaction reads and changes them."""

    def __init__(self, cursor: sqlite3.Cursor, log: HistoryLog) -> None:
        self._cursor = cursor
        self._log = log

    def checkpoints(self, wanted: Mapping[RecordKey, Stamp | None]) -> dict[RecordKey, Checkpoint]:
        checkpoints = {}
        for key, before in wanted.items():
            numbers = self._log.numbers_of(key)
            if numbers is None:
                continue
            record_id, _ = numbers
            row = newest_checkpoint(self._cursor, record_id, before) or pruned_checkpoint(self._cursor, record_id)
            if row is not None:
                checkpoints[key] = row[0]
        return checkpoints

    def floors(self, after: Mapping[RecordKey, Stamp]) -> dict[RecordKey, int]:
        """The trail entries that the checkpoints of these stamps reach to."""
        floors = {}
        for key, stamp in after.items():
            numbers = self._log.numbers_of(key)
            if numbers:
                row = self._cursor.execute(SQL["base_reaches"], _unpruned_slots(numbers[0], stamp)).fetchone()
                floors[key] = row[0] if row else 0
        return floors

    def save_checkpoint(self, key: RecordKey, checkpoint: Checkpoint, slot: int) -> None:
        numbers = self._log.numbers_of(key)
        assert numbers is not None, "a checkpoint of a record that has no log"
        record_id, head = numbers
        body = encode_checkpoint(checkpoint.number, checkpoint.policy, checkpoint.tree)
        self._cursor.execute(SQL["save_base"], (record_id * _SLOTS + slot, head, *checkpoint.stamp, body))

    def promote_checkpoint(self, key: RecordKey, slot: int) -> None:
        numbers = self._log.numbers_of(key)
        if numbers:
            self._cursor.execute(SQL["raise_base"], (numbers[0] * _SLOTS + slot,))

    def forget_checkpoints(self, key: RecordKey, since: Stamp) -> None:
        numbers = self._log.numbers_of(key)
        if numbers:
            self._cursor.execute(SQL["forget_bases"], _unpruned_slots(numbers[0], since))


def _unpruned_slots(record_id: int, stamp: Stamp) -> dict[str, int | str]:
    """Parameters: the record's slots except that of its pruned checkpoint, and a stamp."""
    wall_us, counter, source = stamp
    first = record_id * _SLOTS
    return {"first": first, "last": first + PRUNED_SLOT - 1, "wall_us": wall_us, "counter": counter, "source": source}
