"""RowChange → Change: what one source transaction, or a piece of a first copy, tells the records.

One change per record (per row, where two rows of a source share a business key), with stamp and place of the last row
change that touched it. A row that cannot be read is parked by itself, the others go on. Everything is an argument:
the source's clock, our own, the keys that the store remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdc_merge.clock import cut, tick
from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.actors import Marks, column_actor, copy_of, marks
from cdc_merge.mapping.columns import Reading, Shape, missing_columns, reading, shape
from cdc_merge.mapping.lineage import Lineages, Touch, Touches
from cdc_merge.mapping.locating import Located, UnknownIdentity, locate, wanted_identity
from cdc_merge.mapping.mapped import Mapped, Truncated
from cdc_merge.mapping.telling import Scope, inserted, tell_followed, tell_single
from cdc_merge.mapping.waiting import Unnamed
from cdc_merge.model import (
    SNAPSHOT,
    TRUNCATE,
    Change,
    Parked,
    RecordKey,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotRows,
    Stamp,
    Transaction,
)
from cdc_merge.plan import Plan, TableMap

# Relations kept compiled: far more than the tables of one source, and a bound for a stream that announces without end.
_RELATIONS_KEPT: Final = 1024

_UNNAMED: Final = str(UnknownIdentity("", None))

# Once per row: tuple.__new__ makes the same value as the class in half the time.
_new_tuple = tuple.__new__


class Mapper:
    """The mapping of one source. It keeps nothing but how relations are read.

    `whole_rows`: also tell unchanged fields of whole rows, as (value, value), for a source that is never snapshotted.
    """

    def __init__(self, source: str, tables: Sequence[TableMap], plan: Plan, *, whole_rows: bool = False) -> None:
        self._source = source
        self._tables: dict[str, list[TableMap]] = {}
        for table in tables:
            if table.source == source:
                self._tables.setdefault(table.table, []).append(table)
        self._plan = plan
        self._whole_rows = whole_rows
        self._compiled: dict[int, tuple[Relation, tuple[Reading, ...]]] = {}
        self._readings: dict[Relation, tuple[Reading, ...]] = {}
        self._unreported: list[Parked] = []
        self._announced: dict[str, Relation] = {}
        self._shapes: list[Shape] = []

    def tables(self) -> dict[str, Sequence[TableMap]]:
        """How each table of the source is mapped: to one entity or several."""
        return {**self._tables}

    def expected(self, rows: Mapping[str, int]) -> dict[str, int]:
        """Rows by table as rows by entity; 0 where the server has no estimate."""
        found: dict[str, int] = {}
        for table, mapped in self._tables.items():
            for how in mapped:
                found[how.entity] = found.get(how.entity, 0) + max(0, rows.get(table, 0))
        return found

    def identities(self, changes: Sequence[RowChange]) -> Mapping[str, set[str]]:
        """Table → identities whose business keys `transaction` must be given, as far as the store knows them."""
        wanted: dict[str, set[str]] = {}
        relation: Relation | None = None
        looked_up: list[Reading] = []
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                looked_up = [how for how in self.readings(relation) if how.looked_up]
            for how in looked_up:
                try:
                    identity = wanted_identity(how, change)
                except UnreadableValue:
                    continue  # `transaction` parks it
                if identity is not None:
                    wanted.setdefault(how.label, set()).add(identity)
        return wanted

    def transaction(self, tx: Transaction, clock: Stamp, now_us: int, known: Mapping[tuple[str, str], str]) -> Mapped:
        """Map one transaction. `clock` is the last stamp given out; `known`: (table, identity) → business key."""
        return self.sort(tx, tx.changes, (clock, now_us), known, Lineages())

    def sort(
        self,
        tx: Transaction,
        changes: Iterable[RowChange],
        clock_and_now: tuple[Stamp, int],
        known: Mapping[tuple[str, str], str],
        lineages: Touches,
    ) -> Mapped:
        """Map some changes of a transaction, in order, `clock` being the last stamp given out: each goes to `lineages`,
        which says in the end what the records are told (of a large transaction: nothing yet, see `tell`)."""
        clock, now_us = clock_and_now
        commit_us = cut(tx.commit_us, now_us, self._plan.max_ahead_us)
        taken = _Taken(self._source, self._scope(tx), known, lineages)
        take = taken.take
        relation: Relation | None = None
        readings: tuple[Reading, ...] = ()
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                readings = self.readings(relation)
            if not readings:
                continue
            clock = tick(clock, commit_us)
            for how in readings:
                take(how, change, clock)
        return taken.mapped(clock, self._reported())._replace(
            cut_us=tx.commit_us - commit_us, shapes=self._seen_shapes()
        )

    def tell(self, tx: Transaction, lineages: Touches, clock: Stamp) -> Mapped:
        """What records of a transaction are told that were touched as `lineages` says."""
        return _Taken(self._source, self._scope(tx), {}, lineages).mapped(clock, ())

    def _scope(self, tx: Transaction) -> Scope:
        said = marks(tx.messages)
        return Scope(tx.system, tx.timeline, tx.end_lsn, tx.commit_us, tx.origin, said, self._whole_rows)

    def snapshot(self, rows: SnapshotRows, began: SnapshotBegan, clock: Stamp) -> Mapped:
        """Map a piece of a first copy: what the source held at its consistent point. Stamps count on from there."""
        scope = Scope(began.system, began.timeline, began.lsn, began.at_us, None, Marks(), self._whole_rows)
        taken = _Taken(self._source, scope, {}, Lineages())
        for change in rows.changes:
            readings = self.readings(change.relation)
            if not readings:
                continue
            clock = tick(clock, began.at_us)
            for how in readings:
                taken.take_snapshot(how, change, clock)
        return taken.mapped(clock, self._reported())._replace(shapes=self._seen_shapes())

    def readings(self, relation: Relation) -> tuple[Reading, ...]:
        """How a relation is read, for each entity that it feeds."""
        # By identity first: hashing a relation with all its columns costs more than mapping a row.
        compiled = self._compiled.get(id(relation))
        if compiled is not None and compiled[0] is relation:
            return compiled[1]
        if len(self._compiled) >= _RELATIONS_KEPT:
            self._compiled.clear()
            self._readings.clear()
        if self._announced.get(relation.table) != relation:
            self._announced[relation.table] = relation
            self._shapes += [shape(table, relation, self._plan) for table in self._tables.get(relation.table, ())]
        readings = self._readings.get(relation)
        if readings is None:
            readings = self._readings[relation] = self._compile(relation)
        self._compiled[id(relation)] = (relation, readings)
        return readings

    def _compile(self, relation: Relation) -> tuple[Reading, ...]:
        tables = self._tables.get(relation.table, [])
        readings = []
        for table in tables:
            label = table.table if len(tables) == 1 else f"{table.table}#{table.entity}"
            how = reading(table, relation, self._plan, label)
            if how is not None:
                readings.append(how)
            self._unreported += (
                Parked(self._source, table.table, f"column {column} of entity {table.entity} is missing")
                for column in missing_columns(table, relation)
            )
        return tuple(readings)

    def _seen_shapes(self) -> tuple[Shape, ...]:
        shapes, self._shapes = tuple(self._shapes), []
        return shapes

    def _reported(self) -> tuple[Parked, ...]:
        reported, self._unreported = tuple(self._unreported), []
        return reported


class _Taken:
    """The row changes of one delivery, taken one by one, and what they tell in the end."""

    def __init__(self, source: str, scope: Scope, known: Mapping[tuple[str, str], str], lineages: Touches) -> None:
        self._source = source
        self._scope = scope
        self._known = known
        self._lineages = lineages
        self._identities: dict[str, dict[str, str | None]] = {}
        self._changes: list[Change] = []
        self._truncated: list[Truncated] = []
        self._parked: list[Parked] = []
        self._unnamed = Unnamed()

    def take(self, how: Reading, change: RowChange, stamp: Stamp) -> None:
        if change.operation == TRUNCATE:
            self._truncate(how, change, stamp)
            return
        at = self._locate(how, change, stamp)
        if at is not None:
            self._lineages.add(_new_tuple(Touch, (how, change, stamp, at)))

    def take_snapshot(self, how: Reading, change: RowChange, stamp: Stamp) -> None:
        at = self._locate(how, change, stamp)
        if at is None or at.after is None:
            return
        try:
            told = Change(
                how.table.entity,
                at.after,
                stamp,
                self._scope.place(how, change),
                SNAPSHOT,
                inserted(how, change),
                actor=column_actor(how, change),
                committed_us=self._scope.committed_us,
                identity=at.row_after if how.distinct else None,
            )
        except UnreadableValue as error:
            self._park(how, str(error))
        else:
            self._changes.append(told)

    def mapped(self, clock: Stamp, reported: Sequence[Parked]) -> Mapped:
        carried: dict[RecordKey, str] = {}
        for touch in self._lineages.single():
            try:
                told = tell_single(touch, self._scope)
            except UnreadableValue as error:
                self._park(touch.reading, str(error))
                continue
            if told is not None:
                self._changes.append(told)
        self._tell_followed(carried)
        waiting = tuple(self._unnamed.tell(self._scope, self._park))
        kept = [Parked(self._source, each.change.place.table, _UNNAMED, is_kept=True) for each in waiting]
        return Mapped(
            tuple(self._changes),
            clock,
            {label: noted for label, noted in self._identities.items() if noted},
            tuple(self._truncated),
            (*reported, *self._parked, *kept),
            carried=carried,
            waiting=waiting,
            named=self._unnamed.others,
        )

    def _tell_followed(self, carried: dict[RecordKey, str]) -> None:
        followed = self._lineages.followed()
        if not followed:
            return
        for told in followed:
            if told.come is not None and told.come.unreadable is not None:
                self._park(told.come.last.reading, told.come.unreadable)
                continue
            change = tell_followed(told, self._scope)
            if change is not None:
                self._changes.append(change)
                if told.left_behind is not None:
                    carried[RecordKey(*told.record)] = told.left_behind
        # The two halves of a re-key share a stamp: the old key ends before the new one begins.
        self._changes.sort(key=lambda change: (change.stamp, change.moved_to is None))

    def _locate(self, how: Reading, change: RowChange, stamp: Stamp) -> Located | None:
        """Where a change was and is, its identity noted; None, and parked, when it concerns no record."""
        try:
            at = locate(how, change, self._key_of)
        except UnknownIdentity as unknown:
            self._unnamed.add(Touch(how, change, stamp, Located("", None, unknown.row_before, unknown.row_after)))
            return None
        except UnreadableValue as error:
            self._park(how, str(error))
            return None
        if how.looked_up:
            for touch in self._unnamed.named(how, change, at):
                self._lineages.add(touch)
            self._note(how, at)
        if at.after is not None:
            return at
        if change.new is not None:
            self._park(how, "a column of the business key is NULL")
        return None if at.before is None else at

    def _note(self, how: Reading, at: Located) -> None:
        noted = self._identities.setdefault(how.label, {})
        if at.row_before is not None and at.row_before != at.row_after:
            noted[at.row_before] = None
        if at.row_after is not None and self._key_of(how.label, at.row_after) != at.after:
            noted[at.row_after] = at.after

    def _key_of(self, label: str, identity: str) -> str | None:
        noted = self._identities.get(label)
        if noted is not None and identity in noted:
            return noted[identity]
        return self._known.get((label, identity))

    def _truncate(self, how: Reading, change: RowChange, stamp: Stamp) -> None:
        self._lineages.forget(how.label)
        self._unnamed.forget(how.label)
        noted = self._identities.get(how.label, {})
        noted.update(dict.fromkeys(noted))
        actor = self._scope.said.actor
        copy = copy_of(self._scope.said, self._scope.origin, how.table, actor)
        self._truncated.append(
            Truncated(how.table.entity, how.table.table, stamp, self._scope.place(how, change), actor, copy)
        )

    def _park(self, how: Reading, reason: str) -> None:
        self._parked.append(Parked(self._source, how.table.table, reason))
