"""RecordCache that may not share a value: which match, which are one set, what becomes of the question.

The law: whatever the order of arrival, the batches and the restarts, the open duplicates are those that a full fold of
every history says.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.lifecycle import LifecycleContext
from cdc_merge.conflicts.reevaluation import Reevaluation
from cdc_merge.conflicts.rules import duplicate
from cdc_merge.conflicts.rules.duplicate import Member, connected, detected_duplicate, duplicate_transitions
from cdc_merge.conflicts.rules.rulebook import rulebooks
from cdc_merge.conflicts.rules.unique import digests
from cdc_merge.conflicts.unique_index import UniqueIndex
from cdc_merge.merge.fold import fold
from cdc_merge.model import (
    DELETE,
    INSERT,
    SNAPSHOT,
    UNKNOWN,
    UPDATE,
    Change,
    Conflict,
    DetectedConflict,
    Json,
    Place,
    RecordKey,
    Stamp,
)
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, Rule, Unique
from cdc_merge.model.ports import Store
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.sqlite.store import SqliteStore
from cdc_merge.worker.limits import Limits
from cdc_merge.worker.record_cache import RecordCache

ENTITY = "customer"
TAX = Unique(("tax_no",))
FIELDS = ("tax_no", "name", "active", "country")


def shop(*unique: Unique, **plans: FieldPlan) -> EntityPlan:
    fields = {name: plans.get(name, FieldPlan(name)) for name in (*FIELDS, *plans)}
    mapped = {source: frozenset(fields) for source in "AB"}
    return EntityPlan(ENTITY, ("A", "B"), mapped, fields, unique=unique)


def plan_of(entity: EntityPlan, *rules: Rule) -> Plan:
    return Plan({ENTITY: entity}, (), rules, policy=repr(entity))


@dataclass
class Book:
    """What two systems do to their customers, one change a second."""

    changes: list[Change] = field(default_factory=list)
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def write(self, source: str, key: str, row: str = UPDATE, **values: Any) -> None:
        before = self.rows.get((source, key))
        kind = row if before is not None or row == SNAPSHOT else INSERT
        fields = {name: (UNKNOWN if before is None else before.get(name), value) for name, value in values.items()}
        self.rows[source, key] = {**(before or {}), **values}
        self._add(source, key, kind, fields)

    def snapshot(self, source: str, key: str, **values: Any) -> None:
        self.write(source, key, SNAPSHOT, **values)

    def delete(self, source: str, key: str) -> None:
        del self.rows[source, key]
        self._add(source, key, DELETE, {})

    def _add(self, source: str, key: str, row: str, fields: Mapping[str, Any]) -> None:
        number = len(self.changes) + 1
        stamp, place = Stamp(number * 1_000_000, 0, source), Place(f"of {source}", 1, number, "public.customer", 0)
        self.changes.append(Change(ENTITY, key, stamp, place, row, fields, committed_us=stamp.wall_us))

    def histories(self) -> dict[str, list[Change]]:
        keys = sorted({change.key for change in self.changes})
        return {key: [change for change in self.changes if change.key == key] for key in keys}


# ---------------------------------------------------------------- what a full fold says


class Whole:
    """Every record by the definition, every pair compared."""

    def __init__(self, plan: Plan, book: Book) -> None:
        entity = plan.entities[ENTITY]
        self.rulebook = rulebooks(plan, compile_expression)[ENTITY]
        self.records = {key: fold(entity, changes) for key, changes in book.histories().items()}
        count = lambda rule, outcome: None  # noqa: E731 - not counted here
        self.digests_by_key = {
            key: digests(record, self.rulebook.unique, count) for key, record in self.records.items()
        }

    def digests_of(self, key: str) -> Iterable[bytes]:
        return self.digests_by_key[key]

    def keys_with(self, digest: bytes) -> Sequence[str]:
        return [key for key, its in self.digests_by_key.items() if digest in its]

    def duplicates(self) -> dict[str, DetectedConflict]:
        sets = {connected(key, self) for key in self.records}
        found = [self._detect(keys) for keys in sets]
        return {each.key: each for each in found if each is not None}

    def _detect(self, keys: Sequence[str]) -> DetectedConflict | None:
        shared = {key: [d for d in self.digests_by_key[key] if len(self.keys_with(d)) > 1] for key in keys}
        members = [Member(self.records[key], tuple(self.digests_by_key[key][d] for d in shared[key])) for key in keys]
        return detected_duplicate(members, self.rulebook)


def conflicts_of(entity: EntityPlan, book: Book, *rules: Rule) -> dict[str, DetectedConflict]:
    return Whole(plan_of(entity, *rules), book).duplicates()


def sets_of(entity: EntityPlan, book: Book) -> list[tuple[str, ...]]:
    return sorted(each.records for each in conflicts_of(entity, book).values())


# ---------------------------------------------------------------- which records match


def two(left: Any, right: Any, **more: Any) -> Book:
    book = Book()
    book.write("A", "1", tax_no=left, **more)
    book.write("B", "2", tax_no=right, **more)
    return book


def test_one_tax_number_under_two_keys_is_one_conflict_under_the_smaller_key() -> None:
    (found,) = conflicts_of(shop(replace(TAX, severity="high")), two("7", "7")).values()
    assert (found.key, found.kind, found.field, found.group, found.rule) == ("1", "duplicate", None, None, None)
    assert (found.records, found.severity, found.provisional, found.labels) == (("1", "2"), "high", None, ())
    assert [(c.key, c.source, c.value) for c in found.candidates] == [
        ("1", "A", {"tax_no": "7"}),
        ("2", "B", {"tax_no": "7"}),
    ]


def test_the_same_number_twice_in_one_system_is_a_duplicate_too() -> None:
    book = Book()
    book.write("A", "1", tax_no="7")
    book.write("A", "2", tax_no="7")
    assert sets_of(shop(TAX), book) == [("1", "2")]


@pytest.mark.parametrize(("left", "right"), [(None, None), ("7", "8"), ("7", None), ("7", "7 ")])
def test_null_and_other_values_never_match(left: Any, right: Any) -> None:
    assert sets_of(shop(TAX), two(left, right)) == []


def test_what_is_compared_is_normalised_as_the_field_is_and_then_as_the_rule_says() -> None:
    trimmed = FieldPlan("tax_no", normalize=("trim",))
    assert sets_of(shop(TAX, tax_no=trimmed), two(" a1 ", "a1")) == [("1", "2")]
    assert sets_of(shop(TAX, tax_no=trimmed), two(" a1 ", "A1")) == []
    folding = replace(TAX, normalize=("casefold",))
    assert sets_of(shop(folding, tax_no=trimmed), two(" a1 ", "A1")) == [("1", "2")]


def test_members_of_a_group_are_compared_by_their_own_normal_form() -> None:
    group = FieldPlan("address", members=("city", "street"), options={"normalize": {"city": ("casefold",)}})
    fields = {name: FieldPlan(name) for name in FIELDS}
    mapped = {source: frozenset({*FIELDS, "city", "street"}) for source in "AB"}
    entity = EntityPlan(ENTITY, ("A", "B"), mapped, fields, {"address": group}, unique=(Unique(("city", "tax_no")),))
    book = Book()
    book.write("A", "1", tax_no="7", city="Wuhan", street="x")
    book.write("B", "2", tax_no="7", city="WUHAN", street="y")
    (found,) = conflicts_of(entity, book).values()
    assert [dict(c.value) for c in found.candidates] == [  # type: ignore[arg-type]  # an object of fields
        {"city": "Wuhan", "tax_no": "7"},
        {"city": "WUHAN", "tax_no": "7"},
    ]


def test_sets_and_maps_match_by_content() -> None:
    tags = shop(Unique(("tags",)), tags=FieldPlan("tags", merge="set", options={"separator": ";"}))
    book = Book()
    book.write("A", "1", tags="a; b")
    book.write("B", "2", tags="b;a")
    assert sets_of(tags, book) == [("1", "2")]
    prefs = shop(Unique(("prefs",)), prefs=FieldPlan("prefs", merge="map"))
    book = Book()
    book.write("A", "1", prefs=Json('{"a":1}'))
    book.write("B", "2", prefs=Json('{"a":1}'))
    (found,) = conflicts_of(prefs, book).values()
    assert found.records == ("1", "2")


def test_several_fields_match_only_together_and_never_with_a_null_among_them() -> None:
    both = shop(Unique(("country", "tax_no")))
    book = Book()
    book.write("A", "1", tax_no="7", country="cn")
    book.write("A", "2", tax_no="7", country="de")
    book.write("A", "3", tax_no="7", country=None)
    book.write("B", "4", tax_no="7", country=None)
    book.write("B", "5", tax_no="7", country="cn")
    assert sets_of(both, book) == [("1", "5")]


def test_values_do_not_run_into_each_other() -> None:
    book = Book()
    book.write("A", "1", tax_no="a,b", country="c")
    book.write("B", "2", tax_no="a", country="b,c")
    assert sets_of(shop(Unique(("tax_no", "country"))), book) == []


def test_only_records_of_which_the_condition_holds_may_not_share() -> None:
    entity = shop(replace(TAX, when="record.active"))
    book = two("7", "7", active=True)
    book.write("B", "3", tax_no="7", active=False)
    book.write("B", "4", tax_no="7", active=None)
    assert sets_of(entity, book) == [("1", "2")]
    book.write("A", "1", active=False)
    assert sets_of(entity, book) == []


def test_two_rules_that_compare_the_same_field_do_not_match_each_other() -> None:
    home, abroad = replace(TAX, when='record.country == "cn"'), replace(TAX, when='record.country == "de"')
    book = Book()
    book.write("A", "1", tax_no="7", country="cn")
    book.write("B", "2", tax_no="7", country="de")
    assert sets_of(shop(home, abroad), book) == []


def test_a_record_that_has_ended_matches_nothing() -> None:
    book = two("7", "7")
    book.delete("B", "2")
    assert sets_of(shop(TAX), book) == []


def test_the_merged_value_is_compared_also_while_it_is_in_conflict() -> None:
    book = two("7", "8")
    book.snapshot("B", "1", tax_no="6")
    book.write("B", "1", tax_no="8")
    (found,) = conflicts_of(shop(TAX), book).values()
    assert [(c.key, c.source, c.value) for c in found.candidates] == [
        ("1", "B", {"tax_no": "8"}),
        ("2", "B", {"tax_no": "8"}),
    ]


# ---------------------------------------------------------------- sets


def test_records_that_match_by_different_rules_are_one_set() -> None:
    entity = shop(replace(TAX, severity="low"), Unique(("name",), severity="critical"))
    book = Book()
    book.write("A", "1", tax_no="7", name="x")
    book.write("A", "2", tax_no="7", name="y")
    book.write("B", "3", tax_no="8", name="y")
    book.write("B", "4", tax_no="9", name="z")
    (found,) = conflicts_of(entity, book).values()
    assert (found.records, found.severity) == (("1", "2", "3"), "critical")
    values = {c.key: dict(c.value) for c in found.candidates}  # type: ignore[arg-type]  # an object of fields
    assert values == {"1": {"tax_no": "7"}, "2": {"tax_no": "7", "name": "y"}, "3": {"name": "y"}}


def test_a_rule_about_the_entity_says_how_grave_a_duplicate_is() -> None:
    (found,) = conflicts_of(shop(TAX), two("7", "7"), Rule("twins", ENTITY, severity="critical")).values()
    assert found.severity == "critical"


def test_a_duplicate_between_initial_snapshots_is_labelled_baseline() -> None:
    book = Book()
    book.snapshot("A", "1", tax_no="7")
    book.snapshot("B", "1", tax_no="7")
    book.snapshot("B", "2", tax_no="7")
    (found,) = conflicts_of(shop(TAX), book).values()
    assert (found.labels, [(c.key, c.source) for c in found.candidates]) == (
        ("baseline",),
        [("1", "A"), ("1", "B"), ("2", "B")],
    )
    book.write("A", "3", tax_no="7")
    (found,) = conflicts_of(shop(TAX), book).values()
    assert (found.labels, found.records) == ((), ("1", "2", "3"))


def test_a_value_that_stands_for_none_names_the_first_records_wherever_the_search_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicate, "MOST_RECORDS", 4)
    book = Book()
    for number in range(1, 10):
        book.write("A", str(number), tax_no="0")
    whole = Whole(plan_of(shop(TAX)), book)
    limited = Limited(whole)
    assert {connected(str(number), limited) for number in range(1, 10)} == {("1", "2", "3", "4")}


class Limited:
    """The first four keys of each digest, as a store gives them."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole

    def digests_of(self, key: str) -> Iterable[bytes]:
        return self._whole.digests_of(key)

    def keys_with(self, digest: bytes) -> Sequence[str]:
        return self._whole.keys_with(digest)[:4]


# ---------------------------------------------------------------- the queue


def lifecycle_context(now_us: int = 1) -> LifecycleContext:
    numbers = itertools.count(100)
    return LifecycleContext(now_us, lambda: f"c{next(numbers)}", "sha256:0")


def standing(conflict_id: str, *records: str, raised_us: int = 1) -> Conflict:
    return Conflict(conflict_id, about(*records), "open", 3, raised_us)


def about(*records: str) -> DetectedConflict:
    return DetectedConflict(ENTITY, records[0], None, None, "duplicate", "medium", (), records=records)


def moved(
    unfinished: Sequence[Conflict], duplicates: Sequence[DetectedConflict], *, decided: bool = False
) -> list[tuple[Any, ...]]:
    changed = duplicate_transitions(unfinished, duplicates, lifecycle_context(), is_decided=lambda conflict: decided)
    return [(c.id, c.detected.key, c.detected.records, c.status, c.resolution, c.revision) for c in changed]


def test_a_duplicate_continues_when_a_smaller_key_joins() -> None:
    assert moved([standing("a", "2", "3")], [about("1", "2", "3")]) == [("a", "1", ("1", "2", "3"), "open", None, 4)]


def test_an_unchanged_duplicate_has_no_transition() -> None:
    assert moved([standing("a", "2", "3")], [about("2", "3")]) == []


def test_sets_that_join_are_one_conflict_and_the_later_one_is_superseded() -> None:
    known = [standing("b", "1", "2", raised_us=9), standing("a", "3", "4", raised_us=5)]
    assert moved(known, [about("1", "2", "3", "4")]) == [
        ("a", "1", ("1", "2", "3", "4"), "open", None, 4),
        ("b", "1", ("1", "2"), "closed", "superseded", 3),
    ]


def test_the_part_of_a_split_set_with_its_key_keeps_the_conflict() -> None:
    known = [standing("a", "2", "3", "4", "5")]
    assert moved(known, [about("2", "5"), about("3", "4")]) == [
        ("a", "2", ("2", "5"), "open", None, 4),
        ("c100", "3", ("3", "4"), "settling", None, 1),
    ]


@pytest.mark.parametrize(("decided", "resolution"), [(False, "converged"), (True, "decided")])
def test_a_duplicate_whose_records_differ_again_is_closed(decided: bool, resolution: str) -> None:
    assert moved([standing("a", "2", "3")], [], decided=decided) == [("a", "2", ("2", "3"), "closed", resolution, 3)]


# ---------------------------------------------------------------- the law


class Worker:
    """Batches over a store, as the pipeline makes them; `begin_anew` forgets all that is not on disk."""

    def __init__(self, plan: Plan, store: Store, limits: Limits = Limits(cached_records=3)) -> None:  # noqa: B008 - a value
        self._plan, self._limits = plan, limits
        self.store = store
        self._numbers = itertools.count(1)
        self.begin_anew()

    def begin_anew(self, plan: Plan | None = None) -> None:
        self._plan = plan or self._plan
        self._records = RecordCache(self._plan, self._limits)
        self._rulebooks = rulebooks(self._plan, compile_expression)
        self._duplicates = UniqueIndex(self.store)
        self._reevaluation = Reevaluation(self.store, self._limits.reevaluated_records)
        self._reevaluation.follow(self._plan, ())

    def merge(self, changes: Iterable[Change], fails_after: int | None = None) -> None:
        self._records.begin()
        with self.store.transaction() as tx:
            self._records.apply(list(changes), tx)
            self._records.refold(tx)
            self._records.touch(self._reevaluation.next_page(tx, self._records.touched), tx)
            now = LifecycleContext(next(self._numbers), lambda: f"id{next(self._numbers)}", "")
            load, touched = partial(self._records.states, tx=tx), self._records.touched
            conflicts = list(self._duplicates.transitions(tx, touched, load, self._rulebooks, now))
            tx.save_conflicts(conflicts)
            if fails_after is not None:
                raise Death
        self._reevaluation.committed()
        for conflict in conflicts:
            entry = self._records.cached(RecordKey(ENTITY, conflict.detected.key))
            if entry is not None and conflict.status != "closed":
                entry.unfinished[None, "duplicate", None] = conflict
        self._records.shrink()

    def settle(self) -> None:
        while self._reevaluation.is_due:
            self.merge([])

    def open(self) -> dict[str, DetectedConflict]:
        unfinished = list(self.store.unfinished_conflicts())
        found = {conflict.detected.key: conflict.detected for conflict in unfinished}
        assert len(found) == len(unfinished), "one question a set"
        return found

    def ids(self) -> dict[str, str]:
        return {conflict.detected.key: conflict.id for conflict in self.store.unfinished_conflicts()}


class Death(Exception):
    """The batch does not reach its end."""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield opened
    opened.close()


STORY = shop(TAX, Unique(("name",), normalize=("casefold",), when="record.active"), active=FieldPlan("active"))
VALUES = {"tax_no": ("7", "8", None), "name": ("x", "X", "y", None), "active": (True, False, None)}


def story(seed: int, length: int = 40, keys: int = 6) -> Book:
    """What two systems might do to a few customers, drawn by lot."""
    chance, book = random.Random(seed), Book()
    for _ in range(length):
        source, key = chance.choice("AB"), str(chance.randint(1, keys))
        if (source, key) in book.rows and chance.random() < 0.2:
            book.delete(source, key)
        else:
            drawn = chance.sample(sorted(VALUES), chance.randint(1, 3))
            values: dict[str, Any] = {name: chance.choice(VALUES[name]) for name in drawn}
            book.write(source, key, **values)
    return book


@pytest.mark.parametrize("seed", range(60))
def test_any_order_any_batches_and_any_restarts_leave_the_duplicates_of_the_full_fold(seed: int) -> None:
    chance, book = random.Random(seed), story(seed)
    expected = conflicts_of(STORY, book)
    for _ in range(4):
        arrived = chance.sample(book.changes, len(book.changes))
        worker = Worker(plan_of(STORY), MemoryStore())
        while arrived:
            size = chance.choice((1, 1, 3, 20))
            batch, arrived = arrived[:size], arrived[size:]
            if chance.random() < 0.2:
                with pytest.raises(Death):
                    worker.merge(batch, fails_after=0)
                worker.begin_anew()
            worker.merge(batch)
            if chance.random() < 0.2:
                worker.begin_anew()
        worker.settle()
        assert worker.open() == expected


def test_the_stories_of_the_law_have_duplicates_of_several_records() -> None:
    sizes = [len(each.records) for seed in range(60) for each in conflicts_of(STORY, story(seed)).values()]
    assert len(sizes) > 40
    assert max(sizes) > 3


def test_a_duplicate_keeps_its_id_while_records_join_and_leave(store: Store) -> None:
    worker = Worker(plan_of(shop(TAX)), store)
    book = two("7", "7")
    worker.merge(book.changes)
    (first,) = worker.ids().values()
    book.write("B", "0", tax_no="7")
    worker.merge(book.changes[-1:])
    assert worker.ids() == {"0": first}
    worker.begin_anew()
    book.delete("B", "0")
    worker.merge(book.changes[-1:])
    assert worker.ids() == {"1": first}
    book.write("A", "1", tax_no="9")
    worker.merge(book.changes[-1:])
    assert worker.ids() == {}
    found = store.conflict(first)
    assert found is not None
    assert (found.status, found.resolution, found.revision) == ("closed", "converged", 3)


def test_a_dismissed_duplicate_is_not_raised_again_until_another_record_joins(store: Store) -> None:
    worker = Worker(plan_of(shop(TAX)), store)
    book = two("7", "7")
    worker.merge(book.changes)
    (conflict,) = store.unfinished_conflicts()
    with store.transaction() as tx:
        tx.save_conflicts([replace(conflict, status="closed", resolution="dismissed")])
    worker.begin_anew()
    book.write("A", "1", name="other")
    worker.merge(book.changes[-1:])
    assert worker.ids() == {}
    book.write("A", "3", tax_no="7")
    worker.merge(book.changes[-1:])
    (found,) = worker.open().values()
    assert found.records == ("1", "2", "3")


def test_a_set_that_the_new_rules_leave_together_keeps_its_conflict(
    store: Store,
) -> None:
    book = two("7", "7")
    book.write("B", "3", tax_no="7")
    worker = Worker(plan_of(shop(TAX)), store, Limits(cached_records=3, reevaluated_records=1))
    worker.merge(book.changes)
    before = worker.ids()
    worker.begin_anew(plan_of(shop(replace(TAX, normalize=("trim",)))))
    worker.settle()
    assert worker.ids() == before
    assert [each.status for each in store.conflicts({}, None, 9)] == ["settling"]


def test_records_of_before_a_rule_was_added_are_reevaluated_page_by_page(
    store: Store,
) -> None:
    book = story(3)
    worker = Worker(plan_of(shop()), store, Limits(cached_records=3, reevaluated_records=2))
    worker.merge(book.changes)
    worker.settle()
    assert worker.open() == {}
    worker.begin_anew(plan_of(STORY))
    worker.merge([])
    worker.begin_anew(plan_of(STORY))
    worker.settle()
    assert worker.open() == conflicts_of(STORY, book) != {}
    worker.begin_anew(plan_of(shop()))
    worker.settle()
    assert worker.open() == {}
