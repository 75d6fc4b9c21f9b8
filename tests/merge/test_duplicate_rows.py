"""Two rows of one source under one key: the record follows the row that had it first, and the others are told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.rules.duplicate import Member, detected_duplicate
from cdc_merge.conflicts.rules.rulebook import rulebooks
from cdc_merge.merge.checkpoint import dump_state, load_state
from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.duplicate_rows import identity_order
from cdc_merge.merge.fold import advance, fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.model import DELETE, INSERT, SNAPSHOT, TRUNCATE, UNKNOWN, UPDATE, Change, DetectedConflict, Place, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan

FIELDS = {
    "phone": FieldPlan("phone", severity="high"),
    "points": FieldPlan("points", merge="counter"),
    "tags": FieldPlan("tags", merge="set"),
}
PLAN = EntityPlan("customer", ("A", "B"), {source: frozenset(FIELDS) for source in "AB"}, FIELDS)
UNITS = Units(PLAN)


@dataclass
class Table:
    """Rows of one key in two systems, by surrogate identity; one change a second."""

    changes: list[Change] = field(default_factory=list)
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def write(self, source: str, identity: str, kind: str = UPDATE, **values: Any) -> None:
        held = self.rows.get((source, identity))
        row = kind if kind != UPDATE or held is not None else INSERT
        told = {name: (UNKNOWN if held is None else held.get(name), value) for name, value in values.items()}
        self.rows[source, identity] = {**(held or {}), **values}
        self._add(source, identity, row, told)

    def delete(self, source: str, identity: str, **more: Any) -> None:
        del self.rows[source, identity]
        self._add(source, identity, DELETE, {}, **more)

    def truncate(self, source: str) -> None:
        self.rows = {name: row for name, row in self.rows.items() if name[0] != source}
        self._add(source, None, TRUNCATE, {})

    def copied(self, source: str, *rows: tuple[str, str]) -> None:
        """A first copy: one place but for the ordinal, stamps that count on."""
        for number, (identity, phone) in enumerate(rows):
            self.rows[source, identity] = {"phone": phone}
            stamp = Stamp(1_000_000, number, source)
            place = Place(f"of {source}", 1, 1, "public.customer", number)
            told: Mapping[str, Any] = {"phone": (UNKNOWN, phone)}
            self.changes.append(Change("customer", "C1", stamp, place, SNAPSHOT, told, identity=identity))

    def _add(self, source: str, identity: str | None, row: str, told: Mapping[str, Any], **more: Any) -> None:
        number = len(self.changes) + 2
        stamp, place = Stamp(number * 1_000_000, 0, source), Place(f"of {source}", 1, number, "public.customer", 0)
        change = Change("customer", "C1", stamp, place, row, told, committed_us=stamp.wall_us, identity=identity)
        self.changes.append(change._replace(**more))

    def record(self) -> Record:
        return fold(UNITS, self.changes)


def duplicate_conflict(record: Record) -> DetectedConflict | None:
    rulebook = rulebooks(Plan({"customer": PLAN}, ()), compile_expression)["customer"]
    return detected_duplicate([Member(record, ())], rulebook)


def values_of(record: Record) -> Mapping[str, Any]:
    return merged(record).values


def test_the_record_follows_the_row_that_came_first_and_both_are_named() -> None:
    table = Table()
    table.write("A", "1", phone="1")
    table.write("A", "2", phone="2")
    table.write("A", "2", phone="3")
    record = table.record()
    assert values_of(record) == {"phone": "1"}
    found = duplicate_conflict(record)
    assert found is not None
    assert (found.kind, found.key, found.records, found.severity) == ("duplicate", "C1", ("C1",), "high")
    first, _, last = table.changes
    assert [(c.value, c.place, c.key) for c in found.candidates] == [
        ({"phone": "1"}, first.place, "C1"),
        ({"phone": "3"}, table.changes[1].place, "C1"),
    ]
    assert record.last == last.stamp


def test_what_happens_to_the_other_row_is_no_write_of_the_record() -> None:
    table = Table()
    table.write("A", "1", phone="1", points=5)
    table.write("A", "2", phone="2", points=7)
    table.write("A", "2", points=9)
    table.write("B", "7", phone="1", points=5)
    record = table.record()
    assert values_of(record)["points"] == 5
    assert merge_conflicts(record) == ()


def test_when_the_followed_row_goes_the_other_one_takes_its_place() -> None:
    table = Table()
    table.write("A", "1", phone="1")
    table.write("A", "3", phone="3")
    table.write("A", "2", phone="2")
    table.delete("A", "1")
    record = table.record()
    assert (values_of(record), merged(record).deleted) == ({"phone": "3"}, False)
    found = duplicate_conflict(record)
    assert found is not None
    assert [c.value for c in found.candidates] == [{"phone": "3"}, {"phone": "2"}]
    table.delete("A", "3")
    assert values_of(table.record()) == {"phone": "2"}
    assert duplicate_conflict(table.record()) is None
    table.delete("A", "2")
    assert merged(table.record()).deleted


def test_when_the_other_row_goes_nothing_happens_to_the_record() -> None:
    table = Table()
    table.write("A", "1", phone="1")
    table.write("A", "2", phone="2")
    table.delete("A", "2")
    record = table.record()
    assert (values_of(record), duplicate_conflict(record)) == ({"phone": "1"}, None)
    table.delete("A", "1")
    assert merged(table.record()).deleted


def test_a_row_that_moves_away_leaves_the_record_to_the_other_one() -> None:
    table = Table()
    table.write("A", "1", phone="1")
    table.write("A", "2", phone="2")
    table.delete("A", "1", moved_to="C9")
    record = table.record()
    assert (values_of(record), merged(record).deleted, merge_conflicts(record)) == ({"phone": "2"}, False, ())


def test_a_truncate_takes_all_rows() -> None:
    table = Table()
    table.write("A", "1", phone="1")
    table.write("A", "2", phone="2")
    table.write("B", "7", phone="1")
    table.truncate("A")
    record = table.record()
    assert (merged(record).sources["A"].presence, duplicate_conflict(record)) == ("deleted", None)
    table.write("A", "5", phone="5")
    assert duplicate_conflict(table.record()) is None


def test_a_row_under_a_new_name_is_still_the_one_that_is_followed() -> None:
    table = Table()
    table.write("A", "1", phone="1")
    table.rows["A", "8"] = table.rows.pop(("A", "1"))
    table.write("A", "8", phone="8")
    record = table.record()
    assert (values_of(record), duplicate_conflict(record)) == ({"phone": "8"}, None)
    table.delete("A", "8")
    assert merged(table.record()).deleted


@pytest.mark.parametrize("rows", list(itertools.permutations([("9", "a"), ("10", "b"), ("2", "c")])))
def test_of_rows_of_one_copy_the_smallest_identity_is_followed_whatever_comes_first(
    rows: Sequence[tuple[str, str]],
) -> None:
    table = Table()
    table.copied("A", *rows)
    record = table.record()
    assert values_of(record) == {"phone": "c"}
    found = duplicate_conflict(record)
    assert found is not None
    assert found.labels == ("baseline",)
    assert len(found.candidates) == 3
    table.delete("A", "2")
    assert values_of(table.record()) == {"phone": "a"}


@pytest.mark.parametrize("first", ["a", "b"])
def test_what_was_read_of_a_larger_identity_leaves_no_difference_between_systems(first: str) -> None:
    table = Table()
    table.copied("B", ("7", "c"))
    table.copied("A", *[("9", first), ("2", "c")])
    record = table.record()
    assert merge_conflicts(record) == ()
    table.write("A", "2", phone="d")
    assert merge_conflicts(table.record()) == ()


@pytest.mark.parametrize("rows", [[("9", "c"), ("2", "a")], [("2", "a"), ("9", "c")]])
def test_systems_differ_at_first_if_the_smaller_identity_does(rows: list[tuple[str, str]]) -> None:
    table = Table()
    table.copied("B", ("7", "c"))
    table.copied("A", *rows)
    (found,) = merge_conflicts(table.record())
    assert (found.kind, found.labels) == ("divergence", ("baseline",))
    assert {c.source: c.value for c in found.candidates} == {"A": "a", "B": "c"}


def test_numbers_in_identities_count_as_numbers() -> None:
    assert sorted(["10", "9", "a", "1,10", "1,9"], key=identity_order) == ["1,9", "1,10", "9", "10", "a"]


# ---------------------------------------------------------------- laws


def story(seed: int) -> Table:
    chance, table = random.Random(seed), Table()
    if chance.random() < 0.5:
        identities = chance.sample("123", chance.randint(1, 3))
        table.copied("A", *[(identity, chance.choice("ab")) for identity in identities])
    for _ in range(14):
        source, identity = chance.choice("AAB"), chance.choice("123")
        if (source, identity) in table.rows and chance.random() < 0.35:
            table.delete(source, identity)
        elif chance.random() < 0.05:
            table.truncate(source)
        else:
            values: dict[str, Any] = {
                "phone": chance.choice("abc"),
                "points": chance.randint(0, 5),
                "tags": (chance.choice("xy"),),
            }
            is_there = (source, identity) in table.rows
            names = chance.sample(sorted(values), chance.randint(1, 3)) if is_there else list(values)
            told: dict[str, Any] = {name: values[name] for name in names}
            table.write(source, identity, **told)
    return table


def said(record: Record) -> Any:
    return merged(record), merge_conflicts(record), duplicate_conflict(record)


@pytest.mark.parametrize("seed", range(150))
def test_however_it_is_cut_and_saved_in_between_the_fold_goes_on_the_same(seed: int) -> None:
    table = story(seed)
    expected = said(table.record())
    arrived = random.Random(seed).sample(table.changes, len(table.changes))
    assert said(fold(UNITS, [*arrived, *arrived[:3]])) == expected
    history = sorted(table.changes, key=lambda change: change.stamp)
    going = fold(UNITS, history[:1], compacts=True)
    for change in history[1:]:
        going = load_state(UNITS, dump_state(going), key="C1", max_ahead_us=going.max_ahead_us)
        assert advance(going, change)
    assert said(going) == expected


@pytest.mark.parametrize("seed", range(150))
def test_a_source_is_present_as_long_as_one_row_is_there_and_says_what_one_of_them_holds(seed: int) -> None:
    table = story(seed)
    record = table.record()
    for source, view in merged(record).sources.items():
        rows = [row for (of, _), row in table.rows.items() if of == source]
        assert (view.presence == "present") == bool(rows)
        if rows and not duplicate_conflict(record):
            assert view.values.get("phone") in {row.get("phone") for row in rows}
    several = [source for source in "AB" if sum(of == source for of, _ in table.rows) > 1]
    assert bool(several) == (duplicate_conflict(record) is not None) or merged(record).deleted
