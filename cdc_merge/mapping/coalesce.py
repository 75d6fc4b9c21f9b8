"""The row changes of one transaction count, per record, as one (semantics §1): rows are followed from start to end.

Nearly every record is touched once, and its touch is kept as it came. Only where a record or a row is touched again,
or a row changes its key or identity, its cells are read and followed step by step; what the source held before and
holds after decides what each record is told. What existed only in between leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple, Protocol, TypeAlias

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.key_resolution import Cells, Located, current
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import UNCHANGED, RowChange, Stamp, Value


class LocatedChange(NamedTuple):
    """One row change, located and stamped."""

    reading: RelationMapping
    change: RowChange
    stamp: Stamp
    at: Located


RecordName: TypeAlias = tuple[str, str]
"""Entity and key; a plain tuple, because one is made per row change and a NamedTuple takes six times as long."""

RowName: TypeAlias = tuple[str, str]
"""The label of a table and the identity of one of its rows."""


class Row:
    """One source row on its way through a transaction.

    `born` is the key it had before (None: it was not there), `key` the one it has (None: it is gone). `before` and
    `after` hold the field values that are known, the actor column's under "". `first_name` and `name` are its
    identity, then and now; `left` is the touch by which it left its first key, `last` its last one.
    """

    __slots__ = ("after", "before", "born", "cells", "first_name", "key", "last", "left", "name", "unreadable")

    def __init__(self, touch: LocatedChange) -> None:
        self.born = self.key = touch.at.before
        self.first_name = touch.at.row_before
        self.name = touch.at.row_before or touch.at.row_after
        self.before: dict[str, Value] = {}
        self.after: dict[str, Value] = {}
        self.last = self.left = touch
        self.cells: Cells = ()
        self.unreadable: str | None = None

    def apply(self, touch: LocatedChange) -> None:
        """Take the row's next change: note where it is and what it holds."""
        if self.key == self.born != touch.at.after:
            self.left = touch
        self.key, self.last = touch.at.after, touch
        if touch.change.new is not None:
            self.cells = current(touch.change.old if touch.change.old_is_full else None, touch.change.new)
        self.name = touch.at.row_after or self.name
        try:
            self._read(touch.reading, touch.change)
        except UnreadableValue as error:
            self.unreadable = str(error)

    def _read(self, reading: RelationMapping, change: RowChange) -> None:
        for field, index, read in reading.tracked:
            if change.old is not None and (change.old_is_full or index in reading.identity_columns):
                cell = change.old[index]
                if cell is not UNCHANGED and field not in self.after:
                    self.before.setdefault(field, None if cell is None else read(cell))
                    self.after[field] = self.before[field]
            if change.new is not None:
                cell = change.new[index]
                if cell is not UNCHANGED:
                    self.after[field] = None if cell is None else read(cell)

    def holds(self, touch: LocatedChange) -> bool:
        """Whether this is the row that a whole old row shows."""
        if self.last.change.relation == touch.change.relation:
            return self.cells == touch.change.old
        # The table was altered in between: what the mapping sees of both must do.
        shown = Row(touch)
        shown.apply(touch._replace(change=touch.change._replace(new=None)))
        return all(self.after.get(field, value) == value for field, value in shown.before.items())


class RowTransition(NamedTuple):
    """What a record was told: the row that had its key before and the one that has it after (both: an update)."""

    record: RecordName
    gone: Row | None
    come: Row | None

    @property
    def left_behind(self) -> str | None:
        """The key that this record's row had before, when fields of it were not sent along."""
        row = self.come
        if row is None or row.born is None or row.born == row.key:
            return None
        return row.born if any(field not in row.after for field, _, _ in row.last.reading.fields) else None


class ChangeSink(Protocol):
    """Takes a transaction's touches in order, and says what its records were told."""

    def add(self, touch: LocatedChange) -> None: ...
    def forget(self, label: str) -> None: ...
    def single(self) -> Iterator[LocatedChange]: ...
    def followed(self) -> list[RowTransition]: ...


class Coalescer:
    """Collects a transaction's touches; then `single()` gives the records touched once, `followed()` the others."""

    def __init__(self) -> None:
        self._touched: dict[RecordName, LocatedChange | None] = {}  # None: followed as rows
        self._rows: dict[RowName, list[Row]] = {}
        self._all: list[tuple[str, str, Row]] = []

    def add(self, touch: LocatedChange) -> None:
        reading, _, _, (before, after, row_before, row_after) = touch
        if before is None or after is None or (before == after and row_before == row_after):
            record = (reading.table.entity, after if after is not None else before or "")
            if record not in self._touched:
                self._touched[record] = touch
                return
        self._follow(touch)

    def forget(self, label: str) -> None:
        """A truncate: what this table's rows did before it in the transaction has no effect any more."""
        self._touched = {
            record: touch for record, touch in self._touched.items() if touch is None or touch.reading.label != label
        }
        self._all = [entry for entry in self._all if entry[1] != label]
        self._rows = {at: [row for row in rows if row.last.reading.label != label] for at, rows in self._rows.items()}

    def single(self) -> Iterator[LocatedChange]:
        return (touch for touch in self._touched.values() if touch is not None)

    def followed(self) -> list[RowTransition]:
        """What the records that were touched more than once were told, in no particular order."""
        held: dict[RecordName, list[Row]] = {}
        holding: dict[RecordName, list[Row]] = {}
        for entity, _, row in self._all:
            if row.born is not None:
                held.setdefault((entity, row.born), []).append(row)
            if row.key is not None:
                holding.setdefault((entity, row.key), []).append(row)
        return [
            told
            for record in {**held, **holding}
            for told in _told(record, held.get(record, ()), holding.get(record, ()))
        ]

    def _follow(self, touch: LocatedChange) -> None:
        for key in (touch.at.before, touch.at.after):
            if key is not None:
                record = (touch.reading.table.entity, key)
                single = self._touched.get(record)
                self._touched[record] = None
                if single is not None:
                    self._step(single)
        self._step(touch)

    def _step(self, touch: LocatedChange) -> None:
        entity, label = touch.reading.table.entity, touch.reading.label
        row = self._row_of(touch)
        if row is None:
            row = Row(touch)
            self._all.append((entity, label, row))
        row.apply(touch)
        if touch.at.row_after is not None:
            self._rows.setdefault((label, touch.at.row_after), []).append(row)

    def _row_of(self, touch: LocatedChange) -> Row | None:
        """Take the row that this change is about out of its place; None when it was not touched before."""
        if touch.at.row_before is None:
            return None
        here = self._rows.get((touch.reading.label, touch.at.row_before), [])
        for row in reversed(here):
            # Without an identity of their own, two rows may share a key for a while (deferred constraints, or none).
            if touch.reading.distinct or not touch.change.old_is_full or row.holds(touch):
                here.remove(row)
                return row
        return None


def _told(record: RecordName, held: Iterable[Row], holding: Iterable[Row]) -> Iterator[RowTransition]:
    came = [row for row in holding if row.born != row.key]
    left = [row for row in held if row.born != row.key]
    yield from (RowTransition(record, row, row) for row in held if row.born == row.key)
    yield from (RowTransition(record, gone, come) for gone, come in zip_longest(left, came))
