"""A store in one SQLite file, for one worker.

Rules: one connection writes, others read what is committed; the claim is a lock file beside the database, taken by the
first transaction at the latest; whatever fails leaves nothing behind and is StoreUnavailable.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from cdc_merge.errors import NotFound, StoreUnavailable
from cdc_merge.model import Change, Checkpoint, Conflict, Missing, Place, Position, RecordKey, Stamp, StoreFigures
from cdc_merge.model.ports import NO_DIGESTS, NOTHING_FOLDED
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.conflict_filters import FILTERS
from cdc_merge.stores.row_codec import decode_conflict, encode_conflict
from cdc_merge.stores.source_commands_json import decode_orders, encode_orders
from cdc_merge.stores.sqlite.checkpoints import CheckpointTable, newest_checkpoint, pruned_checkpoint
from cdc_merge.stores.sqlite.database_file import SQL, Readers, begin, open_for_writing, translated
from cdc_merge.stores.sqlite.lock import LockFile
from cdc_merge.stores.sqlite.log import HistoryLog, Known, later_than, signed, tails, trails, unsigned
from cdc_merge.stores.sqlite.pages import trail_page
from cdc_merge.stores.sqlite.pruning import Retention
from cdc_merge.stores.sqlite.quarantine import Quarantine, awaited

_CONFLICTS_PER_PAGE: Final = 500  # of `unfinished_conflicts`: no read stays open while the caller works on them

# The filters that an index answers, the best first, and the statement that begins there.
_WAYS_IN: Final = (
    (frozenset({"entity", "key"}), "conflicts_of_record"),
    (frozenset({"status"}), "conflicts_by_status"),
    (frozenset[str](), "conflicts_in_order"),
)

_NO_FILTER: Final = dict.fromkeys(FILTERS)


class SqliteTransaction:
    """ports.StoreTransaction on the writer's connection. Useless once its `with` block has ended."""

    def __init__(self, cursor: sqlite3.Cursor, known: Known) -> None:
        self._cursor = cursor
        self._log = HistoryLog(cursor, known)
        self._bases = CheckpointTable(cursor, self._log)
        self.checkpoints = self._bases.checkpoints
        self.save_checkpoint = self._bases.save_checkpoint
        self.promote_checkpoint = self._bases.promote_checkpoint
        self.forget_checkpoints = self._bases.forget_checkpoints
        retention = Retention(cursor, self._log)
        self.pruned = retention.pruned
        self.save_pruned_checkpoint = retention.save_pruned_checkpoint
        self.oldest = retention.oldest
        self.forget_oldest = retention.forget_oldest
        self.forget_record = retention.forget_record
        self._parking = Quarantine(cursor)
        self.quarantine = self._parking.quarantine
        self.release_quarantined = self._parking.release_quarantined
        self.forget_quarantined = self._parking.forget_quarantined
        self.forget_quarantined_before = self._parking.forget_quarantined_before
        self.awaited_identities = self._parking.awaited_identities
        self.append = self._log.append
        self.forget_history = self._log.forget_source
        self.finish = self._log.finish

    def histories(
        self, keys: Iterable[RecordKey], after: Mapping[RecordKey, Stamp] = NOTHING_FOLDED
    ) -> Mapping[RecordKey, list[Change]]:
        found = self._log.histories(keys, self._bases.floors(after))
        return {key: later_than(after.get(key), changes) for key, changes in found.items()} if after else found

    def stamps_of(self, key: RecordKey, places: Iterable[Place]) -> list[Stamp]:
        return [change.stamp for place in places if (change := self._log.at(key, place)) is not None]

    def open_conflicts(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, list[Conflict]]:
        return {
            RecordKey(*key): [
                decode_conflict(body) for (body,) in self._cursor.execute(SQL["unfinished_of_record"], key)
            ]
            for key in keys
        }

    def save_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        found = list(conflicts)
        self._cursor.executemany(SQL["save_conflict"], map(_conflict_row, found))
        several = {conflict.id: conflict.detected for conflict in found if conflict.detected.records}
        members = [(question.entity, key, each) for each, question in several.items() for key in question.records]
        self._cursor.executemany(SQL["forget_members"], [(each,) for each in several])
        self._cursor.executemany(SQL["save_member"], members)

    def save_position(self, source: str, position: Position, clock: Stamp) -> None:
        system, timeline, lsn, snapshot, slot, passed_us, copied, membership = position
        row = (source, system, timeline, signed(lsn), snapshot, slot, passed_us, json.dumps(copied), membership, *clock)
        self._cursor.execute(SQL["save_position"], row)

    def save_orders(self, source: str, orders: SourceOrders) -> None:
        self._cursor.execute(SQL["save_orders"], (source, encode_orders(orders)))

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        found = {
            identity: self._cursor.execute(SQL["key_of"], (source, table, identity)).fetchone()
            for identity in identities
        }
        return {identity: row[0] for identity, row in found.items() if row}

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        kept = [(source, table, identity, key) for identity, key in changes.items() if key is not None]
        gone = [(source, table, identity) for identity, key in changes.items() if key is None]
        self._cursor.executemany(SQL["save_identity"], kept)
        self._cursor.executemany(SQL["forget_identity"], gone)

    def save_deadlines(self, due: Mapping[RecordKey, int | None]) -> None:
        kept = [(*key, due_us) for key, due_us in due.items() if due_us is not None]
        self._cursor.executemany(SQL["save_due"], kept)
        self._cursor.executemany(SQL["forget_due"], [key for key, due_us in due.items() if due_us is None])

    def digests_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, frozenset[bytes]]:
        found = {key: self._cursor.execute(SQL["digests_of"], key).fetchall() for key in keys}
        return {RecordKey(*key): frozenset([digest for (digest,) in rows]) for key, rows in found.items() if rows}

    def keys_with(self, entity: str, digest: bytes, limit: int) -> list[str]:
        return [key for (key,) in self._cursor.execute(SQL["keys_with"], (entity, digest, limit))]

    def save_digests(self, digests: Mapping[RecordKey, frozenset[bytes]]) -> None:
        kept = self.digests_of(digests)
        changes = [(key, new, kept.get(key, NO_DIGESTS)) for key, new in digests.items()]
        gone = [(key.entity, digest, key.key) for key, new, old in changes for digest in old - new]
        came = [(key.entity, digest, key.key) for key, new, old in changes for digest in new - old]
        self._cursor.executemany(SQL["forget_digest"], gone)
        self._cursor.executemany(SQL["save_digest"], came)

    def save_evaluated(self, entity: str, policy: str, reached: str | None) -> None:
        self._cursor.execute(SQL["save_judged"], (entity, policy, reached))

    def missing_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, Mapping[str, int]]:
        found = {RecordKey(*key): dict(self._cursor.execute(SQL["missing_of"], key).fetchall()) for key in keys}
        return {key: sources for key, sources in found.items() if sources}

    def save_missing(self, missing: Mapping[RecordKey, Mapping[str, int]]) -> None:
        self._cursor.executemany(SQL["forget_missing"], missing)
        rows = [(*key, source, since_us) for key, sources in missing.items() for source, since_us in sources.items()]
        self._cursor.executemany(SQL["save_missing"], rows)

    def forget_missing(self, entity: str) -> None:
        self._cursor.execute(SQL["forget_missing_of"], (entity,))

    def forget_source(self, source: str) -> list[RecordKey]:
        self._cursor.execute(SQL["forget_identities"], (source,))
        self._parking.forget_quarantined_of(source)
        return self.forget_history(source)


class SqliteStore:
    """ports.Store in the file `path`; StoreUnavailable when it cannot be opened, is newer, or is not ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: LockFile | None = None
        self._writing = Lock()
        self._known = Known()
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
                batch = SqliteTransaction(cursor, self._known)
                yield batch
                batch.finish()
                cursor.execute("COMMIT")
            except BaseException:
                self._known.forget()
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
            found = cursor.execute(SQL["record"], record).fetchone()
            return trails(cursor, {found[0]: (record, found[1])})[record] if found else []

    def history_page(self, record: RecordKey, after: tuple[Stamp, int] | None, limit: int) -> list[Change]:
        with self._readers.reading() as cursor:
            found = cursor.execute(SQL["record"], record).fetchone()
            return trail_page(cursor, (record, *found), after, limit) if found else []

    def folded(
        self, record: RecordKey, until: Stamp | None = None, *, whole: bool = False
    ) -> tuple[Checkpoint | None, list[Change]]:
        with self._readers.reading() as cursor:
            found = cursor.execute(SQL["record"], record).fetchone()
            if not found:
                return None, []
            base = (None if whole else newest_checkpoint(cursor, found[0], until)) or pruned_checkpoint(
                cursor, found[0]
            )
            if base is None:
                return None, trails(cursor, {found[0]: (record, found[1])})[record]
            floor = {} if whole else {record: base[1]}
            tail = tails(cursor, {found[0]: (record, found[1])}, floor)[record]
            return base[0], later_than(base[0].stamp, tail)

    def records(self, entity: str, after: str | None, limit: int) -> list[str]:
        with self._readers.reading() as cursor:
            page = {"entity": entity, "after": after, "limit": limit}
            return [key for (key,) in cursor.execute(SQL["records"], page)]

    def conflict(self, conflict_id: str) -> Conflict | None:
        with self._readers.reading() as cursor:
            found = cursor.execute(SQL["conflict"], (conflict_id,)).fetchone()
            return decode_conflict(found[0]) if found else None

    def conflicts(self, where: Mapping[str, str], after: str | None, limit: int) -> list[Conflict]:
        """As ports.Store says; NotFound when `after` is no conflict's id."""
        assert where.keys() <= FILTERS.keys(), f"no such filters: {sorted(where.keys() - FILTERS.keys())}"
        way_in = next(statement for needed, statement in _WAYS_IN if needed <= where.keys())
        with self._readers.reading() as cursor:
            page = _NO_FILTER | dict(where) | {"after": _seq(cursor, after), "limit": limit}
            return [decode_conflict(body) for (body,) in cursor.execute(SQL[way_in], page)]

    def unfinished_conflicts(self) -> Iterator[Conflict]:
        with self._readers.reading() as cursor:
            places = [seq for (seq,) in cursor.execute(SQL["unfinished"])]
        for start in range(0, len(places), _CONFLICTS_PER_PAGE):
            page = json.dumps(places[start : start + _CONFLICTS_PER_PAGE])
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
        """Let go of the file and of the claim; a batch in progress is waited for."""
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
    found = cursor.execute(SQL["conflict_seq"], (conflict_id,)).fetchone()
    if found is None:
        raise NotFound("the list cannot go on after a conflict that is not in it", hint="Start again without a cursor.")
    return int(found[0])


def _conflict_row(conflict: Conflict) -> tuple[object, ...]:
    question = conflict.detected
    return (
        conflict.id,
        conflict.status,
        question.entity,
        question.key,
        question.field,
        question.group,
        question.kind,
        question.severity,
        json.dumps(sorted({candidate.source for candidate in question.candidates})),
        conflict.raised_us,
        encode_conflict(conflict),
    )
