"""A transaction mapped bucket by bucket gives the changes that it gives as a whole, and its buckets do not overlap."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_merge.mapping.large_transactions import BucketSorter, in_chunks
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import Change, RecordKey, RowChange, Stamp, Transaction
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.sources.spill import RowSpill, SpillFile, SpillFull
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.limits import Limits
from tests.mapping.naive_table import MAP, TABLE, Line, Table, map_table, worlds

BUCKET_ROWS = 1  # nearly every record in a bucket of its own


class InBuckets:
    """A transaction mapped in chunks and built bucket by bucket, identities remembered between the chunks as in a store."""

    def __init__(self, table: Table, chunk_rows: int, *, whole_rows: bool) -> None:
        mapper = Mapper("crm", (MAP,), Plan({}, (MAP,)), whole_rows=whole_rows)
        tx = Transaction("crm", "7", 1, 4711, 1000, None, (), tuple(table.changes))
        self.remembered: dict[str, str | None] = {line.id: line.no for line in table.before.values()}
        self.clock = Stamp(0, 0, "crm")
        self.buckets: list[tuple[Change, ...]] = []
        self.previous_keys: dict[RecordKey, str] = {}
        spill = SpillFile()
        sorter = BucketSorter(spill, len(table.changes), BUCKET_ROWS)
        for changes in in_chunks(tx.changes, chunk_rows):
            wanted = mapper.identities_to_look_up(changes).get(TABLE, set())
            known = {(TABLE, i): key for i, key in self.remembered.items() if key is not None and i in wanted}
            mapped = mapper.map_changes(tx, changes, (self.clock, 1000), known, sorter)
            self.clock = mapped.clock
            self.remembered.update(mapped.identities.get(TABLE, {}))
        for coalescer in sorter.buckets():
            built = mapper.build_changes(tx, coalescer, self.clock)
            assert built.parked == ()
            self.buckets.append(built.changes)
            self.previous_keys.update(built.previous_keys)
        spill.close()


@settings(max_examples=800, deadline=None)
@given(worlds(), st.integers(1, 4), st.booleans())
def test_the_buckets_of_a_transaction_give_the_changes_of_the_whole(
    world: tuple[str, Table], chunk_rows: int, whole_rows: bool
) -> None:  # noqa: FBT001
    identity, table = world
    whole = map_table(table, whole_rows=whole_rows)
    buckets = InBuckets(table, chunk_rows, whole_rows=whole_rows)
    built = [change for bucket in buckets.buckets for change in bucket]
    assert sorted(built, key=lambda c: (c.stamp, c.key)) == sorted(whole.changes, key=lambda c: (c.stamp, c.key))
    assert buckets.clock == whole.clock
    assert buckets.previous_keys == whole.previous_keys
    keys = [key for bucket in buckets.buckets for key in {change.key for change in bucket}]
    assert len(keys) == len(set(keys)), "a record is settled once"
    if identity == "by id":
        remembered = {name: key for name, key in buckets.remembered.items() if key}
        assert remembered == {line.id: line.no for line in table.rows.values()}


def test_a_row_that_moves_from_record_to_record_is_followed_over_all_of_them() -> None:
    table = Table([Line("i1", "k0", "a", "b")], "by key")
    for n in range(1, 30):
        table.update(0, no=f"k{n}")
    (bucket,) = [bucket for bucket in InBuckets(table, 4, whole_rows=False).buckets if bucket]
    assert [(change.key, change.operation, change.moved_from or change.moved_to) for change in bucket] == [
        ("k0", "delete", "k29"),
        ("k29", "insert", "k0"),
    ]


class Remembering:
    """The part of a store transaction that SourceIngest needs."""

    def __init__(self) -> None:
        self.identities: dict[str, str | None] = {}

    def keys_of(self, source: str, table: str, identities: set[str]) -> Mapping[str, str]:
        return {i: key for i in identities if (key := self.identities.get(i)) is not None}

    def save_identities(self, source: str, table: str, changes: Mapping[str, str | None]) -> None:
        self.identities.update(changes)


def test_a_truncate_in_the_middle_voids_what_its_table_did_before_it() -> None:
    table = Table([], "by id")
    for n in range(20):
        table.insert(str(n), "a")
    for number in sorted(table.rows)[:10]:
        table.update(number, phone="b")
    relation = table.relation
    changes = [*table.changes, RowChange("truncate", relation, None, False, None, len(table.changes))]
    table.changes = []
    table.insert("again", "a")
    again = table.changes[0]._replace(ordinal=len(changes))
    whole = _taken([*changes, again], large=False)
    assert [change.key for change in whole] == ["again"]
    assert _taken([*changes, again], large=True) == whole


def _taken(changes: list[RowChange], *, large: bool) -> list[Change]:
    limits = Limits(piece_rows=7, bucket_rows=BUCKET_ROWS)
    ingest = SourceIngest("crm", Mapper("crm", (MAP,), Plan({}, (MAP,))), "slot", SpillFile, limits)
    tx = Transaction("crm", "7", 1, 4711, 1000, None, (), tuple(changes))
    tx_store = cast(StoreTransaction, Remembering())
    results = list(ingest.pieces(tx, tx_store, 2000)) if large else [ingest.take(tx, tx_store, 2000)]
    assert all(result.is_piece is large for result in results)
    assert sum(len(result.truncated) for result in results) == 1
    assert ingest.position is not None
    assert ingest.position.lsn == 4711
    assert ingest.clock == Stamp(1000, len(changes) - 1, "crm")
    return [change for result in results for change in result.changes]


def test_a_spill_file_disappears_with_its_last_reader() -> None:
    spill = RowSpill()
    spill.add(Table([], "full").changes)
    rows = spill.finish()
    assert os.fstat(rows.descriptor).st_nlink == 0
    assert os.fstat(rows.descriptor).st_mode & 0o077 == 0
    descriptor = rows.descriptor
    del rows
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_full_disk_is_reported_with_the_directory() -> None:
    with pytest.raises(SpillFull, match="No space left") as refused:
        _full().put(0, [b"x" * 100_000])
    assert "Make space in" in refused.value.hint


def _full() -> SpillFile:
    spill = SpillFile()
    spill._file.close()
    spill._file.descriptor = os.open("/dev/full", os.O_WRONLY)  # a disk without space
    return spill
