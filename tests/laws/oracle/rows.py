"""§4: what happens to a source's row."""

from __future__ import annotations

from typing import Any

from cdc_merge.model import DECISION, DECISION_SOURCE, DELETE, INSERT, SNAPSHOT, TRUNCATE, UNKNOWN, Change
from tests.laws.oracle import elements
from tests.laws.oracle import maps as maps_of
from tests.laws.oracle.causality import (
    agree,
    come_back,
    consensus,
    copied,
    decision,
    note_equal_views,
    own_held,
    own_write,
    remember,
    taken_for_late_copy,
)
from tests.laws.oracle.frontiers import contested, frontier, live_deletes, maps
from tests.laws.oracle.words import ADDS, DELETED, OVERWRITES, PRESENT, Delete, Record, Unit, WaitingCopy, Write, said


def apply(record: Record, change: Change) -> None:
    """One step of the fold. §5: "where a copy or rule 4 takes a genuine write out of the frontier and no question was
    open, a concurrent_update is recorded as closed (converged, overwrote)"."""
    quiet = [unit for unit in record.units if not contested(record, unit)]
    before = {unit.name: set(unit.overwritten) for unit in quiet}
    _step(record, change)
    record.steps += 1
    for unit in record.units:
        remember(record, unit, record.steps)
    for unit in quiet:
        for id_ in unit.overwritten - before[unit.name]:
            write = unit.writes[id_]
            if write.kind in ("edit", "insert"):
                record.lost_updates.add((unit.name, write.source, write.value))


def _step(record: Record, change: Change) -> None:
    if change.stamp.source == DECISION_SOURCE:
        _decided(record, change)
    elif change.operation == SNAPSHOT:
        _snapshot(record, change)
    elif change.operation in (DELETE, TRUNCATE):
        _gone(record, change)
    elif change.copy is not None:
        _copied(record, change)
    else:
        _edited(record, change)


def _decided(record: Record, change: Change) -> None:
    if change.operation == DELETE:
        everything = {unit.name: set(unit.writes) | set(unit.baselines) | set(record.deletes) for unit in record.units}
        for unit in record.units:
            elements.begin(record, unit)
        dots = {unit.name: set(unit.dots) for unit in record.units}
        record.deletes[change.stamp] = Delete(change.stamp, DECISION_SOURCE, change.place, everything, None, dots)
        return
    assert change.operation == DECISION
    for unit in record.units:
        pair = said(unit, change)
        if pair is not None:
            elements.begin(record, unit)
            decision(record, unit, change, pair[1])


# ---------------------------------------------------------------- inserts and updates


def _edited(record: Record, change: Change) -> None:
    source = change.stamp.source
    returned = change.operation == INSERT and source in record.away
    is_insert = change.operation == INSERT and not record.holds(source) and not returned
    is_first = is_insert and record.presence[source] != DELETED
    if is_insert or source in record.reborn_by_copy:
        _new_life(record, change, is_first=is_first, is_row=is_insert)
    kind = "insert" if is_insert or source in record.reborn_by_copy else "edit"
    record.presence[source] = PRESENT
    record.kept.discard(source)
    record.away.discard(source)
    wrote = False
    for unit in record.units:
        pair = said(unit, change)
        if pair is None or source not in unit.sources:
            continue
        elements.begin(record, unit)
        if is_insert:
            _inserted(record, unit, change, pair[1], is_first=is_first)
        else:
            wrote = _updated(record, unit, change, (*pair, kind), returned=returned) or wrote
    if wrote:
        # §2 rule 2: "the first genuine edit of such a row counts as the insert"
        record.reborn_by_copy.discard(source)


def _updated(record: Record, unit: Unit, change: Change, told: tuple[Any, Any, str], *, returned: bool) -> bool:
    """True when it was a write."""
    before, after, kind = told
    if after is maps_of.NO_MAP and before is not maps_of.NO_MAP:
        after = maps_of.ABSENT  # a row that comes again is an update: a map that it made NULL has no keys
    if before is not UNKNOWN and unit.same(before, after):
        unit.view[change.stamp.source] = after  # §3: "SET a = a is not a write"
        if returned:
            come_back(record, unit, change.stamp.source)
        return False
    if taken_for_late_copy(record, unit, change, after):
        return False
    # §2 rule 2: of a row that a copy brought back "a counter's edit stays a delta, a log's a part"
    own_write(record, unit, change, (before, after), "edit" if unit.plan.merge in ADDS else kind)
    return True


def _new_life(record: Record, change: Change, *, is_first: bool, is_row: bool) -> None:
    """§4: "An insert where the source held no row begins a new life of the record; it has seen the deletes of all
    sources that hold none at that stamp, and ends the old values of the fields that the deleting source maps"."""
    source = change.stamp.source
    alive = live_deletes(record)
    for delete in record.deletes.values():
        if delete.overwritten or (delete.source != DECISION_SOURCE and record.holds(delete.source)):
            continue
        delete.outlived |= is_row
        for unit in record.units:
            if delete in alive and is_row and maps(unit, delete.source):
                _end_old_values(record, unit, delete)
            over = delete.seen[unit.name] if maps(unit, delete.source) else set()
            unit.seen[source] |= {delete.id} | over | delete.dominated[unit.name]
    if is_row and not is_first:
        for unit in record.units:
            unit.seen[source] |= set(unit.baselines)  # "re-inserts … have seen it"


def _end_old_values(record: Record, unit: Unit, delete: Delete) -> None:
    """`delete_wins`: "it dominates what it had not seen, also what is older than a later re-insert"."""
    unit.ended |= delete.seen[unit.name] & set(unit.writes)
    unit.ended |= set(unit.baselines)
    unit.lives += 1
    unit.ended_dots |= delete.dots[unit.name]
    if record.entity.deletes == "delete_wins":
        late = {write.id for write in unit.writes.values() if delete.id not in write.seen}
        delete.dominated[unit.name] |= late
        unit.ended |= late
        unit.ended_dots |= {dot for dot in unit.dots if dot[0] in late or dot[0] not in unit.writes}
    for id_ in unit.ended:
        unit.ended_in.setdefault(id_, unit.lives)
    if all(write.delta is None or id_ in unit.ended for id_, write in unit.writes.items()):
        unit.base = UNKNOWN  # "what is written next builds on" what the holders hold


def _inserted(record: Record, unit: Unit, change: Change, value: Any, *, is_first: bool) -> None:
    """§3: NULL "in a first insert writes nothing, in a re-insert it clears"."""
    source = change.stamp.source
    if is_first and unit.is_null(value):
        unit.null_inserts.add(change.stamp)
        unit.seen[source].add(change.stamp)
        unit.view[source] = value
        agree(record, unit, value)
        consensus(record, unit)
        return
    if is_first:
        _wake_baselines(record, unit, source)
    if taken_for_late_copy(record, unit, change, value):
        return
    unit.view.pop(source, None)
    value = maps_of.ABSENT if value is maps_of.NO_MAP else value  # "in a re-insert it clears"
    own_write(record, unit, change, (UNKNOWN, value), "insert")


def _wake_baselines(record: Record, unit: Unit, source: str) -> None:
    """§4: "Against a first insert elsewhere, a value known only from a snapshot counts as an insert that
    nobody has seen"."""
    for holder, id_ in unit.snapshot_only.items():
        if holder != source and record.holds(holder) and id_ not in unit.seen[source]:
            unit.writes[id_] = unit.baselines[id_]


def _copied(record: Record, change: Change) -> None:
    """Rule 2: "A marked insert where the source had deleted the row overwrites that delete, seen or not"."""
    source = change.stamp.source
    is_gone = record.presence[source] == DELETED and source not in record.kept | record.away
    if change.operation == INSERT and is_gone:
        for delete in record.deletes.values():
            delete.overwritten |= delete.source == source
        record.reborn_by_copy.add(source)
        _take_back(record, source)
    record.presence[source] = PRESENT
    record.kept.discard(source)
    record.away.discard(source)
    for unit in record.units:
        pair = said(unit, change)
        if pair is not None and source in unit.sources:
            elements.begin(record, unit)
            copied(record, unit, change, pair[1])


def _take_back(record: Record, source: str) -> None:
    """An overwritten delete took nothing away: the marked insert replaces what the source held before it."""
    for unit in record.units:
        view = unit.before_delete.pop(source, UNKNOWN)
        if view is not UNKNOWN:
            unit.view[source] = view


# ---------------------------------------------------------------- rows that go


def _gone(record: Record, change: Change) -> None:
    source = change.stamp.source
    if change.operation == TRUNCATE:
        if record.presence[source] != DELETED:
            record.presence[source] = DELETED
            record.kept.add(source)  # "its last values count as held for everything but presence"
        return
    if record.entity.deletes == "local":
        record.presence[source] = DELETED
        record.away.add(source)  # "kept only to tell, when the row returns, what is an edit"
        for unit in record.units:
            unit.untouched.discard(source)
            unit.overruled[source] = set()
        return
    if change.copy is None:
        _delete(record, change)
    else:
        _copied_delete(record, change)
    record.presence[source] = DELETED
    record.kept.discard(source)
    record.reborn_by_copy.discard(source)
    for unit in record.units:
        unit.before_delete[source] = unit.view.get(source, UNKNOWN)
        for held in (unit.view, unit.snapshot_only):
            held.pop(source, None)
        unit.untouched.discard(source)
        unit.differed = {pair for pair in unit.differed if source not in pair}


def _delete(record: Record, change: Change) -> None:
    """§4: "A delete is an edit with seen like any other; of fields that its source does not map it has seen every
    earlier-stamped write"."""
    source = change.stamp.source
    for unit in record.units:
        elements.begin(record, unit)
        if source not in unit.sources:
            unit.seen[source] |= set(unit.writes)
    seen = {unit.name: set(unit.seen[source]) for unit in record.units}
    dots = {unit.name: set(unit.seen_dots[source]) for unit in record.units}
    delete = Delete(change.stamp, source, change.place, seen, change.moved_to, dots)
    record.deletes[delete.id] = delete
    for unit in record.units:
        unit.seen[source].add(delete.id)
    for wait in list(record.waiting_deletes):
        if wait.source != source and delete.id.wall_us - wait.stamp.wall_us <= record.max_ahead_us:
            record.waiting_deletes.remove(wait)
            _late_delete(record, delete, wait)


def _late_delete(record: Record, delete: Delete, wait: WaitingCopy) -> None:
    for unit in record.units:
        learnt = {delete.id} | (delete.seen[unit.name] if maps(unit, delete.source) else set())
        unit.seen[wait.source] |= learnt
        for write in unit.writes.values():
            if write.source == wait.source and write.id > wait.stamp:
                write.seen |= {id_ for id_ in learnt if not _follows(unit, id_, write)}
        _overwrite(unit, wait.value.get(unit.name), delete)


def _follows(unit: Unit, id_: Any, write: Write) -> bool:
    """It is that write, or has seen it."""
    return id_ == write.id or (id_ in unit.writes and write.id in unit.writes[id_].seen)


def _copied_delete(record: Record, change: Change) -> None:
    source, copy = change.stamp.source, change.copy
    assert copy is not None
    own = {unit.name: own_held(unit, source) for unit in record.units}
    matches = [delete for delete in live_deletes(record) if not copy.of or delete.place in copy.of]
    for delete in matches:
        for unit in record.units:
            unit.seen[source] |= {delete.id} | delete.seen[unit.name]
            _overwrite(unit, own.get(unit.name), delete)
    if not matches:
        record.waiting_deletes.append(WaitingCopy(source, own, change.stamp, None, copy.of))


def _overwrite(unit: Unit, id_: Any, delete: Delete) -> None:
    own = unit.writes.get(id_)
    if own is None or unit.plan.merge not in OVERWRITES or own not in frontier(unit):
        return
    if own.id not in delete.seen[unit.name] and delete.id not in own.seen:
        unit.overwritten.add(own.id)


# ---------------------------------------------------------------- snapshots


def _snapshot(record: Record, change: Change) -> None:
    """§4: "Snapshot reads set views at the source's clock of the consistent point; they are not edits,
    but they agree"."""
    source = change.stamp.source
    record.presence[source] = PRESENT
    record.kept.discard(source)
    record.away.discard(source)
    for unit in record.units:
        pair = said(unit, change)
        if pair is None or source not in unit.sources:
            continue
        value = pair[1]
        is_first = source not in unit.view and source not in unit.first_snapshot
        is_first = is_first and not any(write.source == source for write in unit.writes.values())
        moved = source in unit.view and not unit.same(unit.view[source], value)
        unit.view[source] = value
        if is_first:
            _first_snapshot(record, unit, change, value)
        elif moved:
            unit.snapshot_only.pop(source, None)
            unit.untouched.discard(source)
        note_equal_views(record, unit, source)
        agree(record, unit, value)
        consensus(record, unit)


def _first_snapshot(record: Record, unit: Unit, change: Change, value: Any) -> None:
    """§4: "Sources that differ at their first snapshot have no causality to judge by"; §3: a NULL there "differs from
    nothing and gives way to any value"."""
    source = change.stamp.source
    unit.first_snapshot[source] = value
    unit.untouched.add(source)
    for other in record.holders(unit):
        held = unit.first_snapshot.get(other, unit.view.get(other, UNKNOWN))
        if other != source and not unit.gives_way(held) and not unit.gives_way(value) and not unit.same(held, value):
            unit.differed.add(frozenset((source, other)))
    if unit.is_null(value):
        return
    base = Write(change.stamp, source, value, "baseline", change.place, set(), is_reset=True)
    unit.baselines[base.id] = base
    unit.snapshot_only[source] = base.id
    unit.seen[source].add(base.id)
    elements.baseline(unit, source, value)
    _equal_first_snapshots(unit, source, value, base)


def _equal_first_snapshots(unit: Unit, source: str, value: Any, base: Write) -> None:
    """§4: "writes of sources with an equal first snapshot have seen it"."""
    for other, theirs in unit.first_snapshot.items():
        if other == source or not unit.same(theirs, value):
            continue
        unit.seen[other].add(base.id)
        unit.seen[source] |= {b.id for b in unit.baselines.values() if b.source == other}
        for write in unit.writes.values():
            if write.source == other and write.id != base.id:
                write.seen.add(base.id)
