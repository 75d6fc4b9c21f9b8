"""The contract of every store for quarantined changes (ports.QuarantineStore)."""

from __future__ import annotations

import pytest

from cdc_merge.model import DELETE, UPDATE, Change, Copy, Place, RecordKey, Stamp, UnresolvedChange
from cdc_merge.model.ports import Store
from tests.contracts.store_subjects import Opening

TABLE = "public.customer"
BY_ID = ("id",)


def waiting(identity: str, at: int, *, was: str | None = None, table: str = TABLE) -> UnresolvedChange:
    place = Place("7", 1, 2**63 + at, table, 3)
    copy = Copy("erp", (Place("8", 1, 5, "t", 0),))
    fields = {} if at % 2 else {"phone": ("1", "2")}
    stamp = Stamp(at, 0, "crm/0")
    change = Change("customer", "", stamp, place, DELETE if at % 2 else UPDATE, fields, "wang", copy, at - 1, identity)
    return UnresolvedChange(table, BY_ID, identity, was or identity, change)


def kept(store: Store, source: str, *identities: str, label: str = TABLE) -> dict[str, list[UnresolvedChange]]:
    """What waits; it goes on waiting."""
    with store.transaction() as batch:
        released = dict(batch.release_quarantined(source, label, identities))
        for each in released.values():
            batch.quarantine(source, [waiting._replace(was=waiting.identity) for waiting in each])
        return released


def quarantine(store: Store, *several: UnresolvedChange, source: str = "crm") -> None:
    with store.transaction() as batch:
        batch.quarantine(source, several)


def test_what_waits_comes_out_as_it_went_in_once_and_in_order(opening: Opening) -> None:
    first = opening()
    first.claim("the test")
    one, two, other = waiting("5", 20), waiting("5", 11), waiting("6", 12)
    quarantine(first, one, two, other)
    first.close()
    store = opening()
    store.claim("the next")
    assert store.awaited_identities() == {"crm": {TABLE: {BY_ID}}}
    with store.transaction() as batch:
        assert batch.release_quarantined("crm", TABLE, ["5", "7"]) == {"5": [one, two]}
        assert batch.release_quarantined("crm", TABLE, ["5"]) == {}
    assert kept(store, "crm", "5", "6") == {"6": [other]}
    assert kept(store, "erp", "5", "6") == {} == kept(store, "crm", "6", label="other")


def test_a_row_that_takes_another_identity_is_waited_for_under_that(store: Store) -> None:
    quarantine(store, waiting("5", 10), waiting("6", 12))
    quarantine(store, waiting("9", 14, was="5"))
    with store.transaction() as batch:
        released = batch.release_quarantined("crm", TABLE, ["5", "6", "9"])
    assert released == {
        "6": [waiting("6", 12)],
        "9": [waiting("5", 10)._replace(identity="9"), waiting("9", 14, was="5")],
    }


def test_what_waits_is_counted_by_table(store: Store) -> None:
    assert store.figures().parked == {}
    assert store.awaited_identities() == {}
    quarantine(store, waiting("5", 10), waiting("6", 11), waiting("6", 12, table="t"))
    quarantine(store, waiting("5", 10), source="erp")
    assert store.figures().parked == {("crm", TABLE): 2, ("crm", "t"): 1, ("erp", TABLE): 1}
    with store.transaction() as batch:
        assert batch.awaited_identities("crm") == {TABLE: {BY_ID}, "t": {BY_ID}}
        batch.quarantine("crm", [waiting("7", 1)._replace(columns=("a", "b"))])
        assert batch.awaited_identities("crm")[TABLE] == {BY_ID, ("a", "b")}
        assert batch.awaited_identities("oa") == {}


def test_what_has_waited_too_long_leaves(store: Store) -> None:
    quarantine(store, waiting("5", 10), waiting("6", 11), waiting("7", 12))
    with store.transaction() as batch:
        assert batch.forget_quarantined_before(10) == {}
        assert batch.forget_quarantined_before(12) == {("crm", TABLE): 2}
    assert kept(store, "crm", "5", "6", "7") == {"7": [waiting("7", 12)]}


def test_what_waits_for_an_emptied_table_or_a_copied_source_leaves(store: Store) -> None:
    quarantine(store, waiting("5", 10), waiting("6", 12, table="t"))
    quarantine(store, waiting("5", 10), source="erp")
    with store.transaction() as batch:
        assert batch.forget_quarantined("crm", "order", TABLE) == 0
        assert batch.forget_quarantined("crm", "customer", TABLE) == 1
    assert store.figures().parked == {("crm", "t"): 1, ("erp", TABLE): 1}
    with store.transaction() as batch:
        batch.forget_source("crm")
    assert store.figures().parked == {("erp", TABLE): 1}


def test_nothing_of_a_broken_batch_is_kept_or_taken(store: Store) -> None:
    quarantine(store, waiting("5", 10))

    def work() -> None:
        with store.transaction() as batch:
            batch.quarantine("crm", [waiting("6", 12), waiting("8", 14, was="5")])
            batch.release_quarantined("crm", TABLE, ["8"])
            batch.forget_quarantined_before(10**9)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert kept(store, "crm", "5", "6", "8") == {"5": [waiting("5", 10)]}


def test_records_do_not_know_what_waits(store: Store) -> None:
    quarantine(store, waiting("5", 10))
    assert store.records("customer", None, 10) == []
    assert store.history(RecordKey("customer", "")) == []
