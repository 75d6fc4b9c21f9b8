"""One record of a shop, edited by numbered sales, and what a fold says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.fold import fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.views import merged
from cdc_merge.model import INSERT, UNKNOWN, UPDATE, Change, Place, RecordKey, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan
from cdc_merge.model.ports import Store
from cdc_merge.worker.record_cache import RecordCache
from tests.laws.worlds import ENTITY, KEY

FIELDS = (FieldPlan("name"), FieldPlan("stock", merge="counter"), FieldPlan("city", merge="lww"))
SOURCES = ("crm", "erp")
SHOP = EntityPlan(
    name=ENTITY,
    sources=SOURCES,
    mapped={source: frozenset(plan.name for plan in FIELDS) for source in SOURCES},
    fields={plan.name: plan for plan in FIELDS},
)
A_RECORD = RecordKey(ENTITY, KEY)


def edits(first: int, count: int, key: str = KEY, source: str = "crm") -> list[Change]:
    """Sales of one piece each, numbered: every edit follows the one before it."""
    return [_edit(number, key, source) for number in range(first, first + count)]


def _edit(number: int, key: str, source: str) -> Change:
    stamp, place = Stamp(number * 1000, 0, source), Place(f"of {source}", 1, number, "public.item", 0)
    fields: dict[str, Any] = {"name": (f"n{number - 1}", f"n{number}"), "stock": (-number + 1, -number)}
    if number == 0:
        fields = {name: (UNKNOWN, after) for name, (_, after) in fields.items()} | {"city": (UNKNOWN, "Wuhan")}
    return Change(ENTITY, key, stamp, place, UPDATE if number else INSERT, fields, committed_us=number * 1000)


def said(record: Record) -> Any:
    return merged(record), merge_conflicts(record)


def expected(entity: EntityPlan, changes: Iterable[Change]) -> Any:
    return said(fold(entity, changes))


@contextmanager
def loaded(cache: RecordCache, store: Store) -> Iterator[Record]:
    with store.transaction() as batch:
        cache.load([A_RECORD], batch)
        yield cache.get(A_RECORD).record
