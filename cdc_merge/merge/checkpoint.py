"""A base: one folded record as plain values, from which the fold goes on exactly as if it had never stopped.

Rules: pure; `restored(units, saved(record))` answers like `record` whatever comes next. The law suite folds a part of a
history, saves, restores and folds the rest, for every merge type. A tree is lists, tuples and model values, so that any
store can keep it. What a change said about its fields is not kept: cells hold the values.

Of every object only the slots that differ from a fresh one's are written, as number and value. The number is the place
in the tuples below: only ever append. A slot that is in none of them, and not in `REMADE`, fails the law suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

from cdc_merge.merge import map_fields
from cdc_merge.merge.compaction import compact
from cdc_merge.merge.divergence_clock import DivergenceClock
from cdc_merge.merge.record_state import Delete, DuplicateRow, Record, Row
from cdc_merge.merge.rule_hits import RuleHit
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, Units
from cdc_merge.merge.writes import ABSENT, MISSING, Insert, SourceState, WaitingCopy, Write
from cdc_merge.model import UNKNOWN, Change, Copy, MaybeValue, Place, Stamp

Tree: TypeAlias = Sequence[Any]
"""Nested lists of model values; what comes back from a store may be tuples."""

Forms: TypeAlias = Mapping[str, Callable[[Any], Any]]
"""How the slots that are not plain values are written, or read again."""


def _slots(names: str) -> tuple[str, ...]:
    return tuple(names.split())


WRITE_SLOTS: Final = _slots("change value key seen after kind inserts deletes before delta is_reset delta_unknown")
SOURCE_SLOTS: Final = _slots("value key by seen overruled untouched baseline inserts first first_key gone over")
WAITING_SLOTS: Final = _slots("source change key replaced written")
UNIT_SLOTS: Final = _slots(
    "writes frontier overwritten baselines sets sides deletes waiting diverged watched extra past base"
)
ROW_SLOTS: Final = _slots("presence kept reinserted_by_copy inserted identity last by duplicates deleted")
RECORD_SLOTS: Final = _slots(
    "last rows cells unsettled deletes waiting known map_keys divergence_clocks rule_hits moves"
)

REMADE: Final[Mapping[type, frozenset[str]]] = {
    Write: frozenset({"bit", "source"}),
    UnitState: frozenset({"traits", "keyed", "order", "next", "lost_updates"}),
    Record: frozenset({"units", "key", "max_ahead_us", "compacts", "present", "holding", "unit_of"}),
}
"""What follows from the configuration or from other slots. Traces are told in the batch that found them."""

EMPTY_FIELDS: Final[Mapping[str, tuple[MaybeValue, MaybeValue]]] = {}

# A cell with fewer writes is small enough to be saved as it is.
SMALL = 3


def dump_state(record: Record) -> Tree:
    """The record as plain values. Its cells are compacted first, which changes no answer."""
    return _Saving(record).tree()


def load_state(units: Units, tree: Tree, *, key: str, max_ahead_us: int) -> Record:
    """The record that was saved. Units that the configuration no longer has are left out; one whose type it has changed
    begins again with its writes."""
    return _Restoring(Record(units, key, max_ahead_us=max_ahead_us, compacts=True), tree).record


def _sparse(owner: object, slots: tuple[str, ...], plain: Forms, fresh: object) -> Tree:
    """The slots that differ from a fresh object's: number, plain value, number, plain value …"""
    found: list[Any] = []
    for number, slot in enumerate(slots):
        value = getattr(owner, slot)
        usual = getattr(fresh, slot, MISSING)
        if value is not usual and (value.__class__ is not usual.__class__ or value != usual):
            form = plain.get(slot)
            found += (number, value if form is None else form(value))
    return found


def _filled(owner: object, slots: tuple[str, ...], tree: Iterable[Any], made: Forms) -> None:
    each = iter(tree)
    for number in each:
        slot, value = slots[number], next(each)
        form = made.get(slot)
        setattr(owner, slot, value if form is None else form(value))


# ---------------------------------------------------------------- saving

# No value is a mapping, so an empty one can stand for an absent map key.
_NO_KEY: Final[dict[str, str]] = {}


def _value(value: MaybeValue) -> Any:
    return _NO_KEY if value is ABSENT else value


def _keyed(cell: UnitState, value: MaybeValue) -> object:
    return MISSING if value is UNKNOWN else cell.keyed(value)


def _key(key: object) -> Tree:
    """A comparison key that does not follow from the value beside it."""
    if key is MISSING:
        return [0]
    return [2, *key] if isinstance(key, frozenset) else [1, _value(key)]  # type: ignore[arg-type]  # keys are values


_FRESH_ROW: Final = Row()
# What follows from other slots unless it was written.
_FOLLOWS: Final[Any] = object()


class _Saving:
    """One save: the changes and inserts that cells refer to are kept once."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.changes: list[Tree] = []
        self.inserts: list[Tree] = []
        self._change_at: dict[Stamp, int] = {}
        self._insert_at: dict[Insert, int] = {}
        both: Forms = {"value": _value, "inserts": self._inserts, "key": _key}
        self._write: Forms = {**both, "change": self._change, "deletes": _stamps, "before": _value, "delta": _part}
        alone: Forms = {"baseline": self._insert, "first": _value, "first_key": _key, "gone": _gone}
        self._side: Forms = {**both, **alone, "by": self._change}
        self._waiting: Forms = {"change": self._change, "key": _key}
        self._fresh_side = SourceState()
        self._fresh_write = Write(0, "", None, UNKNOWN, MISSING, 0)  # type: ignore[arg-type]  # only to compare with
        self._cell: Forms = {
            "deletes": lambda deletes: [[*stamp, mask] for stamp, mask in deletes.items()],
            "waiting": lambda several: [_sparse(w, WAITING_SLOTS, self._waiting, None) for w in several],
            "past": lambda past: [[*pair, [[_key(key), seen] for key, seen in held]] for pair, held in past.items()],
        }

    def tree(self) -> Tree:
        record = self.record
        fresh = Record(record.units, record.key, max_ahead_us=0, compacts=True)
        row: Forms = {"inserted": self._insert, "last": list, "by": self._change, "duplicates": self._of_twins}
        plain: Forms = {
            "last": list,
            "rows": lambda rows: [[s, _sparse(r, ROW_SLOTS, row, _FRESH_ROW)] for s, r in rows.items()],
            "cells": lambda cells: [self._of_cell(record.unit_of[name], cell) for name, cell in cells.items()],
            "unsettled": list,
            "deletes": lambda deletes: [[self._change(d.change), d.source, _stamps(d.known)] for d in deletes],
            "moves": lambda moves: [[self._change(d.change), d.source, _stamps(d.known)] for d in moves],
            "waiting": lambda several: [[source, *stamp] for source, stamp in several],
            "known": lambda known: [[source, _stamps(stamps)] for source, stamps in known.items()],
            "map_keys": _held_maps,
            "divergence_clocks": lambda drifts: [[name, *self._of_drift(drift)] for name, drift in drifts.items()],
            "rule_hits": lambda caught: [[*what, [*map(self._of_caught, each)]] for what, each in caught.items()],
        }
        slots = _sparse(record, RECORD_SLOTS, plain, fresh)
        return [self.changes, self.inserts, slots]

    def _of_cell(self, unit: Unit, cell: UnitState) -> Tree:
        if len(cell.writes) > SMALL:
            compact(cell)
        fresh = UnitState(cell.traits, cell.keyed, cell.order)
        plain: Forms = {
            **self._cell,
            "writes": lambda writes: [self._of_write(cell, w) for w in writes.values()],
            "sides": lambda sides: [[source, self._of_side(cell, side)] for source, side in sides.items()],
            "extra": lambda _: unit.type.dump_state(cell),
            "base": _value,
        }
        return [unit.name, unit.owner, unit.plan.merge, _sparse(cell, UNIT_SLOTS, plain, fresh)]

    def _of_write(self, cell: UnitState, write: Write) -> Tree:
        fresh = self._fresh_write
        fresh.key, fresh.after = cell.keyed(write.value), write.seen | write.bit
        return _sparse(write, WRITE_SLOTS, self._write, fresh)

    def _of_side(self, cell: UnitState, side: SourceState) -> Tree:
        fresh = self._fresh_side
        fresh.key, fresh.first_key = _keyed(cell, side.value), _keyed(cell, side.first)
        return _sparse(side, SOURCE_SLOTS, self._side, fresh)

    def _of_drift(self, drift: DivergenceClock) -> Tree:
        taken = [[source, _key(key), self._change(change)] for source, (key, change) in drift.taken.items()]
        replaced = [[_key(key), [[s, *at] for s, at in by.items()]] for key, by in drift.replaced.items()]
        return [taken, replaced, drift.merged and [_key(drift.merged[0]), *drift.merged[1]]]

    def _of_caught(self, caught: RuleHit) -> Tree:
        at = self._change(caught.change)
        return [at, _value(caught.value), _value(caught.base), caught.delta, caught.seen and [*caught.seen]]

    def _of_twins(self, twins: Mapping[str, DuplicateRow]) -> Tree:
        return [[name, self._change(twin.change), [*chain(*twin.fields.items())]] for name, twin in twins.items()]

    def _change(self, change: Change) -> int:
        at = self._change_at.get(change.stamp)
        if at is None:
            at = self._change_at[change.stamp] = len(self.changes)
            self.changes.append(_of_change(change))
        return at

    def _insert(self, insert: Insert) -> int:
        at = self._insert_at.get(insert)
        if at is None:
            at = self._insert_at[insert] = len(self.inserts)
            self.inserts.append([*insert.stamp, insert.first, insert.baseline])
        return at

    def _inserts(self, inserts: frozenset[Insert]) -> list[int]:
        return [self._insert(insert) for insert in inserts]


def _stamps(stamps: Iterable[Stamp]) -> list[Tree]:
    return [[*stamp] for stamp in stamps]


def _part(part: Any) -> Any:
    """What a write adds: a number, or pieces, which are tuples of values."""
    return [[*piece] for piece in part] if isinstance(part, tuple) else part


def _gone(gone: tuple[MaybeValue, object]) -> Tree:
    return [_value(gone[0]), _key(gone[1])]


def _held_maps(held: Mapping[tuple[str, str], map_fields.Held]) -> list[Tree]:
    return [[*what, _keys_saved(keys)] for what, keys in held.items()]


def _keys_saved(keys: map_fields.Held) -> Any:
    if keys is None:
        return None
    return False if keys is map_fields.CLEARED else [*chain(*keys.items())]


def _of_change(change: Change) -> Tree:
    copy = change.copy
    return [
        *change.stamp,
        *change.place,
        change.operation,
        change.actor,
        None if copy is None else [copy.from_source, *[[*place] for place in copy.of]],
        change.committed_us - change.stamp.wall_us,
        change.identity,
        change.moved_to,
        change.moved_from,
    ]


# ---------------------------------------------------------------- restoring


def _held(value: Any) -> Any:
    return ABSENT if value.__class__ is dict else value


def _compared(tree: Any) -> object:
    kind, *rest = tree
    return MISSING if kind == 0 else frozenset(rest) if kind == 2 else _held(rest[0])


def _known(stamps: Any) -> frozenset[Stamp]:
    return frozenset([Stamp(*stamp) for stamp in stamps])


class _Restoring:
    """The way back. Values come as they went; keys follow from them unless they were written."""

    def __init__(self, record: Record, tree: Any) -> None:
        changes, inserts, slots = tree
        self.record = record
        self._changes = [_change(record, items) for items in changes]
        self._inserts = [Insert(Stamp(*stamp), first, baseline) for *stamp, first, baseline in inserts]
        insert, change = self._inserts.__getitem__, self._changes.__getitem__
        both: Forms = {"value": _held, "inserts": self._set_of, "key": _compared}
        self._write: Forms = {**both, "change": change, "deletes": _known, "before": _held}
        alone: Forms = {
            "baseline": insert,
            "first": _held,
            "first_key": _compared,
            "gone": _before_delete,
        }
        self._side: Forms = {**both, **alone, "by": change}
        self._waiting: Forms = {"change": change, "key": _compared}
        self._row: Forms = {
            "inserted": insert,
            "last": lambda stamp: Stamp(*stamp),
            "by": change,
            "duplicates": self._twins,
        }
        made: Forms = {
            "last": lambda stamp: Stamp(*stamp),
            "rows": lambda rows: {s: self._plain(Row(), ROW_SLOTS, slots, self._row) for s, slots in rows},
            "cells": self._cells,
            "unsettled": lambda names: dict.fromkeys(name for name in names if name in record.unit_of),
            "deletes": lambda several: [Delete(change(at), source, _known(known)) for at, source, known in several],
            "moves": lambda several: [Delete(change(at), source, _known(known)) for at, source, known in several],
            "waiting": lambda several: [(source, Stamp(*stamp)) for source, *stamp in several],
            "known": lambda known: {source: _known(stamps) for source, stamps in known},
            "map_keys": lambda several: {(name, source): _keys_held(held) for name, source, held in several},
            "divergence_clocks": lambda drifts: {name: self._drift(*parts) for name, *parts in drifts},
            "rule_hits": lambda caught: {(n, r): (*map(self._caught, c),) for n, r, c in caught if n in record.unit_of},
        }
        _filled(record, RECORD_SLOTS, slots, made)
        record.refresh()

    def _caught(self, tree: Any) -> RuleHit:
        at, value, base, delta, seen = tree
        return RuleHit(self._changes[at], _held(value), _held(base), delta, None if seen is None else Stamp(*seen))

    def _twins(self, several: Any) -> Mapping[str, DuplicateRow]:
        return {name: DuplicateRow(self._changes[at], _keys_held(held) or {}) for name, at, held in several}

    def _set_of(self, places: Any) -> frozenset[Insert]:
        return frozenset([self._inserts[at] for at in places])

    def _plain(self, owner: Any, slots: tuple[str, ...], tree: Tree, made: Forms) -> Any:
        _filled(owner, slots, tree, made)
        return owner

    def _cells(self, trees: Any) -> dict[str, UnitState]:
        cells = {}
        for name, owner, merge, tree in trees:
            unit = _unit(self.record.units, name, owner)
            if unit is not None:
                cells[name] = self._cell(unit, merge, tree)
                self.record.unit_of[name] = unit
        return cells

    def _cell(self, unit: Unit, merge: str, tree: Any) -> UnitState:
        cell = UnitState(unit.type.traits, unit.keyed, unit.order)
        unit.type.zero(cell, unit.plan)
        fresh = cell.extra
        made: Forms = {
            "writes": lambda several: {1 << at: self._of_write(cell, at, items) for at, items in enumerate(several)},
            "sides": lambda sides: {source: self._of_side(cell, items) for source, items in sides},
            "deletes": lambda deletes: {Stamp(*stamp): mask for *stamp, mask in deletes},
            "waiting": lambda several: tuple([self._of_waiting(items) for items in several]),
            "past": lambda past: {(t, s): [(_compared(key), seen) for key, seen in held] for t, s, held in past},
            "base": _held,
        }
        _filled(cell, UNIT_SLOTS, tree, made)
        cell.next = 1 << len(cell.writes)
        if merge == unit.plan.merge:
            unit.type.load_state(cell, unit.plan)
        else:
            cell.extra, cell.sets, cell.base = fresh, 0, UNKNOWN
        return cell

    def _of_write(self, cell: UnitState, at: int, items: Any) -> Write:
        write = Write(1 << at, "", None, UNKNOWN, _FOLLOWS, 0)  # type: ignore[arg-type]  # `change` is always written
        write.after = -1
        _filled(write, WRITE_SLOTS, items, self._write)
        write.source = write.change.stamp.source.partition("/")[0]
        if write.key is _FOLLOWS:
            write.key = cell.keyed(write.value)
        if write.after < 0:
            write.after = write.seen | write.bit
        return write

    def _of_side(self, cell: UnitState, items: Any) -> SourceState:
        side = SourceState()
        side.key = side.first_key = _FOLLOWS
        _filled(side, SOURCE_SLOTS, items, self._side)
        if side.key is _FOLLOWS:
            side.key = _keyed(cell, side.value)
        if side.first_key is _FOLLOWS:
            side.first_key = _keyed(cell, side.first)
        return side

    def _drift(self, taken: Tree, replaced: Tree, merged: Tree | None) -> DivergenceClock:
        drift = DivergenceClock()
        drift.taken = {source: (_compared(key), self._changes[at]) for source, key, at in taken}
        drift.replaced = {_compared(key): {s: Stamp(*at) for s, *at in by} for key, by in replaced}
        drift.merged = None if merged is None else (_compared(merged[0]), Stamp(*merged[1:]))
        return drift

    def _of_waiting(self, items: Any) -> WaitingCopy:
        waiting = WaitingCopy("", None, MISSING, 0)  # type: ignore[arg-type]  # `change` is always written
        _filled(waiting, WAITING_SLOTS, items, self._waiting)
        return waiting


def _change(record: Record, items: Any) -> Change:
    stamp, place = Stamp(*items[:3]), Place(*items[3:8])
    row, actor, copy, behind_us, identity, moved_to, moved_from = items[8:]
    mark = copy and Copy(copy[0], tuple([Place(*of) for of in copy[1:]]))
    lived = (stamp.wall_us + behind_us, identity, moved_to, moved_from)
    return Change(record.units.entity.name, record.key, stamp, place, row, EMPTY_FIELDS, actor, mark, *lived)


def _before_delete(gone: Any) -> tuple[MaybeValue, object]:
    return _held(gone[0]), _compared(gone[1])


def _keys_held(held: Any) -> map_fields.Held:
    if held is None:
        return None
    if held is False:
        return map_fields.CLEARED
    each = iter(held)
    return dict(zip(each, each, strict=True))


def _unit(units: Units, name: str, owner: str) -> Unit | None:
    """The unit of that name under the present configuration; a map's key is a unit of its map. None: it has neither."""
    known = units.by_name.get(name)
    if known is not None or owner not in units.entity.fields or owner in units.by_name:
        return known
    return units.unit(map_fields.plan_at(units.entity.fields[owner], name), owner, owner)
