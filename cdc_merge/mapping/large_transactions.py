"""A transaction with more rows than fit into memory, told record by record all the same (semantics §1).

Its touches are read once, in order, and laid aside in buckets by record, so that all of one record are in one bucket;
then bucket after bucket is told as a small transaction is. Records between which a row moved belong together: they go to
one bucket, however many they are.

Memory: one bucket's records (some thousand), and a few words for each row that changed its key or identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

from cdc_merge.mapping.coalesce import Coalescer, LocatedChange, RowTransition
from cdc_merge.mapping.key_resolution import Located
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import Relation, RowChange, Stamp
from cdc_merge.model.ports import SpillSpace

LARGE_ROWS: Final = 16_000
"""A transaction of more rows is told in pieces: twice what a batch takes, since each record may cost 10 kB."""

BUCKET_ROWS: Final = 4_000
MAX_BUCKETS: Final = 1_024  # with a piece of rows in memory, a bucket's list is still some rows long

_Laid = tuple[Any, ...]  # a touch as plain values: what it is about by numbers, then its row, stamp and places


class KeyGroups:
    """Which records belong together, as numbers: the smallest of a group stands for it."""

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
    """Takes the touches of one large transaction of about `rows` rows (a `lineage.ChangeSink` that tells nothing), and gives
    them back as Lineages, one bucket after the other. `flush` now and then: what was taken is in memory until then."""

    def __init__(self, scratch: SpillSpace, rows: int) -> None:
        self._scratch = scratch
        self._buckets = min(MAX_BUCKETS, rows // BUCKET_ROWS + 1)
        self._taken: dict[int, list[_Laid]] = {}
        self._count = 0
        self._numbers: dict[tuple[int, int], int] = {}
        self._meant: list[tuple[RelationMapping, Relation]] = []
        self._links = KeyGroups()
        self._void: dict[str, int] = {}

    # ---------------------------------------------------------------- taking

    def add(self, touch: LocatedChange) -> None:
        mapping, change, stamp, at = touch
        entity, before, after = mapping.table.entity, at.before, at.after
        record = _number(entity, after if before is None else before)
        if before is not None and after is not None and before != after:
            self._links.join(record, _number(entity, after))
        row = (change.operation, change.old, change.old_is_full, change.new, change.ordinal)
        laid = (self._count, record, self._meaning(mapping, change.relation), row, stamp[:], at[:])
        self._count += 1
        self._taken.setdefault(record % self._buckets, []).append(laid)

    def forget(self, label: str) -> None:
        """A truncate: what this table's rows did before it has no effect."""
        self._void[label] = self._count

    def single(self) -> Iterator[LocatedChange]:
        return iter(())

    def followed(self) -> list[RowTransition]:
        return []

    def flush(self) -> None:
        for bucket, laid in self._taken.items():
            self._scratch.put(bucket, laid)
        self._taken = {}

    def _meaning(self, mapping: RelationMapping, relation: Relation) -> int:
        """How the row is read, as a number."""
        number = self._numbers.get((id(mapping), id(relation)))
        if number is None:
            number = self._numbers[id(mapping), id(relation)] = len(self._meant)
            self._meant.append((mapping, relation))
        return number

    # ---------------------------------------------------------------- giving back

    def buckets(self) -> Iterator[Coalescer]:
        """Everything that was taken; each record is in one of them, with those that it is linked to."""
        self.flush()
        for bucket in range(self._buckets):
            lineages = Coalescer()
            for laid in self._laid(bucket):
                if laid[1] in self._links:
                    linked = self._buckets + self._links.group(laid[1]) % self._buckets
                    self._taken.setdefault(linked, []).append(laid)
                else:
                    lineages.add(self._touch(laid))
            self.flush()
            yield lineages
        for bucket in range(self._buckets, 2 * self._buckets if self._links else 0):
            lineages = Coalescer()
            for laid in sorted(self._laid(bucket), key=itemgetter(0)):
                lineages.add(self._touch(laid))
            yield lineages

    def _laid(self, bucket: int) -> Iterator[_Laid]:
        for piece in self._scratch.read(bucket):
            for laid in piece:
                if laid[0] >= self._void.get(self._meant[laid[2]][0].label, 0):
                    yield laid

    def _touch(self, laid: _Laid) -> LocatedChange:
        _, _, meaning, (operation, old, old_is_full, new, ordinal), stamp, at = laid
        mapping, relation = self._meant[meaning]
        return LocatedChange(
            mapping, RowChange(operation, relation, old, old_is_full, new, ordinal), Stamp(*stamp), Located(*at)
        )


def _number(entity: str, key: str | None) -> int:
    """A record as a number; two records of one number are merely taken together."""
    return crc32(f"{entity}\0{key}".encode())


def in_pieces(changes: Iterable[RowChange], size: int) -> Iterator[list[RowChange]]:
    chunk: list[RowChange] = []
    for change in changes:
        chunk.append(change)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
