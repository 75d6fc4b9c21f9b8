"""Mapping where a transaction is read, so that the process that merges has less to do. Pure.

Rules
- What is told ahead is exactly what `Mapper.transaction` tells; `Mapper.told` stamps it with the source's clock, which only the merging
  side knows. Stamps are ticks of that clock, counted from the transaction's first row.
- Whatever needs the store, or says more than plain changes, is left as it came: keys that must be looked up, copies, emptied tables,
  rows that cannot be read, moved keys, tables announced for the first time or anew, large transactions.
- Transactions of nothing but updates with whole old rows take a short way (updates.py), which ends in the form that they have in the
  history.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.mapping.changes import Mapper
from cdc_merge.mapping.updates import PlainUpdates
from cdc_merge.model import Change, Stamp, ToldRow, Transaction

MOST_ROWS: Final = 10_000
"""More than that is mapped in pieces by the merging side, or at least not sent in one."""


class Ahead:
    """`mapper`: of the reader's own; the merging side has another one of the same plan. `left_whole`: tables of which the merging
    side wants to see the rows, because some of their rows wait to be named."""

    def __init__(self, source: str, mapper: Mapper) -> None:
        self._source = source
        self._mapper = mapper
        self._plain: PlainUpdates | None = None  # made in the process that needs it
        self.left_whole: frozenset[str] = frozenset()

    def __call__(self, tx: Transaction) -> Transaction:
        """The transaction as `told`, or as it came."""
        if tx.messages or tx.origin is not None or not 0 < len(tx.changes) <= MOST_ROWS:
            return tx
        if self.left_whole and any(change.relation.table in self.left_whole for change in tx.changes):
            return tx
        self._plain = self._plain or PlainUpdates(self._mapper)
        updates = self._plain.told(tx.changes)
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


def _is_plain(change: Change) -> bool:
    return change.copy is None and change.moved_to is None and change.moved_from is None


def _told(change: Change) -> ToldRow:
    entity, key, stamp, place, row, fields, actor, _, _, identity, _, _ = change
    return entity, place.table, key, stamp.counter, place.ordinal, row, fields, actor, identity
