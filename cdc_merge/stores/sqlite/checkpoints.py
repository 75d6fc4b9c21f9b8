"""Bases inside SQLite: at most sixteen of a record, side by side; see ports.StoreTransaction.

Rules: the log stays the truth. A base knows the newest entry of the record's trail when it was made, so what follows it
is read from the trail's newer end alone. A root's trail is short: all of it is read.
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
    """The newest base of a record, earlier than `before` when that is given, and the entry that it reaches to."""
    asked = {"first": record_id * _SLOTS, "last": record_id * _SLOTS + PRUNED_SLOT}
    if before is None:
        found = cursor.execute(SQL["newest_base"], asked).fetchone()
    else:
        wall_us, counter, source = before
        limit = {"wall_us": wall_us, "counter": counter, "source": source}
        found = cursor.execute(SQL["newest_base_before"], asked | limit).fetchone()
    return _read(found) if found else None


def pruned_checkpoint(cursor: sqlite3.Cursor, record_id: int) -> tuple[Checkpoint, int] | None:
    """The base whose log is gone, if there is one."""
    found = cursor.execute(SQL["base_at"], (record_id * _SLOTS + PRUNED_SLOT,)).fetchone()
    return _read(found) if found else None


def _read(row: tuple[int, int, int, int, str, bytes]) -> tuple[Checkpoint, int]:
    base_id, seq, wall_us, counter, source, body = row
    number, policy, tree = decode_checkpoint(body)
    root = base_id % _SLOTS == PRUNED_SLOT
    return Checkpoint(Stamp(wall_us, counter, source), number, policy, tree, root), 0 if root else seq


class CheckpointTable:
    """The bases of one transaction's records."""

    def __init__(self, cursor: sqlite3.Cursor, log: HistoryLog) -> None:
        self._cursor = cursor
        self._log = log

    def checkpoints(self, wanted: Mapping[RecordKey, Stamp | None]) -> dict[RecordKey, Checkpoint]:
        found = {}
        for key, before in wanted.items():
            known = self._log.number_of(key)
            if known is None:
                continue
            base = newest_checkpoint(self._cursor, known[0], before) or pruned_checkpoint(self._cursor, known[0])
            if base is not None:
                found[key] = base[0]
        return found

    def floors(self, after: Mapping[RecordKey, Stamp]) -> dict[RecordKey, int]:
        """The entries that the bases of these stamps reach to."""
        found = {}
        for key, stamp in after.items():
            known = self._log.number_of(key)
            if known:
                span = {"first": known[0] * _SLOTS, "last": known[0] * _SLOTS + PRUNED_SLOT - 1}
                at = {"wall_us": stamp.wall_us, "counter": stamp.counter, "source": stamp.source}
                row = self._cursor.execute(SQL["base_reaches"], span | at).fetchone()
                found[key] = row[0] if row else 0
        return found

    def save_checkpoint(self, key: RecordKey, base: Checkpoint, slot: int) -> None:
        known = self._log.number_of(key)
        assert known is not None, "a base of a record that has no log"
        body = encode_checkpoint(base.number, base.policy, base.tree)
        self._cursor.execute(SQL["save_base"], (known[0] * _SLOTS + slot, known[1], *base.stamp, body))

    def promote_checkpoint(self, key: RecordKey, slot: int) -> None:
        known = self._log.number_of(key)
        if known:
            self._cursor.execute(SQL["raise_base"], (known[0] * _SLOTS + slot,))

    def forget_checkpoints(self, key: RecordKey, since: Stamp) -> None:
        known = self._log.number_of(key)
        if known:
            span = {"first": known[0] * _SLOTS, "last": known[0] * _SLOTS + PRUNED_SLOT - 1}
            at = {"wall_us": since.wall_us, "counter": since.counter, "source": since.source}
            self._cursor.execute(SQL["forget_bases"], span | at)
