"""§3 Counters: base + exact deltas; sets; bounds. NULL→n, n→NULL and an insert are sets.

A log (`append`) reads the same way: its parts are the deltas, its rewrites the sets ("NULL is the empty log for an
update, an insert is a rewrite, equal rewrites are one").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cdc_merge.model import DECISION_SOURCE, UNKNOWN
from tests.laws.oracle.frontiers import frontier
from tests.laws.oracle.maps import ABSENT, NO_MAP
from tests.laws.oracle.words import Record, Unit, Write

NOTHING = (None, UNKNOWN, ABSENT, NO_MAP)


def measure(record: Record, unit: Unit, write: Write) -> None:
    """Is this write a set or a delta? "`before` comes from the old tuple or else from the source's view; with neither,
    the delta is unknown: conflict unknown_base, never a guess"."""
    if unit.plan.merge == "append":
        _measure_log(record, unit, write)
    if unit.plan.merge != "counter":
        return
    is_set = write.kind in ("insert", "decision") or unit.is_null(write.value)
    if is_set or (write.before is not UNKNOWN and unit.is_null(write.before)):
        write.is_reset = True
        _equal_sets_agree(record, unit, write)
        return
    if write.before is UNKNOWN:
        write.base_unknown = True
    else:
        write.delta = write.value - write.before
    _fix_base(record, unit, write)


def _fix_base(record: Record, unit: Unit, write: Write) -> None:
    """§4: "a counter's or log's base is that at the moment of the first delta or part (its NULL is absent)": what the first
    holder in `from:` that has one held just before it."""
    if unit.base is not UNKNOWN:
        return
    before = [write.before if source == write.source else held for source, held in record.held(unit)]
    known = [value for value in before if not unit.is_null(value)]
    if known:
        unit.base = known[0]
    elif not write.base_unknown:
        unit.base = None


def _measure_log(record: Record, unit: Unit, write: Write) -> None:
    before, after = ("" if log is None else log for log in (write.before, write.value))
    if write.kind in ("insert", "decision") or before is UNKNOWN or not after.startswith(before):
        write.is_reset = True
        _equal_sets_agree(record, unit, write)
        _equal_rewrites_are_one(record, unit, write)
    else:
        write.delta = after[len(before) :]
        _fix_base(record, unit, write)


def _twins(record: Record, unit: Unit, write: Write) -> list[Write]:
    """The equal sets that neither have seen this one nor were seen by it, and that no other set has seen or their source
    still holds."""
    standing, held = _sets(unit), dict(record.held(unit))
    equal = [other for other in _active(unit) if other.is_reset and unit.same(other.value, write.value)]
    apart = [other for other in equal if other is not write and _concurrent(other, write)]
    return [o for o in apart if o in standing or unit.same(held.get(o.source, UNKNOWN), o.value)]


def _equal_sets_agree(record: Record, unit: Unit, write: Write) -> None:
    """§3: "equal concurrent sets agree": who holds what was set, and had seen one of them, has seen what any of these had."""
    if write.source == DECISION_SOURCE:
        return
    twins = {twin.id for twin in _twins(record, unit, write)}
    alike = [s for s, held in record.held(unit) if unit.same(held, write.value) and unit.seen[s] & (twins | {write.id})]
    together = {id_ for source in alike for id_ in unit.seen[source]}
    for source in alike:
        unit.seen[source] = set(together)


def _equal_rewrites_are_one(record: Record, unit: Unit, write: Write) -> None:
    """§3, append: "equal rewrites are one": who has seen one has seen the other, and each stands for what both had seen."""
    if write.source == DECISION_SOURCE:
        return
    for twin in _twins(record, unit, write):
        if twin.source == DECISION_SOURCE:
            continue
        both = twin.seen | write.seen
        twin.seen, write.seen = set(both), set(both)
        for later in unit.writes.values():
            if twin.id in later.seen:
                later.seen.add(write.id)
        for seen in unit.seen.values():
            if twin.id in seen:
                seen.add(write.id)


def _concurrent(one: Write, other: Write) -> bool:
    return one.id not in other.seen and other.id not in one.seen


def _active(unit: Unit) -> list[Write]:
    return [write for write in unit.writes.values() if write.id not in unit.ended]


def _sets(unit: Unit) -> list[Write]:
    """Sets that no other set has seen."""
    sets = [write for write in _active(unit) if write.is_reset]
    return [write for write in sets if not any(write.id in other.seen for other in sets)]


def _deltas(unit: Unit) -> list[Write]:
    deltas = [write for write in _active(unit) if write.delta is not None]
    return sorted(deltas, key=lambda write: write.id)


def value(record: Record, unit: Unit) -> Any:
    """§3: "provisional = latest set + the deltas it had not seen"; without a set: base + the sum of the deltas."""
    sets = _sets(unit)
    if sets:
        latest = max(sets, key=lambda write: write.id)
        return _sum(latest.value, [w.delta for w in _deltas(unit) if w.id not in latest.seen and w is not latest])
    return _sum(_base(record, unit), [write.delta for write in _deltas(unit)])


def _base(record: Record, unit: Unit) -> Any:
    """Until somebody writes, what the first holder in `from:` has now; then what it was at the first delta."""
    held = [value for _, value in record.held(unit)]
    if unit.base is not UNKNOWN:
        return unit.base
    if unit.is_written():
        return None if None in held else UNKNOWN
    return next((value for value in held if not unit.is_null(value)), held[0] if held else UNKNOWN)


def _sum(start: Any, deltas: Iterable[Any]) -> Any:
    total = start
    for delta in deltas:
        total = delta if total in NOTHING else total + delta
    return total


def contested(record: Record, unit: Unit) -> bool:
    """concurrent_update: "a set concurrent with a delta or another set". "Decisions on a counter are sets; deltas that
    a decision had not seen add to it without a question, another set asks"."""
    sets = _sets(unit)
    deltas = [write for write in _deltas(unit) if not _absorbed(unit, write)]
    return any(
        any(not unit.same(one.value, other.value) and not _answered(unit, one, other) for other in sets)
        or (one.source != DECISION_SOURCE and any(_conflicts(unit, one, delta) for delta in deltas))
        for one in sets
    )


def _conflicts(unit: Unit, one: Write, delta: Write) -> bool:
    return _concurrent(one, delta) and not _answered(unit, one, delta)


def _absorbed(unit: Unit, delta: Write) -> bool:
    """A set has seen it; whether that set is in question is between the sets."""
    return any(delta.id in other.seen for other in _active(unit) if other.is_reset)


def _answered(unit: Unit, one: Write, other: Write) -> bool:
    """Somebody who had seen both went on."""
    return any({one.id, other.id} <= later.seen for later in unit.writes.values())


def out_of_bounds(record: Record, unit: Unit) -> bool:
    total, options = value(record, unit), unit.plan.options
    if total in NOTHING:
        return False
    low, high = options.get("min"), options.get("max")
    return (low is not None and total < low) or (high is not None and total > high)


def base_unknown(unit: Unit) -> list[Write]:
    """Open until a later set or decision has seen the write."""
    sets = [write for write in _active(unit) if write.is_reset]
    return [w for w in _active(unit) if w.base_unknown and not any(w.id in other.seen for other in sets)]


def candidates_of_bound(unit: Unit) -> list[Write]:
    return frontier(unit)
