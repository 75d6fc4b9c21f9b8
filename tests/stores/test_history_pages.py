"""A history page by page: in stamp order, nothing left out, nothing twice, and no more than a page in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_merge.errors import NotFound
from cdc_merge.model import INSERT, UPDATE, Change, Place, RecordKey, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, Rule
from cdc_merge.queries.responses import history_document
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore

Stores = MemoryStore | SqliteStore
KEY = RecordKey("customer", "C1")
PLAN = Plan(
    {"customer": EntityPlan("customer", ("crm", "erp"), {"crm": frozenset({"name"})}, {"name": FieldPlan("name")})}, ()
)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    store: Stores = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield store
    store.close()


def change(number: int, *, lsn: int | None = None, text: str = "") -> Change:
    place = Place("7", 1, number if lsn is None else lsn, "public.customer", 0)
    fields = {"name": (str(number - 1), text or str(number))}
    stamp = Stamp(1_790_000_000_000_000 + number * 1_000, 0, "crm")
    return Change("customer", "C1", stamp, place, UPDATE if number else INSERT, fields)


def fill(store: Stores, changes: list[Change]) -> None:
    with store.transaction() as batch:
        batch.append(changes)


def pages(store: Stores, limit: int) -> Iterator[list[Change]]:
    lookup, cursor = StoreQueries(store, PLAN), None
    while True:
        page = lookup.history(KEY, cursor, limit)
        yield list(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 7, 99, 100])
def test_the_pages_of_a_history_are_the_history_whatever_order_it_arrived_in(store: Stores, limit: int) -> None:
    history = [change(number) for number in range(100)]
    fill(store, [*history[50:], *history[:50]])
    found = list(pages(store, limit))
    assert [each for page in found for each in page] == history
    assert all(len(page) <= limit for page in found)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_changes_with_one_stamp_are_neither_lost_nor_repeated_between_pages(store: Stores, limit: int) -> None:
    history = [change(0), *[change(1, lsn=lsn) for lsn in range(1, 6)], change(2, lsn=9)]
    fill(store, history)
    assert [each for page in pages(store, limit) for each in page] == history


def test_a_cursor_that_is_none_is_not_found_and_an_end_is_an_empty_page(store: Stores) -> None:
    fill(store, [change(0)])
    lookup = StoreQueries(store, PLAN)
    with pytest.raises(NotFound):
        lookup.history(KEY, "nonsense", 10)
    assert lookup.history(KEY, f"{change(9).stamp}~1", 10).items == []
    with pytest.raises(NotFound):
        history_document(lookup, RecordKey("customer", "none"), None, 10)


def test_an_explanation_names_the_rule_that_answers(store: Stores) -> None:
    fill(store, [change(0)])
    rules = (Rule("people", "customer.other", severity="high"), Rule("latest-name", "*.name", auto=("latest",)))
    fields = StoreQueries(store, replace(PLAN, rules=rules)).explain(KEY, "name")
    assert fields is not None
    assert fields.rule == "latest-name"
    without = StoreQueries(store, PLAN).explain(KEY, "name")
    assert without is not None
    assert without.rule is None


def test_a_page_of_a_very_long_history_takes_the_memory_of_a_page(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    for first in range(0, 20_000, 4_000):
        fill(store, [change(number, text="x" * 500) for number in range(first, first + 4_000)])
    tracemalloc.start()
    (page,) = [StoreQueries(store, PLAN).history(KEY, None, 100)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    store.close()
    assert [each.stamp for each in page.items] == [change(number).stamp for number in range(100)]
    assert json.dumps(page.next_cursor) == f'"{change(99).stamp}~1"'
    assert peak < 2_000_000, "20,000 changes of 500 characters would take more than 10 MB"
