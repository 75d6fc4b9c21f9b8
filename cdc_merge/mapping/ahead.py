"""Mapping where a transaction is read, so that the process that merges has less to do. Pure.

Rules
- What is told ahead is exactly what `Mapper.transaction` tells; `Mapper.told` stamps it with the source's clock, which only the merging
  side knows. Stamps are ticks of that clock, counted from the transaction's first row.
- Whatever needs the store, or says more than plain changes, is left as it came: keys that must be looked up, copies, emptied tables,
  rows that cannot be read, moved keys, tables announced for the first time or anew, large transactions.
- Transactions of nothing but updates with whole old rows take a short way (`_updates`), which ends in the form that they have in the
  history; the suite compares it with the mapper.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from operator import is_not
from typing import Any, Final, NamedTuple

from cdc_merge.bodies import NULL, Pack, fields_of, packer
from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.changes import Mapper
from cdc_merge.mapping.keys import KeyReader
from cdc_merge.mapping.packing import PackedReader, packed_reader
from cdc_merge.model import UNCHANGED, UPDATE, Change, Relation, RowChange, Stamp, ToldRow, Transaction, UpdateRow

MOST_ROWS: Final = 10_000
"""More than that is mapped in pieces by the merging side, or at least not sent in one."""


class _Table(NamedTuple):
    """A table whose rows name their records, fed into one entity. `columns`: of each the field, its name packed, and who reads it; None
    for nobody."""

    entity: str
    table: str
    locating: Callable[[tuple[Any, ...]], object]
    key: KeyReader
    columns: tuple[tuple[str, bytes, PackedReader] | None, ...]


class Ahead:
    """`mapper`: of the reader's own; the merging side has another one of the same plan."""

    def __init__(self, source: str, mapper: Mapper) -> None:
        self._source = source
        self._mapper = mapper
        self._relation: Relation | None = None
        self._table: _Table | None = None
        self._pack: Pack | None = None  # made in the process that needs it
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __call__(self, tx: Transaction) -> Transaction:
        """The transaction as `told`, or as it came."""
        if tx.messages or tx.origin is not None or not 0 < len(tx.changes) <= MOST_ROWS:
            return tx
        updates = self._updates(tx)
        if updates is not None:
            return tx._replace(changes=(), updates=tuple(updates), ticks=len(tx.changes))
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

    def _updates(self, tx: Transaction) -> list[UpdateRow] | None:
        """Each record's one update; None when there is anything else in it."""
        names = self._names
        keys: set[tuple[str, str]] = set()
        rows: list[UpdateRow] = []
        tick = 0
        try:
            for change in tx.changes:
                if change.relation is not self._relation:
                    self._know(change.relation)
                table = self._table
                found = None if table is None else _updated(table, change)
                if found is None or table is None:
                    return None
                key, fields, items = found
                name = (table.entity, key)
                if name in keys:
                    return None
                keys.add(name)
                if fields:
                    which = tuple(fields)
                    which = names.setdefault(which, which)  # one object, which travels once
                    rows.append((*name, table.table, tick, change.ordinal, which, fields_of(items)))
                tick += 1
        except (UnreadableValue, ValueError):
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
        pack = self._pack = self._pack or packer()
        read_by = {
            index: (field, pack(field), packed_reader(relation.columns[index], read, pack))
            for field, index, read in how.fields
        }
        if len(read_by) == len(how.fields):
            columns = tuple([read_by.get(index) for index in range(len(relation.columns))])
            self._relation = relation
            self._table = _Table(how.table.entity, how.table.table, how.locating, how.key, columns)


def _updated(table: _Table, change: RowChange) -> tuple[str, list[str], list[bytes]] | None:
    """The record's key, the fields that changed, and these packed; None when it is more than an update that leaves the key as it
    was."""
    operation, _, old, is_full, new, _ = change
    if operation != UPDATE or not is_full or old is None or new is None:
        return None
    _, _, locating, read_key, columns = table
    if len(old) != len(columns) or len(new) != len(columns) or locating(old) != locating(new):
        return None
    key = read_key(new)
    if key.__class__ is not str:
        return None
    fields: list[str] = []
    items: list[bytes] = []
    # The reader's decoder makes equal cells one object: only what has changed comes out of this.
    for column, before, after in compress(zip(columns, old, new, strict=True), map(is_not, old, new)):
        if column is None or before == after or before is UNCHANGED or after is UNCHANGED:
            continue
        field, name, packed = column
        was = NULL if before is None else packed(before)
        value = NULL if after is None else packed(after)
        if was != value:
            fields.append(field)
            items += (name, was, value)
    return key, fields, items


def _is_plain(change: Change) -> bool:
    return change.copy is None and change.moved_to is None and change.moved_from is None


def _told(change: Change) -> ToldRow:
    entity, key, stamp, place, row, fields, actor, _, _, identity, _, _ = change
    return entity, place.table, key, stamp.counter, place.ordinal, row, fields, actor, identity
