"""A checkpoint: one folded record as plain values, from which the fold goes on exactly as if it had never stopped.

Rules: pure; `load_state(units, dump_state(record))` answers like `record` whatever changes follow. The law suite folds a part of
a history, dumps, loads and folds the rest, for every merge type. A tree is lists, tuples and model values, so that any
store can keep it. The fields of a change are left out: the unit states hold the values. Format: checkpoint_slots.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

from cdc_merge.merge import delta_ops, map_fields
from cdc_merge.merge.checkpoint_slots import (
    RECORD_SLOTS,
    ROW_SLOTS,
    SOURCE_SLOTS,
    UNIT_SLOTS,
    WAITING_SLOTS,
    WRITE_SLOTS,
    Forms,
    Tree,
    fill,
    sparse,
)
from cdc_merge.merge.compaction import compact
from cdc_merge.merge.divergence_clock import DivergenceClock
from cdc_merge.merge.record_state import Delete, DuplicateRow, Record, Row, RuleHit
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, Units
from cdc_merge.merge.writes import ABSENT, MISSING, Insert, SourceState, WaitingCopy, Write
from cdc_merge.model import UNKNOWN, Change, Copy, MaybeValue, Place, Stamp

NO_FIELDS: Final[Mapping[str, tuple[MaybeValue, MaybeValue]]] = {}


def dump_state(record: Record) -> Tree:
    """The record as plain values. Its unit states are compacted first, which changes no answer."""
    return _Dump(record).tree()


def load_state(units: Units, tree: Tree, *, key: str, max_ahead_us: int) -> Record:
    """The record that was dumped. Units that the configuration no longer has are left out; one whose merge type has changed
    begins again with its writes."""
    return _Load(Record(units, key, max_ahead_us=max_ahead_us, compacts=True), tree).record


# ---------------------------------------------------------------- values and keys

# No value is a mapping, so an empty one can stand for an absent map key.
_NO_KEY: Final[dict[str, str]] = {}
_FRESH_ROW: Final = Row()
# The mark of a key that follows from the value beside it.
_FOLLOWS: Final[Any] = object()


def _dump_value(value: MaybeValue) -> Any:
    return _NO_KEY if value is ABSENT else value


def _load_value(value: Any) -> Any:
    return ABSENT if value.__class__ is dict else value


def _key_of(state: UnitState, value: MaybeValue) -> object:
    return MISSING if value is UNKNOWN else state.key_of(value)


def _dump_key(key: object) -> Tree:
    """A comparison key that does not follow from the value beside it."""
    if key is MISSING:
        return [0]
    return [2, *key] if isinstance(key, frozenset) else [1, _dump_value(key)]  # type: ignore[arg-type]  # keys are values


def _load_key(tree: Any) -> object:
    kind, *rest = tree
    return MISSING if kind == 0 else frozenset(rest) if kind == 2 else _load_value(rest[0])


def _dump_stamps(stamps: Iterable[Stamp]) -> list[Tree]:
    return [[*stamp] for stamp in stamps]


def _load_stamps(stamps: Any) -> frozenset[Stamp]:
    return frozenset([Stamp(*stamp) for stamp in stamps])


def _load_stamp(stamp: Any) -> Stamp:
    return Stamp(*stamp)


# ---------------------------------------------------------------- dumping


class _Dump:
    """One dump: the changes and inserts that unit states refer to are written once."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.changes: list[Tree] = []
        self.inserts: list[Tree] = []
        self._change_at: dict[Stamp, int] = {}
        self._insert_at: dict[Insert, int] = {}
        shared: Forms = {"value": _dump_value, "inserts": self._inserts, "key": _dump_key}
        self._write_forms: Forms = {
            **shared,
            "change": self._change,
            "deletes": _dump_stamps,
            "before": _dump_value,
            "delta": _dump_delta,
        }
        self._source_forms: Forms = {
            **shared,
            "baseline": self._insert,
            "snapshot_value": _dump_value,
            "snapshot_key": _dump_key,
            "before_delete": _dump_before_delete,
            "set_by": self._change,
        }
        self._waiting_forms: Forms = {"change": self._change, "key": _dump_key}
        self._row_forms: Forms = {
            "inserted": self._insert,
            "last": list,
            "entered_by": self._change,
            "duplicates": self._duplicates,
        }
        self._unit_forms: Forms = {
            "deletes": lambda deletes: [[*stamp, mask] for stamp, mask in deletes.items()],
            "waiting_copies": lambda copies: [sparse(w, WAITING_SLOTS, self._waiting_forms, None) for w in copies],
            "past_values": lambda past: [[*pair, [[_dump_key(k), m] for k, m in kept]] for pair, kept in past.items()],
        }
        self._fresh_source = SourceState()
        self._fresh_write = Write(0, "", None, UNKNOWN, MISSING, 0)  # type: ignore[arg-type]  # only to compare with

    def tree(self) -> Tree:
        record = self.record
        fresh = Record(record.units, record.key, max_ahead_us=0, compacts=True)
        forms: Forms = {
            "last": list,
            "rows": lambda rows: [[s, sparse(r, ROW_SLOTS, self._row_forms, _FRESH_ROW)] for s, r in rows.items()],
            "unit_states": lambda states: [self._unit(record.unit_of[name], state) for name, state in states.items()],
            "unsettled": list,
            "deletes": self._deletes,
            "moves": self._deletes,
            "waiting_deletes": lambda waiting: [[source, *stamp] for source, stamp in waiting],
            "seen_deletes": lambda seen: [[source, _dump_stamps(stamps)] for source, stamps in seen.items()],
            "map_keys": lambda maps: [[*name, map_fields.dump_keys(keys)] for name, keys in maps.items()],
            "divergence_clocks": lambda clocks: [[name, *self._clock(clock)] for name, clock in clocks.items()],
            "rule_hits": lambda hits: [[*name, [*map(self._rule_hit, several)]] for name, several in hits.items()],
        }
        slots = sparse(record, RECORD_SLOTS, forms, fresh)
        return [self.changes, self.inserts, slots]

    def _unit(self, unit: Unit, state: UnitState) -> Tree:
        limits = self.record.units.limits
        if len(state.writes) > limits.dumped:
            compact(state, limits)
        fresh = UnitState(state.traits, state.key_of, state.order)
        forms: Forms = {
            **self._unit_forms,
            "writes": lambda writes: [self._write(state, w) for w in writes.values()],
            "by_source": lambda states: [[source, self._source(state, each)] for source, each in states.items()],
            "type_state": lambda _: unit.type.dump_state(state),
            "delta_base": _dump_value,
        }
        return [unit.name, unit.owner, unit.plan.merge, sparse(state, UNIT_SLOTS, forms, fresh)]

    def _write(self, state: UnitState, write: Write) -> Tree:
        fresh = self._fresh_write
        fresh.key, fresh.after = state.key_of(write.value), write.seen | write.bit
        return sparse(write, WRITE_SLOTS, self._write_forms, fresh)

    def _source(self, state: UnitState, at_source: SourceState) -> Tree:
        fresh = self._fresh_source
        fresh.key, fresh.snapshot_key = _key_of(state, at_source.value), _key_of(state, at_source.snapshot_value)
        return sparse(at_source, SOURCE_SLOTS, self._source_forms, fresh)

    def _clock(self, clock: DivergenceClock) -> Tree:
        held_since = [
            [source, _dump_key(key), self._change(change)] for source, (key, change) in clock.held_since.items()
        ]
        replaced = [[_dump_key(key), [[s, *at] for s, at in by.items()]] for key, by in clock.replaced.items()]
        return [held_since, replaced, clock.merged and [_dump_key(clock.merged[0]), *clock.merged[1]]]

    def _rule_hit(self, hit: RuleHit) -> Tree:
        at = self._change(hit.change)
        return [at, _dump_value(hit.value), _dump_value(hit.base), hit.delta, hit.seen and [*hit.seen]]

    def _duplicates(self, rows: Mapping[str, DuplicateRow]) -> Tree:
        return [[identity, self._change(row.change), [*chain(*row.fields.items())]] for identity, row in rows.items()]

    def _deletes(self, deletes: list[Delete]) -> Tree:
        return [[self._change(d.change), d.source, _dump_stamps(d.seen_deletes)] for d in deletes]

    def _change(self, change: Change) -> int:
        at = self._change_at.get(change.stamp)
        if at is None:
            at = self._change_at[change.stamp] = len(self.changes)
            self.changes.append(_dump_change(change))
        return at

    def _insert(self, insert: Insert) -> int:
        at = self._insert_at.get(insert)
        if at is None:
            at = self._insert_at[insert] = len(self.inserts)
            self.inserts.append([*insert.stamp, insert.first, insert.baseline])
        return at

    def _inserts(self, inserts: frozenset[Insert]) -> list[int]:
        return [self._insert(insert) for insert in inserts]


def _dump_delta(delta: Any) -> Any:
    """What a write adds: a number, or runs, which are tuples of values."""
    return [[*run] for run in delta] if isinstance(delta, tuple) else delta


def _dump_before_delete(before: tuple[MaybeValue, object]) -> Tree:
    return [_dump_value(before[0]), _dump_key(before[1])]


def _dump_change(change: Change) -> Tree:
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


# ---------------------------------------------------------------- loading


class _Load:
    """One load: the reverse of `_Dump`. Keys follow from their values unless they were written."""

    def __init__(self, record: Record, tree: Any) -> None:
        changes, inserts, slots = tree
        self.record = record
        self._changes = [_load_change(record, items) for items in changes]
        self._inserts = [Insert(Stamp(*stamp), first, baseline) for *stamp, first, baseline in inserts]
        insert, change = self._inserts.__getitem__, self._changes.__getitem__
        shared: Forms = {"value": _load_value, "inserts": self._insert_set, "key": _load_key}
        self._write_forms: Forms = {**shared, "change": change, "deletes": _load_stamps, "before": _load_value}
        self._source_forms: Forms = {
            **shared,
            "baseline": insert,
            "snapshot_value": _load_value,
            "snapshot_key": _load_key,
            "before_delete": lambda before: (_load_value(before[0]), _load_key(before[1])),
            "delta_base": _load_value,
            "set_by": change,
        }
        self._waiting_forms: Forms = {"change": change, "key": _load_key}
        self._row_forms: Forms = {
            "inserted": insert,
            "last": _load_stamp,
            "entered_by": change,
            "duplicates": self._duplicates,
        }
        fill(record, RECORD_SLOTS, slots, self._record_forms())
        record.refresh()

    def _record_forms(self) -> Forms:
        record = self.record
        return {
            "last": _load_stamp,
            "rows": lambda rows: {source: self._row(items) for source, items in rows},
            "unit_states": self._unit_states,
            "unsettled": lambda names: dict.fromkeys(name for name in names if name in record.unit_of),
            "deletes": self._deletes,
            "moves": self._deletes,
            "waiting_deletes": lambda waiting: [(source, Stamp(*stamp)) for source, *stamp in waiting],
            "seen_deletes": lambda seen: {source: _load_stamps(stamps) for source, stamps in seen},
            "map_keys": lambda maps: {(name, source): map_fields.load_keys(keys) for name, source, keys in maps},
            "divergence_clocks": lambda clocks: {name: self._clock(*parts) for name, *parts in clocks},
            "rule_hits": lambda hits: {(n, r): (*map(self._rule_hit, h),) for n, r, h in hits if n in record.unit_of},
        }

    def _row(self, items: Any) -> Row:
        row = Row()
        fill(row, ROW_SLOTS, items, self._row_forms)
        return row

    def _rule_hit(self, tree: Any) -> RuleHit:
        at, value, base, delta, seen = tree
        stamp = None if seen is None else Stamp(*seen)
        return RuleHit(self._changes[at], _load_value(value), _load_value(base), delta, stamp)

    def _duplicates(self, rows: Any) -> Mapping[str, DuplicateRow]:
        return {
            identity: DuplicateRow(self._changes[at], map_fields.load_keys(fields) or {})
            for identity, at, fields in rows
        }

    def _deletes(self, trees: Any) -> list[Delete]:
        return [Delete(self._changes[at], source, _load_stamps(seen)) for at, source, seen in trees]

    def _insert_set(self, places: Any) -> frozenset[Insert]:
        return frozenset([self._inserts[at] for at in places])

    def _unit_states(self, trees: Any) -> dict[str, UnitState]:
        states = {}
        for name, owner, merge, tree in trees:
            unit = _unit_named(self.record.units, name, owner)
            if unit is not None:
                states[name] = self._unit_state(unit, merge, tree)
                self.record.unit_of[name] = unit
        return states

    def _unit_state(self, unit: Unit, merge: str, tree: Any) -> UnitState:
        state = UnitState(unit.type.traits, unit.key_of, unit.order)
        unit.type.zero(state, unit.plan)
        fresh = state.type_state
        bases: dict[str, MaybeValue] = {}
        forms: Forms = {
            "writes": lambda writes: {1 << at: self._write(state, at, items) for at, items in enumerate(writes)},
            "by_source": lambda states: {s: self._source(state, items, (s, bases)) for s, items in states},
            "delta_base": _load_value,
            "deletes": lambda deletes: {Stamp(*stamp): mask for *stamp, mask in deletes},
            "waiting_copies": lambda copies: tuple([self._waiting_copy(items) for items in copies]),
            "past_values": lambda past: {(t, s): [(_load_key(k), m) for k, m in kept] for t, s, kept in past},
        }
        fill(state, UNIT_SLOTS, tree, forms)
        state.next_bit = 1 << len(state.writes)
        if merge == unit.plan.merge:
            unit.type.load_state(state, unit.plan)
            if bases:
                delta_ops.take_base_of_sources(state, bases)
        else:
            state.type_state, state.resets, state.delta_base = fresh, 0, UNKNOWN
        return state

    def _write(self, state: UnitState, at: int, items: Any) -> Write:
        write = Write(1 << at, "", None, UNKNOWN, _FOLLOWS, 0)  # type: ignore[arg-type]  # `change` is always written
        write.after = -1
        fill(write, WRITE_SLOTS, items, self._write_forms)
        write.source = write.change.stamp.source.partition("/")[0]
        if write.key is _FOLLOWS:
            write.key = state.key_of(write.value)
        if write.after < 0:
            write.after = write.seen | write.bit
        return write

    def _source(self, state: UnitState, items: Any, base: tuple[str, dict[str, MaybeValue]]) -> SourceState:
        at_source = SourceState()
        at_source.key = at_source.snapshot_key = _FOLLOWS
        retired = fill(at_source, SOURCE_SLOTS, items, self._source_forms)
        if "delta_base" in retired:
            source, bases = base
            bases[source] = retired["delta_base"]
        if at_source.key is _FOLLOWS:
            at_source.key = _key_of(state, at_source.value)
        if at_source.snapshot_key is _FOLLOWS:
            at_source.snapshot_key = _key_of(state, at_source.snapshot_value)
        return at_source

    def _clock(self, held_since: Tree, replaced: Tree, merged: Tree | None) -> DivergenceClock:
        clock = DivergenceClock()
        clock.held_since = {source: (_load_key(key), self._changes[at]) for source, key, at in held_since}
        clock.replaced = {_load_key(key): {s: Stamp(*at) for s, *at in by} for key, by in replaced}
        clock.merged = None if merged is None else (_load_key(merged[0]), Stamp(*merged[1:]))
        return clock

    def _waiting_copy(self, items: Any) -> WaitingCopy:
        waiting = WaitingCopy("", None, MISSING, 0)  # type: ignore[arg-type]  # `change` is always written
        fill(waiting, WAITING_SLOTS, items, self._waiting_forms)
        return waiting


def _load_change(record: Record, items: Any) -> Change:
    stamp, place = Stamp(*items[:3]), Place(*items[3:8])
    operation, actor, copy, behind_us, identity, moved_to, moved_from = items[8:]
    mark = copy and Copy(copy[0], tuple([Place(*of) for of in copy[1:]]))
    rest = (stamp.wall_us + behind_us, identity, moved_to, moved_from)
    return Change(record.units.entity.name, record.key, stamp, place, operation, NO_FIELDS, actor, mark, *rest)


def _unit_named(units: Units, name: str, owner: str) -> Unit | None:
    """The unit of that name under the present configuration; a map's key is a unit of its map. None: it has neither."""
    unit = units.by_name.get(name)
    if unit is not None or owner not in units.entity.fields or owner in units.by_name:
        return unit
    return units.unit(map_fields.plan_at(units.entity.fields[owner], name), owner, owner)
