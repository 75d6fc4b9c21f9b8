"""Streamed values of a window are merged over the read rows, whichever of the two came first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cdc_merge.model import UNCHANGED, Column, Message, RawValue, Relation, RowChange, Transaction
from cdc_merge.sources.postgres.snapshot.watermark_window import HIGH, LOW, WATERMARK_PREFIX, Chunk, Window

COLUMNS = (Column("id", 23, "int4", is_identity=True), Column("a", 25, "text"), Column("b", 25, "text"))
TABLE = Relation(1, "public", "t", "d", COLUMNS)
OTHER = TABLE._replace(name="other")
Cells = tuple[RawValue, ...]


def change(
    operation: str, old: Cells | None, new: Cells | None, relation: Relation = TABLE, *, full: bool = False
) -> RowChange:
    return RowChange(operation, relation, old, full, new, 0)


def transaction(*changes: RowChange, says: str | None = None) -> Transaction:
    messages = (Message(WATERMARK_PREFIX, says.encode(), transactional=True),) if says else ()
    return Transaction("crm", "7", 1, 1, 1, None, messages, changes)


def chunk(*rows: Cells, hidden: frozenset[int] = frozenset()) -> Chunk:
    return Chunk(TABLE, rows, hidden, None, 0)


def seen(*transactions: Transaction, earlier: frozenset[int] = frozenset()) -> Window:
    window = Window("token", "public.t", ("id",))
    window.open(earlier)
    for each in transactions:
        window.add_transaction(each)
    return window


def rows_at_high_watermark(window: Window, *rows: Cells) -> list[Cells | None]:
    return [row.new for row in window.rows(chunk(*rows))]


READ: Cells = (b"1", b"read", b"too")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], [READ]),
        ([change("update", None, (b"1", b"x", UNCHANGED))], [(b"1", b"x", b"too")]),
        (
            [change("update", None, (b"1", b"x", UNCHANGED)), change("update", None, (b"1", UNCHANGED, b"y"))],
            [(b"1", b"x", b"y")],
        ),
        ([change("update", None, (b"1", None, None))], [(b"1", None, None)]),
        ([change("delete", (b"1", None, None), None)], []),
        (
            [change("delete", (b"1", None, None), None), change("insert", None, (b"1", b"n", None))],
            [(b"1", b"n", None)],
        ),
        ([change("update", (b"1", None, None), (b"2", b"x", b"y"))], []),
        ([change("update", None, (b"2", b"x", b"y")), change("delete", (b"3", None, None), None)], [READ]),
        ([change("delete", (b"1", None, None), None, OTHER)], [READ]),
    ],
)
def test_a_row_is_the_read_one_with_the_streamed_values_over_it(
    changes: Sequence[RowChange], expected: list[Cells]
) -> None:
    assert rows_at_high_watermark(seen(transaction(*changes)), READ) == expected
    assert rows_at_high_watermark(seen(*[transaction(each) for each in changes]), READ) == expected


def test_a_row_read_under_its_new_identity_keeps_values_streamed_under_the_old_one() -> None:
    said = change("update", None, (b"1", b"x", b"before"))
    renamed = change("update", (b"1", None, None), (b"2", UNCHANGED, b"after"))
    assert rows_at_high_watermark(seen(transaction(said), transaction(renamed)), (b"2", b"stale", b"stale")) == [
        (b"2", b"x", b"after")
    ]


def test_after_a_truncate_or_a_row_without_identity_the_chunk_is_read_again() -> None:
    assert not seen(transaction(change("update", None, READ))).must_repeat(chunk())
    assert seen(transaction(change("truncate", None, None))).must_repeat(chunk())
    assert seen(transaction(change("update", None, (UNCHANGED, b"x", b"y")))).must_repeat(chunk())


def test_a_chunk_that_did_not_see_a_transaction_before_its_window_is_read_again() -> None:
    window = seen(earlier=frozenset({5, 6}))
    assert window.must_repeat(chunk(hidden=frozenset({6, 9})))
    assert not window.must_repeat(chunk(hidden=frozenset({9})))


def test_only_its_own_marks_are_its_marks() -> None:
    window = Window("token", "public.t", ("id",))
    assert window.is_watermark(transaction(says=window.watermark(LOW)), LOW)
    assert not window.is_watermark(transaction(says=window.watermark(LOW)), HIGH)
    assert not window.is_watermark(transaction(says=Window("other", "public.t", ("id",)).watermark(LOW)), LOW)
    assert not window.is_watermark(transaction(), LOW)
