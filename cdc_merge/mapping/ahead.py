"""Mapping where a transaction is read, so that the process that merges has less to do. Pure.

Rules
- What is told ahead is exactly what `Mapper.transaction` tells; `Mapper.told` stamps it with the source's clock, which only the merging
  side knows. Stamps are ticks of that clock, counted from the transaction's first row.
- Whatever needs the store, or says more than plain changes, is left as it came: keys that must be looked up, copies, emptied tables,
  rows that cannot be read, moved keys, tables announced for the first time or anew, large transactions.
- Transactions of nothing but updates with whole old rows take a short way (`_updates`); the suite compares it with the mapper.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from operator import is_not
from typing import Any, Final, NamedTuple

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.changes import Mapper
from cdc_merge.mapping.columns import FieldReader
from cdc_merge.mapping.keys import KeyReader
from cdc_merge.model import UNCHANGED, UPDATE, Change, Relation, RowChange, Stamp, ToldRow, Transaction

MOST_ROWS: Final = 10_000
"""More than that is mapped in pieces by the merging side, or at least not sent in one."""


class _Table(NamedTuple):
    """A table whose rows name their records, fed into one entity. `columns`: who reads each, None for nobody."""

    entity: str
    table: str
    locating: Callable[[tuple[Any, ...]], object]
    key: KeyReader
    columns: tuple[FieldReader | None, ...]


class Ahead:
    """`mapper`: of the reader's own; the merging side has another one of the same plan."""

    def __init__(self, source: str, mapper: Mapper) -> None:
        self._source = source
        self._mapper = mapper
        self._relation: Relation | None = None
        self._table: _Table | None = None

    def __call__(self, tx: Transaction) -> Transaction:
        """The transaction as `told`, or as it came."""
        if tx.messages or tx.origin is not None or not 0 < len(tx.changes) <= MOST_ROWS:
            return tx
        told = self._updates(tx)
        if told is not None:
            return tx._replace(changes=(), told=tuple(told), ticks=len(tx.changes))
        if self._mapper.looks_up(tx.changes):
            return tx
        return self._mapped(tx)

    def _mapped(self, tx: Transaction) -> Transaction:
        mapped = self._mapper.transaction(tx, Stamp(tx.commit_us - 1, 0, self._source), tx.commit_us, {})
        if mapped.truncated or mapped.parked or mapped.identities or mapped.carried or mapped.shapes:
            return tx
        if mapped.clock.wall_us != tx.commit_us:
            return tx  # none of these tables is mapped
        told = tuple([_told(change) for change in mapped.changes if _is_plain(change)])
        if len(told) != len(mapped.changes):
            return tx
        return tx._replace(changes=(), told=told, ticks=mapped.clock.counter + 1)

    def _updates(self, tx: Transaction) -> list[ToldRow] | None:
        """Each record's one update; None when there is anything else in it."""
        keys: set[tuple[str, str]] = set()
        rows: list[ToldRow] = []
        tick = 0
        try:
            for change in tx.changes:
                if change.relation is not self._relation:
                    self._know(change.relation)
                row = None if self._table is None else _updated(self._table, change, tick)
                if row is None or (name := row[:3:2]) in keys:
                    return None
                tick += 1
                keys.add(name)
                if row[6]:
                    rows.append(row)
        except UnreadableValue:
            return None
        return rows

    def _know(self, relation: Relation) -> None:
        readings = self._mapper.readings(relation)
        self._relation, self._table = None, None
        if len(readings) != 1 or self._mapper.has_news:
            return
        how = readings[0]
        if how.looked_up or how.distinct or how.actor is not None or self._mapper.whole_rows:
            return
        read_by = {index: (field, index, read) for field, index, read in how.fields}
        if len(read_by) == len(how.fields):
            columns = tuple([read_by.get(index) for index in range(len(relation.columns))])
            self._relation = relation
            self._table = _Table(how.table.entity, how.table.table, how.locating, how.key, columns)


def _updated(table: _Table, change: RowChange, tick: int) -> ToldRow | None:
    """None when it is more than an update that leaves its record's key as it was."""
    operation, _, old, is_full, new, ordinal = change
    if operation != UPDATE or not is_full or old is None or new is None:
        return None
    entity, name, locating, read_key, columns = table
    if len(old) != len(columns) or len(new) != len(columns) or locating(old) != locating(new):
        return None
    key = read_key(new)
    if key.__class__ is not str:
        return None
    fields: dict[str, tuple[Any, Any]] = {}
    # The reader's decoder makes equal cells one object: only what has changed comes out of this.
    for column in compress(columns, map(is_not, old, new)):
        if column is None:
            continue
        field, index, read = column
        before, after = old[index], new[index]
        if before == after or before is UNCHANGED or after is UNCHANGED:
            continue
        was = None if before is None else read(before)
        value = None if after is None else read(after)
        if was != value:
            fields[field] = (was, value)
    return entity, name, key, tick, ordinal, UPDATE, fields, None, None


def _is_plain(change: Change) -> bool:
    return change.copy is None and change.moved_to is None and change.moved_from is None


def _told(change: Change) -> ToldRow:
    entity, key, stamp, place, row, fields, actor, _, _, identity, _, _ = change
    return entity, place.table, key, stamp.counter, place.ordinal, row, fields, actor, identity
