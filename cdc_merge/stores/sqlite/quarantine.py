"""The quarantine of unresolved business keys, inside SQLite; see ports.QuarantineStore."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from cdc_merge.model import Place, UnresolvedChange
from cdc_merge.stores.row_codec import decode_change, encode_change
from cdc_merge.stores.sqlite.database_file import SQL
from cdc_merge.stores.sqlite.log import signed, unsigned


class QuarantineTable:
    """The quarantined changes, as one transaction reads and changes them."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def quarantine(self, source: str, waiting: Iterable[UnresolvedChange]) -> None:
        for each in waiting:
            label, columns, identity, was, change = each
            if was != identity:
                self._cursor.execute(SQL["rename_parked"], (identity, source, label, was))
            system, timeline, lsn, table, ordinal = change.place
            row = (source, label, json.dumps(columns), identity, was, change.entity)
            place = (system, timeline, signed(lsn), table, ordinal)
            stamp = (change.stamp.wall_us, change.stamp.source)
            self._cursor.execute(SQL["park"], (*row, *place, *stamp, encode_change(change)))

    def release_quarantined(
        self, source: str, label: str, identities: Iterable[str]
    ) -> Mapping[str, list[UnresolvedChange]]:
        released = {}
        for identity in identities:
            rows = self._cursor.execute(SQL["parked_of"], (source, label, identity)).fetchall()
            if rows:
                self._cursor.execute(SQL["unpark"], (source, label, identity))
                released[identity] = [_unresolved_change(row) for row in rows]
        return released

    def forget_quarantined(self, source: str, entity: str, table: str) -> int:
        return self._cursor.execute(SQL["forget_parked"], (source, entity, table)).rowcount

    def forget_quarantined_of(self, source: str) -> None:
        self._cursor.execute(SQL["forget_parked_of"], (source,))

    def forget_quarantined_before(self, wall_us: int) -> Mapping[tuple[str, str], int]:
        expired = self._cursor.execute(SQL["parked_before"], (wall_us,)).fetchall()
        if expired:
            self._cursor.execute(SQL["forget_parked_before"], (wall_us,))
        return {(source, table): count for source, table, count in expired}

    def awaited_identities(self, source: str) -> Mapping[str, frozenset[tuple[str, ...]]]:
        return awaited(self._cursor).get(source, {})


def awaited(cursor: sqlite3.Cursor) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
    """Source → label → the column sets that identify the quarantined rows."""
    column_sets: dict[str, dict[str, frozenset[tuple[str, ...]]]] = {}
    for source, label, columns in cursor.execute(SQL["awaited"]):
        of_source = column_sets.setdefault(source, {})
        of_source[label] = of_source.get(label, frozenset()) | {tuple(json.loads(columns))}
    return column_sets


def _unresolved_change(row: tuple[Any, ...]) -> UnresolvedChange:
    label, columns, identity, was, entity, system, timeline, lsn, table, ordinal, stamp_source, body = row
    place = Place(system, timeline, unsigned(lsn), table, ordinal)
    change = decode_change(body, (entity, ""), stamp_source, place)
    return UnresolvedChange(label, tuple(json.loads(columns)), identity, was, change)
