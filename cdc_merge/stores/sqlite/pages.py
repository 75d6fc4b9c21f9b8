"""A record's history page by page: in stamp order, from a trail in the order of arrival.

Each page walks the trail once, but reads only stamps and places, and at most a page of them is in memory.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator
from typing import Final

from cdc_merge.history.change_codec import stamp_of
from cdc_merge.model import Change, Place, RecordKey, Stamp
from cdc_merge.stores.sqlite.database_file import SQL
from cdc_merge.stores.sqlite.log import decoded, unsigned

_Entry = tuple[Stamp, Place, int]
_BEGINNING: Final = Stamp(0, 0, "")


def trail_page(
    cursor: sqlite3.Cursor, of: tuple[RecordKey, int, int], after: tuple[Stamp, int] | None, limit: int
) -> list[Change]:
    """See ports.Store.history_page. `of`: the record, its id and its newest entry."""
    record, record_id, head = of
    since, skipped = after or (_BEGINNING, 0)
    page = heapq.nsmallest(skipped + limit, _entries(cursor, head, since))[skipped:]
    rows = cursor.execute(SQL["entries"], (json.dumps([seq for _, _, seq in page]),))
    return decoded(rows, {record_id: (record, head)})[record]


def _entries(cursor: sqlite3.Cursor, head: int, since: Stamp) -> Iterator[_Entry]:
    for seq, system, timeline, lsn, table, ordinal, source, beginning in cursor.execute(SQL["trail_stamps"], (head,)):
        stamp = stamp_of(beginning, source)
        if stamp >= since:
            yield stamp, Place(system, timeline, unsigned(lsn), table, ordinal), seq
