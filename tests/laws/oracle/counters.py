"""§3 Counters: base + exact deltas; sets; bounds. NULL→n, n→NULL and an insert are sets.

A log (`append`) reads the same way: its parts are the deltas, its rewrites the sets ("NULL is the empty log for an
update, an insert is a rewrite, equal rewrites are one").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cdc_merge.model import DECISION_SOURCE, UNKNOWN
from tests.laws.oracle.frontiers import frontier, live_deletes, maps, standing
from tests.laws.oracle.maps import ABSENT, NO_MAP
from tests.laws.oracle.words import Record, Unit, Write

NOTHING = (None, UNKNOWN, ABSENT, NO_MAP)


def measure(unit: Unit, write: Write) -> None:
    """Is this write a set or a delta? "`before` comes from the old tuple or else from the source's view; with neither,
    the delta is unknown: conflict unknown_base, never a guess"."""
    if unit.plan.merge == "append":
        _measure_log(unit, write)
    if unit.plan.merge != "counter":
        return
    is_set = write.kind in ("insert", "decision") or unit.is_null(write.value)
    if is_set or (write.before is not UNKNOWN and unit.is_null(write.before)):
        write.is_reset = True
        _equal_sets_agree(unit, write)
    elif write.before is UNKNOWN:
        write.base_unknown = True
    else:
        write.delta = write.value - write.before


def _measure_log(unit: Unit, write: Write) -> None:
    before, after = ("" if log is None else log for log in (write.before, write.value))
    if write.kind in ("insert", "decision") or before is UNKNOWN or not after.startswith(before):
        write.is_reset = True
        _equal_sets_agree(unit, write)
    else:
        write.delta = after[len(before) :]


def _equal_sets_agree(unit: Unit, write: Write) -> None:
    """§3: "equal concurrent sets agree": sources that hold what they set have each seen both."""
    for twin in unit.writes.values():
        if twin is write or not twin.is_reset or not unit.same(unit.view.get(twin.source, UNKNOWN), write.value):
            continue
        if _concurrent(twin, write) and unit.same(twin.value, write.value):
            unit.seen[write.source].add(twin.id)
            unit.seen[twin.source].add(write.id)


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
    if standing(record, unit):
        sets = [write for write in sets if not _is_gone(record, unit, write)]
    if sets:
        latest = max(sets, key=lambda write: write.id)
        return _sum(latest.value, [w.delta for w in _deltas(unit) if w.id not in latest.seen and w is not latest])
    return _sum(_base(record, unit), [write.delta for write in _deltas(unit)])


def _base(record: Record, unit: Unit) -> Any:
    """§4: "a counter's base likewise (its NULL is absent)": the first source in `from:` that has one."""
    for source in record.entity.sources:
        if not unit.is_null(unit.resting.get(source)):
            return unit.resting[source]
    if unit.resting:
        return None
    known = [write.before for write in _deltas(unit)]
    return known[0] if known else UNKNOWN


def _sum(start: Any, deltas: Iterable[Any]) -> Any:
    total = start
    for delta in deltas:
        total = delta if total in NOTHING else total + delta
    return total


def contested(record: Record, unit: Unit) -> bool:
    """concurrent_update: "a set concurrent with a delta or another set". "Decisions on a counter are sets; deltas that
    a decision had not seen add to it without a question, another set asks"."""
    sets = [write for write in _sets(unit) if not _is_gone(record, unit, write)]
    deltas = [write for write in _deltas(unit) if not _is_gone(record, unit, write) and not _absorbed(unit, write)]
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


def _is_gone(record: Record, unit: Unit, write: Write) -> bool:
    """A live delete has seen it."""
    live = [delete for delete in live_deletes(record) if maps(unit, delete.source)]
    return any(write.id in delete.seen[unit.name] for delete in live)


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
