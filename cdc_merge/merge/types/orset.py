"""set, an observed-remove set: a remove takes away the additions (dots) its source has seen; concurrent additions win.

Data structure: element → its live dots, each with the sources that have seen it and since when. With `wins: remove`: also
element → its removals; it is in only if some addition has seen every removal of it. Values are arrays, JSON arrays, or
text split by `separator`; a set over text reads sorted. Elements of first snapshots are one shared addition each. Copies
that add x have seen the additions of x; copies remove nothing. Equal values prove nothing: sets never agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cdc_merge.merge import register_ops, waiting_copies
from cdc_merge.merge.merge_type import Event, MergeType, Views
from cdc_merge.merge.set_values import FORMS, comparison_key, element_keys, split
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import DECIDED, MISSING, Traits, Write
from cdc_merge.model import INSERT, UNKNOWN, Json, MaybeValue, Place, Stamp, Value
from cdc_merge.model.plan import FieldPlan
from cdc_merge.values.normalizers import normalizer
from cdc_merge.values.postgres_text import order_key

Seen = dict[object, Stamp]
"""The sources (and deletes, by stamp) that have seen a dot or a removal, and since when."""


class Dot:
    """One addition of one element. `seen_by`: the sources that have seen it; `since`: the source that added it, and when.
    `place` None: of first snapshots."""

    __slots__ = ("place", "seen_by", "since")

    def __init__(self, place: Place | None, seen_by: Seen) -> None:
        self.place = place
        self.seen_by = seen_by
        self.since = dict(seen_by)


class Elements:
    """The `type_state` of a set. `dots`: live additions; `names`: the spelling of each element; `removals` (`wins: remove`);
    `waiting`: copies whose addition has not arrived; `dropped`: what their sources have removed meanwhile; `form`: how
    the field writes a set."""

    __slots__ = ("dots", "dropped", "form", "names", "removals", "waiting")

    def __init__(self) -> None:
        self.dots: dict[object, list[Dot]] = {}
        self.names: dict[object, Value] = {}
        self.removals: dict[object, list[Seen]] = {}
        self.dropped: set[tuple[str, object]] = set()
        self.waiting: list[tuple[str, object, Stamp]] = []
        self.form = "array"


def zero(state: UnitState, plan: FieldPlan) -> None:
    state.type_state = Elements()


def _name_elements(state: UnitState, plan: FieldPlan, value: MaybeValue) -> set[object]:
    """The element keys of a value; notes how each is spelled and how the field writes a set."""
    elements: Elements = state.type_state
    normal = normalizer(plan.normalize)
    keys: set[object] = set()
    for item in split(plan, value):
        key = normal(item)
        elements.names.setdefault(key, item)
        keys.add(key)
    if isinstance(value, str):
        elements.form = "json" if isinstance(value, Json) else "text"
    return keys


def apply(state: UnitState, plan: FieldPlan, event: Event) -> str:
    source = event.source
    _start_from_values(state, event.holders, plan)
    before = event.before if event.before is not UNKNOWN else state.value_at(source)
    inserted = event.inserted is not None and event.change.operation == INSERT
    had = set() if inserted else element_keys(plan, before)
    has = _name_elements(state, plan, event.after)
    key = state.key_of(event.after)
    if (had == has and not inserted and before is not UNKNOWN and (before is None) == (event.after is None)) or (
        event.inserted is not None and event.inserted.first and event.after is None
    ):
        state.set_value(source, event.change, event.after, key)
        return register_ops.REPEATED
    seen_since = _sources_of_waiting_copies(state, event, key)
    write = state.add_write(source, event.change, event.after, key)
    write.before = before
    register_ops.record_context(state, write, event)
    for element in had - has:
        _remove(state, plan, element, (event, seen_since))
    for element in has - had:
        _add(state, element, event, (write, seen_since))
    write.after = state.by_source[source].seen
    if state.waiting_copies:
        waiting_copies.match(state, write)
    register_ops.apply_consensus(state, plan, event)
    return register_ops.APPLIED if state.frontier == write.bit else register_ops.MERGED


def _start_from_values(state: UnitState, holders: Iterable[str], plan: FieldPlan | None = None) -> None:
    """Until the first write the additions are those of the holders' values, which the first write builds on."""
    if state.frontier:
        return
    elements: Elements = state.type_state
    before, elements.dots, elements.names = elements.dots, {}, {}
    for source in holders:
        at_source = state.by_source.get(source)
        if at_source is not None and plan is not None:
            _name_elements(state, plan, at_source.value)
        if at_source is None or at_source.set_by is None or not isinstance(at_source.key, frozenset):
            continue
        for element in at_source.key:
            (dot,) = elements.dots.setdefault(element, [Dot(None, {})])
            dot.seen_by[source] = dot.since[source] = at_source.set_by.stamp
    for element, (dot, *_) in elements.dots.items():
        for earlier in before.get(element, ()):
            dot.seen_by = {**earlier.seen_by, **dot.seen_by}


def _sources_of_waiting_copies(state: UnitState, event: Event, key: object) -> Seen:
    """The sources whose copies waited for this write, and since when they have seen it."""
    seen = state.seen_by(event.source)
    write = Write(0, event.source, event.change, event.after, key, seen)
    waiting = (w for w in state.waiting_copies if w.source != event.source and w.is_for(write) and not seen & w.written)
    return {w.source: w.change.stamp for w in waiting}


def _add(state: UnitState, element: object, event: Event, written: tuple[Write, Seen]) -> None:
    write, seen_since = written
    elements: Elements = state.type_state
    source = event.source
    if any(source not in seen_by for seen_by in elements.removals.get(element, ())):
        return
    dot = Dot(event.change.place, {source: event.change.stamp})
    dropped = _match_waiting_copies(state, element, event, (dot, write))
    for other, since in seen_since.items():
        dot.seen_by.setdefault(other, since)
    if not dropped and not any(_has_removed(state, str(o), element, since) for o, since in seen_since.items()):
        elements.dots.setdefault(element, []).append(dot)


def _has_removed(state: UnitState, source: str, element: object, since: Stamp) -> bool:
    """The source has written since then, and does not hold the element any more."""
    key = state.key_at(source)
    wrote = any(w.source == source and w.stamp > since for w in state.writes.values())
    return wrote and key is not MISSING and not (isinstance(key, frozenset) and element in key)


def _match_waiting_copies(state: UnitState, element: object, event: Event, added: tuple[Dot, Write]) -> bool:
    """Copies that waited for this addition have seen it. True when one of their sources has removed the element since."""
    elements: Elements = state.type_state
    dot, write = added
    dropped = False
    now_us = event.change.stamp.wall_us
    elements.waiting = [w for w in elements.waiting if now_us - w[2].wall_us <= event.max_ahead_us]
    for waiting in list(elements.waiting):
        source, wanted, _ = waiting
        if wanted == element and source != event.source:
            dropped = dropped or (source, element) in elements.dropped
            dot.seen_by[source] = event.change.stamp
            state.at(source).seen |= write.bit
            elements.waiting.remove(waiting)
    return dropped


def _remove(state: UnitState, plan: FieldPlan, element: object, removal_of: tuple[Event, Seen]) -> None:
    elements: Elements = state.type_state
    event, seen_since = removal_of
    source = event.source
    if any(waiting[:2] == (source, element) for waiting in elements.waiting):
        elements.dropped.add((source, element))
    if plan.options.get("wins") == "remove":
        removal: Seen = {**seen_since, source: event.change.stamp}
        # This removal implies those that its source had seen: they keep nothing out by themselves any more.
        kept = [seen_by for seen_by in elements.removals.get(element, ()) if not removal.keys() <= seen_by.keys()]
        elements.removals[element] = [*kept, removal]
        _keep(elements, element, lambda dot: any(dot.since.get(s, at) > at for s, at in seen_since.items()))
        return
    _keep(elements, element, lambda dot: source not in dot.seen_by)


def _keep(elements: Elements, element: object, wanted: Callable[[Dot], bool]) -> None:
    kept = [dot for dot in elements.dots.get(element, ()) if wanted(dot)]
    if kept:
        elements.dots[element] = kept
    else:
        elements.dots.pop(element, None)


def copy(state: UnitState, plan: FieldPlan, event: Event) -> str:
    elements: Elements = state.type_state
    source, mark = event.source, event.change.copy
    assert mark is not None
    _start_from_values(state, event.holders, plan)
    if isinstance(event.after, str):
        elements.form = "json" if isinstance(event.after, Json) else "text"
    had, has = element_keys(plan, state.value_at(source)), element_keys(plan, event.after)
    unmatched = False
    for element in has - had:
        dots = elements.dots.get(element, ())
        unmatched = unmatched or not (dots or element in elements.names)
        additions = [write.bit for write in state.writes_in(state.frontier) if _adds(state, write, element)]
        state.at(source).seen |= sum(additions)
        for dot in dots:
            dot.seen_by.setdefault(source, event.change.stamp)
        if not dots and element not in elements.names:
            elements.dropped.discard((source, element))
            elements.waiting.append((source, element, event.change.stamp))
    for element in had - has:
        for seen_by in elements.removals.get(element, ()):
            seen_by.setdefault(source, event.change.stamp)
    key = state.key_of(event.after)
    _join_originals(state, event)
    if state.key_at(source) == key:
        state.apply_unchanged_copy(source, event.change, key, event.holders)
        return register_ops.REPEATED
    state.apply_copy(source, event.change, (event.after, key), event.holders)
    register_ops.apply_consensus(state, plan, event)
    return register_ops.UNMATCHED if unmatched else register_ops.COPIED


def _adds(state: UnitState, write: Write, element: object) -> bool:
    """The write added the element."""
    if write.kind == DECIDED:
        return any(dot.place == write.change.place for dot in state.type_state.dots.get(element, ()))
    had = write.before if write.before is UNKNOWN else state.key_of(write.before)
    has = write.key
    return isinstance(has, frozenset) and element in has and not (isinstance(had, frozenset) and element in had)


def _join_originals(state: UnitState, event: Event) -> None:
    """The copy's source has seen what its originals had seen, and the source that it names, where that holds the same value."""
    mark = event.change.copy
    assert mark is not None
    key = state.key_of(event.after)
    repeated = [w for w in state.writes_in(state.frontier) if (w.change.place in mark.of if mark.of else w.key == key)]
    named = mark.from_source or ""
    origin = named if named in event.holders and state.key_at(named) == key else None
    for seen_by in _contexts(state.type_state):
        has_original = any(seen_by[w.source] <= w.stamp for w in repeated if w.source in seen_by)
        if has_original or (origin is not None and origin in seen_by):
            seen_by.setdefault(event.source, event.change.stamp)


def _contexts(elements: Elements) -> Iterator[Seen]:
    for dots in elements.dots.values():
        yield from (dot.seen_by for dot in dots)
    for removals in elements.removals.values():
        yield from removals


def snapshot(state: UnitState, plan: FieldPlan, event: Event) -> str:
    elements: Elements = state.type_state
    first = state.at(event.source).snapshot_key is MISSING
    seen_elements = set(elements.names) if state.frontier else set()
    outcome = register_ops.apply_snapshot_read(state, plan, event)
    for element in _name_elements(state, plan, event.after):
        dots = elements.dots.get(element, ())
        for dot in dots:
            dot.seen_by.setdefault(event.source, event.change.stamp)
        if first and state.frontier and not dots and element not in seen_elements:
            elements.dots.setdefault(element, []).append(Dot(None, {event.source: event.change.stamp}))
    return outcome


def decide(state: UnitState, plan: FieldPlan, event: Event) -> str:
    """The difference to the provisional value: left-out elements are removed, new ones are additions of the decision."""
    elements: Elements = state.type_state
    _start_from_values(state, event.holders, plan)
    wanted = _name_elements(state, plan, event.after)
    for element in [e for e in elements.dots if e not in wanted]:
        elements.dots.pop(element)
        if plan.options.get("wins") == "remove":
            elements.removals[element] = [{event.source: event.change.stamp}]
    for element in wanted - elements.dots.keys():
        elements.dots[element] = [Dot(event.change.place, {event.source: event.change.stamp})]
    return register_ops.apply_decision(state, plan, event)


def record_delete_context(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    register_ops.record_delete_context(state, delete, source, everything)
    _start_from_values(state, state.by_source)
    for seen_by in _contexts(state.type_state):
        if everything or source in seen_by:
            seen_by[delete] = delete


def end(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    register_ops.start_incarnation(state, delete, source, everything)
    elements: Elements = state.type_state
    for seen_by in _contexts(elements):
        if everything or delete in seen_by:
            seen_by.setdefault(source, delete)
    for element, removals in list(elements.removals.items()):
        elements.removals[element] = [seen_by for seen_by in removals if not everything and delete not in seen_by]
    for element in list(elements.dots):
        _keep(elements, element, lambda dot: not everything and delete not in dot.seen_by)
    elements.names = {element: name for element, name in elements.names.items() if element in elements.dots}


def current(state: UnitState, plan: FieldPlan) -> Value:
    elements: Elements = state.type_state
    names = [elements.names[element] for element in elements.dots]
    return FORMS[elements.form](sorted(names, key=order_key), plan)


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    if not state.type_state.dots and all(w.value is None for w in front):
        return None
    return current(state, plan)


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    normal = normalizer(plan.normalize)
    names = {normal(item): item for _, value in reversed(views) for item in split(plan, value)}
    if names:
        return FORMS[state.type_state.form](sorted(names.values(), key=order_key), plan)
    return register_ops.first_in_order(state, plan, views)


def dump_state(state: UnitState) -> list[Any]:
    """Elements with their spellings, then additions, removals, waiting copies, dropped elements, the form."""
    elements: Elements = state.type_state
    return [
        [[element, name] for element, name in elements.names.items()],
        [[element, [_dump_dot(dot) for dot in dots]] for element, dots in elements.dots.items()],
        [[element, [_dump_seen(seen) for seen in several]] for element, several in elements.removals.items()],
        [[source, element, [*stamp]] for source, element, stamp in elements.waiting],
        [[*each] for each in elements.dropped],
        elements.form,
    ]


def _dump_dot(dot: Dot) -> list[Any]:
    return [None if dot.place is None else [*dot.place], _dump_seen(dot.seen_by), _dump_seen(dot.since)]


def _dump_seen(seen: Seen) -> list[Any]:
    return [[[*who] if isinstance(who, Stamp) else who, *since] for who, since in seen.items()]


def load_state(state: UnitState, plan: FieldPlan) -> None:
    names, dots, removals, waiting, dropped, form = state.type_state
    elements = state.type_state = Elements()
    elements.names = {element: name for element, name in names}
    elements.dots = {element: [_load_dot(*items) for items in several] for element, several in dots}
    elements.removals = {element: [_load_seen(items) for items in several] for element, several in removals}
    elements.waiting = [(source, element, Stamp(*stamp)) for source, element, stamp in waiting]
    elements.dropped = {(source, element) for source, element in dropped}
    elements.form = form


def _load_dot(place: Any, seen_by: Any, since: Any) -> Dot:
    dot = Dot(place and Place(*place), _load_seen(seen_by))
    dot.since = _load_seen(since)
    return dot


def _load_seen(items: Any) -> Seen:
    return {who if isinstance(who, str) else Stamp(*who): Stamp(*since) for who, *since in items}


TYPE: MergeType = mv.TYPE._replace(
    name="set",
    traits=Traits(agrees=False, settles=False, overwrites=False, snapshot_candidates=False),
    comparison_key=comparison_key,
    zero=zero,
    apply=apply,
    copy=copy,
    snapshot=snapshot,
    decide=decide,
    record_delete_context=record_delete_context,
    end=end,
    read=read,
    start=start,
    conflicting_writes=register_ops.no_conflicts,
    dump_state=dump_state,
    load_state=load_state,
)
