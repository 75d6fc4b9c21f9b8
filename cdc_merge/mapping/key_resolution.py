"""Which record a row change is about, by business key, and which row, by replica identity (semantics §4).

Where the identity contains the business key, or the old row came whole, the change says so itself. Otherwise (a
surrogate `id`) the key is remembered per identity, from snapshots, inserts and earlier changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import UNCHANGED, UNKNOWN, RawValue, RowChange, Unknown
from cdc_merge.values.keys import KeyReader

Known: TypeAlias = Callable[[str, str], "str | None"]
Cells: TypeAlias = "tuple[RawValue, ...]"

# Once per row: tuple.__new__ makes the same value as the class in half the time.
_new_tuple = tuple.__new__


class UnknownIdentity(UnreadableValue):
    """A row's business key was not sent and was never seen together with its identity; both identities, before and after
    the change (None: the row is gone)."""

    def __init__(self, row_before: str, row_after: str | None) -> None:
        super().__init__(
            "unknown identity: the business key of this row was never seen",
            hint="The change waits until a snapshot (source resync), an insert or a full old row names the identity.",
        )
        self.row_before, self.row_after = row_before, row_after


def current(old: Cells | None, new: Cells) -> Cells:
    """A row's cells after a change, unchanged TOASTed ones taken from the old row where there is one."""
    if old is None or UNCHANGED not in new:
        return new
    return tuple(was if cell is UNCHANGED else cell for was, cell in zip(old, new, strict=True))


class Located(NamedTuple):
    """A row's business key and identity, before the change and after it; None: there was (is) no such row or key."""

    before: str | None
    after: str | None
    row_before: str | None
    row_after: str | None


def locate(reading: RelationMapping, change: RowChange, known: Known) -> Located:
    """Locates any change but a truncate; `known(label, identity)` gives a key. UnreadableValue: nobody can say."""
    return _LOCATE[change.operation](reading, change, known)


def wanted_identity(reading: RelationMapping, change: RowChange) -> str | None:
    """The identity whose key must be known to locate this change; None when the change says it all."""
    if not reading.looked_up or change.old_is_full or change.operation not in ("update", "delete"):
        return None
    cells = change.old if change.old is not None else change.new
    return None if cells is None else _row(reading, cells)


def _insert(reading: RelationMapping, change: RowChange, known: Known) -> Located:
    cells = _sent(change.new)
    key = _certain(reading.key, cells)
    row = _row(reading, cells) if reading.distinct else key
    return Located(None, key, None, row)


def _update(reading: RelationMapping, change: RowChange, known: Known) -> Located:
    old, new = change.old, _sent(change.new)
    if reading.looked_up and not change.old_is_full:
        return _looked_up_update(reading, old, new, known)
    if old is None or reading.locating(old) == reading.locating(new):
        after = reading.key(new)
        if after is UNKNOWN:
            raise _not_sent()
        row = _row(reading, new) if reading.distinct else after
        return _new_tuple(Located, (after, after, row, row))
    new = current(old, new)
    before, after = _certain(reading.key, old), _certain(reading.key, new)
    if not reading.distinct:
        return Located(before, after, before, after)
    return Located(before, after, _row(reading, old), _row(reading, new))


def _looked_up_update(reading: RelationMapping, old: Cells | None, new: Cells, known: Known) -> Located:
    row_after = _row(reading, new)
    row_before = row_after if old is None else _row(reading, old)
    before = known(reading.label, row_before)
    after = reading.key(new)
    if isinstance(after, Unknown):
        after = before
        if before is None:
            raise UnknownIdentity(row_before, row_after)
    # A row that nobody has named before: its new key is all that is known of it.
    return Located(after if before is None else before, after, row_before, row_after)


def _delete(reading: RelationMapping, change: RowChange, known: Known) -> Located:
    cells = _sent(change.old)
    if not reading.looked_up or change.old_is_full:
        key = _certain(reading.key, cells)
        return Located(key, None, _row(reading, cells) if reading.distinct else key, None)
    row = _row(reading, cells)
    before = known(reading.label, row)
    if before is None:
        raise UnknownIdentity(row, None)
    return Located(before, None, row, None)


_LOCATE: Final = {"insert": _insert, "snapshot": _insert, "update": _update, "delete": _delete}


def _sent(cells: Cells | None) -> Cells:
    if cells is None:
        raise UnreadableValue("the source sent no row with this change", hint="Look at the table's replica identity.")
    return cells


def _certain(read: KeyReader, cells: Cells) -> str | None:
    key = read(cells)
    if isinstance(key, Unknown):
        raise _not_sent()
    return key


def _not_sent() -> UnreadableValue:
    return UnreadableValue(
        "a key column was not sent (an unchanged TOASTed value)",
        hint="Put the key into the table's replica identity, or set REPLICA IDENTITY FULL.",
    )


def _row(reading: RelationMapping, cells: Cells) -> str:
    row = _certain(reading.identity, cells)
    if row is None:
        raise UnreadableValue("a column of the replica identity is NULL", hint="Look at the table's replica identity.")
    return row
