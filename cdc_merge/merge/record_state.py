"""One record while it is being merged: its cells, its rows in every source, the deletes that still count.

`apply` takes one change in stamp order. It is the step of both the full fold and the incremental path; they differ only in
whether cells are compacted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from cdc_merge.merge import auto_resolution, map_fields
from cdc_merge.merge.compaction import compact
from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.noop_updates import changes_anything
from cdc_merge.merge.register_ops import MERGED, REPEATED, UNMATCHED
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, Units, group_values
from cdc_merge.merge.writes import COMPACT_AT, MISSING, Insert, Write
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
    MaybeValue,
    Stamp,
)

if TYPE_CHECKING:
    from cdc_merge.merge.divergence_clock import DivergenceClock
    from cdc_merge.merge.rule_hits import RuleHit

PRESENT, DELETED = "present", "deleted"
NONE: Final[frozenset[Stamp]] = frozenset()

Outcomes = list[tuple[str, str, str]]
"""What happened, unit after unit (owner, merge type, outcome), for `merges_total`: counted once per batch."""


class DuplicateRow(NamedTuple):
    """Another row of a source under the record's key: the change that brought it (without what it says), and what it holds."""

    change: Change
    fields: Mapping[str, MaybeValue]


NO_TWINS: Final[Mapping[str, DuplicateRow]] = {}


class Row:
    """One source's row. `kept`: its last values still count as held (TRUNCATE). `fresh`: a marked insert put it back, so that the first
    genuine edit counts as the insert (§2 rule 2). `born`: the genuine insert it began with, `by`: the change that brought it.
    `deleted`: it went by an edit, for the record. `twins`: the source's other rows under the key, by identity (twins.py)."""

    __slots__ = (
        "inserted",
        "by",
        "deleted",
        "reinserted_by_copy",
        "identity",
        "kept",
        "last",
        "presence",
        "duplicates",
    )

    def __init__(self) -> None:
        self.presence = PRESENT
        self.kept = False
        self.reinserted_by_copy = False
        self.deleted = False
        self.inserted: Insert | None = None
        self.by: Change | None = None
        self.identity: str | None = None
        self.last: Stamp | None = None
        self.duplicates: Mapping[str, DuplicateRow] = NO_TWINS


class Delete(NamedTuple):
    """A delete that no new life has seen. What it had seen of a cell is `cell.deletes[stamp]`."""

    change: Change
    source: str
    known: frozenset[Stamp]

    @property
    def stamp(self) -> Stamp:
        return self.change.stamp


class Record:
    __slots__ = (
        "rule_hits",
        "cells",
        "compacts",
        "deletes",
        "divergence_clocks",
        "holding",
        "key",
        "known",
        "last",
        "map_keys",
        "max_ahead_us",
        "moves",
        "present",
        "rows",
        "unit_of",
        "units",
        "unsettled",
        "waiting",
    )

    def __init__(self, units: Units, key: str, *, max_ahead_us: int, compacts: bool) -> None:
        self.units = units
        self.key = key
        self.max_ahead_us = max_ahead_us
        self.compacts = compacts
        self.last: Stamp | None = None
        self.rows: dict[str, Row] = {}
        self.present: tuple[str, ...] = ()
        self.cells: dict[str, UnitState] = {}
        self.unit_of: dict[str, Unit] = {}
        self.holding: dict[str, tuple[str, ...]] = {}
        self.unsettled: dict[str, None] = {}
        self.deletes: list[Delete] = []
        self.moves: list[Delete] = []
        self.waiting: list[tuple[str, Stamp]] = []
        self.known: dict[str, frozenset[Stamp]] = {}
        self.divergence_clocks: dict[str, DivergenceClock] = {}
        self.map_keys: dict[tuple[str, str], map_fields.Held] = {}
        self.rule_hits: dict[tuple[str, str], tuple[RuleHit, ...]] = {}

    def cell(self, unit: Unit) -> UnitState:
        cell = self.cells.get(unit.name)
        if cell is None:
            cell = self.cells[unit.name] = UnitState(unit.type.traits, unit.keyed, unit.order)
            self.unit_of[unit.name] = unit
            unit.type.zero(cell, unit.plan)
            for delete in self.deletes:
                unit.type.record_delete_context(cell, delete.stamp, delete.source, True)  # noqa: FBT003 (an empty cell: nothing unseen)
        return cell

    def row(self, source: str) -> Row:
        """The source's row, present from here on."""
        row = self.rows.get(source)
        if row is None:
            row = self.rows[source] = Row()
            self.refresh()
        elif row.presence != PRESENT or row.kept:
            row.presence, row.kept, row.deleted = PRESENT, False, False
            self.refresh()
        return row

    def refresh(self) -> None:
        """Who counts as holding the record, in the order of `from:`."""
        rows = self.rows
        present = tuple(
            s for s in self.units.entity.sources if s in rows and (rows[s].presence == PRESENT or rows[s].kept)
        )
        self.present = present
        self.holding = self.units.holding(present)

    def holders(self, unit: Unit) -> tuple[str, ...]:
        """The sources that hold the record and map the unit, in the order of `from:`."""
        known = self.holding.get(unit.owner)
        if known is None:
            known = self.holding[unit.owner] = tuple(s for s in unit.order if s in self.present)
        return known

    def absent(self, source: str) -> bool:
        row = self.rows.get(source)
        return row is None or row.presence != PRESENT


def apply(record: Record, change: Change, outcomes: Outcomes | None = None) -> None:
    """Fold one change into the record. Changes come in stamp order, each once."""
    stamp = change.stamp
    source = stamp.source
    if "/" in source:
        source = source.partition("/")[0]
    STEPS[change.operation](record, change, source, outcomes)
    record.last = stamp
    row = record.rows.get(source)
    if row is not None:
        row.last = stamp
        row.identity = change.identity or row.identity


# ---------------------------------------------------------------- rows


def _insert(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    earlier = record.rows.get(source)
    if change.copy is not None:
        _marked_insert(record, change, source, outcomes)
        return
    born = None
    if earlier is None:
        born = Insert(change.stamp, first=True, baseline=False)
    elif _is_gone(record, earlier):
        born = Insert(change.stamp, first=False, baseline=False)
    if born is not None:
        _new_life(record, source, ends_values=True)
    returned = born is None and earlier is not None and earlier.presence != PRESENT and not earlier.kept
    if returned and record.moves:
        _see_moves(record, source)
    came = change if born is not None or earlier is None else _as_moved(earlier, change)
    row = record.row(source)
    row.reinserted_by_copy = False
    row.inserted, row.by = born or row.inserted, came
    _feed(record, change, source, born, outcomes, returned=returned)


def _is_gone(record: Record, row: Row) -> bool:
    """The row was deleted for the record, not emptied with its table, and not only for its source."""
    return row.presence != PRESENT and not row.kept and record.units.entity.deletes != "local"


def _as_moved(row: Row, change: Change) -> Change:
    """A row that is entered or read again, and was not gone, has come from where it came before."""
    there = row.presence == PRESENT or row.kept
    moved_from = row.by.moved_from if there and row.by is not None else None
    return change if moved_from is None else change._replace(moved_from=moved_from)


def _marked_insert(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    """It overwrites the source's own delete, seen or not."""
    was_deleted = source in record.rows and _is_gone(record, record.rows[source])
    record.moves = [move for move in record.moves if move.source != source]
    own = [d for d in record.deletes if d.source == source]
    for delete in own:
        record.deletes.remove(delete)
        _forget(record, delete)
    row = record.row(source)
    row.reinserted_by_copy, row.by = row.reinserted_by_copy or was_deleted, change
    for cell in record.cells.values() if was_deleted else ():
        cell.take_back(source)
    _feed(record, change, source, None, outcomes)


def _new_life(record: Record, source: str, *, ends_values: bool) -> None:
    """An insert where the source held no row has seen the deletes of all sources that hold none; old values end with it, except
    for the first edit of a row that a copy brought back, which says nothing of the columns it left alone."""
    over = [d for d in record.deletes if record.absent(d.source)]
    if record.moves:
        _see_moves(record, source)
    _see_absent(record, source)
    if not over:
        return
    wins = record.units.entity.deletes == "delete_wins"
    record.deletes = [d for d in record.deletes if d not in over]
    known = record.known.get(source, NONE)
    for delete in over:
        known |= delete.known | {delete.stamp}
        for name, cell in record.cells.items():
            unit = record.unit_of[name]
            if ends_values and (delete.source == DECISION_SOURCE or record.units.maps(delete.source, unit)):
                unit.type.end(cell, delete.stamp, source, wins)
                if wins:
                    cell.see_all(delete.source)
                cell.learn_inserts(source, delete.source, record.last or delete.stamp if wins else delete.stamp)
        _forget(record, delete)
    record.known[source] = known


def _see_absent(record: Record, source: str) -> None:
    """It has seen what the deletes of all sources that hold none had seen, also of those that an earlier life has seen."""
    for other, row in record.rows.items():
        if row.deleted and row.presence != PRESENT and row.last is not None:
            for name, cell in record.cells.items():
                if other in cell.sides and record.units.maps(other, record.unit_of[name]):
                    since = [w.bit for w in cell.of(cell.frontier) if w.stamp > row.last]
                    cell.side(source).seen |= cell.seen(other) & ~sum(since)
                    cell.learn_inserts(source, other, row.last)


def _see_moves(record: Record, source: str) -> None:
    """A new row under the key has seen where the rows of all sources that hold none went."""
    over = [move for move in record.moves if record.absent(move.source) or move.source == source]
    record.moves = [move for move in record.moves if move not in over]
    record.known[source] = record.known.get(source, NONE).union(*[move.known | {move.stamp} for move in over])


def _forget(record: Record, delete: Delete) -> None:
    for cell in record.cells.values():
        if delete.stamp in cell.deletes:
            del cell.deletes[delete.stamp]


def _update(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    never_seen = source not in record.rows
    row = record.row(source)
    born = None
    if row.reinserted_by_copy and change.copy is None and changes_anything(record, change, source):
        row.reinserted_by_copy = False
        born = Insert(change.stamp, first=False, baseline=False)
        row.presence = DELETED
        _new_life(record, source, ends_values=False)
        row.presence = PRESENT
    if never_seen:
        _learn_before(record, change, source)
    _feed(record, change, source, born, outcomes)


def _learn_before(record: Record, change: Change, source: str) -> None:
    """A row seen for the first time by an update: its old tuple says what the source held."""
    for field, (before, _) in change.fields.items():
        unit = record.units.by_name.get(field)
        if unit is not None and before is not UNKNOWN:
            record.cell(unit).read_first(source, change, before, candidate=False)


def _delete(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    if source == DECISION_SOURCE:
        _decided_delete(record, change)
        return
    row = record.row(source)
    local = change.operation == TRUNCATE or record.units.entity.deletes == "local"
    row.presence, row.kept, row.reinserted_by_copy = DELETED, change.operation == TRUNCATE, False
    row.deleted = not local and change.copy is None
    record.refresh()
    if local and not row.kept:
        _local_delete(record, change, source)
    if not local:
        gone = _new_delete if change.copy is None else _copied_delete
        gone(record, change, source)
        for cell in record.cells.values():
            cell.drop(source)
        for held in [held for held in record.map_keys if held[1] == source]:
            del record.map_keys[held]


def _local_delete(record: Record, change: Change, source: str) -> None:
    """It ends that source's copy only. Where its row went is told: two sources may have moved it to different keys."""
    for cell in record.cells.values():
        cell.leave(source)
    known = record.known.get(source, NONE)
    if change.copy is not None:
        record.known[source] = known.union(*[move.known | {move.stamp} for move in record.moves])
    elif change.moved_to is not None:
        record.moves.append(Delete(change, source, known))
        record.known[source] = known | {change.stamp}


def _new_delete(record: Record, change: Change, source: str) -> None:
    _forget_known(record)
    delete = Delete(change, source, record.known.get(source, NONE))
    if not _was_awaited(record, delete):
        record.deletes.append(delete)
    record.known[source] = delete.known | {delete.stamp}
    for name, cell in record.cells.items():
        unit = record.unit_of[name]
        unit.type.record_delete_context(cell, delete.stamp, source, not record.units.maps(source, unit))


def _forget_known(record: Record) -> None:
    """Only of deletes that count does it matter who has seen them."""
    count = frozenset([delete.stamp for delete in (*record.deletes, *record.moves)])
    record.known = {source: known & count for source, known in record.known.items()}


def _was_awaited(record: Record, delete: Delete) -> bool:
    """A marked delete elsewhere was waiting for this one: its source has seen it since. True when that source has begun a new life
    of the record in between, which then is the later word."""
    answered = [(s, at) for s, at in record.waiting if s != delete.source and _within(record, at, delete.stamp)]
    record.waiting = []
    for source, at in answered:
        record.known[source] = record.known.get(source, NONE) | delete.known | {delete.stamp}
        for name, cell in record.cells.items():
            _answer_delete(record, name, delete, (source, at))
            cell.see_since(source, at, cell.seen(delete.source))
    return any(not (record.absent(source) or record.rows[source].reinserted_by_copy) for source, _ in answered)


def _answer_delete(record: Record, name: str, delete: Delete, copy: tuple[str, Stamp]) -> None:
    """What a copied delete that came too early does to the writes of its source: those since then have seen the delete, what it
    took away is overwritten."""
    cell, (source, at) = record.cells[name], copy
    side = cell.sides.get(source)
    taken = MISSING if side is None or side.gone is None else side.gone[1]
    for write in list(cell.of(cell.frontier)):
        if write.source == source and write.stamp > at:
            write.deletes = write.deletes | {delete.stamp}
        elif write.source == source and write.key == taken and not write.bit & cell.seen(delete.source):
            if not cell.traits.overwrites:
                continue
            cell.take_out(write)
            record.unsettled[name] = None


def _within(record: Record, earlier: Stamp, later: Stamp) -> bool:
    return later.wall_us - earlier.wall_us <= record.max_ahead_us


def _decided_delete(record: Record, change: Change) -> None:
    """A decision to delete has seen everything, the other deletes included."""
    known = frozenset[Stamp]().union(*[d.known | {d.stamp} for d in record.deletes])
    for delete in record.deletes:
        _forget(record, delete)
    record.deletes = [Delete(change, DECISION_SOURCE, known)]
    for name, cell in record.cells.items():
        record.unit_of[name].type.record_delete_context(cell, change.stamp, DECISION_SOURCE, True)  # noqa: FBT003


def _copied_delete(record: Record, change: Change, source: str) -> None:
    """A marked delete repeats every delete that counts; the source's own edit that the delete had not seen is overwritten. One that
    finds no delete waits `max_ahead` for it, as other copies do."""
    if not record.deletes:
        record.waiting.append((source, change.stamp))
    for delete in record.deletes:
        record.known[source] = record.known.get(source, NONE) | delete.known | {delete.stamp}
        for name, cell in record.cells.items():
            _overwrite_unseen(record, (name, cell), source, delete)
            cell.side(source).seen |= cell.deletes.get(delete.stamp, 0)


def _overwrite_unseen(record: Record, what: tuple[str, UnitState], source: str, delete: Delete) -> None:
    """The source's own edits that the copied delete had not seen; types that join keep theirs."""
    name, cell = what
    for write in list(cell.of(cell.frontier)) if cell.traits.overwrites else ():
        if write.source == source and write.key == cell.held(source) and opposes(cell, write, delete):
            cell.take_out(write)
            record.unsettled[name] = None


def opposes(cell: UnitState, write: Write, delete: Delete) -> bool:
    """Neither had seen the other."""
    return not cell.deletes.get(delete.stamp, 0) & write.bit and delete.stamp not in write.deletes


def _snapshot(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    known = record.rows.get(source)
    came = change if known is None else _as_moved(known, change)
    record.row(source).by = came
    _feed(record, change, source, None, outcomes)


def _decision(record: Record, change: Change, source: str, outcomes: Outcomes | None) -> None:
    """A decision of fields has seen these fields' candidates, not the record's deletes. One that names no field keeps the record
    against its deletes."""
    if not change.fields:
        for delete in record.deletes:
            _forget(record, delete)
        record.deletes = []
        return
    _feed(record, change, source, None, outcomes)


STEPS: Final[dict[str, Callable[[Record, Change, str, Outcomes | None], None]]] = {
    INSERT: _insert,
    UPDATE: _update,
    DELETE: _delete,
    TRUNCATE: _delete,
    SNAPSHOT: _snapshot,
    DECISION: _decision,
}

# ---------------------------------------------------------------- cells


def _others(record: Record, change: Change, source: str) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    """The groups and maps that a change touches."""
    units = record.units
    for field in change.fields:
        if field not in units.by_name and field not in units.group_of and field in units.entity.fields:
            yield from map_fields.events(record, units.entity.fields[field], change, source)
    if units.group_of:
        for plan, fields in units.grouped(change.fields):
            unit = units.by_name[plan.name]
            yield unit, *group_values(plan, fields, record.cell(unit).view(source))


def _events(record: Record, change: Change, source: str) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    by_name = record.units.by_name
    for field, (before, after) in change.fields.items():
        unit = by_name.get(field)
        if unit is not None:
            yield unit, before, after
    if not record.units.plain:
        yield from _others(record, change, source)


def _feed(  # noqa: PLR0913 (the hot path: no object in between)
    record: Record,
    change: Change,
    source: str,
    born: Insert | None,
    outcomes: Outcomes | None,
    *,
    returned: bool = False,
) -> None:
    """Give every unit that the change touches its event. The hot path: one pass, one event object."""
    event = Event(source, change, born, record.known.get(source, NONE))
    event.returned = returned
    event.max_ahead_us = record.max_ahead_us
    for unit, before, after in _events(record, change, source):
        if after is UNKNOWN:
            continue
        cell = record.cell(unit)
        event.before, event.after = before, after
        outcome = _give(record, cell, unit, event)
        if outcomes is not None:
            outcomes.append((unit.owner, unit.plan.merge, outcome if outcome != MERGED else _judged(cell, unit)))


def _give(record: Record, cell: UnitState, unit: Unit, event: Event) -> str:
    """The step that any event of a unit takes; its outcome."""
    change = event.change
    event.holders = record.holding.get(unit.owner) or record.holders(unit)
    event.rivals = unit.rivals
    if cell.waiting:
        cell.expire(change.stamp, record.max_ahead_us)
    outcome = unit.steps[_step(change)](cell, unit.plan, event)
    if unit.plan.agreement == "past" and change.operation != DECISION:
        cell.remember(
            event.source, event.holders, came=change.operation != SNAPSHOT and outcome not in (UNMATCHED, REPEATED)
        )
    front = cell.frontier
    if front & (front - 1) or cell.watched or cell.diverged or cell.baselines or cell.lost_updates:
        record.unsettled[unit.name] = None
    elif record.unsettled:
        record.unsettled.pop(unit.name, None)
    if record.compacts and len(cell.writes) > COMPACT_AT:
        compact(cell)
    return outcome


def _step(change: Change) -> int:
    if change.operation == SNAPSHOT:
        return 2
    if change.operation == DECISION:
        return 3
    return 0 if change.copy is None else 1


def _judged(cell: UnitState, unit: Unit) -> str:
    """An automatic outcome settles what would be asked."""
    asked = unit.type.conflicting_writes(cell, unit.plan, cell.front())
    return "conflict" if asked and auto_resolution.outcome(cell, unit.plan, asked) is None else MERGED
