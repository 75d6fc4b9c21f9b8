"""§3 and §5: what the value is, and which questions are open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cdc_merge.model import DECISION_SOURCE, UNKNOWN
from cdc_merge.values.postgres_text import order_key
from tests.laws.oracle import counters, elements, immutables
from tests.laws.oracle.frontiers import contested, differing, frontier, readable
from tests.laws.oracle.words import ADDS, Record, Unit, Write


def latest(writes: Iterable[Write]) -> Write:
    return max(writes, key=lambda write: write.id)


def value(record: Record, unit: Unit) -> Any:
    """The merged value; UNKNOWN when nothing is known. §3: "Until somebody writes …" see `_resting`."""
    whole = {"counter": counters.value, "append": counters.value, "set": elements.value}.get(unit.plan.merge)
    if whole is not None:
        return whole(record, unit)
    if unit.plan.merge == "immutable" and immutables.bound(record, unit) is not UNKNOWN:
        return immutables.bound(record, unit)
    writes = readable(record, unit)
    return READ[unit.plan.merge](record, unit, writes) if writes else _resting(record, unit)


def _resting(record: Record, unit: Unit) -> Any:
    """§4: "the join for max min flag set map lattice, else that of the first source in `from:` that has one
    (`priority`: by its order)"."""
    order: Sequence[str] = record.entity.sources
    if unit.plan.merge == "priority":
        order = sorted(order, key=lambda source: _rank(unit, source))
    now = dict(record.held(unit))
    held = [now[source] for source in order if source in now]
    known = [item for item in held if not unit.is_null(item)]
    if not known:
        return held[0] if held else UNKNOWN
    join = JOINS.get(unit.plan.merge)
    return join(unit, known) if join is not None else known[0]


def _mv(record: Record, unit: Unit, writes: list[Write]) -> Any:
    return latest(writes).value


def _rank(unit: Unit, source: str) -> int:
    order = list(unit.plan.options.get("order", ()))
    if source == DECISION_SOURCE:
        return -1
    return order.index(source) if source in order else len(order)


def _priority(record: Record, unit: Unit, writes: list[Write]) -> Any:
    best = min(_rank(unit, write.source) for write in writes)
    return latest([write for write in writes if _rank(unit, write.source) == best]).value


def _greatest(unit: Unit, values: list[Any]) -> Any:
    return max(values, key=order_key)


def _least(unit: Unit, values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    return min(known, key=order_key) if known else None


def _flag(unit: Unit, values: list[Any]) -> Any:
    wins = unit.plan.options.get("wins", True)
    if any(value is wins for value in values):
        return wins
    known = [value for value in values if value is not None]
    return known[0] if known else None


def _lattice_join(unit: Unit, values: list[Any]) -> Any:
    bound = least_upper_bound(unit, values)
    return values[0] if bound is UNKNOWN else bound


JOINS: dict[str, Callable[[Unit, list[Any]], Any]] = {
    "max": _greatest,
    "min": _least,
    "flag": _flag,
    "lattice": _lattice_join,
}


def _joined(record: Record, unit: Unit, writes: list[Write]) -> Any:
    return JOINS[unit.plan.merge](unit, [write.value for write in sorted(writes, key=lambda write: write.id)])


def _lattice(record: Record, unit: Unit, writes: list[Write]) -> Any:
    """§3: "least upper bound, even one that nobody wrote; none, or an unlisted value → provisional = latest stamp"."""
    bound = least_upper_bound(unit, [write.value for write in writes])
    return latest(writes).value if bound is UNKNOWN else bound


def least_upper_bound(unit: Unit, values: list[Any]) -> Any:
    above = _above(unit)
    listed = [value for value in values if value is not None]
    if not listed:
        return None
    if len({unit.same_form(value) for value in listed}) == 1:
        return listed[0] if listed[0] in above else UNKNOWN
    if any(value not in above for value in listed):
        return UNKNOWN
    common = [state for state in above if all(state in above[value] for value in listed)]
    least = [state for state in common if all(other in above[state] for other in common)]
    return least[0] if len(least) == 1 else UNKNOWN


def _above(unit: Unit) -> dict[Any, set[Any]]:
    """state → itself and every state after it; `order` is a chain or a graph {state: [next, …]}."""
    order = unit.plan.options.get("order", ())
    if not isinstance(order, dict) and not hasattr(order, "keys"):
        return {state: set(list(order)[index:]) for index, state in enumerate(order)}
    states = set(order) | {following for nexts in order.values() for following in nexts}
    above = {state: {state} for state in states}
    for _ in states:
        for state, nexts in order.items():
            for following in nexts:
                above[state] |= above[following]
    return above


READ: dict[str, Callable[[Record, Unit, list[Write]], Any]] = {
    "mv": _mv,
    "lww": _mv,
    "immutable": _mv,
    "priority": _priority,
    "max": _joined,
    "min": _joined,
    "flag": _joined,
    "lattice": _lattice,
}


# ---------------------------------------------------------------- concurrent_*


def candidates(record: Record, unit: Unit) -> list[Write]:
    """The writes of this field's open concurrent_* question, [] when there is none."""
    if unit.plan.merge in ADDS:
        return frontier(unit) if counters.contested(record, unit) else []
    if unit.plan.merge == "set":
        return []
    writes = readable(record, unit)
    if unit.plan.merge == "lattice" and not _lattice_conflicts(unit, writes):
        return []
    if unit.plan.merge == "immutable":
        return _unbound(record, unit, writes)
    return writes if contested(record, unit) else []


def _lattice_conflicts(unit: Unit, writes: list[Write]) -> bool:
    """Conflict: no least upper bound, or an unlisted value; and a write that had not seen a decision."""
    asks = least_upper_bound(unit, [write.value for write in writes]) is UNKNOWN
    return differing(unit, writes) and (asks or any(write.source == DECISION_SOURCE for write in writes))


def _unbound(record: Record, unit: Unit, writes: list[Write]) -> list[Write]:
    """§3 immutable: "any other value in the frontier is a conflict, even from a writer who had seen it; candidates: the
    bound value and every frontier value"."""
    binding = immutables.binding(record, unit)
    if binding is None or all(unit.same(write.value, binding.value) for write in writes):
        return []
    is_there = any(unit.same(write.value, binding.value) for write in writes)
    return writes if is_there else [binding, *writes]


def kind(unit: Unit, writes: list[Write]) -> str:
    """§4: "The kind is concurrent_insert while two candidates of different value are inserts, or edits that go back to
    inserts, neither of which had seen the other; else concurrent_update" ("counters and logs: concurrent_update")."""
    if unit.plan.merge in ADDS:
        return "concurrent_update"
    for one in writes:
        for other in writes:
            if not unit.same(one.value, other.value) and _unseen_inserts(unit, one, other):
                return "concurrent_insert"
    return "concurrent_update"


def _unseen_inserts(unit: Unit, one: Write, other: Write) -> bool:
    if DECISION_SOURCE in (one.source, other.source):
        return False
    mine, theirs = _inserts(unit, one), _inserts(unit, other)
    return any(
        first not in _aware(unit, other)
        and second not in _aware(unit, one)
        and not (first in unit.baselines and second in unit.baselines)
        for first in mine
        for second in theirs
    )


def _aware(unit: Unit, write: Write) -> set[Any]:
    """What it had seen, itself, and the first snapshots that a row which a copy brought back has seen."""
    past = write.seen | {write.id}
    return past.union(*(unit.writes[id_].also for id_ in past if id_ in unit.writes))


def _inserts(unit: Unit, write: Write) -> set[Any]:
    past = write.seen | {write.id}
    real = {id_ for id_ in past if id_ in unit.writes and unit.writes[id_].kind == "insert"}
    return real | (past & unit.null_inserts) | (past & set(unit.baselines))


def base(unit: Unit, writes: list[Write]) -> Any:
    """§5: "base value (of the latest write that all candidates have seen, else the first snapshot value that their
    sources shared, else absent)"."""
    real = {id_ for id_, write in unit.writes.items() if write.kind != "baseline"}
    shared = set.intersection(*(write.seen for write in writes)) & real
    if shared:
        return unit.writes[max(shared)].value
    sources = {write.source for write in writes} - {DECISION_SOURCE}
    values = [unit.first_snapshot.get(source, UNKNOWN) for source in sources]
    if values and UNKNOWN not in values and all(unit.same(value, values[0]) for value in values):
        return values[0]
    return UNKNOWN


# ---------------------------------------------------------------- divergence


def diverging(record: Record, unit: Unit) -> list[str]:
    """The sources that differ since their first snapshot, [] when none does. §5: "not beside an open concurrent_*"."""
    holders = record.holders(unit)
    apart = [
        pair
        for pair in unit.differed
        if all(source in holders and source in unit.view for source in pair)
        and any(source in unit.untouched for source in pair)
        and not _equal_views(unit, pair)
    ]
    involved = {source for pair in apart for source in pair}
    return [source for source in holders if source in involved]


def _equal_views(unit: Unit, pair: frozenset[str]) -> bool:
    one, other = sorted(pair)
    return unit.same(unit.view.get(one, UNKNOWN), unit.view.get(other, UNKNOWN))
