"""The state of one record: its units' states, its row in each source, the deletes that still count. Data only.

apply.py folds one change into it, views.py reads it, checkpoint.py writes and loads it. Rule hits, divergence clocks and
duplicate rows are folds of their own beside apply.py; their results are kept here.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.merge.divergence_clock import DivergenceClock
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit, Units
from cdc_merge.merge.writes import Insert, Write
from cdc_merge.model import Change, MaybeValue, Stamp, Value

PRESENT, DELETED = "present", "deleted"
NO_STAMPS: Final[frozenset[Stamp]] = frozenset()

Outcomes = list[tuple[str, str, str]]
"""One outcome a unit (owner, merge type, outcome), for `merges_total`: counted once per batch."""

MapKeys: TypeAlias = "Mapping[str, Value] | None"
"""The keys of a source's map, or None for a map that has been NULL since its row began."""


class DuplicateRow(NamedTuple):
    """Another row of a source under the record's business key: the change that brought it (without fields), its values."""

    change: Change
    fields: Mapping[str, MaybeValue]


NO_DUPLICATES: Final[Mapping[str, DuplicateRow]] = {}


class RuleHit(NamedTuple):
    """A write at the moment a rule caught it. `change` has no fields; `base`: the latest value that the write had seen."""

    change: Change
    value: MaybeValue
    base: MaybeValue
    delta: Decimal | int | None
    seen: Stamp | None


class Row:
    """One source's row of the record.

    `kept`: the row is deleted, and its last values still count (TRUNCATE). `deleted`: a genuine delete of the record took
    it away. `reinserted_by_copy`: a marked insert brought it back, so that the first genuine edit counts as the insert (§2
    rule 2). `inserted`: the genuine insert that began it; `entered_by`: the change that brought it. `duplicates`: the
    source's other rows under the key, by replica identity (duplicate_rows.py)."""

    __slots__ = (
        "deleted",
        "duplicates",
        "entered_by",
        "identity",
        "inserted",
        "kept",
        "last",
        "presence",
        "reinserted_by_copy",
    )

    def __init__(self) -> None:
        self.presence = PRESENT
        self.kept = False
        self.deleted = False
        self.reinserted_by_copy = False
        self.inserted: Insert | None = None
        self.entered_by: Change | None = None
        self.identity: str | None = None
        self.last: Stamp | None = None
        self.duplicates: Mapping[str, DuplicateRow] = NO_DUPLICATES


class Delete(NamedTuple):
    """A delete that no new incarnation has seen. `seen_deletes`: the deletes that it had seen itself; what it had seen of a
    unit is `state.deletes[stamp]`."""

    change: Change
    source: str
    seen_deletes: frozenset[Stamp]

    @property
    def stamp(self) -> Stamp:
        return self.change.stamp

    def is_concurrent_with(self, write: Write, state: UnitState) -> bool:
        return not state.deletes.get(self.stamp, 0) & write.bit and self.stamp not in write.deletes


class Record:
    """`rows`: by source. `unit_states`, `unit_of`: by unit name. `last`: the stamp folded last. `present`: the sources that
    hold the record. `holders_by_owner`: unit owner → those of them that map it. `deletes`: the deletes that still count;
    `moves`: the moves away from this key where deletes are local; `seen_deletes`: source → the deletes and moves it has
    seen; `waiting_deletes`: marked deletes whose original has not arrived.
    `unsettled`: the units that may have a conflict. `map_keys`: (map, source) → the keys there. `compacts`: the unit
    states forget what cannot matter again."""

    __slots__ = (
        "compacts",
        "deletes",
        "divergence_clocks",
        "holders_by_owner",
        "key",
        "last",
        "map_keys",
        "max_ahead_us",
        "moves",
        "present",
        "rows",
        "rule_hits",
        "seen_deletes",
        "unit_of",
        "unit_states",
        "units",
        "unsettled",
        "waiting_deletes",
    )

    def __init__(self, units: Units, key: str, *, max_ahead_us: int, compacts: bool) -> None:
        self.units = units
        self.key = key
        self.max_ahead_us = max_ahead_us
        self.compacts = compacts
        self.last: Stamp | None = None
        self.rows: dict[str, Row] = {}
        self.present: tuple[str, ...] = ()
        self.unit_states: dict[str, UnitState] = {}
        self.unit_of: dict[str, Unit] = {}
        self.holders_by_owner: dict[str, tuple[str, ...]] = {}
        self.unsettled: dict[str, None] = {}
        self.deletes: list[Delete] = []
        self.moves: list[Delete] = []
        self.waiting_deletes: list[tuple[str, Stamp]] = []
        self.seen_deletes: dict[str, frozenset[Stamp]] = {}
        self.divergence_clocks: dict[str, DivergenceClock] = {}
        self.map_keys: dict[tuple[str, str], MapKeys] = {}
        self.rule_hits: dict[tuple[str, str], tuple[RuleHit, ...]] = {}

    def unit_state(self, unit: Unit) -> UnitState:
        """The unit's state, created where there is none."""
        state = self.unit_states.get(unit.name)
        if state is None:
            state = self.unit_states[unit.name] = UnitState(unit.type.traits, unit.key_of, unit.order)
            self.unit_of[unit.name] = unit
            unit.type.zero(state, unit.plan)
            for delete in self.deletes:
                unit.type.record_delete_context(state, delete.stamp, delete.source, True)  # noqa: FBT003 (an empty state: nothing unseen)
        return state

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
        """Compute which sources hold the record, in the order of `from:`."""
        rows = self.rows
        present = tuple(
            s for s in self.units.entity.sources if s in rows and (rows[s].presence == PRESENT or rows[s].kept)
        )
        self.present = present
        self.holders_by_owner = self.units.holders_by_owner(present)

    def holders(self, unit: Unit) -> tuple[str, ...]:
        """The sources that hold the record and map the unit, in the order of `from:`."""
        holders = self.holders_by_owner.get(unit.owner)
        if holders is None:
            holders = self.holders_by_owner[unit.owner] = tuple(s for s in unit.order if s in self.present)
        return holders

    def is_absent(self, source: str) -> bool:
        row = self.rows.get(source)
        return row is None or row.presence != PRESENT
