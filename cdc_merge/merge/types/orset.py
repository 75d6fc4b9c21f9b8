"""set: an observed-remove set. A remove takes away the additions its source had seen; concurrent additions win.

With `wins: remove` an element is in only if some addition has seen every removal of it. Values are arrays, JSON arrays, or
text split by `separator`; a set over text reads sorted. Elements of first snapshots are one shared addition each. Copies that
add x have seen the additions of x; copies remove nothing. Equality proves nothing here: sets never agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from cdc_merge.merge import register_ops
from cdc_merge.merge.merge_type import Event, MergeType, Views
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import DECIDED, MISSING, Traits, Write
from cdc_merge.model import INSERT, UNKNOWN, Json, MaybeValue, Place, Stamp, Value
from cdc_merge.model.plan import FieldPlan
from cdc_merge.values.normalizers import normalizer
from cdc_merge.values.postgres_text import order_key

Seen = dict[object, Stamp]
"""Who has seen something (sources; deletes by their stamp), and since when."""


class Dot:
    """One addition of one element, and who has seen it; `since`: who added it, and when. `place` None: of first snapshots."""

    __slots__ = ("place", "seen_by", "since")

    def __init__(self, place: Place | None, seen_by: Seen) -> None:
        self.place = place
        self.seen_by = seen_by
        self.since = dict(seen_by)


class Elements:
    """Beside the cell's writes: live additions, removals (`wins: remove`), copies waiting for an addition, and what their sources have
    dropped while waiting."""

    __slots__ = ("dots", "dropped", "form", "names", "removals", "waiting")

    def __init__(self) -> None:
        self.dots: dict[object, list[Dot]] = {}
        self.names: dict[object, Value] = {}
        self.removals: dict[object, list[Seen]] = {}
        self.dropped: set[tuple[str, object]] = set()
        self.waiting: list[tuple[str, object, Stamp]] = []
        self.form = "array"


def zero(cell: UnitState, plan: FieldPlan) -> None:
    cell.extra = Elements()


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
"""How a field writes a set, by the last value that was seen of it."""


def _split(plan: FieldPlan, value: MaybeValue) -> list[Value]:
    if value is None or value is UNKNOWN:
        return []
    if isinstance(value, Json):
        return _json_elements(value)
    if isinstance(value, tuple):
        return list(value)
    separator = plan.options.get("separator") or ","
    return [part for part in (p.strip() for p in str(value).split(separator)) if part]


def keyed(plan: FieldPlan) -> Callable[[Any], object]:
    normal = normalizer(plan.normalize)

    def key(value: Any) -> object:
        return value if value is None or value is UNKNOWN else frozenset(normal(v) for v in _split(plan, value))

    return key


def _had(plan: FieldPlan, value: MaybeValue) -> set[object]:
    """The element keys of a value that adds nothing."""
    normal = normalizer(plan.normalize)
    return {normal(item) for item in _split(plan, value)}


def _named(cell: UnitState, plan: FieldPlan, value: MaybeValue) -> set[object]:
    """The element keys of a value; remembers how each is spelled and how the field writes a set."""
    elements: Elements = cell.extra
    normal = normalizer(plan.normalize)
    keys: set[object] = set()
    for item in _split(plan, value):
        key = normal(item)
        elements.names.setdefault(key, item)
        keys.add(key)
    if isinstance(value, str):
        elements.form = "json" if isinstance(value, Json) else "text"
    return keys


def apply(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    source = event.source
    _begin(cell, event.holders, plan)
    before = event.before if event.before is not UNKNOWN else cell.view(source)
    inserted = event.inserted is not None and event.change.operation == INSERT
    had = set() if inserted else _had(plan, before)
    has = _named(cell, plan, event.after)
    key = cell.keyed(event.after)
    if (had == has and not inserted and before is not UNKNOWN and (before is None) == (event.after is None)) or (
        event.inserted is not None and event.inserted.first and event.after is None
    ):
        cell.hold(source, event.change, event.after, key)
        return register_ops.REPEATED
    taught = _awaited(cell, event, key)
    write = cell.write(source, event.change, event.after, key)
    write.before = before
    register_ops.describe(cell, write, event)
    for element in had - has:
        _remove(cell, plan, element, (event, taught))
    for element in has - had:
        _add(cell, element, event, (write, taught))
    write.after = cell.sides[source].seen
    if cell.waiting:
        cell.answer(write)
    register_ops.apply_consensus(cell, plan, event)
    return register_ops.APPLIED if cell.frontier == write.bit else register_ops.MERGED


def _begin(cell: UnitState, holders: Iterable[str], plan: FieldPlan | None = None) -> None:
    """While nothing is written, what the holders hold now is what the first write builds on."""
    if cell.frontier:
        return
    elements: Elements = cell.extra
    before, elements.dots, elements.names = elements.dots, {}, {}
    for source in holders:
        side = cell.sides.get(source)
        if side is not None and plan is not None:
            _named(cell, plan, side.value)
        if side is None or side.by is None or not isinstance(side.key, frozenset):
            continue
        for element in side.key:
            (dot,) = elements.dots.setdefault(element, [Dot(None, {})])
            dot.seen_by[source] = dot.since[source] = side.by.stamp
    for element, (dot, *_) in elements.dots.items():
        for known in before.get(element, ()):
            dot.seen_by = {**known.seen_by, **dot.seen_by}


def _awaited(cell: UnitState, event: Event, key: object) -> Seen:
    """The sources whose copies were waiting for this value, and since when they have seen what this write does."""
    seen = cell.seen(event.source)
    write = Write(0, event.source, event.change, event.after, key, seen)
    waiting = (w for w in cell.waiting if w.source != event.source and w.is_for(write) and not seen & w.written)
    return {w.source: w.change.stamp for w in waiting}


def _add(cell: UnitState, element: object, event: Event, what: tuple[Write, Seen]) -> None:
    write, taught = what
    elements: Elements = cell.extra
    source = event.source
    if any(source not in seen_by for seen_by in elements.removals.get(element, ())):
        return
    dot = Dot(event.change.place, {source: event.change.stamp})
    dropped = _answer(cell, element, event, (dot, write))
    for other, since in taught.items():
        dot.seen_by.setdefault(other, since)
    if not dropped and not any(_dropped(cell, str(other), element, since) for other, since in taught.items()):
        elements.dots.setdefault(element, []).append(dot)


def _dropped(cell: UnitState, source: str, element: object, since: Stamp) -> bool:
    """Whether the source has written since then, and holds the element no longer."""
    key = cell.held(source)
    wrote = any(w.source == source and w.stamp > since for w in cell.writes.values())
    return wrote and key is not MISSING and not (isinstance(key, frozenset) and element in key)


def _answer(cell: UnitState, element: object, event: Event, what: tuple[Dot, Write]) -> bool:
    """Copies that waited for this addition have seen it; whether one of their sources has removed the element since."""
    elements: Elements = cell.extra
    dot, write = what
    dropped = False
    now_us = event.change.stamp.wall_us
    elements.waiting = [w for w in elements.waiting if now_us - w[2].wall_us <= event.max_ahead_us]
    for waiting in list(elements.waiting):
        source, wanted, _ = waiting
        if wanted == element and source != event.source:
            dropped = dropped or (source, element) in elements.dropped
            dot.seen_by[source] = event.change.stamp
            cell.side(source).seen |= write.bit
            elements.waiting.remove(waiting)
    return dropped


def _remove(cell: UnitState, plan: FieldPlan, element: object, what: tuple[Event, Seen]) -> None:
    elements: Elements = cell.extra
    event, taught = what
    source = event.source
    if any(waiting[:2] == (source, element) for waiting in elements.waiting):
        elements.dropped.add((source, element))
    if plan.options.get("wins") == "remove":
        removal: Seen = {**taught, source: event.change.stamp}
        # Whoever sees this removal has seen those that its source had seen: they keep nothing out by themselves any more.
        kept = [seen_by for seen_by in elements.removals.get(element, ()) if not removal.keys() <= seen_by.keys()]
        elements.removals[element] = [*kept, removal]
        _keep(elements, element, lambda dot: any(dot.since.get(s, at) > at for s, at in taught.items()))
        return
    _keep(elements, element, lambda dot: source not in dot.seen_by)


def _keep(elements: Elements, element: object, wanted: Callable[[Dot], bool]) -> None:
    kept = [dot for dot in elements.dots.get(element, ()) if wanted(dot)]
    if kept:
        elements.dots[element] = kept
    else:
        elements.dots.pop(element, None)


def copy(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    elements: Elements = cell.extra
    source, mark = event.source, event.change.copy
    assert mark is not None
    _begin(cell, event.holders, plan)
    if isinstance(event.after, str):
        elements.form = "json" if isinstance(event.after, Json) else "text"
    had, has = _had(plan, cell.view(source)), _had(plan, event.after)
    unmatched = False
    for element in has - had:
        dots = elements.dots.get(element, ())
        unmatched = unmatched or not (dots or element in elements.names)
        cell.side(source).seen |= sum([write.bit for write in cell.of(cell.frontier) if _adds(cell, write, element)])
        for dot in dots:
            dot.seen_by.setdefault(source, event.change.stamp)
        if not dots and element not in elements.names:
            elements.dropped.discard((source, element))
            elements.waiting.append((source, element, event.change.stamp))
    for element in had - has:
        for seen_by in elements.removals.get(element, ()):
            seen_by.setdefault(source, event.change.stamp)
    key = cell.keyed(event.after)
    _learn(cell, event)
    if cell.held(source) == key:
        cell.learn_unchanged(source, event.change, key, event.holders)
        return register_ops.REPEATED
    cell.copy(source, event.change, (event.after, key), event.holders)
    register_ops.apply_consensus(cell, plan, event)
    return register_ops.UNMATCHED if unmatched else register_ops.COPIED


def _adds(cell: UnitState, write: Write, element: object) -> bool:
    """Whether the write brought the element."""
    if write.kind == DECIDED:
        return any(dot.place == write.change.place for dot in cell.extra.dots.get(element, ()))
    had = write.before if write.before is UNKNOWN else cell.keyed(write.before)
    has = write.key
    return isinstance(has, frozenset) and element in has and not (isinstance(had, frozenset) and element in had)


def _learn(cell: UnitState, event: Event) -> None:
    """What the writes that the copy repeats, and the source it names, had seen."""
    mark = event.change.copy
    assert mark is not None
    key = cell.keyed(event.after)
    repeated = [w for w in cell.of(cell.frontier) if (w.change.place in mark.of if mark.of else w.key == key)]
    named = mark.from_source or ""
    teacher = named if named in event.holders and cell.held(named) == key else None
    for seen_by in _sightings(cell.extra):
        told = any(seen_by[w.source] <= w.stamp for w in repeated if w.source in seen_by)
        if told or (teacher is not None and teacher in seen_by):
            seen_by.setdefault(event.source, event.change.stamp)


def _sightings(elements: Elements) -> Iterator[Seen]:
    for dots in elements.dots.values():
        yield from (dot.seen_by for dot in dots)
    for removals in elements.removals.values():
        yield from removals


def snapshot(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    elements: Elements = cell.extra
    first = cell.side(event.source).first_key is MISSING
    known = set(elements.names) if cell.frontier else set()
    outcome = register_ops.apply_snapshot_read(cell, plan, event)
    for element in _named(cell, plan, event.after):
        dots = elements.dots.get(element, ())
        for dot in dots:
            dot.seen_by.setdefault(event.source, event.change.stamp)
        if first and cell.frontier and not dots and element not in known:
            elements.dots.setdefault(element, []).append(Dot(None, {event.source: event.change.stamp}))
    return outcome


def decide(cell: UnitState, plan: FieldPlan, event: Event) -> str:
    """The difference to the provisional value: what it leaves out goes, what it adds is an addition of its own."""
    elements: Elements = cell.extra
    _begin(cell, event.holders, plan)
    wanted = _named(cell, plan, event.after)
    for element in [e for e in elements.dots if e not in wanted]:
        elements.dots.pop(element)
        if plan.options.get("wins") == "remove":
            elements.removals[element] = [{event.source: event.change.stamp}]
    for element in wanted - elements.dots.keys():
        elements.dots[element] = [Dot(event.change.place, {event.source: event.change.stamp})]
    return register_ops.apply_decision(cell, plan, event)


def witness(cell: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    register_ops.record_delete_context(cell, delete, source, everything)
    _begin(cell, cell.sides)
    for seen_by in _sightings(cell.extra):
        if everything or source in seen_by:
            seen_by[delete] = delete


def end(cell: UnitState, delete: Stamp, source: str, everything: bool) -> None:  # noqa: FBT001 (a MergeType slot)
    register_ops.start_incarnation(cell, delete, source, everything)
    elements: Elements = cell.extra
    for seen_by in _sightings(elements):
        if everything or delete in seen_by:
            seen_by.setdefault(source, delete)
    for element, removals in list(elements.removals.items()):
        elements.removals[element] = [seen_by for seen_by in removals if not everything and delete not in seen_by]
    for element in list(elements.dots):
        _keep(elements, element, lambda dot: not everything and delete not in dot.seen_by)
    elements.names = {element: name for element, name in elements.names.items() if element in elements.dots}


def current(cell: UnitState, plan: FieldPlan) -> Value:
    elements: Elements = cell.extra
    names = [elements.names[element] for element in elements.dots]
    return FORMS[elements.form](sorted(names, key=order_key), plan)


def read(cell: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    if not cell.extra.dots and all(w.value is None for w in front):
        return None
    return current(cell, plan)


def start(cell: UnitState, plan: FieldPlan, views: Views) -> MaybeValue:
    normal = normalizer(plan.normalize)
    names = {normal(item): item for _, value in reversed(views) for item in _split(plan, value)}
    if names:
        return FORMS[cell.extra.form](sorted(names.values(), key=order_key), plan)
    return register_ops.first_in_order(cell, plan, views)


def dump_state(cell: UnitState) -> list[Any]:
    """Elements beside their spellings, then additions, removals, waiting copies, what was dropped, the form."""
    elements: Elements = cell.extra
    return [
        [[element, name] for element, name in elements.names.items()],
        [[element, [_dot_saved(dot) for dot in dots]] for element, dots in elements.dots.items()],
        [[element, [_seen_saved(seen) for seen in several]] for element, several in elements.removals.items()],
        [[source, element, [*stamp]] for source, element, stamp in elements.waiting],
        [[*each] for each in elements.dropped],
        elements.form,
    ]


def _dot_saved(dot: Dot) -> list[Any]:
    return [None if dot.place is None else [*dot.place], _seen_saved(dot.seen_by), _seen_saved(dot.since)]


def _seen_saved(seen: Seen) -> list[Any]:
    return [[[*who] if isinstance(who, Stamp) else who, *since] for who, since in seen.items()]


def load_state(cell: UnitState, plan: FieldPlan) -> None:
    names, dots, removals, waiting, dropped, form = cell.extra
    elements = cell.extra = Elements()
    elements.names = {element: name for element, name in names}
    elements.dots = {element: [_dot(*items) for items in several] for element, several in dots}
    elements.removals = {element: [_seen(items) for items in several] for element, several in removals}
    elements.waiting = [(source, element, Stamp(*stamp)) for source, element, stamp in waiting]
    elements.dropped = {(source, element) for source, element in dropped}
    elements.form = form


def _dot(place: Any, seen_by: Any, since: Any) -> Dot:
    dot = Dot(place and Place(*place), _seen(seen_by))
    dot.since = _seen(since)
    return dot


def _seen(items: Any) -> Seen:
    return {who if isinstance(who, str) else Stamp(*who): Stamp(*since) for who, *since in items}


TYPE: MergeType = mv.TYPE._replace(
    name="set",
    traits=Traits(agrees=False, settles=False, overwrites=False, rivals=False),
    keyed=keyed,
    zero=zero,
    apply=apply,
    copy=copy,
    snapshot=snapshot,
    decide=decide,
    record_delete_context=witness,
    end=end,
    read=read,
    start=start,
    conflicting_writes=register_ops.no_conflicts,
    dump_state=dump_state,
    load_state=load_state,
)
