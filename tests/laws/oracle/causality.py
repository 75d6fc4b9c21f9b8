"""§2, "How `seen(s)` grows, in stamp order", for one field or group."""

from __future__ import annotations

from typing import Any

from cdc_merge.model import DECISION_SOURCE, INSERT, UNKNOWN, Change, Copy
from tests.laws.oracle import counters, elements, immutables
from tests.laws.oracle.frontiers import frontier, unseen
from tests.laws.oracle.words import AGREES, OVERWRITES, Record, Unit, WaitingCopy, Write


def taken_for_late_copy(record: Record, unit: Unit, change: Change, value: Any) -> bool:
    """Rule 3, `agreement: past`: "also takes a value that another source held since the two last agreed (at most the
    last 100) for a late copy of that write"."""
    if unit.plan.merge not in AGREES or unit.plan.agreement != "past":
        return False
    source = change.stamp.source
    for other in record.holders(unit):
        if other == source or unit.same(unit.view.get(other, UNKNOWN), value):
            continue
        since = unit.agreed_at.get(frozenset((source, other)), -1)
        if any(step > since and unit.same(held, value) for step, held in unit.past[other][-100:]):
            seen = [write for write in unit.writes.values() if write.id in unit.seen[other]]
            originals = [write for write in seen if write.kind != "baseline" and unit.same(write.value, value)]
            if originals:
                place = max(originals, key=lambda write: write.id).place
                copied(record, unit, change._replace(copy=Copy(of=(place,))), value)
                return True
    return False


def remember(record: Record, unit: Unit, step: int) -> None:
    """What every source holds after this step, and which of them agree."""
    holding = [source for source in record.holders(unit) if source in unit.view]
    for one in holding:
        past = unit.past[one]
        if not past or not unit.same(past[-1][1], unit.view[one]):
            past.append((step, unit.view[one]))
        for other in holding:
            if one < other and unit.same(unit.view[one], unit.view[other]):
                unit.agreed_at[frozenset((one, other))] = step


def own_write(record: Record, unit: Unit, change: Change, pair: tuple[Any, Any], kind: str) -> Write:
    """Rule 1: `{w} ∪ seen(s)`; a new write "dominates exactly the writes in seen(s) before it"."""
    source = change.stamp.source
    before, after = pair
    write = Write(change.stamp, source, after, kind, change.place, set(unit.seen[source]), before, unit.lives)
    if kind == "insert" and change.operation != INSERT:
        write.also = frozenset(unit.baselines)  # it counts as a re-insert, which has seen every first snapshot
    unit.writes[write.id] = write
    unit.seen[source] = {write.id} | unit.seen[source]
    unit.view[source] = after
    unit.snapshot_only.pop(source, None)
    unit.untouched.discard(source)
    counters.measure(record, unit, write)
    elements.note(record, unit, write)
    write.dots = frozenset(unit.seen_dots[source])
    _settle(record, unit, write)
    return write


def decision(record: Record, unit: Unit, change: Change, value: Any) -> None:
    """§1: "enters the history as a write of the source cdc_merge that has seen all candidates"; §6: "it agrees like an
    edit (rule 3): a source that holds the decided value has seen it"."""
    seen = {id_ for write in frontier(unit) for id_ in (write.id, *write.seen)} | set(unit.baselines)
    write = Write(change.stamp, DECISION_SOURCE, value, "decision", change.place, seen, life=unit.lives)
    elements.decide(unit, write)
    unit.differed.clear()  # it answers a `divergence` too
    unit.writes[write.id] = write
    counters.measure(record, unit, write)
    _settle(record, unit, write)


def _settle(record: Record, unit: Unit, write: Write) -> None:
    agree(record, unit, write.value, write)
    if write.source in unit.view:
        note_equal_views(record, unit, write.source)
    consensus(record, unit)
    write.taught = frozenset(unit.seen[write.source] | write.seen | {write.id})
    _late_matches(record, unit, write)
    consensus(record, unit)


def agree(record: Record, unit: Unit, value: Any, write: Write | None = None) -> None:
    """Rule 3: "makes s hold what other sources hold at that stamp, all of them have seen from then on what any of them
    had seen"."""
    if unit.plan.merge not in AGREES or unit.plan.agreement == "off":
        return
    holding = [t for t in record.holders(unit) if t in unit.view and unit.same(unit.view[t], value)]
    together = {id_ for source in holding for id_ in unit.seen[source]}
    if write is not None and write.kind == "decision":
        together |= {write.id} | write.seen
    for source in holding:
        unit.seen[source] = set(together)


def consensus(record: Record, unit: Unit) -> None:
    """Rule 4: "as soon as every source that holds the record and maps the field holds one value, that is the merged
    value, each has seen every write, and writes of other values are overwritten (for immutable only where it is the
    bound value). A decision in the frontier counts as a holder"."""
    if unit.plan.merge not in OVERWRITES or unit.plan.agreement == "off":
        return
    holding = record.holders(unit)
    values = [unit.view.get(source, UNKNOWN) for source in holding]
    if not holding or UNKNOWN in values or not all(unit.same(value, values[0]) for value in values):
        return
    value, standing = values[0], frontier(unit)
    if not all(unit.same(write.value, value) for write in standing if write.source == DECISION_SOURCE):
        return
    for source in holding:
        unit.seen[source] |= set(unit.writes) | set(unit.baselines) | unit.null_inserts
    bound = immutables.bound(record, unit)
    if unit.plan.merge == "immutable" and bound is not UNKNOWN and not unit.same(bound, value):
        return
    for write in standing:
        if not unit.same(write.value, value):
            _overrule(record, unit, write)


def _overrule(record: Record, unit: Unit, write: Write) -> None:
    unit.overwritten.add(write.id)
    for source in record.away:
        if source in unit.view and unit.same(unit.view[source], write.value):
            unit.overruled[source].add(write.id)


def come_back(record: Record, unit: Unit, source: str) -> None:
    """§4, local deletes: "what equals them is no write, but agrees like one, and a write of it that rule 4 overwrote
    meanwhile stands again"."""
    unit.overwritten -= unit.overruled[source]
    if unit.plan.merge not in AGREES:
        return
    note_equal_views(record, unit, source)
    agree(record, unit, unit.view[source])
    consensus(record, unit)


def copied(record: Record, unit: Unit, change: Change, value: Any) -> None:
    """Rule 2: "Copy of a write v: seen(s) ∪= {v} ∪ seen(v)"."""
    source, copy = change.stamp.source, change.copy
    assert copy is not None
    unchanged = source in unit.view and unit.same(unit.view[source], value)
    replaced = None if unchanged else own_held(unit, source)
    if unit.plan.merge == "set":
        elements.copied(record, unit, change, value)
    matches = _repeated(unit, copy, value)
    for teacher in teachers(record, unit, copy, value):
        unit.seen[source] |= unit.seen[teacher]
    for write in matches:
        _learn(unit, source, write, replaced)
    missing = tuple(place for place in copy.of if place not in {w.place for w in unit.writes.values()})
    if (missing or not matches) and not unchanged:
        unit.waiting.append(WaitingCopy(source, value, change.stamp, replaced, missing))
    unit.view[source] = value
    if not unchanged:
        unit.snapshot_only.pop(source, None)
        unit.untouched.discard(source)
    note_equal_views(record, unit, source)
    consensus(record, unit)


def own_held(unit: Unit, source: str) -> Any:
    """The source's own frontier write whose value it holds: what a copy would replace."""
    held = unit.view.get(source, UNKNOWN)
    own = [write.id for write in frontier(unit) if write.source == source and unit.same(write.value, held)]
    return max(own, default=None)


def teachers(record: Record, unit: Unit, copy: Copy, value: Any) -> list[str]:
    """Rule 2 (d): "then, where crm holds the same value, it teaches all that crm had seen of the field"."""
    return [source for source, held in record.held(unit) if source == copy.from_source and unit.same(held, value)]


def _repeated(unit: Unit, copy: Copy, value: Any) -> list[Write]:
    """The writes that a copy repeats. "A copy that names no write repeats every frontier write of its value", or else
    the overwritten ones of its value, which it puts back."""
    named = [write for write in unit.writes.values() if write.place in copy.of]
    if copy.of:
        return named
    alike = [write for write in unseen(unit) if unit.same(write.value, value) and write.id not in unit.ended]
    return [write for write in alike if write.id not in unit.overwritten] or alike


def _learn(unit: Unit, source: str, write: Write, replaced: Any) -> None:
    """Rule 2: "A copy of v that replaces the source's own write w, neither having seen the other, overwrites w"; "a
    copy of a write that is itself seen or overwritten overwrites nothing; an overwritten one it puts back"."""
    unit.seen[source] |= {write.id} | write.taught
    unit.seen_dots[source] |= {dot for dot in unit.dots if dot[0] in write.taught} | (write.dots & unit.dots)
    if unit.plan.merge not in OVERWRITES:
        return
    current = frontier(unit)
    unit.overwritten.discard(write.id)
    own = unit.writes.get(replaced)
    if own not in current or write not in current or own is write or own is None:
        return
    if not unit.same(own.value, write.value) and own.id not in write.seen and write.id not in own.seen:
        unit.overwritten.add(own.id)


def _late_matches(record: Record, unit: Unit, write: Write) -> None:
    """Rule 2: a copy that matched nothing "waits max_ahead of stamp time for one; when it comes, the source has seen it
    since the copy: what it wrote in between dominates it"."""
    for wait in list(unit.waiting):
        if wait.source == write.source or write.id.wall_us - wait.stamp.wall_us > record.max_ahead_us:
            continue
        between = [w for w in unit.writes.values() if w.source == wait.source and w.id > wait.stamp]
        named = write.place in wait.places
        by_value = not wait.places and unit.same(write.value, wait.value)
        if not (named or by_value) or any(later.id in write.seen for later in between):
            continue
        unit.waiting.remove(wait)
        _learn(unit, wait.source, write, wait.replaced)
        for later in between:
            follow = {id_ for id_ in write.taught if id_ in unit.writes and later.id in unit.writes[id_].seen}
            later.seen |= ({write.id} | write.taught) - {later.id} - follow
            later.taught |= {write.id} | write.taught
        elements.seen_since(unit, write, between)


def note_equal_views(record: Record, unit: Unit, source: str) -> None:
    """Sources that hold one value no longer differ "since their first snapshot"."""
    alike = [t for t in record.holders(unit) if t in unit.view and unit.same(unit.view[t], unit.view[source])]
    unit.differed -= {frozenset((source, other)) for other in alike if other != source}
