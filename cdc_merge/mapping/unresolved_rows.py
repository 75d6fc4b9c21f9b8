"""Rows whose business key is not resolved: their changes are quarantined, and merged once the key is known (semantics §4).

Pure. A quarantined change is complete but for its record's key. A snapshot, an insert or a complete old row with the same
replica identity resolves the key; stamp and place of the change stay, so it is merged as if the key had been known at once.
Within one transaction nothing is quarantined that the same transaction resolves later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.change_builder import TransactionContext, build_change
from cdc_merge.mapping.coalesce import KeyedChange, LabeledIdentity
from cdc_merge.mapping.key_resolution import RowKeys, RowValues
from cdc_merge.mapping.mapping_result import Truncated
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import (
    DELETE,
    INSERT,
    SNAPSHOT,
    TRUNCATE,
    UPDATE,
    Change,
    MaybeValue,
    QuarantineReleased,
    Relation,
    RowChange,
    Transaction,
    UnresolvedChange,
)
from cdc_merge.values.keys import KeyReader, key_reader
from cdc_merge.values.postgres_text import reader

IdentityColumns: TypeAlias = tuple[str, ...]
AwaitedIdentities: TypeAlias = Mapping[str, Collection[IdentityColumns]]
"""Label of a table → the replica identity columns of its quarantined rows."""

_FieldMapping: TypeAlias = Mapping[str, tuple[MaybeValue, MaybeValue]]
_WITH_COMPLETE_NEW_ROW: Final = (INSERT, SNAPSHOT)


class UnresolvedRows:
    """The row changes of one delivery without a business key, by the row's latest replica identity.

    `former_identities`: label → identity → key, of rows that changed their identity before their key was resolved.
    """

    def __init__(self) -> None:
        self.former_identities: dict[str, dict[str, str]] = {}
        self._truncated: set[str] = set()
        self._rows: dict[LabeledIdentity, list[KeyedChange]] = {}

    def add(self, keyed: KeyedChange) -> None:
        label, (_, _, before, after) = keyed.mapping.label, keyed.keys
        assert before is not None, "an unresolved row has a replica identity"
        if after is not None and after != before:
            self._rows.setdefault((label, after), []).extend(self._rows.pop((label, before), []))
        self._rows.setdefault((label, after or before), []).append(keyed)

    def take_resolved(self, mapping: RelationMapping, change: RowChange, keys: RowKeys) -> Iterator[KeyedChange]:
        """The unresolved changes whose business key this change shows, in order, with their keys."""
        if not self._rows:
            return
        has_new_row = change.operation in _WITH_COMPLETE_NEW_ROW
        if not has_new_row and not change.old_is_full:
            return
        identity = keys.identity_after if has_new_row else keys.identity_before
        key = keys.key_after if has_new_row else keys.key_before
        if identity is None or key is None:
            return
        for keyed in self._rows.pop((mapping.label, identity), ()):
            after = None if keyed.change.new is None else key
            former = keyed.keys.identity_before
            if former is not None and former != identity and mapping.label not in self._truncated:
                self.former_identities.setdefault(mapping.label, {})[former] = key
            yield keyed._replace(keys=keyed.keys._replace(key_before=key, key_after=after))

    def drop_table(self, label: str) -> None:
        """A truncate: the keys of this table's earlier rows cannot be resolved any more."""
        self._truncated.add(label)
        self._rows = {row: changes for row, changes in self._rows.items() if row[0] != label}

    def to_quarantine(
        self, context: TransactionContext, park: Callable[[RelationMapping, str], None]
    ) -> Iterator[UnresolvedChange]:
        """The changes that are still unresolved; `park` is called for unreadable ones."""
        for keyed in (keyed for changes in self._rows.values() for keyed in changes):
            try:
                unresolved = _unresolved_change(keyed, context)
            except UnreadableValue as error:
                park(keyed.mapping, str(error))
                continue
            if unresolved is not None:
                yield unresolved


def _unresolved_change(keyed: KeyedChange, context: TransactionContext) -> UnresolvedChange | None:
    """A change without its key; None when no mapped field and no identity changed. UnreadableValue: park it."""
    mapping, change, _, (_, _, identity_before, identity_after) = keyed
    assert identity_before is not None, "an unresolved row has a replica identity"
    keys = RowKeys("", None if change.new is None else "", identity_before, identity_after)
    built = build_change(keyed._replace(keys=keys), context)
    if built is None and identity_before == identity_after:
        return None
    if built is None:  # only the identity changed: the attributes of a delete, without any field
        built = build_change(keyed._replace(keys=keys._replace(key_after=None)), context)
        assert built is not None, "a delete is always a change"
        built = built._replace(operation=UPDATE, identity=identity_after)
    columns = tuple(change.relation.columns[index].name for index in sorted(mapping.identity_columns))
    return UnresolvedChange(mapping.label, columns, identity_after or identity_before, identity_before, built)


def resolutions(
    changes: Iterable[RowChange], mappings: Callable[[Relation], Sequence[RelationMapping]], awaited: AwaitedIdentities
) -> Mapping[str, Mapping[str, str]]:
    """Label → identity → business key of the complete rows in these changes: only of tables with quarantined rows, by the
    identity columns of those. After a truncate an identity is another row's."""
    keys: dict[str, dict[str, str]] = {}
    readers: dict[tuple[int, IdentityColumns], KeyReader | None] = {}
    for mapping, relation, values in _complete_rows(changes, mappings, awaited):
        for columns in awaited[mapping.label]:
            compiled = (id(relation), columns)
            if compiled not in readers:
                readers[compiled] = _identity_reader(relation, columns)
            resolution = _resolution(readers[compiled], mapping, values)
            if resolution is not None:
                keys.setdefault(mapping.label, {}).setdefault(*resolution)
    return keys


def _complete_rows(
    changes: Iterable[RowChange], mappings: Callable[[Relation], Sequence[RelationMapping]], awaited: AwaitedIdentities
) -> Iterator[tuple[RelationMapping, Relation, RowValues]]:
    """The complete rows of tables with quarantined rows, up to a truncate of the table."""
    labels = set(awaited)
    for change in changes:
        for mapping in mappings(change.relation):
            if mapping.label not in labels:
                continue
            if change.operation == TRUNCATE:
                labels.remove(mapping.label)
                continue
            old = change.old if change.old_is_full else None
            values = change.new if change.operation in _WITH_COMPLETE_NEW_ROW else old
            if values is not None:
                yield mapping, change.relation, values


def _identity_reader(relation: Relation, columns: IdentityColumns) -> KeyReader | None:
    index_of = {column.name: index for index, column in enumerate(relation.columns)}
    if any(name not in index_of for name in columns):
        return None
    of = [relation.columns[index_of[name]] for name in columns]
    return key_reader([(index_of[c.name], reader(c.type_oid, c.type_name, c.name)) for c in of])


def _resolution(read: KeyReader | None, mapping: RelationMapping, values: RowValues) -> tuple[str, str] | None:
    if read is None:
        return None
    try:
        identity, key = read(values), mapping.key(values)
    except UnreadableValue:
        return None
    return (identity, key) if isinstance(identity, str) and isinstance(key, str) else None


class ResolvedRow(NamedTuple):
    """A change that is released from quarantine, and its row's replica identity before its transaction."""

    change: Change
    was: str


class QuarantineResult(NamedTuple):
    """What a delivery released from quarantine: changes to be merged, and facts for observers."""

    resolved: tuple[ResolvedRow, ...] = ()
    released: tuple[QuarantineReleased, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(each.change for each in self.resolved)


def resolve(quarantined: Iterable[UnresolvedChange], key: str) -> list[ResolvedRow]:
    """The quarantined changes of one row under its business key: one change per transaction (semantics §1), in order."""
    in_order = sorted(quarantined, key=lambda each: each.change.stamp)
    by_transaction = [list(several) for _, several in groupby(in_order, key=lambda each: each.change.place[:3])]
    return [ResolvedRow(_merged(several)._replace(key=key), several[0].was) for several in by_transaction]


class LateResolutions:
    """Rows that a large transaction resolved, until its own changes of these records are built. They are changes of earlier
    transactions, or of earlier chunks of this one."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = (transaction.system, transaction.timeline, transaction.end_lsn)
        self._resolved: dict[tuple[str, str], list[ResolvedRow]] = {}

    def add(self, resolved: Iterable[ResolvedRow], truncated: Iterable[Truncated]) -> None:
        """Rows that a chunk resolved. Changes of this transaction before a truncate of their table have no effect."""
        for each in resolved:
            self._resolved.setdefault((each.change.entity, each.change.key), []).append(each)
        void = {(each.entity, each.table) for each in truncated}
        for record, several in self._resolved.items() if void else ():
            self._resolved[record] = [
                each
                for each in several
                if each.change.place[:3] != self._transaction
                or (each.change.entity, each.change.place.table) not in void
            ]

    def merged_into(self, changes: Sequence[Change]) -> tuple[Change, ...]:
        """The changes of some records, preceded by what was resolved of these records."""
        if not self._resolved:
            return tuple(changes)
        merged: list[Change] = []
        for change in changes:
            earlier = self._resolved.pop((change.entity, change.key), [])
            merged += [each.change for each in earlier]
            if earlier and earlier[-1].change.place[:3] == self._transaction == change.place[:3]:
                merged[-1] = _with_resolved(change, earlier[-1])
            else:
                merged.append(change)
        return tuple(merged)

    def remaining(self) -> tuple[Change, ...]:
        """Changes of rows that existed only in an intermediate state of the transaction."""
        return tuple(each.change for several in self._resolved.values() for each in several)


def _with_resolved(change: Change, resolved: ResolvedRow) -> Change:
    """A record's change, with an earlier part of the same transaction that a later part resolved."""
    earlier = resolved.change
    if change.operation == DELETE:
        return change._replace(identity=resolved.was) if change.identity is not None else change
    if earlier.operation == DELETE:
        return change._replace(operation=UPDATE) if change.operation == INSERT else change
    fields = {**earlier.fields, **_with_first_before(earlier.fields, change.fields)}
    return change._replace(fields=fields, actor=change.actor or earlier.actor)


def _with_first_before(earlier: _FieldMapping, later: _FieldMapping) -> _FieldMapping:
    return {field: (earlier[field][0] if field in earlier else was, value) for field, (was, value) in later.items()}


def _merged(unresolved: Sequence[UnresolvedChange]) -> Change:
    """The changes of one row in one transaction as one change."""
    first, last = unresolved[0], unresolved[-1].change
    if last.operation == DELETE:
        return last._replace(identity=first.was) if last.identity is not None else last
    fields: _FieldMapping = {}
    for each in unresolved:
        fields = {**fields, **_with_first_before(fields, each.change.fields)}
    actors = [each.change.actor for each in reversed(unresolved) if each.change.actor is not None]
    return last._replace(fields=fields, actor=actors[0] if actors else None)
