"""External sort: a transaction with more rows than fit into memory, coalesced record by record (semantics §1).

Its keyed changes are written once, in order, into buckets by record, so that one bucket has all changes of a record; each
bucket is then coalesced like a small transaction. Records between which a row moved form a group: all of a group go to one
bucket.

Memory: one bucket's records (some thousand), and a few words for each row that changed its key or identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

from cdc_merge.mapping.coalesce import Coalescer, KeyedChange, RowTransition
from cdc_merge.mapping.key_resolution import RowKeys
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import Relation, RowChange, Stamp
from cdc_merge.model.ports import SpillSpace

BUCKET_ROWS: Final = 4_000
MAX_BUCKETS: Final = 1_024  # a chunk of rows over so many buckets still makes lists of some rows

_SortedRow = tuple[Any, ...]  # a keyed change as plain values: sequence, record and mapping number, row, stamp, keys


class KeyGroups:
    """Union-find over record numbers; a group is represented by its smallest number."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._parents)

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.group(one), self.group(other)))
        self._parents.setdefault(first, first)
        self._parents[second] = first

    def group(self, number: int) -> int:
        """The group's number; the record's own when it is in none."""
        parents = self._parents
        while (parent := parents.get(number, number)) != number:
            parents[number] = parents.get(parent, parent)
            number = parent
        return number

    def __contains__(self, number: int) -> bool:
        return number in self._parents


class BucketSorter:
    """Sorts the keyed changes of one large transaction of about `rows` rows into buckets: a `ChangeSink` that gives no changes
    itself; `buckets` gives a Coalescer for each. Call `flush` now and then: changes stay in memory until then."""

    def __init__(self, spill: SpillSpace, rows: int, bucket_rows: int = BUCKET_ROWS) -> None:
        self._spill = spill
        self._buckets = min(MAX_BUCKETS, rows // bucket_rows + 1)
        self._buffered: dict[int, list[_SortedRow]] = {}
        self._count = 0
        self._numbers: dict[tuple[int, int], int] = {}
        self._mappings: list[tuple[RelationMapping, Relation]] = []
        self._groups = KeyGroups()
        self._truncated_before: dict[str, int] = {}

    # ---------------------------------------------------------------- writing

    def add(self, keyed: KeyedChange) -> None:
        mapping, change, stamp, keys = keyed
        entity, before, after = mapping.table.entity, keys.key_before, keys.key_after
        record = _number(entity, after if before is None else before)
        if before is not None and after is not None and before != after:
            self._groups.join(record, _number(entity, after))
        values = (change.operation, change.old, change.old_is_full, change.new, change.ordinal)
        row = (self._count, record, self._mapping_number(mapping, change.relation), values, stamp[:], keys[:])
        self._count += 1
        self._buffered.setdefault(record % self._buckets, []).append(row)

    def drop_table(self, label: str) -> None:
        """A truncate: earlier changes of this table in the transaction have no effect."""
        self._truncated_before[label] = self._count

    def single_changes(self) -> Iterator[KeyedChange]:
        return iter(())

    def transitions(self) -> list[RowTransition]:
        return []

    def flush(self) -> None:
        for bucket, rows in self._buffered.items():
            self._spill.put(bucket, rows)
        self._buffered = {}

    def _mapping_number(self, mapping: RelationMapping, relation: Relation) -> int:
        """The number of a mapping with the relation that its rows have."""
        number = self._numbers.get((id(mapping), id(relation)))
        if number is None:
            number = self._numbers[id(mapping), id(relation)] = len(self._mappings)
            self._mappings.append((mapping, relation))
        return number

    # ---------------------------------------------------------------- reading

    def buckets(self) -> Iterator[Coalescer]:
        """All changes, coalesced; each record is in one bucket, together with its group."""
        self.flush()
        for bucket in range(self._buckets):
            coalescer = Coalescer()
            for row in self._rows_of(bucket):
                if row[1] in self._groups:
                    group_bucket = self._buckets + self._groups.group(row[1]) % self._buckets
                    self._buffered.setdefault(group_bucket, []).append(row)
                else:
                    coalescer.add(self._restored(row))
            self.flush()
            yield coalescer
        for bucket in range(self._buckets, 2 * self._buckets if self._groups else 0):
            coalescer = Coalescer()
            for row in sorted(self._rows_of(bucket), key=itemgetter(0)):
                coalescer.add(self._restored(row))
            yield coalescer

    def _rows_of(self, bucket: int) -> Iterator[_SortedRow]:
        for block in self._spill.read(bucket):
            for row in block:
                if row[0] >= self._truncated_before.get(self._mappings[row[2]][0].label, 0):
                    yield row

    def _restored(self, row: _SortedRow) -> KeyedChange:
        _, _, number, (operation, old, old_is_full, new, ordinal), stamp, keys = row
        mapping, relation = self._mappings[number]
        return KeyedChange(
            mapping, RowChange(operation, relation, old, old_is_full, new, ordinal), Stamp(*stamp), RowKeys(*keys)
        )


def _number(entity: str, key: str | None) -> int:
    """A record as a number; two records with one number are merely coalesced together."""
    return crc32(f"{entity}\0{key}".encode())


def in_chunks(changes: Iterable[RowChange], size: int) -> Iterator[list[RowChange]]:
    """The changes in lists of `size`, the last one shorter."""
    chunk: list[RowChange] = []
    for change in changes:
        chunk.append(change)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
