"""A store in one SQLite file, for one worker.

Rules: one connection writes, others read committed state; the claim is a lock file beside the database, taken by the first
transaction at the latest; a failure leaves nothing of the batch and is StoreUnavailable.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from cdc_merge.errors import NotFound, StoreUnavailable
from cdc_merge.model import Change, Checkpoint, Conflict, Missing, Position, RecordKey, Stamp, StoreFigures
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.conflict_filters import FILTERS
from cdc_merge.stores.row_codec import decode_conflict
from cdc_merge.stores.source_commands_json import decode_orders
from cdc_merge.stores.sqlite.checkpoints import newest_checkpoint, pruned_checkpoint
from cdc_merge.stores.sqlite.database_file import SQL, Readers, begin, open_for_writing, translated
from cdc_merge.stores.sqlite.lock import LockFile
from cdc_merge.stores.sqlite.log import WriterCache, later_than, tails, trails, unsigned
from cdc_merge.stores.sqlite.pages import trail_page
from cdc_merge.stores.sqlite.quarantine import awaited
from cdc_merge.stores.sqlite.transaction import SqliteTransaction

_CONFLICTS_PER_PAGE: Final = 500  # of `unfinished_conflicts`: no read stays open while the caller works on them

# The filters that an index serves, the best first, and the statement that uses it.
_ACCESS_PATHS: Final = (
    (frozenset({"entity", "key"}), "conflicts_of_record"),
    (frozenset({"status"}), "conflicts_by_status"),
    (frozenset[str](), "conflicts_in_order"),
)

_NO_FILTER: Final = dict.fromkeys(FILTERS)


class SqliteStore:
    """ports.Store in the file `path`; StoreUnavailable if it cannot be opened, has a newer layout, or is not a store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: LockFile | None = None
        self._writing = Lock()
        self._cache = WriterCache()
        self._readers = Readers(path)
        with translated(path):
            self._writer = open_for_writing(path, lambda: self._lock_file("opening the store"))

    def claim(self, owner: str) -> None:
        self._readers.refuse_when_closed()
        if self._lock is None:
            self._lock = self._lock_file(owner)
        elif self._lock.owner != owner:
            raise StoreUnavailable(
                f"the store is held by process {os.getpid()} ({self._lock.owner})",
                hint="One worker writes to a store; close it before another one claims it.",
            )

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        with self._writing, translated(self._path):
            self._readers.refuse_when_closed()
            if self._lock is None:
                self.claim("no name given")
            cursor = self._writer.cursor()
            try:
                begin(self._path, cursor)
                batch = SqliteTransaction(cursor, self._cache)
                yield batch
                batch.finish()
                cursor.execute("COMMIT")
            except BaseException:
                self._cache.forget()
                self._writer.rollback()
                raise
            finally:
                cursor.close()

    def positions(self) -> Mapping[str, tuple[Position, Stamp]]:
        with self._readers.reading() as cursor:
            return dict(map(_position, cursor.execute(SQL["positions"])))

    def orders(self) -> Mapping[str, SourceOrders]:
        with self._readers.reading() as cursor:
            return {name: decode_orders(body) for name, body in cursor.execute(SQL["orders"])}

    def history(self, record: RecordKey) -> list[Change]:
        with self._readers.reading() as cursor:
            row = cursor.execute(SQL["record"], record).fetchone()
            return trails(cursor, {row[0]: (record, row[1])})[record] if row else []

    def history_page(self, record: RecordKey, after: tuple[Stamp, int] | None, limit: int) -> list[Change]:
        with self._readers.reading() as cursor:
            row = cursor.execute(SQL["record"], record).fetchone()
            return trail_page(cursor, (record, *row), after, limit) if row else []

    def folded(
        self, record: RecordKey, until: Stamp | None = None, *, whole: bool = False
    ) -> tuple[Checkpoint | None, list[Change]]:
        with self._readers.reading() as cursor:
            row = cursor.execute(SQL["record"], record).fetchone()
            if not row:
                return None, []
            record_id, head = row
            newest = None if whole else newest_checkpoint(cursor, record_id, until)
            checkpoint, reached = newest or pruned_checkpoint(cursor, record_id) or (None, 0)
            if checkpoint is None:
                return None, trails(cursor, {record_id: (record, head)})[record]
            floor = {} if whole else {record: reached}
            tail = tails(cursor, {record_id: (record, head)}, floor)[record]
            return checkpoint, later_than(checkpoint.stamp, tail)

    def records(self, entity: str, after: str | None, limit: int) -> list[str]:
        with self._readers.reading() as cursor:
            page = {"entity": entity, "after": after, "limit": limit}
            return [key for (key,) in cursor.execute(SQL["records"], page)]

    def conflict(self, conflict_id: str) -> Conflict | None:
        with self._readers.reading() as cursor:
            row = cursor.execute(SQL["conflict"], (conflict_id,)).fetchone()
            return decode_conflict(row[0]) if row else None

    def conflicts(self, where: Mapping[str, str], after: str | None, limit: int) -> list[Conflict]:
        """As ports.Store says; NotFound when `after` is no conflict's id."""
        assert where.keys() <= FILTERS.keys(), f"no such filters: {sorted(where.keys() - FILTERS.keys())}"
        statement = next(name for needed, name in _ACCESS_PATHS if needed <= where.keys())
        with self._readers.reading() as cursor:
            page = _NO_FILTER | dict(where) | {"after": _seq(cursor, after), "limit": limit}
            return [decode_conflict(body) for (body,) in cursor.execute(SQL[statement], page)]

    def unfinished_conflicts(self) -> Iterator[Conflict]:
        with self._readers.reading() as cursor:
            seqs = [seq for (seq,) in cursor.execute(SQL["unfinished"])]
        for start in range(0, len(seqs), _CONFLICTS_PER_PAGE):
            page = json.dumps(seqs[start : start + _CONFLICTS_PER_PAGE])
            with self._readers.reading() as cursor:
                bodies = cursor.execute(SQL["conflicts_at"], (page,)).fetchall()
            yield from (decode_conflict(body) for (body,) in bodies)

    def awaited_identities(self) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
        with self._readers.reading() as cursor:
            return awaited(cursor)

    def parked(self) -> Mapping[tuple[str, str], int]:
        with self._readers.reading() as cursor:
            return {(source, table): count for source, table, count in cursor.execute(SQL["parked_counts"])}

    def deadlines(self) -> Mapping[RecordKey, int]:
        with self._readers.reading() as cursor:
            return {RecordKey(entity, key): due_us for entity, key, due_us in cursor.execute(SQL["due"])}

    def evaluated(self) -> Mapping[str, tuple[str, str | None]]:
        with self._readers.reading() as cursor:
            return {entity: (policy, reached) for entity, policy, reached in cursor.execute(SQL["judged"])}

    def missing(self, where: tuple[str, str | None], after: str | None, limit: int) -> list[Missing]:
        page = {"entity": where[0], "source": where[1], "after": after, "limit": limit}
        with self._readers.reading() as cursor:
            return [Missing(*row) for row in cursor.execute(SQL["missing"], page)]

    def lost(self) -> frozenset[str]:
        with self._readers.reading() as cursor:
            return frozenset(entity for (entity,) in cursor.execute(SQL["lost"]))

    def figures(self) -> StoreFigures:
        with self._readers.reading() as cursor:
            (history_changes,) = cursor.execute(SQL["history_changes"]).fetchone()
            groups = cursor.execute(SQL["open_conflicts"]).fetchall()
            missing = cursor.execute(SQL["missing_counts"]).fetchall()
        oldest: dict[tuple[str, str], int] = {}
        for entity, _, severity, _, raised_us in groups:
            oldest[entity, severity] = min(raised_us, oldest.get((entity, severity), raised_us))
        return StoreFigures(
            history_changes=history_changes,
            conflicts_open={(entity, kind, severity): count for entity, kind, severity, count, _ in groups},
            oldest_open_us=oldest,
            missing={(entity, source): count for entity, source, count in missing},
            parked=self.parked(),
        )

    def close(self) -> None:
        """Release the file and the claim, after a batch in progress."""
        with self._writing:
            self._readers.close()
            self._writer.close()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _lock_file(self, owner: str) -> LockFile:
        return LockFile(self._path.with_name(self._path.name + ".lock"), owner)


def _position(row: tuple[Any, ...]) -> tuple[str, tuple[Position, Stamp]]:
    name, system, timeline, lsn, snapshot, slot, passed_us, copied, membership, *clock = row
    position = Position(
        system, timeline, unsigned(lsn), snapshot, slot, passed_us, tuple(json.loads(copied)), membership
    )
    return name, (position, Stamp(*clock))


def _seq(cursor: sqlite3.Cursor, conflict_id: str | None) -> int:
    if conflict_id is None:
        return 0
    row = cursor.execute(SQL["conflict_seq"], (conflict_id,)).fetchone()
    if row is None:
        raise NotFound("Invalid cursor: there is no such conflict.", hint="Start again without a cursor.")
    return int(row[0])
