"""set, an observed-remove set: a remove takes away the additions (dots) its source has seen; concurrent additions win.

Data structure: element → its live dots, each with the sources that have seen it and since when. With `wins: remove`: also
element → its removals; it is in only if some addition has seen every removal of it. Values are arrays, JSON arrays, or
text split by `separator`; a set over text reads sorted. Elements of first snapshots are one shared addition each. Copies
that add x have seen the additions of x; copies remove nothing. Equal values prove nothing: sets never agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Event, MergeType, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import MISSING, Traits, Write
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


def _json_elements(text: str) -> list[Value]:
    parsed = json.loads(text, parse_float=str)
    items = parsed if isinstance(parsed, list) else [parsed]
    return [item if isinstance(item, str | int | bool) or item is None else Json(_dump(item)) for item in items]


def _dump(item: Any) -> str:
    return json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _as_array(values: list[Value], plan: FieldPlan) -> Value:
    return tuple(values)


def _as_json(values: list[Value], plan: FieldPlan) -> Value:
    return Json("[" + ",".join(v if isinstance(v, Json) else _dump(v) for v in values) + "]")


def _as_text(values: list[Value], plan: FieldPlan) -> Value:
    return (plan.options.get("separator") or ",").join(str(v) for v in values)


FORMS: Final[Mapping[str, Callable[[list[Value], FieldPlan], Value]]] = {
    "array": _as_array,
    "json": _as_json,
    "text": _as_text,
}
"""How a field writes a set, by its last value."""


def _split(plan: FieldPlan, value: MaybeValue) -> list[Value]:
    if value is None or value is UNKNOWN:
        return []
    if isinstance(value, Json):
        return _json_elements(value)
    if isinstance(value, tuple):
        return list(value)
    separator = plan.options.get("separator") or ","
    return [part for part in (p.strip() for p in str(value).split(separator)) if part]


def comparison_key(plan: FieldPlan) -> Callable[[Any], object]:
    normal = normalizer(plan.normalize)

    def key(value: Any) -> object:
        return value if value is None or value is UNKNOWN else frozenset(normal(v) for v in _split(plan, value))

    return key


def _element_keys(plan: FieldPlan, value: MaybeValue) -> set[object]:
    """The element keys of a value."""
    normal = normalizer(plan.normalize)
    return {normal(item) for item in _split(plan, value)}


def _name_elements(state: UnitState, plan: FieldPlan, value: MaybeValue) -> set[object]:
    """The element keys of a value; notes how each is spelled and how the field writes a set."""
    elements: Elements = state.type_state
    normal = normalizer(plan.normalize)
    keys: set[object] = set()
    for item in _split(plan, value):
        key = normal(item)
        elements.names.setdefault(key, item)
        keys.add(key)
    if isinstance(value, str):
        elements.form = "json" if isinstance(value, Json) else "text"
    return keys


def apply(state: UnitState, plan: FieldPlan, event: Event) -> str:
    source = event.source
    before = event.before if event.before is not UNKNOWN else state.value_at(source)
    inserted = event.inserted is not None and event.change.operation == INSERT
    had = set() if inserted else _element_keys(plan, before)
    has = _name_elements(state, plan, event.after)
    key = state.key_of(event.after)
    if (had == has and not inserted and before is not UNKNOWN and (before is None) == (event.after is None)) or (
        event.inserted is not None and event.inserted.first and event.after is None
    ):
        state.set_value(source, event.change, event.after, key)
        return register_ops.REPEATED
    seen_since = _sources_of_waiting_copies(state, source, key)
    write = state.add_write(source, event.change, event.after, key)
    write.before = before
    register_ops.record_context(state, write, event)
    for element in had - has:
        _remove(state, plan, element, (event, seen_since))
    for element in has - had:
        _add(state, plan, element, event)
    write.after = state.by_source[source].seen
    register_ops.apply_consensus(state, plan, event)
    return register_ops.APPLIED if state.frontier == write.bit else register_ops.MERGED


def _sources_of_waiting_copies(state: UnitState, source: str, key: object) -> Seen:
    """The sources whose copies waited for this value, and since when they have seen this write."""
    seen = state.seen_by(source)
    waiting = (w for w in state.waiting_copies if w.source != source and w.key == key and not seen & w.written)
    return {w.source: w.change.stamp for w in waiting}


def _add(state: UnitState, plan: FieldPlan, element: object, event: Event) -> None:
    elements: Elements = state.type_state
    source = event.source
    if any(source not in seen_by for seen_by in elements.removals.get(element, ())):
        return
    dot = Dot(event.change.place, {source: event.change.stamp})
    if _match_waiting_copies(elements, element, event, dot):
        return
    elements.dots.setdefault(element, []).append(dot)


def _match_waiting_copies(elements: Elements, element: object, event: Event, dot: Dot) -> bool:
    """Copies that waited for this addition have seen it. True when one of their sources has removed the element since."""
    dropped = False
    now_us = event.change.stamp.wall_us
    elements.waiting = [w for w in elements.waiting if now_us - w[2].wall_us <= event.max_ahead_us]
    for waiting in list(elements.waiting):
        source, wanted, _ = waiting
        if wanted == element and source != event.source:
            dropped = dropped or (source, element) in elements.dropped
            dot.seen_by[source] = event.change.stamp
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
    had, has = _element_keys(plan, state.value_at(source)), _element_keys(plan, event.after)
    unmatched = False
    for element in has - had:
        dots = elements.dots.get(element, ())
        unmatched = unmatched or not dots
        for dot in dots:
            dot.seen_by.setdefault(source, event.change.stamp)
        if not dots:
            elements.dropped.discard((source, element))
            elements.waiting.append((source, element, event.change.stamp))
    for element in had - has:
        for seen_by in elements.removals.get(element, ()):
            seen_by.setdefault(source, event.change.stamp)
    key = state.key_of(event.after)
    if state.key_at(source) == key:
        state.apply_unchanged_copy(source, event.change, key)
        return register_ops.REPEATED
    _join_originals(state, event)
    state.apply_copy(source, event.change, event.after, key)
    register_ops.apply_consensus(state, plan, event)
    return register_ops.UNMATCHED if unmatched else register_ops.COPIED


def _join_originals(state: UnitState, event: Event) -> None:
    """The copy's source has seen what its originals, and the source that it names, had seen."""
    mark = event.change.copy
    assert mark is not None
    key = state.key_of(event.after)
    repeated = [w for w in state.writes_in(state.frontier) if (w.change.place in mark.of if mark.of else w.key == key)]
    for seen_by in _contexts(state.type_state):
        has_original = any(seen_by[w.source] <= w.stamp for w in repeated if w.source in seen_by)
        if has_original or (mark.from_source is not None and mark.from_source in seen_by):
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
        if first and not dots and element not in seen_elements:
            elements.dots.setdefault(element, []).append(Dot(None, {event.source: event.change.stamp}))
    return outcome


def decide(state: UnitState, plan: FieldPlan, event: Event) -> str:
    """The difference to the provisional value: left-out elements are removed, new ones are additions of the decision."""
    elements: Elements = state.type_state
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
    for seen_by in _contexts(state.type_state):
        if everything or source in seen_by:
            seen_by[delete] = delete


def end(state: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    register_ops.start_incarnation(state, delete, source, everything)
    elements: Elements = state.type_state
    for seen_by in _contexts(elements):
        if everything or delete in seen_by:
            seen_by.setdefault(source, delete)
    for element in list(elements.dots):
        _keep(elements, element, lambda dot: not everything and delete not in dot.seen_by)


def current(state: UnitState, plan: FieldPlan) -> Value:
    elements: Elements = state.type_state
    names = [elements.names[element] for element in elements.dots]
    return FORMS[elements.form](sorted(names, key=order_key), plan)


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    if not state.type_state.dots and all(w.value is None for w in front):
        return None
    return current(state, plan)


def start(state: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    if state.type_state.dots:
        return current(state, plan)
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
