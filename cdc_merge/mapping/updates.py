"""The short way of transactions of nothing but updates with whole old rows: from cells to what rests in the history. Pure.

What is different in two rows decides what is done with them (`_Shape`), and is worked out once for all rows that differ in the same
columns. `PlainUpdates` answers None for whatever is more than that; the suite compares with the mapper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_not
from typing import Any, Final, NamedTuple, TypeAlias

from cdc_merge.bodies import NULL, Pack, array_head, packer
from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.changes import Mapper
from cdc_merge.mapping.columns import Reading
from cdc_merge.mapping.packing import PackedReader, packed_reader
from cdc_merge.mapping.values import plain_type
from cdc_merge.model import UNCHANGED, UPDATE, Relation, RowChange, UpdateRow

Row: TypeAlias = "tuple[Any, ...]"
KeyOf: TypeAlias = Callable[[Row, Row], "str | None"]

_MOST_SHAPES: Final = 1_000  # columns that change together: tables have a few dozen such sets


class _Shape(NamedTuple):
    """Rows that differ in the same columns: the fields' names, as the array of their values begins, and each column's index, field,
    packed name, and reader."""

    names: tuple[str, ...]
    head: bytes
    columns: tuple[tuple[int, str, bytes, PackedReader], ...]


class _Table:
    """A table whose rows name their records, fed into one entity. `columns`: as in _Shape, None for those that nobody reads."""

    def __init__(self, how: Reading, relation: Relation, pack: Pack) -> None:
        self.entity, self.name = how.table.entity, how.table.table
        self.width = len(relation.columns)
        self.key_of = _key_of(how, relation)
        readers = {
            index: (index, field, pack(field), packed_reader(relation.columns[index], read, pack))
            for field, index, read in how.fields
        }
        self.is_plain = len(readers) == len(how.fields)
        self._columns = [readers.get(index) for index in range(self.width)]
        self._shapes: dict[bytes, _Shape] = {}

    def shape(self, changed: bytes) -> _Shape:
        """Of rows that differ where `changed` has ones."""
        shape = self._shapes.get(changed)
        if shape is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            columns = [c for c, differs in zip(self._columns, changed, strict=True) if differs and c is not None]
            shape = self._shapes[changed] = _shape(columns)
        return shape


def _shape(columns: Sequence[tuple[int, str, bytes, PackedReader]]) -> _Shape:
    return _Shape(tuple([field for _, field, _, _ in columns]), array_head(3 * len(columns)), tuple(columns))


def _key_of(how: Reading, relation: Relation) -> KeyOf:
    """The record's key; None where it changed, or is not known."""
    if len(how.table.key) == 1 and not how.distinct:
        names = [column.name for column in relation.columns]
        at = names.index(how.table.key[0])
        if plain_type(relation.columns[at].type_oid, relation.columns[at].type_name) in ("text", "integer"):
            return lambda old, new: new[at].decode() if old[at] == new[at] and new[at].__class__ is bytes else None

    def key_of(old: Row, new: Row) -> str | None:
        key = how.key(new) if how.locating(old) == how.locating(new) else None
        return key if key.__class__ is str else None

    return key_of


class PlainUpdates:
    """`mapper`: of the reader's own. It is made in the process that needs it."""

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper
        self._pack = packer()
        self._tables: dict[int, tuple[Relation, _Table]] = {}

    def told(self, changes: Sequence[RowChange]) -> list[UpdateRow] | None:  # noqa: C901, PLR0912 - the hot path, in one piece
        """Each record's one update; None when there is anything else in it."""
        keys: set[tuple[str, str]] = set()
        rows: list[UpdateRow] = []
        known: Relation | None = None
        try:
            for tick, (operation, relation, old, is_full, new, ordinal) in enumerate(changes):
                if relation is not known:
                    table = self._table(relation)
                    if table is None:
                        return None
                    known, entity, name, width = relation, table.entity, table.name, table.width
                    key_of, shape_of = table.key_of, table.shape
                if operation != UPDATE or not is_full or old is None or new is None:
                    return None
                if len(old) != width or len(new) != width:
                    return None
                key = key_of(old, new)
                if key is None or (entity, key) in keys:
                    return None
                keys.add((entity, key))
                # The reader's decoder makes equal cells one object: only what has changed comes out of this.
                names, head, columns = shape_of(bytes(map(is_not, old, new)))
                items = [head]
                for index, _, packed_name, packed in columns:
                    before, after = old[index], new[index]
                    if before is UNCHANGED or after is UNCHANGED:
                        break
                    was = NULL if before is None else packed(before)
                    value = NULL if after is None else packed(after)
                    if was == value:
                        break
                    items += (packed_name, was, value)
                else:
                    if columns:
                        rows.append((entity, key, name, tick, ordinal, names, b"".join(items)))
                    continue
                row = _apart(columns, old, new)
                if row is not None:
                    rows.append((entity, key, name, tick, ordinal, *row))
        except (UnreadableValue, ValueError):
            return None
        return rows

    def _table(self, relation: Relation) -> _Table | None:
        known = self._tables.get(relation.oid)
        if known is not None and known[0] is relation and not self._mapper.has_news:
            return known[1]
        readings = self._mapper.readings(relation)
        if len(readings) != 1 or self._mapper.has_news:
            return None
        how = readings[0]
        if how.looked_up or how.distinct or how.actor is not None or self._mapper.whole_rows:
            return None
        table = _Table(how, relation, self._pack)
        if not table.is_plain:
            return None
        self._tables[relation.oid] = relation, table
        return table


def _apart(
    columns: Sequence[tuple[int, str, bytes, PackedReader]], old: Row, new: Row
) -> tuple[tuple[str, ...], bytes] | None:
    """The same for rows of which some different cells say the same, or were not sent."""
    names: list[str] = []
    items: list[bytes] = []
    for index, field, packed_name, packed in columns:
        before, after = old[index], new[index]
        if before is UNCHANGED or after is UNCHANGED:
            continue
        was = NULL if before is None else packed(before)
        value = NULL if after is None else packed(after)
        if was != value:
            names.append(field)
            items += (packed_name, was, value)
    return (tuple(names), b"".join((array_head(len(items)), *items))) if names else None
