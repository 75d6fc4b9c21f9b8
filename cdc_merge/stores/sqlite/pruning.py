"""How the log loses its older end inside SQLite; see ports.StoreTransaction.

Rules: what is removed is in a root by the end of the batch. Entries go by number, so no trail is walked or mended.
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


class Retention:
    """What one transaction removes."""

    def __init__(self, cursor: sqlite3.Cursor, log: HistoryLog) -> None:
        self._cursor = cursor
        self._log = log

    def pruned(self, key: RecordKey) -> Checkpoint | None:
        known = self._log.number_of(key)
        found = pruned_checkpoint(self._cursor, known[0]) if known else None
        return found[0] if found else None

    def save_pruned_checkpoint(self, key: RecordKey, base: Checkpoint) -> None:
        known = self._log.number_of(key)
        assert known is not None, "a root of a record that has no log"
        first = known[0] * _SLOTS
        wall_us, counter, source = base.stamp
        span = {"first": first, "last": first + PRUNED_SLOT, "wall_us": wall_us, "counter": counter, "source": source}
        self._cursor.execute(SQL["forget_earlier_bases"], span)
        body = encode_checkpoint(base.number, base.policy, base.tree)
        self._cursor.execute(SQL["save_base"], (first + PRUNED_SLOT, 0, *base.stamp, body))

    def oldest(self, limit: int) -> list[tuple[RecordKey, Stamp]]:
        found = []
        for entity, key, source, body in self._cursor.execute(SQL["oldest"], (limit,)).fetchall():
            found.append((RecordKey(entity, key), decode_change(body, (entity, key), source, _NOWHERE).stamp))
        return found

    def forget_oldest(self, count: int) -> None:
        self._cursor.execute(SQL["forget_oldest"], (count,))
        self._log.removed(self._cursor.rowcount)

    def forget_record(self, key: RecordKey) -> None:
        known = self._log.number_of(key)
        assert known is not None, "a record that nobody knows"
        self._cursor.execute(SQL["forget_bases_of"], (known[0] * _SLOTS, known[0] * _SLOTS + PRUNED_SLOT))
        self._cursor.execute(SQL["forget_head"], (known[0],))
        self._cursor.execute(SQL["forget_record"], key)
        self._cursor.execute(SQL["save_lost"], (key.entity,))
        self._log.unknown(key)
