"""Step 2, mapping: the row changes of one delivery become record changes, at most one per record.

The order within one delivery:

1. `relation.py` compiles each Relation message into one `RelationMapping` per entity.
2. `key_resolution.py` resolves replica identity → business key: where a row change gets its record key is the call of
   `resolve_keys` in `_DeliveryMapper._keys_of`. Identities are remembered; unresolved rows go to `unresolved_rows.py`.
3. `coalesce.py` makes one change per record out of several (large transactions: `large_transactions.py`, an external sort).
4. `change_builder.py` builds the changes: fields, and actor and copy mark by `attribution.py`.

A change has stamp and place of the last row change of its record. Two rows of a source that share a business key have a
change each. An unreadable row is parked alone; the others are merged. Everything is an argument: the source's clock, our
own clock, the remembered keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.attribution import Attribution, column_actor, copy_of, read_attribution
from cdc_merge.mapping.change_builder import TransactionContext, build_change, build_transition, inserted_fields
from cdc_merge.mapping.coalesce import ChangeSink, Coalescer, KeyedChange
from cdc_merge.mapping.key_resolution import RowKeys, UnknownIdentity, identity_to_look_up, resolve_keys
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
from cdc_merge.model.fast_new import fast_new
from cdc_merge.model.plan import Plan, TableMap

# Compiled relations: far more than the tables of one source, and a bound for a stream of endless Relation messages.
_MAX_RELATIONS: Final = 1024

_UNKNOWN_IDENTITY: Final = str(UnknownIdentity("", None))


class Mapper:
    """The mapping of one source. Its only state are compiled relations and what was not reported of them yet.

    `whole_rows`: unchanged fields of complete rows are in a change, too, as (value, value): for a source without an initial
    snapshot.
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
        self._mappings: dict[Relation, tuple[RelationMapping, ...]] = {}
        self._unreported: list[Parked] = []
        self._announced: dict[str, Relation] = {}
        self._announced_columns: list[RelationColumns] = []

    def tables(self) -> dict[str, Sequence[TableMap]]:
        """Each table of the source with its mappings, one per entity."""
        return {**self._tables}

    def expected_records(self, rows: Mapping[str, int]) -> dict[str, int]:
        """Expected rows by table, summed up by entity; 0 where the server has no estimate."""
        expected: dict[str, int] = {}
        for table, mappings in self._tables.items():
            for mapping in mappings:
                expected[mapping.entity] = expected.get(mapping.entity, 0) + max(0, rows.get(table, 0))
        return expected

    def identities_to_look_up(self, changes: Sequence[RowChange]) -> Mapping[str, set[str]]:
        """Label → replica identities whose business keys `map_transaction` needs, as far as the store remembers them."""
        wanted: dict[str, set[str]] = {}
        relation: Relation | None = None
        mappings: list[RelationMapping] = []
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                mappings = [mapping for mapping in self.relation_mappings(relation) if mapping.needs_lookup]
            for mapping in mappings:
                try:
                    identity = identity_to_look_up(mapping, change)
                except UnreadableValue:
                    continue  # `map_transaction` parks it
                if identity is not None:
                    wanted.setdefault(mapping.label, set()).add(identity)
        return wanted

    def map_transaction(
        self, tx: Transaction, clock: Stamp, now_us: int, stored_keys: Mapping[tuple[str, str], str]
    ) -> MappingResult:
        """Map one transaction. `clock` is the last stamp that was issued; `stored_keys`: (label, identity) → key."""
        return self.map_changes(tx, tx.changes, (clock, now_us), stored_keys, Coalescer())

    def map_changes(
        self,
        tx: Transaction,
        changes: Iterable[RowChange],
        clock_and_now: tuple[Stamp, int],
        stored_keys: Mapping[tuple[str, str], str],
        sink: ChangeSink,
    ) -> MappingResult:
        """Map some changes of a transaction, in order, into a sink. With a Coalescer the result has the record changes; with
        a BucketSorter it has none, and `build_changes` gives them bucket by bucket."""
        clock, now_us = clock_and_now
        commit_us = cut(tx.commit_us, now_us, self._plan.max_ahead_us)
        delivery_mapper = _DeliveryMapper(self._source, self._context(tx), stored_keys, sink)
        add = delivery_mapper.add
        relation: Relation | None = None
        mappings: tuple[RelationMapping, ...] = ()
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                mappings = self.relation_mappings(relation)
            if not mappings:
                continue
            clock = tick(clock, commit_us)
            for mapping in mappings:
                add(mapping, change, clock)
        return delivery_mapper.result(clock, self._take_unreported())._replace(
            clock_cut_us=tx.commit_us - commit_us, announced_columns=self._take_announced_columns()
        )

    def build_changes(self, tx: Transaction, sink: ChangeSink, clock: Stamp) -> MappingResult:
        """The record changes of a part of a transaction that was mapped into a sink before."""
        return _DeliveryMapper(self._source, self._context(tx), {}, sink).result(clock, ())

    def _context(self, tx: Transaction) -> TransactionContext:
        attribution = read_attribution(tx.messages)
        return TransactionContext(
            tx.system, tx.timeline, tx.end_lsn, tx.commit_us, tx.origin, attribution, self._whole_rows
        )

    def cut_snapshot(self, began: SnapshotBegan, now_us: int) -> SnapshotBegan:
        """The beginning of a snapshot, its time cut like a commit's: a fast clock would win every tie until it is caught up."""
        return began._replace(at_us=cut(began.at_us, now_us, self._plan.max_ahead_us))

    def map_snapshot(self, rows: SnapshotRows, began: SnapshotBegan, clock: Stamp) -> MappingResult:
        """Map a chunk of a snapshot: rows as of the snapshot's consistent point. Stamps count on from its time, which
        `cut_snapshot` has limited."""
        context = TransactionContext(
            began.system, began.timeline, began.lsn, began.at_us, None, Attribution(), self._whole_rows
        )
        delivery_mapper = _DeliveryMapper(self._source, context, {}, Coalescer())
        for change in rows.changes:
            mappings = self.relation_mappings(change.relation)
            if not mappings:
                continue
            clock = tick(clock, began.at_us)
            for mapping in mappings:
                delivery_mapper.add_snapshot_row(mapping, change, clock)
        return delivery_mapper.result(clock, self._take_unreported())._replace(
            announced_columns=self._take_announced_columns()
        )

    def relation_mappings(self, relation: Relation) -> tuple[RelationMapping, ...]:
        """The mappings of a relation, one for each entity that it feeds."""
        # By identity first: hashing a relation with all its columns costs more than mapping a row.
        compiled = self._compiled.get(id(relation))
        if compiled is not None and compiled[0] is relation:
            return compiled[1]
        if len(self._compiled) >= _MAX_RELATIONS:
            self._compiled.clear()
            self._mappings.clear()
        if self._announced.get(relation.table) != relation:
            self._announced[relation.table] = relation
            self._announced_columns += [
                relation_columns(table, relation, self._plan) for table in self._tables.get(relation.table, ())
            ]
        mappings = self._mappings.get(relation)
        if mappings is None:
            mappings = self._mappings[relation] = self._compile(relation)
        self._compiled[id(relation)] = (relation, mappings)
        return mappings

    def _compile(self, relation: Relation) -> tuple[RelationMapping, ...]:
        tables = self._tables.get(relation.table, [])
        mappings = []
        for table in tables:
            label = table.table if len(tables) == 1 else f"{table.table}#{table.entity}"
            mapping = relation_mapping(table, relation, self._plan, label)
            if mapping is not None:
                mappings.append(mapping)
            self._unreported += (
                Parked(self._source, table.table, f"column {column} of entity {table.entity} is missing")
                for column in missing_columns(table, relation)
            )
        return tuple(mappings)

    def _take_announced_columns(self) -> tuple[RelationColumns, ...]:
        announced_columns, self._announced_columns = tuple(self._announced_columns), []
        return announced_columns

    def _take_unreported(self) -> tuple[Parked, ...]:
        parked, self._unreported = tuple(self._unreported), []
        return parked


class _DeliveryMapper:
    """Maps the row changes of one delivery one by one; `result` gives the record changes at its end."""

    def __init__(
        self, source: str, context: TransactionContext, stored_keys: Mapping[tuple[str, str], str], sink: ChangeSink
    ) -> None:
        self._source = source
        self._context = context
        self._stored_keys = stored_keys
        self._sink = sink
        self._identities: dict[str, dict[str, str | None]] = {}
        self._changes: list[Change] = []
        self._truncated: list[Truncated] = []
        self._parked: list[Parked] = []
        self._unresolved = UnresolvedRows()

    def add(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> None:
        if change.operation == TRUNCATE:
            self._truncate(mapping, change, stamp)
            return
        keys = self._keys_of(mapping, change, stamp)
        if keys is not None:
            self._sink.add(fast_new(KeyedChange, (mapping, change, stamp, keys)))

    def add_snapshot_row(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> None:
        keys = self._keys_of(mapping, change, stamp)
        if keys is None or keys.key_after is None:
            return
        try:
            snapshot_change = Change(
                mapping.table.entity,
                keys.key_after,
                stamp,
                self._context.place(mapping, change),
                SNAPSHOT,
                inserted_fields(mapping, change),
                actor=column_actor(mapping, change),
                committed_us=self._context.committed_us,
                identity=keys.identity_after if mapping.has_own_identity else None,
            )
        except UnreadableValue as error:
            self._park(mapping, str(error))
        else:
            self._changes.append(snapshot_change)

    def result(self, clock: Stamp, unreported: Sequence[Parked]) -> MappingResult:
        for keyed in self._sink.single_changes():
            try:
                change = build_change(keyed, self._context)
            except UnreadableValue as error:
                self._park(keyed.mapping, str(error))
                continue
            if change is not None:
                self._changes.append(change)
        previous_keys = self._add_transitions()
        unresolved = tuple(self._unresolved.to_quarantine(self._context, self._park))
        quarantined = [
            Parked(self._source, each.change.place.table, _UNKNOWN_IDENTITY, is_quarantined=True) for each in unresolved
        ]
        return MappingResult(
            tuple(self._changes),
            clock,
            {label: identities for label, identities in self._identities.items() if identities},
            tuple(self._truncated),
            (*unreported, *self._parked, *quarantined),
            previous_keys=previous_keys,
            unresolved=unresolved,
            former_identities=self._unresolved.former_identities,
            unreadable_rows=Counter(parked.table for parked in self._parked),
        )

    def _add_transitions(self) -> dict[RecordKey, str]:
        """Build the changes of records with several row changes; record → previous key, where fields were not sent."""
        previous_keys: dict[RecordKey, str] = {}
        transitions = self._sink.transitions()
        for transition in transitions:
            end = transition.row_at_end
            if end is not None and end.unreadable is not None:
                self._park(end.last.mapping, end.unreadable)
                continue
            change = build_transition(transition, self._context)
            if change is not None:
                self._changes.append(change)
                if transition.key_of_unsent_fields is not None:
                    previous_keys[RecordKey(*transition.record)] = transition.key_of_unsent_fields
        if transitions:
            # The two halves of a re-key share a stamp: the old key ends before the new one begins.
            self._changes.sort(key=lambda change: (change.stamp, change.moved_to is None))
        return previous_keys

    def _keys_of(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> RowKeys | None:
        """Resolve and remember the keys of a change; None, when it is quarantined, parked or about no record."""
        try:
            keys = resolve_keys(mapping, change, self._remembered_key)
        except UnknownIdentity as unknown:
            unresolved = RowKeys("", None, unknown.identity_before, unknown.identity_after)
            self._unresolved.add(KeyedChange(mapping, change, stamp, unresolved))
            return None
        except UnreadableValue as error:
            self._park(mapping, str(error))
            return None
        if mapping.needs_lookup:
            for keyed in self._unresolved.take_resolved(mapping, change, keys):
                self._sink.add(keyed)
            self._remember_identities(mapping, keys)
        if keys.key_after is not None:
            return keys
        if change.new is not None:
            self._park(mapping, "a column of the business key is NULL")
        return None if keys.key_before is None else keys

    def _remember_identities(self, mapping: RelationMapping, keys: RowKeys) -> None:
        identities = self._identities.setdefault(mapping.label, {})
        before, after = keys.identity_before, keys.identity_after
        if before is not None and before != after:
            identities[before] = None
        if after is not None and self._remembered_key(mapping.label, after) != keys.key_after:
            identities[after] = keys.key_after

    def _remembered_key(self, label: str, identity: str) -> str | None:
        identities = self._identities.get(label)
        if identities is not None and identity in identities:
            return identities[identity]
        return self._stored_keys.get((label, identity))

    def _truncate(self, mapping: RelationMapping, change: RowChange, stamp: Stamp) -> None:
        self._sink.drop_table(mapping.label)
        self._unresolved.drop_table(mapping.label)
        identities = self._identities.get(mapping.label, {})
        identities.update(dict.fromkeys(identities))
        actor = self._context.attribution.actor
        copy = copy_of(self._context.attribution, self._context.origin, mapping.table, actor)
        self._truncated.append(
            Truncated(
                mapping.table.entity, mapping.table.table, stamp, self._context.place(mapping, change), actor, copy
            )
        )

    def _park(self, mapping: RelationMapping, reason: str) -> None:
        self._parked.append(Parked(self._source, mapping.table.table, reason))
