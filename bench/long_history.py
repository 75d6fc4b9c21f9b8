"""What one more change of a record costs after a few and after very many: kept in memory, read again, a little late.

Each figure is the median over rounds in which the long and the short record take turns, so that a busy machine slows
both.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final

from cdc_merge.model import INSERT, UNKNOWN, UPDATE, Change, Place, RecordKey, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.record_cache import RecordCache

ENTITY: Final = "item"
SOURCES: Final = ("erp", "crm")
FIELDS: Final = {"name": "mv", "stock": "counter", "city": "lww", "phone": "mv", "level": "max", "remark": "mv"}
PLANS: Final = {name: FieldPlan(name, merge) for name, merge in FIELDS.items()}
PLAN: Final = Plan({ENTITY: EntityPlan(ENTITY, SOURCES, dict.fromkeys(SOURCES, frozenset(FIELDS)), PLANS)}, ())

FEW: Final = 10
ROUNDS: Final = 100
CHANGES_A_ROUND: Final = 10
CHANGES_A_BATCH: Final = 4_000


def change(number: int, key: str, *, late: bool = False) -> Change:
    """The numbered change of a record; a late one comes from the other source, just before the number's."""
    source = SOURCES[late]
    wall_us = number * 1_000 - 500 * late
    told: dict[str, Any] = {"stock": (-number + 1, -number), "remark": (f"sold {number - 1}", f"sold {number}")}
    if number == 0:
        told = {name: (UNKNOWN, 0 if merge == "counter" else "Wuhan") for name, merge in FIELDS.items()}
    if late:
        told = {"phone": (str(number - 1), str(number))}
    place = Place(source, 1, number, f"public.{key}", 0)
    row = UPDATE if number else INSERT
    return Change(ENTITY, key, Stamp(wall_us, 0, source), place, row, told, committed_us=wall_us)


class Shop:
    """Two records in one store: one with many changes behind it, one with few."""

    def __init__(self, path: Path, writes: int) -> None:
        self.store = SqliteStore(path)
        self.cache = RecordCache(PLAN)
        self._next = {"long": 0, "short": 0}
        for size in (CHANGES_A_BATCH,) * (writes // CHANGES_A_BATCH):
            self.merge(self.cache, "long", size)
        self.merge(self.cache, "short", FEW)

    def merge(self, cache: RecordCache, key: str, count: int, *, late: bool = False) -> float:
        """One batch of further changes; the seconds of CPU that it took, its commit included."""
        first = self._next[key]
        self._next[key] += count
        changes = [change(number, key) for number in range(first, first + count)]
        changes += [change(first, key, late=True)] if late else []
        started = process_time()
        cache.begin()
        with self.store.transaction() as batch:
            cache.apply(changes, batch)
            cache.refold(batch)
        return process_time() - started

    def per_change(self, cache: Callable[[], RecordCache], *, late: bool = False) -> dict[str, float]:
        took: dict[str, list[float]] = {"long": [], "short": []}
        for _ in range(ROUNDS):
            for key, times in took.items():
                times.append(self.merge(cache(), key, CHANGES_A_ROUND, late=late) / CHANGES_A_ROUND)
        long_us, short_us = (median(times) * 1e6 for times in took.values())
        return {"long_us": round(long_us, 2), "short_us": round(short_us, 2), "ratio": round(long_us / short_us, 3)}


def measure(writes: int) -> dict[str, object]:
    """CPU per change in µs, and the seconds that reading the record takes."""
    home = Path(tempfile.mkdtemp(prefix="cdc-merge-bench-"))
    try:
        shop = Shop(home / "state.db", writes)
        found: dict[str, object] = {
            "writes": writes,
            "kept": shop.per_change(lambda: shop.cache),
            "read_again": shop.per_change(lambda: RecordCache(PLAN)),
            "one_late": shop.per_change(lambda: shop.cache, late=True),
        }
        lookup = StoreQueries(shop.store, PLAN)
        long = RecordKey(ENTITY, "long")
        found["show_s"] = _seconds(lambda: lookup.record(long, None))
        found["as_of_s"] = _seconds(lambda: lookup.record(long, Stamp(writes // 2 * 1_000, 0, "")))
        found["history_s"] = _seconds(lambda: lookup.history(long, None, 1_000))
        shop.store.close()
        return found
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _seconds(ask: Callable[[], object]) -> float:
    started = perf_counter()
    ask()
    return round(perf_counter() - started, 4)
