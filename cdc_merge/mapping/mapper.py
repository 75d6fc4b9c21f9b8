"""RowChange → Change: what one source transaction, or a piece of a first copy, tells the records.

One change per record (per row, where two rows of a source share a business key), with stamp and place of the last row
change that touched it. A row that cannot be read is parked by itself, the others go on. Everything is an argument:
the source's clock, our own, the keys that the store remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.attribution import Attribution, attribution, column_actor, copy_of
from cdc_merge.mapping.change_builder import TransactionContext, build_change, build_followed, inserted
from cdc_merge.mapping.coalesce import ChangeSink, Coalescer, LocatedChange
from cdc_merge.mapping.key_resolution import Located, UnknownIdentity, locate, wanted_identity
from cdc_merge.mapping.mapping_result import MappingResult, Truncated
from cdc_merge.mapping.relation import (
    RelationColumns,
    RelationMapping,
    missing_columns,
    relation_columns,
    relation_mapping,
)
from cdc_merge.mapping.unresolved_rows import UnresolvedRows
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
from cdc_merge.model.clock import cut, tick
from cdc_merge.model.plan import Plan, TableMap

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
        self._compiled: dict[int, tuple[Relation, tuple[RelationMapping, ...]]] = {}
        self._readings: dict[Relation, tuple[RelationMapping, ...]] = {}
        self._unreported: list[Parked] = []
        self._announced: dict[str, Relation] = {}
        self._shapes: list[RelationColumns] = []

    def tables(self) -> dict[str, Sequence[TableMap]]:
        """How each table of the source is mapped: to one entity or several."""
        return {**self._tables}

    def expected(self, rows: Mapping[str, int]) -> dict[str, int]:
        """Rows by table as rows by entity; 0 where the server has no estimate."""
        found: dict[str, int] = {}
        for table, mapped in self._tables.items():
            for mapping in mapped:
                found[mapping.entity] = found.get(mapping.entity, 0) + max(0, rows.get(table, 0))
        return found

    def identities(self, changes: Sequence[RowChange]) -> Mapping[str, set[str]]:
        """Table → identities whose business keys `transaction` must be given, as far as the store knows them."""
        wanted: dict[str, set[str]] = {}
        relation: Relation | None = None
        looked_up: list[RelationMapping] = []
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                looked_up = [mapping for mapping in self.relation_mappings(relation) if mapping.looked_up]
            for mapping in looked_up:
                try:
                    identity = wanted_identity(mapping, change)
                except UnreadableValue:
                    continue  # `transaction` parks it
                if identity is not None:
                    wanted.setdefault(mapping.label, set()).add(identity)
        return wanted

    def transaction(
        self, tx: Transaction, clock: Stamp, now_us: int, known: Mapping[tuple[str, str], str]
    ) -> MappingResult:
        """Map one transaction. `clock` is the last stamp given out; `known`: (table, identity) → business key."""
        return self.sort(tx, tx.changes, (clock, now_us), known, Coalescer())

    def sort(
        self,
        tx: Transaction,
        changes: Iterable[RowChange],
        clock_and_now: tuple[Stamp, int],
        known: Mapping[tuple[str, str], str],
        lineages: ChangeSink,
    ) -> MappingResult:
        """Map some changes of a transaction, in order, `clock` being the last stamp given out: each goes to `lineages`,
        which says in the end what the records are told (of a large transaction: nothing yet, see `tell`)."""
        clock, now_us = clock_and_now
        commit_us = cut(tx.commit_us, now_us, self._plan.max_ahead_us)
        taken = _TransactionMapper(self._source, self._scope(tx), known, lineages)
        take = taken.take
        relation: Relation | None = None
        readings: tuple[RelationMapping, ...] = ()
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                readings = self.relation_mappings(relation)
            if not readings:
                continue
            clock = tick(clock, commit_us)
            for mapping in readings:
                take(mapping, change, clock)
        return taken.mapped(clock, self._reported())._replace(
            cut_us=tx.commit_us - commit_us, shapes=self._seen_shapes()
        )

    def tell(self, tx: Transaction, lineages: ChangeSink, clock: Stamp) -> MappingResult:
        """What records of a transaction are told that were touched as `lineages` says."""
        return _TransactionMapper(self._source, self._scope(tx), {}, lineages).mapped(clock, ())

    def _scope(self, tx: Transaction) -> TransactionContext:
        said = attribution(tx.messages)
        return TransactionContext(tx.system, tx.timeline, tx.end_lsn, tx.commit_us, tx.origin, said, self._whole_rows)

    def snapshot(self, rows: SnapshotRows, began: SnapshotBegan, clock: Stamp) -> MappingResult:
        """Map a piece of a first copy: what the source held at its consistent point. Stamps count on from there."""
        scope = TransactionContext(
            began.system, began.timeline, began.lsn, began.at_us, None, Attribution(), self._whole_rows
        )
        taken = _TransactionMapper(self._source, scope, {}, Coalescer())
        for change in rows.changes:
            readings = self.relation_mappings(change.relation)
            if not readings:
                continue
            clock = tick(clock, began.at_us)
            for mapping in readings:
                taken.take_snapshot(mapping, change, clock)
        return taken.mapped(clock, self._reported())._replace(shapes=self._seen_shapes())

    def relation_mappings(self, relation: Relation) -> tuple[RelationMapping, ...]:
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
            self._shapes += [
                relation_columns(table, relation, self._plan) for table in self._tables.get(relation.table, ())
            ]
        readings = self._readings.get(relation)
        if readings is None:
            readings = self._readings[relation] = self._compile(relation)
        self._compiled[id(relation)] = (relation, readings)
        return readings

    def _compile(self, relation: Relation) -> tuple[RelationMapping, ...]:
        tables = self._tables.get(relation.table, [])
        readings = []
        for table in tables:
            label = table.table if len(tables) == 1 else f"{table.table}#{table.entity}"
            mapping = relation_mapping(table, relation, self._plan, label)
            if mapping is not None:
                readings.append(mapping)
            self._unreported += (
                Parked(self._source, table.table, f"column {column} of entity {table.entity} is missing")
                for column in missing_columns(table, relation)
            )
        return tuple(readings)

    def _seen_shapes(self) -> tuple[RelationColumns, ...]:
        shapes, self._shapes = tuple(self._shapes), []
        return shapes

    def _reported(self) -> tuple[Parked, ...]:
        reported, self._unreported = tuple(self._unreported), []
        return reported


class _TransactionMapper:
    """The row changes of one delivery, taken one by one, and what they tell in the end."""

    def __init__(
        self, source: str, scope: TransactionContext, known: Mapping[tuple[str, str], str], lineages: ChangeSink
    ) -> None:
        self._source = source
        self._scope = scope
        self._known = known
        self._lineages = lineages
        self._identities: dict[str, dict[str, str | None]] = {}
        self._changes: list[Change] = []
        self._truncated: list[Truncated] = []
        self._parked: list[Parked] = []
        self._unnamed = UnresolvedRows()

    def take(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> None:
        if change.operation == TRUNCATE:
            self._truncate(mapping, change, stamp)
            return
        at = self._locate(mapping, change, stamp)
        if at is not None:
            self._lineages.add(_new_tuple(LocatedChange, (mapping, change, stamp, at)))

    def take_snapshot(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> None:
        at = self._locate(mapping, change, stamp)
        if at is None or at.after is None:
            return
        try:
            told = Change(
                mapping.table.entity,
                at.after,
                stamp,
                self._scope.place(mapping, change),
                SNAPSHOT,
                inserted(mapping, change),
                actor=column_actor(mapping, change),
                committed_us=self._scope.committed_us,
                identity=at.row_after if mapping.distinct else None,
            )
        except UnreadableValue as error:
            self._park(mapping, str(error))
        else:
            self._changes.append(told)

    def mapped(self, clock: Stamp, reported: Sequence[Parked]) -> MappingResult:
        carried: dict[RecordKey, str] = {}
        for touch in self._lineages.single():
            try:
                told = build_change(touch, self._scope)
            except UnreadableValue as error:
                self._park(touch.reading, str(error))
                continue
            if told is not None:
                self._changes.append(told)
        self._tell_followed(carried)
        waiting = tuple(self._unnamed.tell(self._scope, self._park))
        kept = [Parked(self._source, each.change.place.table, _UNNAMED, is_kept=True) for each in waiting]
        return MappingResult(
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
            change = build_followed(told, self._scope)
            if change is not None:
                self._changes.append(change)
                if told.left_behind is not None:
                    carried[RecordKey(*told.record)] = told.left_behind
        # The two halves of a re-key share a stamp: the old key ends before the new one begins.
        self._changes.sort(key=lambda change: (change.stamp, change.moved_to is None))

    def _locate(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> Located | None:
        """Where a change was and is, its identity noted; None, and parked, when it concerns no record."""
        try:
            at = locate(mapping, change, self._key_of)
        except UnknownIdentity as unknown:
            self._unnamed.add(
                LocatedChange(mapping, change, stamp, Located("", None, unknown.row_before, unknown.row_after))
            )
            return None
        except UnreadableValue as error:
            self._park(mapping, str(error))
            return None
        if mapping.looked_up:
            for touch in self._unnamed.named(mapping, change, at):
                self._lineages.add(touch)
            self._note(mapping, at)
        if at.after is not None:
            return at
        if change.new is not None:
            self._park(mapping, "a column of the business key is NULL")
        return None if at.before is None else at

    def _note(self, mapping: RelationMapping, at: Located) -> None:
        noted = self._identities.setdefault(mapping.label, {})
        if at.row_before is not None and at.row_before != at.row_after:
            noted[at.row_before] = None
        if at.row_after is not None and self._key_of(mapping.label, at.row_after) != at.after:
            noted[at.row_after] = at.after

    def _key_of(self, label: str, identity: str) -> str | None:
        noted = self._identities.get(label)
        if noted is not None and identity in noted:
            return noted[identity]
        return self._known.get((label, identity))

    def _truncate(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> None:
        self._lineages.forget(mapping.label)
        self._unnamed.forget(mapping.label)
        noted = self._identities.get(mapping.label, {})
        noted.update(dict.fromkeys(noted))
        actor = self._scope.said.actor
        copy = copy_of(self._scope.said, self._scope.origin, mapping.table, actor)
        self._truncated.append(
            Truncated(mapping.table.entity, mapping.table.table, stamp, self._scope.place(mapping, change), actor, copy)
        )

    def _park(self, mapping: RelationMapping, reason: str) -> None:
        self._parked.append(Parked(self._source, mapping.table.table, reason))
