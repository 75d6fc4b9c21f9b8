"""Pruning of the log's older end inside SQLite; see ports.LogPruning.

Rules: a pruned checkpoint includes every removed entry by the end of the batch. Entries are removed by number, so no trail
is walked or relinked.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from cdc_merge.model import Checkpoint, Place, RecordKey, Stamp
from cdc_merge.model.ports import PRUNED_SLOT
from cdc_merge.stores.row_codec import decode_change, encode_checkpoint
from cdc_merge.stores.sqlite.checkpoints import pruned_checkpoint
from cdc_merge.stores.sqlite.database_file import SQL
from cdc_merge.stores.sqlite.log import HistoryLog

_SLOTS: Final = PRUNED_SLOT + 1
_NOWHERE: Final = Place("", 0, 0, "", 0)


class LogPruner:
    """The entries and checkpoints that one transaction removes."""

    def __init__(self, cursor: sqlite3.Cursor, log: HistoryLog) -> None:
        self._cursor = cursor
        self._log = log

    def pruned(self, key: RecordKey) -> Checkpoint | None:
        numbers = self._log.numbers_of(key)
        row = pruned_checkpoint(self._cursor, numbers[0]) if numbers else None
        return row[0] if row else None

    def save_pruned_checkpoint(self, key: RecordKey, checkpoint: Checkpoint) -> None:
        numbers = self._log.numbers_of(key)
        assert numbers is not None, "a pruned checkpoint of a record that has no log"
        first = numbers[0] * _SLOTS
        wall_us, counter, source = checkpoint.stamp
        span = {"first": first, "last": first + PRUNED_SLOT, "wall_us": wall_us, "counter": counter, "source": source}
        self._cursor.execute(SQL["forget_earlier_bases"], span)
        body = encode_checkpoint(checkpoint.number, checkpoint.policy, checkpoint.tree)
        self._cursor.execute(SQL["save_base"], (first + PRUNED_SLOT, 0, *checkpoint.stamp, body))

    def oldest(self, limit: int) -> list[tuple[RecordKey, Stamp]]:
        rows = self._cursor.execute(SQL["oldest"], (limit,)).fetchall()
        return [
            (RecordKey(entity, key), decode_change(body, (entity, key), source, _NOWHERE).stamp)
            for entity, key, source, body in rows
        ]

    def forget_oldest(self, count: int) -> None:
        self._cursor.execute(SQL["forget_oldest"], (count,))
        self._log.count_removed(self._cursor.rowcount)

    def forget_record(self, key: RecordKey) -> None:
        numbers = self._log.numbers_of(key)
        assert numbers is not None, "a record that the store does not have"
        record_id, _ = numbers
        self._cursor.execute(SQL["forget_bases_of"], (record_id * _SLOTS, record_id * _SLOTS + PRUNED_SLOT))
        self._cursor.execute(SQL["forget_head"], (record_id,))
        self._cursor.execute(SQL["forget_record"], key)
        self._cursor.execute(SQL["save_lost"], (key.entity,))
        self._log.forget_numbers(key)
