"""Changes of rows that nobody has named are merged, once somebody does, as if they had been known all along.

The judge is the same stream, taken by an intake that knew every row from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import (
    UNCHANGED,
    Change,
    Column,
    Fact,
    Message,
    Parked,
    QuarantineReleased,
    RawValue,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotRows,
    Transaction,
)
from cdc_merge.model.plan import Plan, TableMap
from cdc_merge.sources.spill import SpillFile
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.ingest_result import IngestResult
from cdc_merge.worker.limits import DEFAULT_LIMITS, Limits
from cdc_merge.worker.retention import Retention

TABLE = "public.t"
NAMES = ("id", "no", "phone")
MAP = TableMap("crm", "customer", TABLE, ("no",), {"phone": "phone", "no": "no"})
T0 = 1_790_000_000_000_000


def relation(*flagged: str) -> Relation:
    return Relation(1, "public", "t", "d", tuple(Column(name, 25, "", name in flagged) for name in NAMES))


BY_ID = relation("id")
FULL = relation(*NAMES)._replace(identity="f")


def cells(*texts: str | None) -> tuple[RawValue, ...]:
    return tuple(UNCHANGED if text == "…" else None if text is None else text.encode() for text in texts)


class Day:
    """A table with the customers K1, K2, K3 as the rows 1, 2, 3, and what it sends, transaction by transaction."""

    def __init__(self) -> None:
        self.rows = {str(n): f"K{n}" for n in (1, 2, 3)}
        self.gone: dict[str, str] = {}
        self.transactions: list[Transaction] = []
        self.changes: list[RowChange] = []
        self.emptied = False

    def __repr__(self) -> str:
        """The statements, for whoever must see why a law does not hold."""
        return "\n".join(
            f"{tx.end_lsn} {change.operation} {change.old} → {change.new}"
            for tx in self.transactions
            for change in tx.changes
        )

    def update(self, row: str, phone: str) -> None:
        """The key is large and unchanged, so it is not sent."""
        self._log("update", None, cells(row, "…", phone))

    def rename(self, row: str, phone: str) -> None:
        new = str(10 + len(self.transactions) * 10 + len(self.changes))
        self.rows[new] = self.rows.pop(row)
        self._log("update", cells(row, None, None), cells(new, "…", phone))

    def show(self, row: str, phone: str) -> None:
        whole = cells(row, self.rows[row], "shown")
        self._log("update", whole, cells(row, self.rows[row], phone), is_full=True)

    def delete(self, row: str) -> None:
        self.gone[row] = self.rows.pop(row)
        self._log("delete", cells(row, None, None), None)

    def insert(self, row: str, phone: str) -> None:
        self.rows[row] = self.gone.pop(row)
        self._log("insert", None, cells(row, self.rows[row], phone))

    def truncate(self) -> None:
        self.rows.clear()
        self.gone.clear()
        self.emptied = True
        self._log("truncate", None, None)

    def commit(self, actor: str = "") -> None:
        number = len(self.transactions) + 1
        changes, self.changes = tuple(self.changes), []
        said = (Message("cdc_merge.actor", actor.encode(), transactional=True),) if actor else ()
        self.transactions.append(Transaction("crm", "7", 1, number * 100, T0 + number * 1000, None, said, changes))

    def name_all(self) -> None:
        """Every row is shown, or entered again, so that in the end nothing is unknown."""
        for row in sorted(self.rows):
            self.show(row, "9")
        for row in sorted(self.gone):
            self.insert(row, "9")
        if self.changes:
            self.commit()

    def _log(
        self,
        operation: str,
        old: tuple[RawValue, ...] | None,
        new: tuple[RawValue, ...] | None,
        *,
        is_full: bool = False,
    ) -> None:
        self.changes.append(RowChange(operation, BY_ID, old, is_full, new, len(self.changes)))


class Taker:
    """An intake over a store of its own, and all that it said."""

    def __init__(self, known: Sequence[tuple[str, str]] = (), limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.store = MemoryStore()
        self.changes: list[Change] = []
        self.facts: list[Fact] = []
        with self.store.transaction() as tx:
            tx.save_identities("crm", TABLE, dict(known))
        self.restart()

    def restart(self) -> None:
        mapper = Mapper("crm", (MAP,), Plan({}, (MAP,)))
        self.ingest = SourceIngest("crm", mapper, "slot", SpillFile, self.limits)
        positions = self.store.positions()
        if "crm" in positions:
            self.ingest.resume(*positions["crm"], self.store.awaited_identities().get("crm", {}))

    def take(self, *deliveries: Transaction | SnapshotBegan | SnapshotRows) -> list[Change]:
        """The changes of these alone."""
        before = len(self.changes)
        for delivery in deliveries:
            with self.store.transaction() as tx:
                for taken in self.ingest.pieces(delivery, tx, T0 + 10**9):
                    self._note(taken)
                self.ingest.save(tx)
        return self.changes[before:]

    def _note(self, taken: IngestResult) -> None:
        self.changes += taken.changes
        self.facts += [*taken.parked, *taken.released]

    def waiting(self) -> int:
        return sum(self.store.figures().parked.values())

    def released(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for fact in self.facts:
            if isinstance(fact, QuarantineReleased):
                found[fact.outcome] = found.get(fact.outcome, 0) + fact.count
        return found


def limits_of(piece: int) -> Limits:
    """Every transaction is a large one, mapped so many rows at a time; with 0 none is."""
    return Limits(large_rows=0, piece_rows=piece, bucket_rows=1) if piece else DEFAULT_LIMITS


def in_order(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: (change.stamp, change.key))


@st.composite
def days(draw: st.DrawFn) -> Day:
    day = Day()
    for _ in range(draw(st.integers(1, 5))):
        for _ in range(draw(st.integers(1, 4))):
            kind = draw(st.sampled_from(["update", "update", "delete", "insert", "rename", "show", "empty"]))
            phone = draw(st.sampled_from("ab"))
            if kind == "insert" and day.gone:
                day.insert(draw(st.sampled_from(sorted(day.gone))), phone)
            elif kind == "empty" and draw(st.integers(0, 3)) == 0:
                day.truncate()
            elif kind not in ("insert", "empty") and day.rows:
                row = draw(st.sampled_from(sorted(day.rows)))
                day.delete(row) if kind == "delete" else getattr(day, kind)(row, phone)
        if day.changes:
            day.commit(draw(st.sampled_from(["", "wang"])))
    day.name_all()
    return day


@pytest.mark.parametrize("piece", [0, 1, 2, 3])
@settings(max_examples=500, deadline=None)
@given(days(), st.sets(st.sampled_from("123")), st.booleans())
def test_a_change_resolved_late_equals_one_resolved_at_once(
    piece: int,
    day: Day,
    known: set[str],
    restarts: bool,  # noqa: FBT001
) -> None:
    """`piece`: how many rows of a transaction are mapped in one go; 0: all of them."""
    knowing = Taker([(row, f"K{row}") for row in "123"])
    ignorant = Taker([(row, f"K{row}") for row in sorted(known)], limits_of(piece))
    for transaction in day.transactions:
        knowing.take(transaction)
        ignorant.take(transaction)
        assert ignorant.ingest.awaited_identities == ignorant.store.awaited_identities().get("crm", {})
        if restarts:
            ignorant.restart()
    if day.emptied:  # what had been done to rows that nobody ever named is not known
        assert [change for change in ignorant.changes if change not in knowing.changes] == []
    else:
        assert in_order(ignorant.changes) == in_order(knowing.changes)
    assert ignorant.waiting() == 0
    assert ignorant.store.awaited_identities() == {}
    kept = [fact for fact in ignorant.facts if isinstance(fact, Parked)]
    assert all(fact.is_quarantined for fact in kept)
    assert sum(ignorant.released().values()) == len(kept)
    event(f"{min(len(kept), 4)} waited")


def test_a_quarantined_change_is_counted_and_released_once(monkeypatch: pytest.MonkeyPatch) -> None:
    day, taker = Day(), Taker()
    day.delete("1")
    day.commit()
    assert taker.take(*day.transactions) == []
    assert (taker.waiting(), len(taker.facts)) == (1, 1)
    taker.restart()
    assert taker.take(*day.transactions) == [], "delivered again"
    assert (taker.waiting(), len(taker.facts)) == (1, 1)


def test_an_insert_names_what_was_deleted_before() -> None:
    day, taker = Day(), Taker()
    day.delete("1")
    day.commit()
    day.insert("1", "a")
    day.commit()
    ended, begun = taker.take(*day.transactions)
    assert [(c.key, c.operation, c.place.lsn, c.stamp.wall_us - T0) for c in (ended, begun)] == [
        ("K1", "delete", 100, 1000),
        ("K1", "insert", 200, 2000),
    ]
    assert (taker.waiting(), taker.released()) == (0, {"named": 1})


def test_an_update_that_sends_its_key_names_nothing_earlier() -> None:
    """The key may be the new one: only later changes may count on it."""
    day, taker = Day(), Taker()
    day.update("1", "a")
    day.commit()
    day._log("update", None, cells("1", "K8", "b"))
    day.commit()
    assert [change.key for change in taker.take(*day.transactions)] == ["K8"]
    assert taker.waiting() == 1


def test_a_copy_of_the_table_names_its_rows() -> None:
    day, taker = Day(), Taker()
    day.update("1", "a")
    day.update("2", "a")
    day.commit()
    taker.take(*day.transactions)
    began = SnapshotBegan("crm", "7", 1, 150, T0 + 5_000, {}, lost="slot_lost")
    row = RowChange("snapshot", BY_ID, None, False, cells("1", "K1", "c"), 0)
    told = taker.take(began, SnapshotRows("crm", (row,)))
    assert [(c.key, c.operation, c.fields["phone"][1], c.place.lsn) for c in told] == [
        ("K1", "update", "a", 100),
        ("K1", "snapshot", "c", 150),
    ]
    assert taker.waiting() == 1
    taker.take(SnapshotBegan("crm", "7", 1, 200, T0 + 6_000, {}))
    assert taker.waiting() == 0, "a first copy begins with nothing"
    assert taker.ingest.awaited_identities == {}


def test_full_old_rows_resolve_by_the_earlier_identity_columns() -> None:
    """ALTER TABLE … REPLICA IDENTITY FULL: the rows have no identity of their own any more, but all columns are there."""
    day, taker = Day(), Taker()
    day.update("1", "a")
    day.commit()
    taker.take(*day.transactions)
    shown = RowChange("update", FULL, cells("1", "K1", "a"), True, cells("1", "K1", "b"), 0)
    told = taker.take(Transaction("crm", "7", 1, 200, T0 + 2_000, None, (), (shown,)))
    assert [(c.key, c.fields["phone"][1]) for c in told] == [("K1", "a"), ("K1", "b")]
    assert taker.waiting() == 0


def test_nothing_names_rows_of_an_emptied_table() -> None:
    day, taker = Day(), Taker()
    day.delete("1")
    day.commit()
    day.update("2", "a")
    day.truncate()
    day._log("insert", None, cells("1", "K7", "b"))
    day._log("insert", None, cells("2", "K8", "b"))
    day.commit()
    assert [(c.key, c.operation) for c in taker.take(*day.transactions)] == [("K7", "insert"), ("K8", "insert")]
    assert (taker.waiting(), taker.released()) == (0, {"emptied": 1})


def test_a_row_resolved_before_its_table_was_truncated_existed() -> None:
    day, taker = Day(), Taker()
    day.delete("1")
    day.commit()
    day.insert("1", "a")
    day.truncate()
    day.commit()
    assert [(c.key, c.operation, c.place.lsn) for c in taker.take(*day.transactions)] == [("K1", "delete", 100)]
    assert (taker.waiting(), taker.released()) == (0, {"named": 1})


@pytest.mark.parametrize("piece", [0, 1, 2, 3])
def test_a_row_renamed_in_the_transaction_that_deletes_it_has_its_first_identity(piece: int) -> None:
    day, taker, knowing = Day(), Taker((), limits_of(piece)), Taker([("1", "K1")])
    day.rename("1", "a")
    (row,) = set(day.rows) - {"2", "3"}
    day.show(row, "b")
    day.delete(row)
    day.commit()
    told = taker.take(*day.transactions)
    assert told == knowing.take(*day.transactions)
    assert [(change.operation, change.identity) for change in told] == [("delete", "1")]


def test_an_unreadable_change_is_not_quarantined() -> None:
    numbers = TableMap("crm", "customer", TABLE, ("no",), {"points": "phone"})
    of_numbers = BY_ID._replace(columns=(*BY_ID.columns[:2], Column("phone", 23, "", is_identity=False)))
    taker = Taker()
    taker.ingest = SourceIngest("crm", Mapper("crm", (numbers,), Plan({}, (numbers,))), "slot", SpillFile)
    change = RowChange("update", of_numbers, None, False, cells("1", "…", "many"), 0)
    taker.take(Transaction("crm", "7", 1, 200, T0 + 2_000, None, (), (change,)))
    assert taker.waiting() == 0
    assert [fact.is_quarantined for fact in taker.facts if isinstance(fact, Parked)] == [False]


def test_a_change_unresolved_within_the_retention_expires() -> None:
    day, taker = Day(), Taker()
    for row in "12":
        day.delete(row)
        day.commit()
    taker.take(*day.transactions)
    plan = Plan({}, (MAP,), retention_us=1_000_000)
    with taker.store.transaction() as tx:
        assert Retention(plan, {}).sweep_quarantine(tx, T0 + 1_000_000) == []
        assert Retention(replace(plan, retention_us=0), {}).sweep_quarantine(tx, T0 + 10**9) == []
        gone = Retention(plan, {}).sweep_quarantine(tx, T0 + 1_001_500)
    assert gone == [QuarantineReleased("crm", TABLE, "expired", 1)]
    assert taker.waiting() == 1
