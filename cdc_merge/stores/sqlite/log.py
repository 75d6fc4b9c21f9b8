"""The history inside SQLite: one log in order of arrival, and per record the trail of its entries, newest first.

Rules: one writer, so numbers and heads stay in memory between batches and are read again from the file after any error.
A place beyond the highest stored one of its scope (system, timeline, table) cannot be in the log; only the others are
searched, along the record's trail.

Why so (100,000 records × 5 changes, 100 batches of 1,000 random records, layouts interleaved; medians in µs without
encoding: CPU of insert and commit per change / time to read one record):
trail 5 / 35; log with an index on the record 10 / 29; log with a unique index on (record, place) 11 / 28;
clustered by (record, place) 18 / 15; clustered by stamp with a unique index on the place 46 / 15.
The trail writes cheapest and reads slowest; the others dirty about one page per change.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Final

from cdc_merge.model import Change, Place, RecordKey, Stamp
from cdc_merge.stores.row_codec import decode_change, encode_change
from cdc_merge.stores.sqlite.database_file import SQL

_CACHED_RECORDS: Final = 150_000  # about 50 MB; above it the cache is cleared and filled again from the file

_ScopeName = tuple[str, int, str]
_LogRow = tuple[int, int, int, int, int, int, str, bytes]
_NewRecord = tuple[str, str, int]

_NOTHING_STORED: Final = (-1, -1)
_SIGN: Final = 1 << 63

_stamp_and_place: Final = itemgetter(
    2, 3
)  # by stamp, then place: equal stamps of foreign histories sort the same everywhere


def signed(lsn: int) -> int:
    """An unsigned 64-bit number as SQLite's signed one."""
    return lsn if lsn < _SIGN else lsn - 2 * _SIGN


def unsigned(lsn: int) -> int:
    return lsn if lsn >= 0 else lsn + 2 * _SIGN


def trails(cursor: sqlite3.Cursor, heads: Mapping[int, tuple[RecordKey, int]]) -> dict[RecordKey, list[Change]]:
    """The histories of records, in stamp order. `heads`: record id → (record, newest entry)."""
    return decoded(cursor.execute(SQL["trail"], (json.dumps([head for _, head in heads.values()]),)), heads)


def tails(
    cursor: sqlite3.Cursor, heads: Mapping[int, tuple[RecordKey, int]], floors: Mapping[RecordKey, int]
) -> dict[RecordKey, list[Change]]:
    """The entries of the trails that are newer than `floors`, in stamp order; older ones are not read."""
    wanted = json.dumps([(head, floors.get(record, 0)) for record, head in heads.values()])
    return decoded(cursor.execute(SQL["tail"], (wanted,)), heads)


def decoded(
    rows: Iterable[tuple[int, str, int, str, int, int, str, bytes]], heads: Mapping[int, tuple[RecordKey, int]]
) -> dict[RecordKey, list[Change]]:
    """Entries as changes, of each record in stamp order."""
    histories: dict[RecordKey, list[Change]] = {record: [] for record, _ in heads.values()}
    for record_id, system, timeline, table, lsn, ordinal, source, body in rows:
        record = heads[record_id][0]
        place = Place(sys.intern(system), timeline, unsigned(lsn), sys.intern(table), ordinal)
        histories[record].append(decode_change(body, record, sys.intern(source), place))
    for changes in histories.values():
        changes.sort(key=_stamp_and_place)
    return histories


def later_than(stamp: Stamp | None, changes: list[Change]) -> list[Change]:
    """The changes later than the stamp; all of them when it is None."""
    return changes if stamp is None else [change for change in changes if change.stamp > stamp]


class _Scope:
    """The common part of one table's places, and the highest (LSN, ordinal) stored of it."""

    __slots__ = ("highest", "id", "stored")

    def __init__(self, scope_id: int, highest: tuple[int, int]) -> None:
        self.id = scope_id
        self.highest = highest
        self.stored = highest


class WriterCache:
    """Numbers of records and scopes that the writer keeps in memory between batches."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop everything: the next batch reads the file again."""
        self.is_loaded = False
        self.records: dict[tuple[str, str], tuple[int, int]] = {}  # (entity, key) → id, newest entry
        self.scopes: dict[_ScopeName, _Scope] = {}
        self.last_seq = 0
        self.last_record = 0

    def limit(self) -> None:
        """Limit the memory. Only between two appends: everything is in the file then."""
        if len(self.records) > _CACHED_RECORDS:
            self.records.clear()

    def load(self, cursor: sqlite3.Cursor) -> None:
        if self.is_loaded:
            return
        self.last_seq, self.last_record = cursor.execute(SQL["last_numbers"]).fetchone()
        for scope_id, system, timeline, table, lsn, ordinal in cursor.execute(SQL["scopes"]):
            highest = _NOTHING_STORED if (lsn, ordinal) == _NOTHING_STORED else (unsigned(lsn), ordinal)
            self.scopes[system, timeline, table] = _Scope(scope_id, highest)
        self.is_loaded = True


class HistoryLog:
    """The log, as one transaction reads and extends it. Call `finish` before the commit."""

    def __init__(self, cursor: sqlite3.Cursor, cache: WriterCache) -> None:
        cache.load(cursor)
        self._cursor = cursor
        self._cache = cache
        self._added = 0
        self._append_complete = True

    def append(self, changes: Iterable[Change]) -> set[RecordKey]:
        """Hot path: a place beyond the highest of its scope is new; the others go through `_append_checked`."""
        self._cache.limit()
        scopes, records, seq = self._cache.scopes, self._cache.records, self._cache.last_seq
        rows: list[_LogRow] = []
        late: list[tuple[Change, _Scope]] = []
        new_records: list[_NewRecord] = []
        self._append_complete = False
        for change in changes:
            record = change[:2]
            system, timeline, lsn, table, ordinal = change.place
            scope = scopes.get((system, timeline, table)) or self._add_scope(system, timeline, table)
            if (lsn, ordinal) <= scope.highest:
                late.append((change, scope))
                continue
            scope.highest = (lsn, ordinal)
            record_id, head = (
                records.get(record) or self._load_numbers(record) or self._new_numbers(record, new_records)
            )
            seq += 1
            records[record] = (record_id, seq)
            column_lsn = lsn if lsn < _SIGN else signed(lsn)
            body = encode_change(change)
            rows.append((seq, record_id, head, scope.id, column_lsn, ordinal, change.stamp.source, body))
        self._write(rows, new_records)
        repeated = {RecordKey(*change[:2]) for change, scope in late if not self._append_checked(change, scope)}
        self._append_complete = True
        return repeated

    def histories(self, keys: Iterable[RecordKey], floors: Mapping[RecordKey, int]) -> dict[RecordKey, list[Change]]:
        """The entries of these records, in stamp order; of those with a floor only the newer ones."""
        numbers_of = {RecordKey(*key): self.numbers_of(key) for key in keys}
        heads = {numbers[0]: (record, numbers[1]) for record, numbers in numbers_of.items() if numbers}
        histories = tails(self._cursor, heads, floors) if floors else trails(self._cursor, heads)
        return {record: [] for record in numbers_of} | histories

    def at(self, key: RecordKey, place: Place) -> Change | None:
        """The record's change at a place, searched along its trail."""
        numbers, scope = self.numbers_of(key), self._cache.scopes.get((place.system, place.timeline, place.table))
        if numbers is None or scope is None:
            return None
        where = {"head": numbers[1], "scope": scope.id, "lsn": signed(place.lsn), "ordinal": place.ordinal}
        stored = self._cursor.execute(SQL["find_place"], where).fetchone()
        return None if stored is None else decode_change(stored[2], key, stored[1], place)

    def numbers_of(self, key: RecordKey) -> tuple[int, int] | None:
        """A record's id and its newest entry; None if the store does not have the record."""
        return self._cache.records.get(key) or self._load_numbers(key)

    def forget_source(self, source: str) -> list[RecordKey]:
        self.finish()
        touched = [RecordKey(*row) for row in self._cursor.execute(SQL["records_of_source"], {"source": source})]
        self._cursor.execute(SQL["forget_changes"], {"source": source})
        self._added = -self._cursor.rowcount
        for key in touched:
            self._forget_checkpoints(key)
        for statement in (
            "relink",
            "forget_heads",
            "make_heads",
            "mend_heads",
            "forget_records",
            "forget_scopes",
            "forget_orphans",
        ):
            self._cursor.execute(SQL[statement])
        self.finish()
        self._cache.forget()
        self._cache.load(self._cursor)
        return touched

    def _forget_checkpoints(self, key: RecordKey) -> None:
        """Part of the log in the checkpoints was removed; only a pruned checkpoint stays, which cannot be folded again."""
        numbers = self.numbers_of(key)
        assert numbers is not None, "a record with a log has a number"
        self._cursor.execute(SQL["forget_bases_of"], (numbers[0] * 16, numbers[0] * 16 + 14))

    def count_removed(self, count: int) -> None:
        """Subtract removed entries from the running count."""
        self._added -= count

    def forget_numbers(self, key: RecordKey) -> None:
        """Drop a removed record's numbers; its id is not reused before the next start."""
        self._cache.records.pop(key, None)

    def finish(self) -> None:
        """Write the figures that change once per batch: the highest places and the count."""
        assert self._append_complete, "an append of this transaction failed half-way: it must not be committed"
        for scope in self._cache.scopes.values():
            if scope.highest != scope.stored:
                lsn, ordinal = scope.highest
                self._cursor.execute(SQL["raise_scope"], (signed(lsn), ordinal, scope.id))
                scope.stored = scope.highest
        self._cursor.execute(SQL["count_changes"], (self._added,))
        self._added = 0

    def _write(self, rows: list[_LogRow], new_records: list[_NewRecord]) -> None:
        self._cursor.executemany(SQL["add_record"], new_records)
        self._cursor.executemany(SQL["add_change"], rows)
        self._cursor.executemany(SQL["set_head"], {row[1]: row[0] for row in rows}.items())
        self._cache.last_seq += len(rows)
        self._added += len(rows)

    def _append_checked(self, change: Change, scope: _Scope) -> bool:
        """The place may be in the log already: then the smaller stamp stays, with its change. Returns whether it was new."""
        cache, record, source = self._cache, change[:2], change.stamp.source
        new_records: list[_NewRecord] = []
        record_id, head = (
            cache.records.get(record) or self._load_numbers(record) or self._new_numbers(record, new_records)
        )
        lsn, ordinal = signed(change.place.lsn), change.place.ordinal
        place = {"head": head, "scope": scope.id, "lsn": lsn, "ordinal": ordinal}
        stored = self._cursor.execute(SQL["find_place"], place).fetchone()
        if stored is None:
            seq = cache.last_seq + 1
            cache.records[record] = (record_id, seq)
            self._write([(seq, record_id, head, scope.id, lsn, ordinal, source, encode_change(change))], new_records)
        elif change.stamp < decode_change(stored[2], record, stored[1], change.place).stamp:
            self._cursor.execute(SQL["replace_change"], (source, encode_change(change), stored[0]))
        return stored is None

    def _load_numbers(self, record: tuple[str, str]) -> tuple[int, int] | None:
        numbers: tuple[int, int] | None = self._cursor.execute(SQL["record"], record).fetchone()
        if numbers:
            self._cache.records[record] = numbers
        return numbers

    def _new_numbers(self, record: tuple[str, str], new_records: list[_NewRecord]) -> tuple[int, int]:
        self._cache.last_record += 1
        new_records.append((*record, self._cache.last_record))
        return self._cache.last_record, 0

    def _add_scope(self, system: str, timeline: int, table: str) -> _Scope:
        scope_id = self._cursor.execute(SQL["add_scope"], (system, timeline, table)).lastrowid
        assert scope_id is not None
        scope = self._cache.scopes[system, timeline, table] = _Scope(scope_id, _NOTHING_STORED)
        return scope
