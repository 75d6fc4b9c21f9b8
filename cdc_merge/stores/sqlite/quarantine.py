"""Changes whose records nobody knows yet, inside SQLite; see ports.StoreTransaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from cdc_merge.model import Place, UnresolvedChange
from cdc_merge.stores.row_codec import decode_change, encode_change
from cdc_merge.stores.sqlite.database_file import SQL
from cdc_merge.stores.sqlite.log import signed, unsigned


class Quarantine:
    """What one transaction parks and takes out again."""

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
        taken = {}
        for identity in identities:
            found = self._cursor.execute(SQL["parked_of"], (source, label, identity)).fetchall()
            if found:
                self._cursor.execute(SQL["unpark"], (source, label, identity))
                taken[identity] = [_waiting(row) for row in found]
        return taken

    def forget_quarantined(self, source: str, entity: str, table: str) -> int:
        return self._cursor.execute(SQL["forget_parked"], (source, entity, table)).rowcount

    def forget_quarantined_of(self, source: str) -> None:
        self._cursor.execute(SQL["forget_parked_of"], (source,))

    def forget_quarantined_before(self, wall_us: int) -> Mapping[tuple[str, str], int]:
        gone = self._cursor.execute(SQL["parked_before"], (wall_us,)).fetchall()
        if gone:
            self._cursor.execute(SQL["forget_parked_before"], (wall_us,))
        return {(source, table): count for source, table, count in gone}

    def awaited_identities(self, source: str) -> Mapping[str, frozenset[tuple[str, ...]]]:
        return awaited(self._cursor).get(source, {})


def awaited(cursor: sqlite3.Cursor) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
    """Source → label → the columns by which waiting rows are named."""
    found: dict[str, dict[str, frozenset[tuple[str, ...]]]] = {}
    for source, label, columns in cursor.execute(SQL["awaited"]):
        of_source = found.setdefault(source, {})
        of_source[label] = of_source.get(label, frozenset()) | {tuple(json.loads(columns))}
    return found


def _waiting(row: tuple[Any, ...]) -> UnresolvedChange:
    label, columns, identity, was, entity, system, timeline, lsn, table, ordinal, stamp_source, body = row
    place = Place(system, timeline, unsigned(lsn), table, ordinal)
    change = decode_change(body, (entity, ""), stamp_source, place)
    return UnresolvedChange(label, tuple(json.loads(columns)), identity, was, change)
