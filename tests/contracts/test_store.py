"""The contract of every store (ports.Store, ports.StoreTransaction), run against each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from cdc_merge.errors import NotFound, StoreUnavailable
from cdc_merge.model import (
    DELETE,
    INSERT,
    UNKNOWN,
    UPDATE,
    Candidate,
    Change,
    Checkpoint,
    Conflict,
    Copy,
    DetectedConflict,
    Place,
    Position,
    RecordKey,
    Stamp,
)
from cdc_merge.model.ports import Store, StoreTransaction
from cdc_merge.model.source_commands import NO_ORDERS, Resync, SourceOrders
from tests.contracts.store_subjects import Opening

A = RecordKey("customer", "A")
B = RecordKey("customer", "B")


def change(record: RecordKey, wall_us: int, source: str = "crm", *, lsn: int | None = None, counter: int = 0) -> Change:
    stamp = Stamp(wall_us, counter, source)
    place = Place(f"system of {source}", 1, wall_us if lsn is None else lsn, "public.customer", 0)
    return Change(*record, stamp, place, UPDATE, {"phone": ("1", str(wall_us))}, "wang", committed_us=wall_us)


def conflict(conflict_id: str, record: RecordKey = A, **differences: Any) -> Conflict:
    place = Place("7", 1, 100, "public.customer", 0)
    candidates = tuple(Candidate(source, source, Stamp(5, 0, source), 5, None, place) for source in ("crm", "erp"))
    detected = DetectedConflict(*record, "phone", None, "concurrent_update", "high", candidates)
    detected_fields = {
        name: value for name, value in differences.items() if name in DetectedConflict.__dataclass_fields__
    }
    conflict_fields = {name: value for name, value in differences.items() if name not in detected_fields}
    return replace(Conflict(conflict_id, replace(detected, **detected_fields), "open", 1, 1000), **conflict_fields)


def append(store: Store, *changes: Change) -> None:
    with store.transaction() as batch:
        batch.append(changes)


def histories(store: Store, *records: RecordKey) -> dict[RecordKey, list[Change]]:
    with store.transaction() as batch:
        return dict(batch.histories(records))


class Interrupted(Exception):
    """The batch does not reach its end."""


def interrupted(store: Store, work: Callable[[StoreTransaction], object]) -> None:
    with store.transaction() as batch:
        work(batch)
        raise Interrupted


# ---------------------------------------------------------------- what is judged, what is missing


def test_the_progress_of_evaluation_is_saved_by_entity(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_evaluated("customer", "one", "A")
        batch.save_evaluated("order", "one", None)
    with store.transaction() as batch:
        batch.save_evaluated("customer", "two", "B")
    assert store.evaluated() == {"customer": ("two", "B"), "order": ("one", None)}


def test_what_is_missing_is_listed_by_record_and_source_and_counted(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_missing({A: {"crm": 1, "erp": 2}, B: {"erp": 3}})
        assert batch.missing_of([A, RecordKey("customer", "none")]) == {A: {"crm": 1, "erp": 2}}
    listed = [(each.key, each.source, each.since_us) for each in store.missing(("customer", None), None, 10)]
    assert listed == [(A.key, "crm", 1), (A.key, "erp", 2), (B.key, "erp", 3)]
    assert [each.key for each in store.missing(("customer", "erp"), A.key, 10)] == [B.key]
    assert len(store.missing(("customer", None), None, 1)) == 2, "all sources of one record stay together"
    assert store.figures().missing == {("customer", "crm"): 1, ("customer", "erp"): 2}
    with store.transaction() as batch:
        batch.save_missing({A: {}})
    assert [each.key for each in store.missing(("customer", None), None, 10)] == [B.key]
    with store.transaction() as batch:
        batch.forget_missing("customer")
    assert store.missing(("customer", None), None, 10) == []


# ---------------------------------------------------------------- history


def test_an_unknown_record_has_an_empty_history(store: Store) -> None:
    assert store.history(A) == []
    assert histories(store, A, B) == {A: [], B: []}


def test_a_change_comes_back_as_it_went_in(store: Store) -> None:
    written = change(A, 7)._replace(
        operation=DELETE, copy=Copy("erp", (Place("7", 2, 3, "t", 4),)), identity="(1)", moved_to="B", committed_us=9
    )
    append(store, written)
    assert store.history(A) == [written]
    assert histories(store, A) == {A: [written]}


def test_history_is_in_stamp_order_whatever_the_order_of_arrival(store: Store) -> None:
    ordered = [
        change(A, 1, "crm"),
        change(A, 2, "crm", lsn=5, counter=0),
        change(A, 2, "erp", lsn=5, counter=0),
        change(A, 2, "crm", lsn=6, counter=1),
        change(A, 3, "a"),
    ]
    for number, arrival in enumerate(permutations(ordered)):
        record = RecordKey("customer", str(number))
        append(store, *(each._replace(key=record.key, place=each.place._replace(ordinal=number)) for each in arrival))
        assert [each.stamp for each in store.history(record)] == [each.stamp for each in ordered]


def test_a_transaction_sees_what_it_has_appended_itself(store: Store) -> None:
    append(store, change(A, 1))
    with store.transaction() as batch:
        batch.append([change(A, 2), change(B, 3)])
        batch.append([change(A, 4)])
        found = batch.histories([A, B])
        assert [each.stamp.wall_us for each in found[A]] == [1, 2, 4]
        assert [each.stamp.wall_us for each in found[B]] == [3]


def test_a_place_delivered_again_is_dropped_and_its_record_named(store: Store) -> None:
    append(store, change(A, 1), change(A, 2), change(B, 3))
    with store.transaction() as batch:
        assert batch.append([change(A, 1), change(A, 2), change(A, 4), change(A, 4), change(B, 5)]) == {A}
        assert batch.append([change(A, 6), change(B, 3)]) == {B}
        assert batch.append([change(A, 7)]) == set()
    assert [each.stamp.wall_us for each in store.history(A)] == [1, 2, 4, 6, 7]
    assert [each.stamp.wall_us for each in store.history(B)] == [3, 5]
    assert store.figures().history_changes == 7


@pytest.mark.parametrize("arrival", list(permutations([30, 10, 20])))
@pytest.mark.parametrize("together", [True, False])
def test_of_two_stamps_for_one_place_the_smaller_stays(store: Store, arrival: tuple[int, ...], together: bool) -> None:
    versions = [change(A, wall_us, lsn=5) for wall_us in arrival]
    for batch in [versions] if together else [[version] for version in versions]:
        append(store, *batch)
    assert store.history(A) == [change(A, 10, lsn=5)]
    assert store.figures().history_changes == 1


def test_a_place_delivered_again_with_the_same_stamp_keeps_what_was_stored_first(store: Store) -> None:
    append(store, change(A, 1))
    append(store, change(A, 1)._replace(actor="etl"))
    assert [each.actor for each in store.history(A)] == ["wang"]


def test_of_equal_clocks_for_one_place_the_smaller_source_stays(store: Store) -> None:
    place = Place("7", 1, 5, "t", 0)
    append(store, change(A, 1, "erp")._replace(place=place))
    append(store, change(A, 1, "crm")._replace(place=place))
    assert [each.stamp.source for each in store.history(A)] == ["crm"]


def test_one_place_in_two_records_is_two_changes(store: Store) -> None:
    append(store, change(A, 1), change(B, 1))
    append(store, change(B, 1), change(A, 1))
    assert len(store.history(A)) == len(store.history(B)) == 1


@pytest.mark.parametrize("part", ["system", "timeline", "lsn", "table", "ordinal"])
def test_places_that_differ_in_one_part_are_two_changes(store: Store, part: str) -> None:
    first = change(A, 1)
    smaller: Any = {"system": "", "timeline": 0, "lsn": 0, "table": "", "ordinal": -1}[part]
    append(store, first)
    append(store, first._replace(stamp=Stamp(2, 0, "crm"), place=first.place._replace(**{part: smaller})))
    assert len(store.history(A)) == 2


def test_places_that_arrive_in_no_order_are_all_kept_once(store: Store) -> None:
    lsns = [5, 3, 9, 1, 3, 5, 7, 1, 2**64 - 1, 2**63, 2**63 - 1, 2**63, 0]
    append(store, *(change(A, 100 + lsn % 50, lsn=lsn) for lsn in lsns[:6]))
    append(store, *(change(A, 100 + lsn % 50, lsn=lsn) for lsn in lsns[6:]))
    assert sorted(each.place.lsn for each in store.history(A)) == sorted(set(lsns))


@pytest.mark.parametrize("key", ["", "a,b", "%", "a\x00b", "客户", "😀", "' OR 1=1", "x" * 5000])
def test_any_text_is_a_key(store: Store, key: str) -> None:
    record = RecordKey("customer", key)
    append(store, change(record, 1), change(RecordKey("customer", key + "\x00"), 2))
    with store.transaction() as batch:
        batch.save_identities("crm", "t", {key: key})
        assert batch.keys_of("crm", "t", [key, key + "\x00"]) == {key: key}
    assert [each.stamp.wall_us for each in store.history(record)] == [1]


def test_stamps_of_returns_a_records_stamps_by_place(store: Store) -> None:
    old, new, other = change(A, 1, lsn=5), change(A, 9, lsn=6), change(B, 3, lsn=7)
    append(store, old, other)
    with store.transaction() as batch:
        batch.append([new])
        nowhere = old.place._replace(lsn=4)
        foreign = old.place._replace(system="none")
        places = [new.place, nowhere, old.place, other.place, foreign]
        assert list(batch.stamps_of(A, places)) == [new.stamp, old.stamp]
        assert list(batch.stamps_of(RecordKey("customer", "none"), [old.place])) == []


def test_ten_thousand_changes_are_one_batch(store: Store) -> None:
    records = [RecordKey("customer", f"C{number}") for number in range(1000)]
    append(store, *(change(records[number % 1000], number) for number in range(10_000)))
    found = histories(store, *records)
    assert sum(map(len, found.values())) == store.figures().history_changes == 10_000
    assert [each.stamp.wall_us for each in found[records[7]]] == list(range(7, 10_000, 1000))


def test_records_are_listed_page_by_page_each_once(store: Store) -> None:
    keys = [f"{number}" for number in range(25)]
    append(store, *(change(RecordKey("customer", key), number) for number, key in enumerate(keys)))
    append(store, change(RecordKey("order", "other"), 99))
    listed: list[str] = []
    while page := store.records("customer", listed[-1] if listed else None, 10):
        assert len(page) <= 10
        listed += page
    assert sorted(listed) == sorted(keys)
    assert store.records("nothing", None, 10) == []


# ---------------------------------------------------------------- bases


def base(wall_us: int, number: int = 1) -> Checkpoint:
    return Checkpoint(Stamp(wall_us, 0, "crm"), number, "policy", ("of", wall_us, UNKNOWN, ("nested", None)))


def stamps(changes: Iterable[Change]) -> list[int]:
    return [each.stamp.wall_us for each in changes]


def test_a_base_comes_back_with_what_follows_it(store: Store) -> None:
    with store.transaction() as batch:
        batch.append([change(A, 1), change(A, 2), change(B, 3)])
        batch.save_checkpoint(A, base(2), 0)
        batch.append([change(A, 4)])
        assert batch.checkpoints({A: None, B: None}) == {A: base(2)}
        assert {key: stamps(each) for key, each in batch.histories([A, B], {A: Stamp(2, 0, "crm")}).items()} == {
            A: [4],
            B: [3],
        }
    found, changes = store.folded(A)
    assert (found, stamps(changes)) == (base(2), [4])
    assert stamps(store.folded(A, whole=True)[1]) == stamps(store.history(A)) == [1, 2, 4]
    assert store.folded(B) == (None, [change(B, 3)])
    assert store.folded(RecordKey("customer", "none")) == (None, [])


def test_a_base_is_not_there_when_its_batch_fails(store: Store) -> None:
    append(store, change(A, 1))
    with pytest.raises(Interrupted):
        interrupted(store, lambda batch: batch.save_checkpoint(A, base(1), 0))
    assert store.folded(A) == (None, [change(A, 1)])


def test_bases_move_up_and_the_newest_is_the_one_of_the_latest_stamp(store: Store) -> None:
    with store.transaction() as batch:
        for number, wall_us in enumerate((10, 20, 30), start=1):
            batch.append([change(A, wall_us)])
            batch.promote_checkpoint(A, 1)
            batch.promote_checkpoint(A, 0)
            batch.save_checkpoint(A, base(wall_us, number), 0)
        assert batch.checkpoints({A: None}) == {A: base(30, 3)}
        for before, number in ((31, 3), (30, 2), (20, 1)):
            assert batch.checkpoints({A: Stamp(before, 0, "crm")})[A].number == number
        assert batch.checkpoints({A: Stamp(10, 0, "crm")}) == {}
        assert stamps(batch.histories([A], {A: Stamp(10, 0, "crm")})[A]) == [20, 30]


def test_a_base_gives_way_in_its_slot(store: Store) -> None:
    append(store, change(A, 1), change(A, 2))
    with store.transaction() as batch:
        batch.save_checkpoint(A, base(1), 0)
        batch.save_checkpoint(A, base(2, 2), 0)
        assert batch.checkpoints({A: Stamp(2, 0, "crm")}) == {}
        batch.save_checkpoint(A, base(1), 3)
        batch.promote_checkpoint(A, 0)
        batch.promote_checkpoint(A, 7)
        assert batch.checkpoints({A: None}) == {A: base(2, 2)}


def test_forgotten_bases_are_those_that_do_not_hold_a_late_change(store: Store) -> None:
    append(store, change(A, 10), change(B, 20))
    with store.transaction() as batch:
        batch.save_checkpoint(A, base(10), 1)
        batch.append([change(A, 20)])
        batch.save_checkpoint(A, base(20), 0)
        batch.save_checkpoint(B, base(20), 0)
        batch.append([change(A, 15, "erp")])
        batch.forget_checkpoints(A, Stamp(15, 0, "erp"))
        assert batch.checkpoints({A: None, B: None}) == {A: base(10), B: base(20)}
        assert stamps(batch.histories([A], {A: Stamp(10, 0, "crm")})[A]) == [15, 20]


def test_a_store_opened_again_reads_what_follows_a_base(opening: Opening) -> None:
    store = opening()
    with store.transaction() as batch:
        batch.append([change(A, 1)])
        batch.save_checkpoint(A, base(1), 0)
    store.close()
    again = opening()
    append(again, change(A, 2))
    with again.transaction() as batch:
        assert batch.checkpoints({A: None}) == {A: base(1)}
        assert stamps(batch.histories([A], {A: Stamp(1, 0, "crm")})[A]) == [2]
    assert stamps(again.folded(A)[1]) == [2]


def test_forgetting_a_source_forgets_the_bases_that_hold_its_changes(store: Store) -> None:
    append(store, change(A, 1, "erp"), change(A, 2), change(B, 3, "erp"))
    with store.transaction() as batch:
        batch.save_checkpoint(A, base(2), 0)
        batch.save_checkpoint(B, base(3), 0)
        batch.forget_source("crm")
        assert batch.checkpoints({A: None, B: None}) == {B: base(3)}
    assert store.folded(A) == (None, [change(A, 1, "erp")])


# ---------------------------------------------------------------- batches


def everything(batch: StoreTransaction) -> None:
    batch.append([change(A, 1), change(B, 2)])
    batch.save_conflicts([conflict("1")])
    batch.save_position("crm", Position("7", 1, 100, "done", "slot"), Stamp(1, 0, "crm"))
    batch.save_identities("crm", "t", {"(1)": "A"})


def contents(store: Store) -> tuple[object, ...]:
    with store.transaction() as batch:
        saved = batch.keys_of("crm", "t", ["(1)"])
    listed = store.conflicts({}, None, 10), list(store.unfinished_conflicts())
    return store.history(A), store.records("customer", None, 10), listed, store.positions(), saved, store.figures()


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    before = contents(store)
    with pytest.raises(Interrupted):
        interrupted(store, everything)
    assert contents(store) == before


def test_after_a_failed_batch_the_same_batch_can_be_kept(store: Store) -> None:
    append(store, change(A, 0))
    with pytest.raises(Interrupted):
        interrupted(store, everything)
    with store.transaction() as batch:
        everything(batch)
    assert [each.stamp.wall_us for each in store.history(A)] == [0, 1]
    assert [each.stamp.wall_us for each in store.history(B)] == [2]
    assert store.figures().history_changes == 3


def test_a_failed_batch_leaves_what_was_there_before(store: Store) -> None:
    with store.transaction() as batch:
        everything(batch)
    before = contents(store)

    def much(batch: StoreTransaction) -> None:
        batch.append([change(A, 50), change(A, -1, lsn=1)])
        batch.save_conflicts([conflict("1", status="closed"), conflict("2")])
        batch.save_position("crm", Position("7", 1, 999, "done", "slot"), Stamp(9, 0, "crm"))
        batch.save_identities("crm", "t", {"(1)": None})
        batch.forget_source("crm")

    with pytest.raises(Interrupted):
        interrupted(store, much)
    assert contents(store) == before


def test_other_threads_see_a_batch_when_it_is_committed_and_not_before(store: Store) -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        with store.transaction() as batch:
            everything(batch)
            assert elsewhere.submit(store.history, A).result(10) == []
            assert elsewhere.submit(store.positions).result(10) == {}
            assert elsewhere.submit(store.conflict, "1").result(10) is None
            assert elsewhere.submit(store.records, "customer", None, 10).result(10) == []
            assert elsewhere.submit(store.figures).result(10).history_changes == 0
            assert store.history(A) == []
        assert len(elsewhere.submit(store.history, A).result(10)) == 1
        assert elsewhere.submit(store.conflict, "1").result(10) == conflict("1")


def test_batches_of_two_threads_do_not_mix(store: Store) -> None:
    def write(source: str) -> None:
        for number in range(50):
            append(store, change(A, number, source), change(RecordKey("customer", f"{source}{number}"), number, source))

    with ThreadPoolExecutor(2) as writers:
        list(writers.map(write, ["crm", "erp"]))
    assert len(store.history(A)) == 100
    assert store.figures().history_changes == 200


def test_a_store_opened_again_holds_what_was_committed(opening: Opening) -> None:
    store = opening()
    with store.transaction() as batch:
        everything(batch)
    before = contents(store)
    store.close()
    again = opening()
    assert contents(again) == before
    append(again, change(A, 1), change(A, 9), change(RecordKey("customer", "C"), 10))
    assert [each.stamp.wall_us for each in again.history(A)] == [1, 9]
    assert again.figures().history_changes == 4


def test_a_closed_store_says_that_it_is_closed(store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.history(A)
    with pytest.raises(StoreUnavailable, match="closed"), store.transaction():
        pass


# ---------------------------------------------------------------- claims


def test_a_second_worker_is_refused_while_the_first_holds_the_claim(opening: Opening) -> None:
    first, second = opening(), opening()
    first.claim("worker one")
    with pytest.raises(StoreUnavailable, match="worker one") as refusal:
        second.claim("worker two")
    assert refusal.value.hint
    with pytest.raises(StoreUnavailable, match="worker one"), second.transaction():
        pass
    first.close()
    second.claim("worker two")


def test_a_worker_may_claim_again_what_it_holds(store: Store) -> None:
    store.claim("the test")
    append(store, change(A, 1))
    with pytest.raises(StoreUnavailable, match="the test"):
        store.claim("another worker")


def test_the_first_batch_claims_an_unclaimed_store(opening: Opening) -> None:
    first, second = opening(), opening()
    append(first, change(A, 1))
    with pytest.raises(StoreUnavailable, match="held"):
        second.claim("worker two")
    assert second.history(A) == [change(A, 1)]


# ---------------------------------------------------------------- positions and identities


def test_positions_and_clocks_come_back(store: Store) -> None:
    crm = (Position("7300000000000000000", 3, 2**64 - 1, "running", "cdc_merge_crm", 2**51), Stamp(5, 6, "crm"))
    oa = (Position("oa", 1, 0, "none", ""), Stamp(7, 0, "oa/3"))
    with store.transaction() as batch:
        batch.save_position("crm", Position("", 0, 0, "none", ""), Stamp(0, 0, "crm"))
        batch.save_position("crm", *crm)
        batch.save_position("oa", *oa)
    assert store.positions() == {"crm": crm, "oa": oa}


def test_the_tables_that_an_unfinished_copy_has_finished_come_back(store: Store) -> None:
    position = Position("7", 1, 5, "running", "s", 0, ("public.a", 'public."b,c"'))
    with store.transaction() as batch:
        batch.save_position("crm", position, Stamp(5, 6, "crm"))
    assert store.positions() == {"crm": (position, Stamp(5, 6, "crm"))}


def test_source_commands_outlive_the_worker_and_are_replaced_as_one(opening: Opening) -> None:
    resync = Resync(
        "public.a", Stamp(1, 2, "crm"), 9, "slot_lost", "missing", ("1", "é"), 1, "K", ("K", "L"), 4, 5, 6, "no"
    )
    orders = SourceOrders(
        paused=True, accepts_loss=True, resyncs=(resync, Resync("public.b", Stamp(0, 0, "crm"), 0)), answers=3
    )
    store = opening()
    with store.transaction() as batch:
        batch.save_orders("crm", SourceOrders(paused=True))
        batch.save_orders("crm", orders)
        batch.save_orders("erp", NO_ORDERS)
    store.close()
    assert opening().orders() == {"crm": orders, "erp": NO_ORDERS}


def test_identities_are_kept_per_source_and_table_until_removed(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_identities("crm", "t", {"(1)": "A", "(2)": "B", "(3)": "C"})
        batch.save_identities("erp", "t", {"(1)": "E"})
    with store.transaction() as batch:
        batch.save_identities("crm", "t", {"(1)": "A2", "(2)": None, "(9)": None})
        assert batch.keys_of("crm", "t", ["(1)", "(2)", "(3)", "(4)"]) == {"(1)": "A2", "(3)": "C"}
    with store.transaction() as batch:
        assert batch.keys_of("crm", "t", ["(1)", "(2)", "(3)", "(4)"]) == {"(1)": "A2", "(3)": "C"}
        assert batch.keys_of("erp", "t", ["(1)"]) == {"(1)": "E"}
        assert batch.keys_of("crm", "other", ["(1)"]) == {}


def test_forgetting_a_source_removes_its_history_and_identities_and_names_the_records(store: Store) -> None:
    kept = [change(A, 1, "erp"), change(A, 5, "erp"), change(A, 7, "crmx")]
    append(store, kept[0], change(A, 2), change(A, 3), kept[1], change(A, 6), kept[2], change(B, 4, "crm/1"))
    append(store, change(RecordKey("order", "untouched"), 8, "erp"))
    with store.transaction() as batch:
        batch.save_identities("crm", "t", {"(1)": "A"})
        batch.save_identities("erp", "t", {"(1)": "A"})
        batch.append([change(RecordKey("customer", "fresh"), 9)])
        assert sorted(batch.forget_source("crm")) == sorted([A, B, RecordKey("customer", "fresh")])
        assert batch.histories([A, B]) == {A: kept, B: []}
        assert batch.keys_of("crm", "t", ["(1)"]) == {}
        assert batch.keys_of("erp", "t", ["(1)"]) == {"(1)": "A"}
    assert store.history(A) == kept
    assert store.records("customer", None, 10) == ["A"]
    assert store.figures().history_changes == 4


def test_a_forgotten_source_can_be_read_again_from_the_same_places(store: Store) -> None:
    first_copy = [change(A, 1, "erp"), change(A, 2), change(B, 3)]
    append(store, *first_copy)
    with store.transaction() as batch:
        batch.forget_source("crm")
        batch.append(first_copy)
    assert store.history(A) == first_copy[:2]
    assert store.history(B) == first_copy[2:]
    assert store.figures().history_changes == 3


# ---------------------------------------------------------------- conflicts


def test_a_conflict_comes_back_and_is_replaced_by_its_id(store: Store) -> None:
    first, revised = conflict("1"), conflict("1", revision=2, severity="low", labels=("overwrote",))
    with store.transaction() as batch:
        batch.save_conflicts([first])
    assert store.conflict("1") == first
    with store.transaction() as batch:
        batch.save_conflicts([revised])
    assert store.conflict("1") == revised
    assert store.conflicts({}, None, 10) == [revised]
    assert store.conflicts({"severity": "high"}, None, 10) == []
    assert store.conflict("2") is None


def test_the_unfinished_conflicts_of_a_record_are_the_settling_and_open_ones(store: Store) -> None:
    settling, opened, closed = (
        conflict(status, status=status, kind=f"kind {status}") for status in ("settling", "open", "closed")
    )
    other = conflict("other", B)
    with store.transaction() as batch:
        batch.save_conflicts([settling, opened, closed, other])
        assert batch.open_conflicts([A]) == {A: [settling, opened]}
        none = RecordKey("customer", "none")
        assert batch.open_conflicts([B, none]) == {B: [other], none: []}
    assert list(store.unfinished_conflicts()) == [settling, opened, other]


def test_all_unfinished_conflicts_are_handed_out_however_many(store: Store) -> None:
    many = [conflict(f"{number}", status="closed" if number % 3 else "open") for number in range(2500)]
    with store.transaction() as batch:
        batch.save_conflicts(many)
    assert list(store.unfinished_conflicts()) == many[::3]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, "abcdef"),
        ({"status": "open"}, "abde"),
        ({"status": "settling"}, "c"),
        ({"entity": "order"}, "d"),
        ({"key": "B"}, "bd"),
        ({"entity": "customer", "key": "B"}, "b"),
        ({"entity": "customer", "key": "B", "status": "closed"}, ""),
        ({"field": "name"}, "a"),
        ({"field": "address"}, "f"),
        ({"kind": "invariant"}, "e"),
        ({"severity": "low", "status": "open"}, "a"),
        ({"source": "oa"}, "c"),
        ({"source": "crm", "status": "open", "kind": "concurrent_update"}, "abd"),
        ({"source": "cr"}, ""),
    ],
)
def test_conflicts_match_every_filter_and_all_of_them_together(store: Store, where: dict[str, str], found: str) -> None:
    of_oa = tuple(replace(each, source="oa") for each in conflict("x").detected.candidates)
    with store.transaction() as batch:
        batch.save_conflicts(
            [
                conflict("a", field="name", severity="low"),
                conflict("b", B),
                conflict("c", status="settling", candidates=of_oa),
                conflict("d", RecordKey("order", "B")),
                conflict("e", kind="invariant", field=None, candidates=()),
                conflict("f", status="closed", field=None, group="address"),
            ]
        )
    assert "".join(each.id for each in store.conflicts(where, None, 10)) == found


def test_pages_of_conflicts_are_stable_while_conflicts_move_and_arrive(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_conflicts(conflict(f"{9 - number}") for number in range(9))
    first = store.conflicts({}, None, 4)
    assert [each.id for each in first] == ["9", "8", "7", "6"]
    with store.transaction() as batch:
        batch.save_conflicts([conflict("9", revision=2), conflict("5", revision=2), conflict("new")])
    second = store.conflicts({}, first[-1].id, 4)
    third = store.conflicts({}, second[-1].id, 4)
    assert [each.id for each in second] == ["5", "4", "3", "2"]
    assert [each.id for each in third] == ["1", "new"]
    assert store.conflicts({}, third[-1].id, 4) == []
    with pytest.raises(NotFound):
        store.conflicts({}, "never was", 4)


# ---------------------------------------------------------------- figures


def test_figures_count_open_conflicts_and_the_oldest_of_each_severity(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_conflicts(
            [
                conflict("1", raised_us=30),
                conflict("2", B, raised_us=20),
                conflict("3", kind="invariant", raised_us=25),
                conflict("4", severity="low", raised_us=7),
                conflict("5", status="settling", raised_us=1),
                conflict("6", status="closed", raised_us=2),
            ]
        )
    figures = store.figures()
    assert figures.conflicts_open == {
        ("customer", "concurrent_update", "high"): 2,
        ("customer", "invariant", "high"): 1,
        ("customer", "concurrent_update", "low"): 1,
    }
    assert figures.oldest_open_us == {("customer", "high"): 20, ("customer", "low"): 7}


def test_figures_of_an_empty_store_are_nothing(store: Store) -> None:
    figures = store.figures()
    assert (figures.history_changes, figures.conflicts_open, figures.oldest_open_us) == (0, {}, {})


def test_an_insert_of_a_record_lists_it_at_once(store: Store) -> None:
    append(store, change(A, 1)._replace(operation=INSERT))
    assert store.records("customer", None, 1) == ["A"]


# ---------------------------------------------------------------- what stamp time will say


def test_what_is_due_outlives_the_worker(opening: Opening) -> None:
    store = opening()
    assert store.deadlines() == {}
    with store.transaction() as tx:
        tx.save_deadlines({A: 7, B: 9})
    with store.transaction() as tx:
        tx.save_deadlines({A: None, B: 2**52})
    assert store.deadlines() == {B: 2**52}
    store.close()
    assert opening().deadlines() == {B: 2**52}


def test_what_is_due_is_not_kept_of_a_batch_that_failed(opening: Opening) -> None:
    store = opening()

    def fail() -> None:
        with store.transaction() as tx:
            tx.save_deadlines({A: 7})
            raise KeyError("the batch fails")

    with pytest.raises(KeyError):
        fail()
    assert store.deadlines() == {}


# ---------------------------------------------------------------- what no two records may share


def test_a_conflict_about_several_records_is_listed_for_each_of_its_present_records(store: Store) -> None:
    several = conflict("several", field=None, kind="duplicate", records=("A", "B", "C"))
    with store.transaction() as batch:
        batch.save_conflicts([several, conflict("single", B)])
    with store.transaction() as batch:
        assert batch.open_conflicts([B])[B] == [conflict("single", B)]

    def under(key: str, **more: str) -> list[str]:
        return [each.id for each in store.conflicts({"key": key, **more}, None, 9)]

    for more in ({}, {"entity": "customer"}, {"status": "open"}, {"entity": "customer", "status": "open"}):
        assert [under(key, **more) for key in "ABCD"] == [["several"], ["several", "single"], ["several"], []]
    assert under("C", entity="order") == []
    moved = replace(several, revision=2, detected=replace(several.detected, key="B", records=("B", "D")))
    with store.transaction() as batch:
        batch.save_conflicts([moved])
    assert [under(key, entity="customer") for key in "ABCD"] == [[], ["several", "single"], [], ["several"]]


def test_keys_with_lists_records_under_each_of_their_digests_only(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_digests({B: frozenset({b"1", b"2"}), A: frozenset({b"1"})})
        assert batch.keys_with("customer", b"1", 9) == ["A", "B"]
        batch.save_digests({B: frozenset({b"2", b"3"}), RecordKey("order", "A"): frozenset({b"2"})})
    with store.transaction() as batch:
        indexed = {digest: batch.keys_with("customer", digest, 9) for digest in (b"1", b"2", b"3", b"4")}
        assert indexed == {b"1": ["A"], b"2": ["B"], b"3": ["B"], b"4": []}
        assert batch.keys_with("order", b"2", 9) == ["A"]
        saved = batch.digests_of([A, B, RecordKey("order", "B")])
        assert saved == {A: {b"1"}, B: {b"2", b"3"}}


def test_a_record_without_digests_is_in_no_index_entry(opening: Opening) -> None:
    store = opening()
    with store.transaction() as batch:
        batch.save_digests({A: frozenset({b"1"}), B: frozenset({b"1"})})
    with store.transaction() as batch:
        batch.save_digests({A: frozenset()})
        assert batch.keys_with("customer", b"1", 9) == ["B"]
    store.close()
    with opening().transaction() as batch:
        assert batch.digests_of([A, B]) == {B: {b"1"}}
        assert batch.keys_with("customer", b"1", 9) == ["B"]


def test_of_many_records_with_one_digest_the_first_keys_are_listed(store: Store) -> None:
    with store.transaction() as batch:
        batch.save_digests({RecordKey("customer", f"{n:03}"): frozenset({b"1"}) for n in reversed(range(50))})
        assert batch.keys_with("customer", b"1", 3) == ["000", "001", "002"]
    with store.transaction() as batch:
        assert batch.keys_with("customer", b"1", 3) == ["000", "001", "002"]


def test_digests_are_not_kept_of_a_batch_that_failed(opening: Opening) -> None:
    store = opening()
    with store.transaction() as batch:
        batch.save_digests({A: frozenset({b"1"})})
    with pytest.raises(Interrupted):
        interrupted(store, lambda batch: batch.save_digests({A: frozenset({b"2"}), B: frozenset({b"1"})}))
    store.close()
    again = opening()
    with again.transaction() as batch:
        assert batch.digests_of([A, B]) == {A: {b"1"}}
        assert batch.keys_with("customer", b"1", 9) == ["A"]
