"""Batches make no cycles: garbage is looked for once in a while only, and a cycle keeps a batch in memory so long."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    Column,
    Delivery,
    Fact,
    Message,
    Position,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.state import Environment

SOURCES = ("crm", "erp")
NAMES = ("no", "phone", "points", "city")
FIELDS = {name: name for name in NAMES[1:]}
TABLE = Relation(1, "public", "customer", "f", tuple(Column(name, 25) for name in NAMES))
PLAN = Plan(
    {
        "customer": EntityPlan(
            "customer",
            SOURCES,
            dict.fromkeys(SOURCES, frozenset(FIELDS)),
            {name: FieldPlan(name, "lww" if name == "city" else "mv") for name in FIELDS},
        )
    },
    tuple(TableMap(source, "customer", "public.customer", ("no",), FIELDS) for source in SOURCES),
    settle_us=0,
)
ROWS = 20
BATCHES = 30


def cells(*parts: object) -> tuple[bytes, ...]:
    return tuple(str(part).encode() for part in parts)


class Tape:
    """ports.Source: gives what it was handed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next: list[Delivery] = []

    def start(self, position: Position | None) -> None: ...

    def take(self, limit: int) -> Sequence[Delivery]:
        taken, self.next = self.next, []
        return taken

    def confirm(self, lsn: int) -> None: ...

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)

    def stop(self) -> None: ...


def first_copy(source: str) -> list[Delivery]:
    snapshot_rows = (cells(number, "1", "0", "Wuhan") for number in range(ROWS))
    rows = tuple(RowChange("snapshot", TABLE, None, False, row, number) for number, row in enumerate(snapshot_rows))
    return [SnapshotBegan(source, source, 1, 1, 1, {}), SnapshotRows(source, rows), SnapshotDone(source, 1)]


def day(source: str, number: int) -> Transaction:
    """Edits of all rows that differ between the sources, one edited twice, a row that comes and moves, a delete, a row
    without a key, a message."""
    after = [cells(row, f"{source}{number}", number, "Wuhan") for row in range(ROWS)]
    before = [cells(row, f"{source}{number - 1}", number - 1, "Wuhan") for row in range(ROWS)]
    row_changes = [RowChange("update", TABLE, old, True, new, 0) for old, new in zip(before, after, strict=True)]
    again = cells(0, f"{source}{number}", number, f"city {number}")
    row_changes += [
        RowChange("update", TABLE, after[0], True, again, 0),
        RowChange("update", TABLE, again, True, after[0], 0),
        RowChange("insert", TABLE, None, False, cells(f"new{number}", "1", "2", "3"), 0),
        RowChange("update", TABLE, cells(f"new{number}", 1, 2, 3), True, cells(f"moved{number}", 1, 2, 3), 0),
        RowChange("delete", TABLE, cells(f"moved{number - 1}", 1, 2, 3), True, None, 0),
        RowChange("insert", TABLE, None, False, (None, b"1", b"2", b"3"), 0),
    ]
    changes = tuple(change._replace(ordinal=ordinal) for ordinal, change in enumerate(row_changes))
    said = (Message("cdc_merge.actor", b"wang", transactional=True),)
    return Transaction(source, source, 1, 10 + number, 1000 * number, None, said, changes)


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_batches_leave_nothing_that_only_a_search_for_cycles_would_find(tmp_path: Path) -> None:
    tapes = [Tape(name) for name in SOURCES]
    ingests = [
        (tape, SourceIngest(tape.name, Mapper(tape.name, PLAN.tables, PLAN), "slot", SpillFile)) for tape in tapes
    ]
    ids = itertools.count(1)
    world = Environment(lambda: 10**9, lambda: str(next(ids)), compile_expression)
    facts: list[Fact] = []

    def note(fact: Fact) -> None:
        facts.append(fact)

    store = SqliteStore(tmp_path / "state.db")
    pipeline = Pipeline(PLAN, ingests, store, note, world)
    for tape in tapes:
        tape.next = first_copy(tape.name)
    pipeline.step()
    gc.collect()
    for number in range(1, BATCHES + 1):
        for tape in tapes:
            tape.next = [day(tape.name, number)]
        assert pipeline.step()
    found = gc.collect()
    assert list(store.unfinished_conflicts()), "the edits of the sources were asked about"
    store.close()
    assert found <= BATCHES
