"""Updates that nobody has read go into the log as if somebody had (ports.StoreTransaction.append_updates)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgpack
import pytest

from cdc_merge.bodies import array_head, packer, update_of
from cdc_merge.model import Change, RecordKey, UpdateRow, Updates
from cdc_merge.ports import Store
from tests.contracts.store_subjects import SUBJECTS

A, B = RecordKey("customer", "A"), RecordKey("customer", "B")
WALL_US = 1_790_000_000_000_000


@pytest.fixture(params=SUBJECTS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = SUBJECTS[request.param](tmp_path)()
    opened.claim("tests")
    yield opened
    opened.close()


def row(record: RecordKey, tick: int, **fields: tuple[object, object]) -> UpdateRow:
    pack = packer()
    items = [pack(each) for name, (before, after) in fields.items() for each in (name, before, after)]
    return (*record, "public.customer", tick, tick, tuple(fields), b"".join((array_head(len(items)), *items)))


def updates(lsn: int, *rows: UpdateRow, wall_us: int = WALL_US, first: int = 0) -> Updates:
    return Updates("crm", "7", 1, lsn, wall_us, first, rows)


def read(*told: Updates) -> list[Change]:
    return [update_of(each, row) for each in told for row in each.rows]


@pytest.mark.parametrize("first", [0, 9_999, 70_000])
def test_they_come_back_as_the_changes_that_they_are(store: Store, first: int) -> None:
    told = updates(
        5, row(A, 0, price=(Decimal("1.5"), None), seats=(3, 2**63)), row(B, 1, phone=("1", "2" * 300)), first=first
    )
    with store.transaction() as tx:
        assert tx.append_updates([told]) == set()
        assert tx.histories([A])[A] == read(told)[:1], "its own transaction sees them"
    assert [*store.history(A), *store.history(B)] == read(told)
    assert store.history(A)[0].stamp.counter == first
    assert store.figures().history_changes == 2


def test_one_delivered_again_is_dropped_and_its_record_named(store: Store) -> None:
    first, second = updates(5, row(A, 0, phone=("1", "2"))), updates(6, row(B, 0, phone=("1", "2")))
    with store.transaction() as tx:
        tx.append_updates([first])
    with store.transaction() as tx:
        assert tx.append_updates([first, second]) == {A}
    assert [*store.history(A), *store.history(B)] == read(first, second)


def test_they_and_changes_that_were_read_are_one_log(store: Store) -> None:
    told = [updates(lsn, row(A, 0, phone=("1", str(lsn))), wall_us=WALL_US + lsn) for lsn in (5, 6, 7)]
    with store.transaction() as tx:
        tx.append_updates(told[:1])
        tx.append(read(told[1]))
    with store.transaction() as tx:
        tx.append_updates(told[2:])
        assert tx.append(read(*told)) == {A}
    assert store.history(A) == read(*told)


def test_the_body_of_one_is_what_packing_its_change_makes(store: Store) -> None:
    """Other readers of the log see no difference."""
    told = updates(5, row(A, 3, phone=("1", None)))
    with store.transaction() as tx:
        tx.append_updates([told])
    (change,) = store.history(A)
    assert change.fields == {"phone": ("1", None)}
    assert (change.actor, change.copy, change.identity, change.moved_to, change.moved_from) == (None,) * 5
    assert change.committed_us == change.stamp.wall_us == WALL_US
    assert msgpack.unpackb(told.rows[0][6]) == ["phone", "1", None]
