"""One batch on the writer's connection: every table that a transaction reads and changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from cdc_merge.model import Change, Conflict, Place, Position, RecordKey, Stamp
from cdc_merge.model.ports import NO_DIGESTS, NOTHING_FOLDED
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.row_codec import decode_conflict, encode_conflict
from cdc_merge.stores.source_commands_json import encode_orders
from cdc_merge.stores.sqlite.checkpoints import CheckpointTable
from cdc_merge.stores.sqlite.database_file import SQL
from cdc_merge.stores.sqlite.log import HistoryLog, WriterCache, later_than, signed
from cdc_merge.stores.sqlite.pruning import LogPruner
from cdc_merge.stores.sqlite.quarantine import QuarantineTable


class SqliteTransaction:
    """ports.StoreTransaction on the writer's connection, valid until its `with` block ends."""

    def __init__(self, cursor: sqlite3.Cursor, cache: WriterCache) -> None:
        self._cursor = cursor
        self._log = HistoryLog(cursor, cache)
        self._checkpoints = CheckpointTable(cursor, self._log)
        self.checkpoints = self._checkpoints.checkpoints
        self.save_checkpoint = self._checkpoints.save_checkpoint
        self.promote_checkpoint = self._checkpoints.promote_checkpoint
        self.forget_checkpoints = self._checkpoints.forget_checkpoints
        pruner = LogPruner(cursor, self._log)
        self.pruned = pruner.pruned
        self.save_pruned_checkpoint = pruner.save_pruned_checkpoint
        self.oldest = pruner.oldest
        self.forget_oldest = pruner.forget_oldest
        self.forget_record = pruner.forget_record
        self._quarantine = QuarantineTable(cursor)
        self.quarantine = self._quarantine.quarantine
        self.release_quarantined = self._quarantine.release_quarantined
        self.forget_quarantined = self._quarantine.forget_quarantined
        self.forget_quarantined_before = self._quarantine.forget_quarantined_before
        self.awaited_identities = self._quarantine.awaited_identities
        self.append = self._log.append
        self.forget_history = self._log.forget_source
        self.finish = self._log.finish

    def histories(
        self, keys: Iterable[RecordKey], after: Mapping[RecordKey, Stamp] = NOTHING_FOLDED
    ) -> Mapping[RecordKey, list[Change]]:
        histories = self._log.histories(keys, self._checkpoints.floors(after))
        return {key: later_than(after.get(key), each) for key, each in histories.items()} if after else histories

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
        saved = list(conflicts)
        self._cursor.executemany(SQL["save_conflict"], map(_conflict_row, saved))
        of_several = {conflict.id: conflict.detected for conflict in saved if conflict.detected.records}
        members = [(detected.entity, key, each) for each, detected in of_several.items() for key in detected.records]
        self._cursor.executemany(SQL["forget_members"], [(each,) for each in of_several])
        self._cursor.executemany(SQL["save_member"], members)

    def save_position(self, source: str, position: Position, clock: Stamp) -> None:
        system, timeline, lsn, snapshot, slot, passed_us, copied, membership = position
        row = (source, system, timeline, signed(lsn), snapshot, slot, passed_us, json.dumps(copied), membership, *clock)
        self._cursor.execute(SQL["save_position"], row)

    def save_orders(self, source: str, orders: SourceOrders) -> None:
        self._cursor.execute(SQL["save_orders"], (source, encode_orders(orders)))

    def keys_of(self, source: str, table: str, identities: Iterable[str]) -> Mapping[str, str]:
        rows = {
            identity: self._cursor.execute(SQL["key_of"], (source, table, identity)).fetchone()
            for identity in identities
        }
        return {identity: row[0] for identity, row in rows.items() if row}

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        saved = [(source, table, identity, key) for identity, key in changes.items() if key is not None]
        removed = [(source, table, identity) for identity, key in changes.items() if key is None]
        self._cursor.executemany(SQL["save_identity"], saved)
        self._cursor.executemany(SQL["forget_identity"], removed)

    def save_deadlines(self, due: Mapping[RecordKey, int | None]) -> None:
        saved = [(*key, due_us) for key, due_us in due.items() if due_us is not None]
        self._cursor.executemany(SQL["save_due"], saved)
        self._cursor.executemany(SQL["forget_due"], [key for key, due_us in due.items() if due_us is None])

    def digests_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, frozenset[bytes]]:
        rows_of = {key: self._cursor.execute(SQL["digests_of"], key).fetchall() for key in keys}
        return {RecordKey(*key): frozenset([digest for (digest,) in rows]) for key, rows in rows_of.items() if rows}

    def keys_with(self, entity: str, digest: bytes, limit: int) -> list[str]:
        return [key for (key,) in self._cursor.execute(SQL["keys_with"], (entity, digest, limit))]

    def save_digests(self, digests: Mapping[RecordKey, frozenset[bytes]]) -> None:
        saved = self.digests_of(digests)
        changes = [(key, new, saved.get(key, NO_DIGESTS)) for key, new in digests.items()]
        removed = [(key.entity, digest, key.key) for key, new, old in changes for digest in old - new]
        added = [(key.entity, digest, key.key) for key, new, old in changes for digest in new - old]
        self._cursor.executemany(SQL["forget_digest"], removed)
        self._cursor.executemany(SQL["save_digest"], added)

    def save_evaluated(self, entity: str, policy: str, reached: str | None) -> None:
        self._cursor.execute(SQL["save_judged"], (entity, policy, reached))

    def missing_of(self, keys: Iterable[RecordKey]) -> Mapping[RecordKey, Mapping[str, int]]:
        missing = {RecordKey(*key): dict(self._cursor.execute(SQL["missing_of"], key).fetchall()) for key in keys}
        return {key: sources for key, sources in missing.items() if sources}

    def save_missing(self, missing: Mapping[RecordKey, Mapping[str, int]]) -> None:
        self._cursor.executemany(SQL["forget_missing"], missing)
        rows = [(*key, source, since_us) for key, sources in missing.items() for source, since_us in sources.items()]
        self._cursor.executemany(SQL["save_missing"], rows)

    def forget_missing(self, entity: str) -> None:
        self._cursor.execute(SQL["forget_missing_of"], (entity,))

    def forget_source(self, source: str) -> list[RecordKey]:
        self._cursor.execute(SQL["forget_identities"], (source,))
        self._quarantine.forget_quarantined_of(source)
        return self.forget_history(source)


def _conflict_row(conflict: Conflict) -> tuple[object, ...]:
    detected = conflict.detected
    return (
        conflict.id,
        conflict.status,
        detected.entity,
        detected.key,
        detected.field,
        detected.group,
        detected.kind,
        detected.severity,
        json.dumps(sorted({candidate.source for candidate in detected.candidates})),
        conflict.raised_us,
        encode_conflict(conflict),
    )
