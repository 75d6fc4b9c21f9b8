"""§3 Sets: an observed-remove set. A dot is (write that added it, element); a removal removes the dots it has seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cdc_merge.model import UNKNOWN, Change
from tests.laws.oracle.words import Record, Unit, WaitingCopy, Write

BASELINE = "first snapshot"


def of(unit: Unit, value: Any) -> frozenset[Any]:
    """The elements of a value; NULL and unknown hold none."""
    if value is None or value is UNKNOWN:
        return frozenset()
    separator = unit.plan.options.get("separator")
    if isinstance(value, str) and separator:
        return frozenset(part for part in value.split(separator) if part)
    return frozenset(value)


def note(record: Record, unit: Unit, write: Write) -> None:
    if unit.plan.merge != "set":
        return
    _difference(unit, write, unit.seen_dots[write.source], of(unit, write.before))
    unit.seen_dots[write.source] |= {dot for dot in unit.dots if dot[0] == write.id}
    _late(record, unit, write)


def decide(unit: Unit, write: Write) -> None:
    """§3: "Decisions … on sets and maps the difference to the provisional value"."""
    if unit.plan.merge == "set":
        _difference(unit, write, set(unit.dots), members(unit))


def _difference(unit: Unit, write: Write, seen: Iterable[Any], before: frozenset[Any]) -> None:
    after = of(unit, write.value)
    known = frozenset(seen)
    for element in before - after:
        unit.removals[element].append((write.id, frozenset(dot for dot in known if dot[1] == element)))
    unit.dots |= {(write.id, element) for element in after - before}


def begin(record: Record, unit: Unit) -> None:
    """§4: until somebody writes, the value is the join of what the holders hold now, "and what is written next builds on
    it"; an element that several of them hold is one dot that all of these have seen."""
    if unit.plan.merge != "set" or unit.is_written():
        return
    held_now = {e for _, held in record.held(unit) for e in of(unit, held)}
    for seen in unit.seen_dots.values():
        seen -= {dot for dot in unit.dots if dot[1] not in held_now}
    unit.dots = set()
    for source, held in record.held(unit):
        mine = {((BASELINE, unit.lives), element) for element in of(unit, held)}
        unit.dots |= mine
        unit.seen_dots[source] |= mine


def baseline(unit: Unit, source: str, value: Any) -> None:
    """Like a copy, a first snapshot has seen the dots of what it holds, and adds only what nobody had added."""
    if unit.plan.merge != "set" or not unit.is_written():
        return
    for element in of(unit, value):
        known = {dot for dot in unit.dots if dot[1] == element} or {((BASELINE, unit.lives), element)}
        unit.dots |= known
        unit.seen_dots[source] |= known


def copied(record: Record, unit: Unit, change: Change, value: Any) -> None:
    """§3: "Copies in sets that add x have seen the dots of x; copies remove nothing"."""
    source, copy = change.stamp.source, change.copy
    assert copy is not None
    added = of(unit, value) - of(unit, unit.view.get(source))
    for teacher, held in record.held(unit):
        if teacher == copy.from_source and unit.same(held, value):
            unit.seen_dots[source] |= unit.seen_dots[teacher]
    for element in added:
        dots = {dot for dot in unit.dots if dot[1] == element and dot not in unit.ended_dots}
        unit.seen_dots[source] |= dots
        unit.seen[source] |= {dot[0] for dot in dots if dot[0] in unit.writes}
        if not dots and not copy.of:
            unit.waiting_elements.append(WaitingCopy(source, element, change.stamp, None, ()))


def seen_since(unit: Unit, write: Write, between: Iterable[Write]) -> None:
    """What a source wrote between an early copy and the write that it repeats dominates that: its removals have seen it."""
    later = {each.id for each in between}
    for element, removals in unit.removals.items():
        mine = {(write.id, element)} & unit.dots
        unit.removals[element] = [(id_, seen | mine if id_ in later else seen) for id_, seen in removals]


def _late(record: Record, unit: Unit, write: Write) -> None:
    """A copied element that nobody had added: "when it comes, the source has seen it since the copy"."""
    for wait in list(unit.waiting_elements):
        dot = (write.id, wait.value)
        late = write.id.wall_us - wait.stamp.wall_us > record.max_ahead_us
        if late or wait.source == write.source or dot not in unit.dots:
            continue
        unit.waiting_elements.remove(wait)
        unit.seen_dots[wait.source].add(dot)
        unit.seen[wait.source].add(write.id)
        unit.removals[wait.value] = [
            (removal, seen | {dot} if removal.source == wait.source and removal > wait.stamp else seen)
            for removal, seen in unit.removals[wait.value]
        ]


def members(unit: Unit) -> frozenset[Any]:
    """Add wins: in, when some dot of it is unseen by every removal. `wins: remove`: "in, if some add has seen every
    removal of it"."""
    live = {dot for dot in unit.dots if dot not in unit.ended_dots}
    keeps = _outlives_all if unit.plan.options.get("wins") == "remove" else _outlives
    return frozenset(dot[1] for dot in live if keeps(unit, dot))


def _outlives(unit: Unit, dot: tuple[Any, Any]) -> bool:
    return not any(dot in seen for _, seen in unit.removals[dot[1]])


def _outlives_all(unit: Unit, dot: tuple[Any, Any]) -> bool:
    add = unit.writes.get(dot[0])
    seen, life = (add.seen, add.life) if add is not None else (set(), dot[0][1])
    # A removal that a new life ended says nothing of what was added afterwards.
    counting = [removal for removal, _ in unit.removals[dot[1]] if unit.ended_in.get(removal, life + 1) > life]
    return all(removal in seen for removal in counting)


def value(record: Record, unit: Unit) -> Any:
    held = record.held(unit)
    if not unit.is_written():  # §4: "Until somebody writes, the merged value is the join"
        return frozenset(e for _, value in held for e in of(unit, value)) if held else UNKNOWN
    return members(unit)
