"""The stores that must keep the contract: one line each in SUBJECTS. Each opening opens the same store again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cdc_merge.model.ports import Store
from cdc_merge.stores.memory.disk import Disk
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore

Opening = Callable[[], Store]


def _memory(_folder: Path) -> Opening:
    disk = Disk()
    return lambda: MemoryStore(disk)


def _sqlite(folder: Path) -> Opening:
    return lambda: SqliteStore(folder / "state.db")


SUBJECTS: Mapping[str, Callable[[Path], Opening]] = {
    "memory": _memory,
    "sqlite": _sqlite,
}
