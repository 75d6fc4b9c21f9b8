"""What is asked for next, and what an answer means."""

from __future__ import annotations

import pytest

from cdc_merge.errors import NotFound, SourceRefused
from cdc_merge.model import ChunkRead, Relation, RowChange, Stamp
from cdc_merge.model.plan import TableMap
from cdc_merge.model.source_commands import MISSING, ROWS, ChunkRequest
from cdc_merge.values.keys import key_parts, key_text
from cdc_merge.worker.resync import ResyncQueue, Scan

CLOCK = Stamp(9, 0, "crm")
ROW = RowChange("snapshot", Relation(1, "public", "a", "d", ()), None, False, (), 0)  # noqa: FBT003 - a tuple's field
TABLES = {
    "public.a": [TableMap("crm", "one", "public.a", ("k",), {}), TableMap("crm", "two", "public.a", ("x", "y"), {})],
    "public.b": [TableMap("crm", "three", "public.b", ("k",), {})],
}


def resyncs(table: str | None = None, key: str | None = None) -> ResyncQueue:
    found = ResyncQueue("crm", TABLES)
    found.enqueue(table, key, CLOCK, 1)
    return found


def answer(
    it: ResyncQueue, *, rows: int = 1, reached: tuple[str, ...] | None = None, gone: int = 0, problem: str = ""
) -> None:
    wanted = it.next_request()
    assert wanted is not None
    read = ChunkRead("crm", "7", 1, 1, 1, wanted.number, (ROW,) * rows, reached, rows, problem)
    resync = it.matching(read)
    assert resync is not None
    it.advance(resync, read, gone)


def test_a_table_is_requested_chunk_by_chunk_then_its_entities_are_scanned_then_the_next_table() -> None:
    it = resyncs()
    assert it.next_request() == ChunkRequest(1, "public.a")
    answer(it, reached=("7",))
    assert it.next_request() == ChunkRequest(2, "public.a", ("7",))
    answer(it)
    assert it.next_request() is None
    assert it.next_scan() == Scan("one", None, CLOCK)
    it.finish_scan(["A", "B"], "M")
    assert it.next_scan() is None
    assert it.next_request() == ChunkRequest(3, "public.a", None, ("k",), (("A",), ("B",)))
    answer(it, gone=1)
    assert it.next_scan() == Scan("one", "M", CLOCK)
    it.finish_scan([], None)
    assert it.next_scan() == Scan("two", None, CLOCK)
    it.finish_scan(["p%2C,q", "made by an earlier mapping"], None)
    assert it.next_request() == ChunkRequest(4, "public.a", None, ("x", "y"), (("p,", "q"),))
    answer(it)
    assert it.next_request() == ChunkRequest(5, "public.b")


def test_an_answer_counts_once_and_an_old_one_not_at_all() -> None:
    it = resyncs("public.b")
    read = ChunkRead("crm", "7", 1, 1, 1, 1, (), ("5",))
    resync = it.matching(read)
    assert resync is not None
    it.advance(resync, read, 0)
    assert it.matching(read) is None
    assert it.orders.resyncs[0].after == ("5",)


def test_what_is_on_disk_is_enough_to_go_on() -> None:
    it = resyncs("public.b")
    answer(it, reached=("7",))
    after = ResyncQueue("crm", TABLES)
    after.resume(it.orders)
    assert after.next_request() == it.next_request() == ChunkRequest(2, "public.b", ("7",))


def test_a_failure_stays_to_be_seen_and_the_next_table_goes_on() -> None:
    it = resyncs()
    answer(it, problem="permission denied")
    assert [(each.table, each.phase, each.problem) for each in it.orders.resyncs] == [
        ("public.a", "failed", "permission denied"),
        ("public.b", ROWS, ""),
    ]
    assert it.next_request() == ChunkRequest(2, "public.b")
    it.enqueue("public.a", None, CLOCK, 2)
    assert [(each.table, each.phase) for each in it.orders.resyncs] == [("public.b", ROWS), ("public.a", ROWS)]


def test_a_table_that_is_being_read_again_is_not_begun_twice() -> None:
    it = resyncs("public.b")
    answer(it, reached=("7",))
    it.enqueue(None, None, CLOCK, 2)
    assert [(each.table, each.after) for each in it.orders.resyncs] == [("public.b", ("7",)), ("public.a", None)]


def test_one_record_is_requested_in_each_entity_of_its_table() -> None:
    it = resyncs("public.b", "K")
    assert it.next_request() == ChunkRequest(1, "public.b", None, ("k",), (("K",),))
    answer(it)
    assert it.orders.resyncs == ()
    with pytest.raises(SourceRefused, match="2 columns"):
        resyncs("public.a", "only one part")
    with pytest.raises(NotFound, match="no mapped table"):
        resyncs("public.c")


def test_nothing_is_read_again_while_a_copy_is_taken_or_the_source_rests() -> None:
    it = resyncs("public.b")
    it.is_suspended = True
    assert (it.next_request(), it.next_scan()) == (None, None)
    it.is_suspended = False
    it.replace_orders(it.orders._replace(paused=True))
    assert it.next_request() is None


def test_after_a_lost_position_every_table_is_only_scanned() -> None:
    it = resyncs("public.b")
    it.restart_after_loss(CLOCK, 3, "slot_lost")
    assert [(each.table, each.phase, each.cause) for each in it.orders.resyncs] == [
        ("public.a", MISSING, "slot_lost"),
        ("public.b", MISSING, "slot_lost"),
    ]


def test_an_interrupted_snapshot_is_incomplete_until_its_rows_are_read() -> None:
    it = ResyncQueue("crm", TABLES)
    it.enqueue_interrupted(["public.a"], CLOCK, 1)
    assert it.incomplete_entities == {"one", "two"}
    answer(it)
    assert it.incomplete_entities == frozenset()


@pytest.mark.parametrize("parts", [("a",), ("a", "b"), ("a,b", "c%", "é 王"), ("", "x")])
def test_the_parts_of_a_key_come_back_from_its_text(parts: tuple[str, ...]) -> None:
    assert key_parts(key_text(parts), len(parts)) == parts
