"""Worlds: scripts that systems could really have written.

A `World` plays the sources: it knows the row that each of them holds, so that `before` values, inserts, updates and
deletes fit together, and it stamps with one hybrid logical clock per source. `small_worlds` exhausts what two or three
sources can do in a few steps; `scripts` samples longer stories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

from hypothesis import strategies as st

from cdc_merge.model import (
    DECISION,
    DECISION_SOURCE,
    DELETE,
    INSERT,
    SNAPSHOT,
    TRUNCATE,
    UNKNOWN,
    UPDATE,
    Change,
    Copy,
    Json,
    Place,
    Stamp,
)
from cdc_merge.model.clock import received, tick
from cdc_merge.model.plan import EntityPlan, FieldPlan
from tests.laws.oracle import answer

ENTITY, KEY = "customer", "C001"
START_US = 1_790_000_000_000_000
SECOND = 1_000_000
MARKED = Copy()


def entity(
    *plans: FieldPlan,
    sources: Sequence[str] = ("A", "B"),
    groups: Iterable[FieldPlan] = (),
    deletes: str = "review",
    mapped: Mapping[str, Iterable[str]] | None = None,
) -> EntityPlan:
    """An entity whose sources map every field, unless `mapped` says otherwise."""
    shapes = {group.name: group for group in groups}
    names = {plan.name for plan in plans} | {member for group in shapes.values() for member in group.members}
    told = mapped or {}
    return EntityPlan(
        name=ENTITY,
        sources=tuple(sources),
        mapped={source: frozenset(told.get(source, names)) for source in sources},
        fields={plan.name: plan for plan in plans},
        groups=shapes,
        deletes=deletes,
    )


@dataclass
class World:
    """Sources that hold rows of one record. Every step takes one second unless `wait` says otherwise.

    `skew` is how far a source's clock is ahead, in µs. With `full_old` updates carry old tuples and only changed
    columns (REPLICA IDENTITY FULL); without it every column is sent and `before` is unknown.
    """

    plan: EntityPlan
    skew: Mapping[str, int] = field(default_factory=dict)
    full_old: bool = True
    now_us: int = START_US
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    clocks: dict[str, Stamp] = field(default_factory=dict)
    lsn: int = 0
    changes: list[Change] = field(default_factory=list)

    def copy(self) -> World:
        """The same world, to go another way."""
        return replace(self, rows=dict(self.rows), clocks=dict(self.clocks), changes=list(self.changes))

    def wait(self, seconds: float = 1) -> None:
        self.now_us += int(seconds * SECOND)

    def stamp(self, source: str) -> Stamp:
        last = self.clocks.get(source, Stamp(0, 0, source))
        self.clocks[source] = tick(last, self.now_us + self.skew.get(source, 0))
        return self.clocks[source]

    def snapshot(self, source: str, **values: Any) -> Change:
        if values:
            self.rows[source] = self._row(source, values)
        return self._add(source, SNAPSHOT, {name: (UNKNOWN, value) for name, value in self.rows[source].items()})

    def insert(self, source: str, copy: Copy | None = None, actor: str | None = None, **values: Any) -> Change:
        assert source not in self.rows
        self.rows[source] = self._row(source, values)
        told = {name: (UNKNOWN, value) for name, value in self.rows[source].items()}
        return self._add(source, INSERT, told, copy=copy, actor=actor)

    def update(self, source: str, copy: Copy | None = None, actor: str | None = None, **values: Any) -> Change:
        row = self.rows[source]
        if self.full_old:
            told: dict[str, Any] = {name: (row[name], value) for name, value in values.items() if row[name] != value}
        else:
            told = {name: (UNKNOWN, values.get(name, held)) for name, held in row.items()}
        self.rows[source] = {**row, **values}
        return self._add(source, UPDATE, told, copy=copy, actor=actor)

    def write(self, source: str, copy: Copy | None = None, **values: Any) -> Change:
        """An update where the source holds the row, else an insert."""
        return self.update(source, copy, **values) if source in self.rows else self.insert(source, copy, **values)

    def delete(self, source: str, copy: Copy | None = None, moved_to: str | None = None) -> Change:
        del self.rows[source]
        return self._add(source, DELETE, {}, copy=copy, moved_to=moved_to)

    def truncate(self, source: str) -> Change:
        del self.rows[source]
        return self._add(source, TRUNCATE, {})

    def decide(self, **values: Any) -> Change:
        return self._decision(DECISION, {name: (UNKNOWN, value) for name, value in values.items()})

    def decide_delete(self) -> Change:
        return self._decision(DELETE, {})

    def _decision(self, row: str, told: dict[str, Any]) -> Change:
        """§6: "Its stamp is later than every stamp of its record"."""
        latest = max(change.stamp for change in self.changes)
        stamp = Stamp(latest.wall_us + 1, 0, DECISION_SOURCE)
        for source in self.clocks:
            self.clocks[source] = max(self.clocks[source], Stamp(stamp.wall_us, 0, source))
        return self._append(Change(ENTITY, KEY, stamp, self._place(DECISION_SOURCE), row, told))

    def _row(self, source: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values.get(name) for name in sorted(self.plan.mapped[source])}

    def _place(self, source: str) -> Place:
        self.lsn += 1
        return Place(f"system-{source}", 1, self.lsn, "public.customer", 0)

    def _add(self, source: str, row: str, told: dict[str, Any], **more: Any) -> Change:
        change = Change(ENTITY, KEY, self.stamp(source), self._place(source), row, told, **more)
        self.wait()
        return self._append(change)

    def _append(self, change: Change) -> Change:
        self.changes.append(change._replace(committed_us=change.stamp.wall_us))
        return self.changes[-1]


# ---------------------------------------------------------------- steps


Step = tuple[str, str, Any]
"""(what, source, argument): see STEPS."""


def _edit(world: World, source: str, values: Any) -> bool:
    row = world.rows.get(source)
    if row is None or all(row[name] == value for name, value in values.items()):
        return False
    world.update(source, **values)
    return True


def _insert(world: World, source: str, values: Any) -> bool:
    if source in world.rows:
        return False
    world.insert(source, **values)
    return True


def _marked(world: World, source: str, argument: Any) -> bool:
    """A sync job repeats what the source `argument` holds, row or absence of it."""
    return _job(world, source, argument, MARKED)


def _marked_from(world: World, source: str, argument: Any) -> bool:
    return _job(world, source, argument, Copy(from_source=argument))


def _unmarked(world: World, source: str, argument: Any) -> bool:
    return _job(world, source, argument, None)


def _job(world: World, source: str, origin: str, copy: Copy | None) -> bool:
    row, mine = world.rows.get(origin), world.rows.get(source)
    mapped = world.plan.mapped[source]
    if row is None:
        if mine is None or origin not in world.clocks:
            return False
        world.delete(source, copy)
        return True
    wanted = {name: value for name, value in row.items() if name in mapped}
    if mine is not None and all(mine[name] == value for name, value in wanted.items()):
        return False
    world.write(source, copy, **wanted)
    return True


def _late_copy(world: World, source: str, values: Any) -> bool:
    """A marked copy of a value that need not be anybody's any more."""
    row = world.rows.get(source)
    if row is None or all(row[name] == value for name, value in values.items()):
        return False
    world.update(source, MARKED, **values)
    return True


def _named_copy(world: World, source: str, origin: str) -> bool:
    """Our own write-back of the last change of `origin`, which the apply message names."""
    own = [change for change in world.changes if change.stamp.source == origin and change.copy is None]
    written = [change for change in own if change.operation in (INSERT, UPDATE, DECISION)]
    if not written or source not in world.rows:
        return False
    mapped = world.plan.mapped[source]
    values: dict[str, Any] = {
        name: after for name, (_, after) in written[-1].fields.items() if name in mapped and after is not UNKNOWN
    }
    if all(world.rows[source][name] == value for name, value in values.items()):
        return False
    world.clocks[source] = received(world.clocks[source], written[-1].stamp)
    world.update(source, Copy(of=(written[-1].place,)), **values)
    return True


def _delete(world: World, source: str, _: Any) -> bool:
    if source not in world.rows:
        return False
    world.delete(source)
    return True


def _truncate(world: World, source: str, _: Any) -> bool:
    if source not in world.rows:
        return False
    world.truncate(source)
    return True


def _snapshot(world: World, source: str, values: Any) -> bool:
    """A first snapshot of a source that was not read before."""
    if any(change.stamp.source == source for change in world.changes):
        return False
    world.snapshot(source, **values)
    return True


def _decide(world: World, _: str, values: Any) -> bool:
    """People answer a question that is open, or revise what they decided."""
    asked = {question.field or question.group for question in answer(world.plan, world.changes).conflicts}
    units = {unit.name for unit in world.plan.groups.values() if set(unit.members) <= set(values)} or set(values)
    decided = any(change.operation == DECISION and set(change.fields) == set(values) for change in world.changes)
    if not decided and not units & asked:
        return False
    world.decide(**values)
    return True


def _decide_delete(world: World, _: str, __: Any) -> bool:
    if all(question.kind != "update_delete" for question in answer(world.plan, world.changes).conflicts):
        return False
    world.decide_delete()
    return True


STEPS: Mapping[str, Callable[[World, str, Any], bool]] = {
    "edit": _edit,
    "insert": _insert,
    "marked": _marked,
    "marked_from": _marked_from,
    "unmarked": _unmarked,
    "late_copy": _late_copy,
    "named_copy": _named_copy,
    "delete": _delete,
    "truncate": _truncate,
    "snapshot": _snapshot,
    "decide": _decide,
    "decide_delete": _decide_delete,
}
"""Each returns False, and does nothing, where the world makes the step impossible or empty."""


def perform(world: World, steps: Iterable[Step]) -> bool:
    return all(STEPS[what](world, source, argument) for what, source, argument in steps)


# ---------------------------------------------------------------- small worlds


@dataclass(frozen=True)
class Alphabet:
    """What may happen in the small worlds of one merge type: `values` that people type, `start` a first snapshot. Of a
    group (a plan with members) they are tuples."""

    plan: FieldPlan
    start: Any
    values: tuple[Any, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The mapped fields: a group's members."""
        return self.plan.members or (self.plan.name,)

    def row(self, value: Any) -> dict[str, Any]:
        """The mapped fields when the field, or the group, has that value."""
        return dict(zip(self.names, value, strict=True)) if self.plan.members else {self.plan.name: value}

    def entity(self, *others: FieldPlan, groups: Iterable[FieldPlan] = (), **more: Any) -> EntityPlan:
        """An entity with this field or group, and others."""
        if self.plan.members:
            return entity(*others, groups=[self.plan, *groups], **more)
        return entity(self.plan, *others, groups=groups, **more)


TAGS = (("a",), (), ("a", "b"), ("b",))

ALPHABETS: Mapping[str, Alphabet] = {
    "mv": Alphabet(FieldPlan("f"), "0", ("1", "2")),
    "mv_past": Alphabet(FieldPlan("f", agreement="past"), "0", ("1", "2")),
    "mv_off": Alphabet(FieldPlan("f", agreement="off"), "0", ("1", "2")),
    "lww": Alphabet(FieldPlan("f", merge="lww"), "0", ("1", "2")),
    "priority": Alphabet(FieldPlan("f", merge="priority", options={"order": ("B", "A", "C")}), "0", ("1", "2")),
    "max": Alphabet(FieldPlan("f", merge="max"), 5, (4, 9)),
    "min": Alphabet(FieldPlan("f", merge="min"), 5, (4, 9)),
    "flag": Alphabet(FieldPlan("f", merge="flag", options={"wins": True}), False, (True, False)),
    "lattice": Alphabet(
        FieldPlan("f", merge="lattice", options={"order": {"draft": ("sent", "void"), "sent": ("paid",)}}),
        "draft",
        ("sent", "void", "paid"),
    ),
    "immutable": Alphabet(FieldPlan("f", merge="immutable"), None, ("1", "2")),
    "counter": Alphabet(FieldPlan("f", merge="counter", options={"min": 0}, value_type="integer"), 10, (9, 7, None)),
    "map": Alphabet(
        FieldPlan("f", merge="map", options={"keys": {"n": {"merge": "counter"}}}, value_type="json"),
        Json('{"c":"x","n":1}'),
        (Json('{"c":"y","n":1}'), Json('{"c":"x","n":3,"z":true}'), Json('{"n":1}')),
    ),
    "append": Alphabet(FieldPlan("f", merge="append"), "x", ("xy", "xyz", "q")),
    "set": Alphabet(FieldPlan("f", merge="set", value_type="array"), ("a",), TAGS[1:]),
    "set_remove": Alphabet(
        FieldPlan("f", merge="set", options={"wins": "remove"}, value_type="array"), ("a",), TAGS[1:] + TAGS[:1]
    ),
    "group": Alphabet(FieldPlan("f", members=("x", "y")), ("0", "0"), (("1", "0"), ("0", "2"), ("1", None))),
}
"""One line a merge type; the laws run over all of them."""

SKEWS: tuple[int, ...] = (0, 5 * SECOND // 2, -SECOND)
"""How far B's clock is ahead: not at all; beyond A's next steps; such that B's stamps tie with A's."""


def starts(alphabet: Alphabet, sources: Sequence[str]) -> list[tuple[Step, ...]]:
    """Ways in which a record is known at first: to nobody, to one, to all alike, differing."""
    first, second = alphabet.row(alphabet.start), alphabet.row(alphabet.values[0])
    alike = tuple(("snapshot", source, first) for source in sources)
    return [(), alike[:1], alike, (*alike[:1], ("snapshot", sources[1], second), *alike[2:])]


def alphabet_steps(alphabet: Alphabet, sources: Sequence[str], kinds: Iterable[str]) -> list[Step]:
    steps: list[Step] = []
    wanted = set(kinds)
    for source, value in product(sources, alphabet.values):
        steps += [(what, source, alphabet.row(value)) for what in ("edit", "insert") if what in wanted]
    for source in sources:
        steps += [(what, source, None) for what in ("delete", "truncate") if what in wanted]
        steps += [("late_copy", source, alphabet.row(alphabet.start))] if "late_copy" in wanted else []
    for source, origin in product(sources, sources):
        jobs = ("marked", "marked_from", "unmarked", "named_copy")
        steps += [(what, source, origin) for what in jobs if what in wanted and source != origin]
    steps += [("decide", DECISION_SOURCE, alphabet.row(alphabet.values[0]))] if "decide" in wanted else []
    steps += [("decide_delete", DECISION_SOURCE, None)] if "decide_delete" in wanted else []
    return steps


USUAL = ("edit", "insert", "marked", "unmarked", "delete")
"""The steps of every merge type's exhaustive search; tests add rarer ones in smaller depths."""


def small_worlds(
    merge_type: str,
    *,
    sources: Sequence[str] = ("A", "B"),
    depth: int = 3,
    kinds: Iterable[str] = USUAL,
    deletes: str = "review",
    skews: Iterable[int] = SKEWS,
) -> Iterator[tuple[EntityPlan, list[Change]]]:
    """Every world of at most `depth` steps after every start, for every skew of B's clock; equal ones once."""
    alphabet = ALPHABETS[merge_type]
    plan = alphabet.entity(sources=sources, deletes=deletes)
    steps = alphabet_steps(alphabet, sources, kinds)
    told = list(skews)
    for start, skew in product(starts(alphabet, sources), told):
        level = list(after([World(plan, skew={"B": skew})], [start]))
        for _ in range(depth):
            level = list(after(level, [(step,) for step in steps]))
            # A clock that stamped nothing makes no other world, however it goes.
            yield from ((plan, world.changes) for world in level if skew == told[0] or "B" in world.clocks)


def after(worlds: Iterable[World], scripts: Iterable[Sequence[Step]]) -> Iterator[World]:
    """Each world after each of the scripts that it makes possible. Two that lead to the same, as an edit and a job that
    brings the same value, are one: no world without a change has the state of another, so only siblings are compared."""
    wanted = list(scripts)
    for world in worlds:
        found: list[World] = []
        for script in wanted:
            later = world.copy()
            if perform(later, script) and later not in found:
                found.append(later)
        yield from found


# ---------------------------------------------------------------- larger scripts


@cache
def any_of(*options: Any) -> st.SearchStrategy[Any]:
    """One of these. Kept, as all strategies here are: to make one costs more than to draw from it."""
    return st.sampled_from(options)


@cache
def one_or_two_of(*options: str) -> st.SearchStrategy[set[str]]:
    return st.sets(any_of(*options), min_size=1, max_size=2)


@st.composite
def scripts(draw: st.DrawFn, merge_type: str = "mv", max_steps: int = 15) -> tuple[EntityPlan, list[Change]]:
    """A longer story: three sources, several fields, delayed copies, skewed clocks, deletes, re-inserts, decisions."""
    alphabet = ALPHABETS[merge_type]
    sources = ("A", "B", "C")
    plan = alphabet.entity(
        FieldPlan("g"),
        sources=sources,
        groups=[FieldPlan("place", members=("city", "street"))],
        deletes=draw(any_of("review", "review", "delete_wins", "update_wins", "local")),
        mapped={"C": [*alphabet.names, "city", "street"]} if draw(st.booleans()) else None,
    )
    skew = {source: draw(st.integers(-4, 4)) * SECOND for source in sources}
    world = World(plan, skew, full_old=draw(st.booleans()))
    values = _row_values(merge_type)
    step = _step(sources, values, plan, alphabet)
    for source in sources:
        if draw(st.booleans()):
            mapped = {name: value for name, value in draw(values).items() if name in plan.mapped[source]}
            perform(world, [("snapshot", source, mapped)])
    for _ in range(draw(st.integers(1, max_steps))):
        world.now_us += draw(any_of(0, 0, 1, 7)) * SECOND
        perform(world, [draw(step)])
    return plan, world.changes


@cache
def _row_values(merge_type: str) -> st.SearchStrategy[dict[str, Any]]:
    alphabet = ALPHABETS[merge_type]
    blank = (None,) * len(alphabet.names) if alphabet.plan.members else None
    own = {"own": st.sampled_from((alphabet.start, *alphabet.values, blank))}
    others = {
        "g": st.sampled_from(("g0", "g1", None)),
        "city": st.sampled_from(("c0", "c1")),
        "street": st.sampled_from(("s0", "s1")),
    }
    return st.fixed_dictionaries({**own, **others}).map(lambda row: {**alphabet.row(row.pop("own")), **row})


OFTEN = ("edit",) * 5 + ("marked", "unmarked") * 2
RARELY = ("insert", "insert", "late_copy", "named_copy", "marked_from", "delete", "truncate", "decide")


@st.composite
def _step(
    draw: st.DrawFn,
    sources: Sequence[str],
    values: st.SearchStrategy[dict[str, Any]],
    plan: EntityPlan,
    alphabet: Alphabet,
) -> Step:
    what = draw(any_of(*OFTEN, *RARELY))
    source = draw(any_of(*sources))
    if what in ("marked", "marked_from", "unmarked", "named_copy"):
        return what, source, draw(any_of(*(origin for origin in sources if origin != source)))
    if what in ("delete", "truncate"):
        return what, source, None
    row = draw(values)
    if what == "decide":
        unit = draw(any_of(alphabet.names, ("g",), ("city", "street")))
        return what, DECISION_SOURCE, {name: row[name] for name in unit}
    row = {name: value for name, value in row.items() if name in plan.mapped[source]}
    if what == "insert":
        return what, source, row
    changed = draw(one_or_two_of(*sorted(row)))
    return what, source, {name: row[name] for name in changed}
