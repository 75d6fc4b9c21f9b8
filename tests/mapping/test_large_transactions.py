"""A transaction that is told in pieces tells its records what it tells them in one go, and its pieces do not overlap."""

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
from tests.mapping.test_mapper_model import MAP, TABLE, Line, Table, told_by, worlds


@pytest.fixture(scope="module", autouse=True)
def small_buckets() -> object:
    """Nearly every record in a bucket of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cdc_merge.mapping.large_transactions.BUCKET_ROWS", 1)
        yield


class InPieces:
    """A transaction mapped piece by piece, the identities remembered between the pieces as a store does."""

    def __init__(self, table: Table, piece_rows: int, *, whole_rows: bool) -> None:
        mapper = Mapper("crm", (MAP,), Plan({}, (MAP,)), whole_rows=whole_rows)
        tx = Transaction("crm", "7", 1, 4711, 1000, None, (), tuple(table.changes))
        self.remembered: dict[str, str | None] = {line.id: line.no for line in table.before.values()}
        self.clock = Stamp(0, 0, "crm")
        self.pieces: list[tuple[Change, ...]] = []
        self.carried: dict[RecordKey, str] = {}
        spool = SpillFile()
        touches = BucketSorter(spool, len(table.changes))
        for changes in in_chunks(tx.changes, piece_rows):
            wanted = mapper.identities_to_look_up(changes).get(TABLE, set())
            known = {(TABLE, i): key for i, key in self.remembered.items() if key is not None and i in wanted}
            mapped = mapper.map_changes(tx, changes, (self.clock, 1000), known, touches)
            self.clock = mapped.clock
            self.remembered.update(mapped.identities.get(TABLE, {}))
        for lineages in touches.buckets():
            told = mapper.build_changes(tx, lineages, self.clock)
            assert told.parked == ()
            self.pieces.append(told.changes)
            self.carried.update(told.carried)
        spool.close()


@settings(max_examples=800, deadline=None)
@given(worlds(), st.integers(1, 4), st.booleans())
def test_pieces_tell_what_the_whole_tells(world: tuple[str, Table], piece_rows: int, whole_rows: bool) -> None:  # noqa: FBT001
    identity, table = world
    whole = told_by(table, whole_rows=whole_rows)
    pieces = InPieces(table, piece_rows, whole_rows=whole_rows)
    told = [change for piece in pieces.pieces for change in piece]
    assert sorted(told, key=lambda c: (c.stamp, c.key)) == sorted(whole.changes, key=lambda c: (c.stamp, c.key))
    assert pieces.clock == whole.clock
    assert pieces.carried == whole.carried
    keys = [key for piece in pieces.pieces for key in {change.key for change in piece}]
    assert len(keys) == len(set(keys)), "a record is settled once"
    if identity == "by id":
        remembered = {name: key for name, key in pieces.remembered.items() if key}
        assert remembered == {line.id: line.no for line in table.rows.values()}


def test_a_row_that_moves_from_record_to_record_is_followed_over_all_of_them() -> None:
    table = Table([Line("i1", "k0", "a", "b")], "by key")
    for n in range(1, 30):
        table.update(0, no=f"k{n}")
    (piece,) = [piece for piece in InPieces(table, 4, whole_rows=False).pieces if piece]
    assert [(change.key, change.operation, change.moved_from or change.moved_to) for change in piece] == [
        ("k0", "delete", "k29"),
        ("k29", "insert", "k0"),
    ]


class Remembering:
    """As much of a store transaction as an intake needs."""

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
    ingest = SourceIngest("crm", Mapper("crm", (MAP,), Plan({}, (MAP,))), "slot", SpillFile)
    tx = Transaction("crm", "7", 1, 4711, 1000, None, (), tuple(changes))
    tx_store = cast(StoreTransaction, Remembering())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cdc_merge.worker.ingest.PIECE_ROWS", 7)
        found = list(ingest.pieces(tx, tx_store, 2000)) if large else [ingest.take(tx, tx_store, 2000)]
    assert all(taken.is_piece is large for taken in found)
    assert sum(len(taken.truncated) for taken in found) == 1
    assert ingest.position is not None
    assert ingest.position.lsn == 4711
    assert ingest.clock == Stamp(1000, len(changes) - 1, "crm")
    return [change for taken in found for change in taken.changes]


def test_a_file_of_rows_is_gone_with_its_last_reader() -> None:
    spool = RowSpill()
    spool.add(Table([], "full").changes)
    rows = spool.finish()
    assert os.fstat(rows.descriptor).st_nlink == 0
    assert os.fstat(rows.descriptor).st_mode & 0o077 == 0
    descriptor = rows.descriptor
    del rows
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_full_disk_is_said_with_the_place() -> None:
    with pytest.raises(SpillFull, match="No space left") as refused:
        _full().put(0, [b"x" * 100_000])
    assert "Make space in" in refused.value.hint


def _full() -> SpillFile:
    spool = SpillFile()
    spool._file.close()
    spool._file.descriptor = os.open("/dev/full", os.O_WRONLY)  # a disk without space
    return spool
