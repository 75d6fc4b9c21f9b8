"""Changes of rows whose business key nobody knows: they wait for a snapshot, an insert or a full old row (semantics §4).

Pure. A change that waits is told as far as it can be, its record's key left empty. Whatever names the row's identity later
gives it the key; its stamp and place stay its own, so that it is merged as if it had been known all along. Within one
transaction nothing waits: what it names in the end was named for all its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.change_builder import TransactionContext, build_change
from cdc_merge.mapping.coalesce import LocatedChange, RowName
from cdc_merge.mapping.key_resolution import Cells, Located
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

Columns = tuple[str, ...]
Fields = Mapping[str, tuple[MaybeValue, MaybeValue]]
AwaitedIdentities = Mapping[str, Collection[Columns]]
"""The label of a table → the columns by which its waiting rows are named."""

_WHOLE: Final = (INSERT, SNAPSHOT)


class UnresolvedRows:
    """The row changes of one delivery that could not be located, by the row's identity as it is by now.

    `others`: label → identity → key, of names that a row had earlier in the delivery, before it was named.
    """

    def __init__(self) -> None:
        self.others: dict[str, dict[str, str]] = {}
        self._emptied: set[str] = set()
        self._rows: dict[RowName, list[LocatedChange]] = {}

    def add(self, touch: LocatedChange) -> None:
        label, (_, _, before, after) = touch.reading.label, touch.at
        assert before is not None, "a row that cannot be located has an identity"
        if after is not None and after != before:
            self._rows.setdefault((label, after), []).extend(self._rows.pop((label, before), []))
        self._rows.setdefault((label, after or before), []).append(touch)

    def named(self, mapping: RelationMapping, change: RowChange, at: Located) -> Iterator[LocatedChange]:
        """What waited for the name that this change gives, in order, located."""
        if not self._rows:
            return
        is_whole = change.operation in _WHOLE
        if not is_whole and not change.old_is_full:
            return
        name, key = (at.row_after, at.after) if is_whole else (at.row_before, at.before)
        if name is None or key is None:
            return
        for touch in self._rows.pop((mapping.label, name), ()):
            after = None if touch.change.new is None else key
            if touch.at.row_before is not None and touch.at.row_before != name and mapping.label not in self._emptied:
                self.others.setdefault(mapping.label, {})[touch.at.row_before] = key
            yield touch._replace(at=touch.at._replace(before=key, after=after))

    def forget(self, label: str) -> None:
        """The table was emptied: nothing can name its rows any more."""
        self._emptied.add(label)
        self._rows = {name: touches for name, touches in self._rows.items() if name[0] != label}

    def tell(
        self, scope: TransactionContext, refuse: Callable[[RelationMapping, str], None]
    ) -> Iterator[UnresolvedChange]:
        """What nobody named; `refuse` is told of what can never be read."""
        for touch in (touch for touches in self._rows.values() for touch in touches):
            try:
                waiting = _told(touch, scope)
            except UnreadableValue as error:
                refuse(touch.reading, str(error))
                continue
            if waiting is not None:
                yield waiting


def _told(touch: LocatedChange, scope: TransactionContext) -> UnresolvedChange | None:
    """What a change says whose record is unknown; None when that is nothing. UnreadableValue: it can never be read."""
    mapping, change, _, (_, _, was, now) = touch
    assert was is not None, "a row that cannot be located has an identity"
    at = Located("", None if change.new is None else "", was, now)
    told = build_change(touch._replace(at=at), scope)
    if told is None and was == now:
        return None
    if told is None:  # it only has another name
        told = _gone(touch._replace(at=at._replace(after=None)), scope)._replace(operation=UPDATE, identity=now)
    columns = tuple(change.relation.columns[index].name for index in sorted(mapping.identity_columns))
    return UnresolvedChange(mapping.label, columns, now or was, was, told)


def _gone(touch: LocatedChange, scope: TransactionContext) -> Change:
    told = build_change(touch, scope)
    assert told is not None, "the end of a row is always told"
    return told


def resolutions(
    changes: Iterable[RowChange], readings: Callable[[Relation], Sequence[RelationMapping]], awaited: AwaitedIdentities
) -> Mapping[str, Mapping[str, str]]:
    """Label → identity → business key, of the rows that these changes show whole: only of tables with rows that wait, by
    the columns for which they wait. Behind a truncate a name is another row's."""
    found: dict[str, dict[str, str]] = {}
    compiled: dict[tuple[int, Columns], KeyReader | None] = {}
    for mapping, relation, cells in _whole_rows(changes, readings, awaited):
        for columns in awaited[mapping.label]:
            name = (id(relation), columns)
            if name not in compiled:
                compiled[name] = _reader_of(relation, columns)
            named = _named(compiled[name], mapping, cells)
            if named is not None:
                found.setdefault(mapping.label, {}).setdefault(*named)
    return found


def _whole_rows(
    changes: Iterable[RowChange], readings: Callable[[Relation], Sequence[RelationMapping]], awaited: AwaitedIdentities
) -> Iterator[tuple[RelationMapping, Relation, Cells]]:
    """The rows that are shown whole, of tables that have rows that wait."""
    left = set(awaited)
    for change in changes:
        for mapping in readings(change.relation):
            if mapping.label not in left:
                continue
            if change.operation == TRUNCATE:
                left.remove(mapping.label)
                continue
            cells = change.new if change.operation in _WHOLE else change.old if change.old_is_full else None
            if cells is not None:
                yield mapping, change.relation, cells


def _reader_of(relation: Relation, columns: Columns) -> KeyReader | None:
    index_of = {column.name: index for index, column in enumerate(relation.columns)}
    if any(name not in index_of for name in columns):
        return None
    of = [relation.columns[index_of[name]] for name in columns]
    return key_reader([(index_of[c.name], reader(c.type_oid, c.type_name, c.name)) for c in of])


def _named(read: KeyReader | None, mapping: RelationMapping, cells: Cells) -> tuple[str, str] | None:
    if read is None:
        return None
    try:
        identity, key = read(cells), mapping.key(cells)
    except UnreadableValue:
        return None
    return (identity, key) if isinstance(identity, str) and isinstance(key, str) else None


class ResolvedRow(NamedTuple):
    """A change that waits no longer, and the identity that its row had before its transaction."""

    change: Change
    was: str


class QuarantineResult(NamedTuple):
    """What a delivery did to what waits."""

    named: tuple[ResolvedRow, ...] = ()
    unparked: tuple[QuarantineReleased, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(each.change for each in self.named)


def resolve(waiting: Iterable[UnresolvedChange], key: str) -> list[ResolvedRow]:
    """What waited for one row, now that its record is known: one change per transaction (semantics §1), in order."""
    in_order = sorted(waiting, key=lambda each: each.change.stamp)
    by_transaction = [list(several) for _, several in groupby(in_order, key=lambda each: each.change.place[:3])]
    return [ResolvedRow(_together(several)._replace(key=key), several[0].was) for several in by_transaction]


class LateResolutions:
    """What a large transaction named, until its records are told: changes of earlier transactions, and of pieces of this one."""

    def __init__(self, transaction: Transaction) -> None:
        self._here = (transaction.system, transaction.timeline, transaction.end_lsn)
        self._named: dict[tuple[str, str], list[ResolvedRow]] = {}

    def take(self, named: Iterable[ResolvedRow], emptied: Iterable[Truncated]) -> None:
        """What a piece has named. What this transaction did to rows of a table that it emptied afterwards has no effect."""
        for each in named:
            self._named.setdefault((each.change.entity, each.change.key), []).append(each)
        void = {(each.entity, each.table) for each in emptied}
        for record, several in self._named.items() if void else ():
            self._named[record] = [
                each
                for each in several
                if each.change.place[:3] != self._here or (each.change.entity, each.change.place.table) not in void
            ]

    def with_those_of(self, told: Sequence[Change]) -> tuple[Change, ...]:
        """The changes of some records, with what was named of these."""
        if not self._named:
            return tuple(told)
        found: list[Change] = []
        for change in told:
            earlier = self._named.pop((change.entity, change.key), [])
            found += [each.change for each in earlier]
            if earlier and earlier[-1].change.place[:3] == self._here == change.place[:3]:
                found[-1] = _joined(earlier[-1], change)
            else:
                found.append(change)
        return tuple(found)

    def left(self) -> tuple[Change, ...]:
        """What was named by rows that were there only in between."""
        return tuple(each.change for several in self._named.values() for each in several)


def _joined(named: ResolvedRow, told: Change) -> Change:
    """What a transaction tells a record, of which one part was named only by the other, which came later."""
    late = named.change
    if told.operation == DELETE:
        return told._replace(identity=named.was) if told.identity is not None else told
    if late.operation == DELETE:
        return told._replace(operation=UPDATE) if told.operation == INSERT else told
    return told._replace(fields={**late.fields, **_onto(late.fields, told.fields)}, actor=told.actor or late.actor)


def _onto(earlier: Fields, later: Fields) -> Fields:
    return {field: (earlier[field][0] if field in earlier else was, value) for field, (was, value) in later.items()}


def _together(waiting: Sequence[UnresolvedChange]) -> Change:
    """What the changes of one row in one transaction come to."""
    first, last = waiting[0], waiting[-1].change
    if last.operation == DELETE:
        return last._replace(identity=first.was) if last.identity is not None else last
    fields: Fields = {}
    for each in waiting:
        fields = {**fields, **_onto(fields, each.change.fields)}
    actors = [each.change.actor for each in reversed(waiting) if each.change.actor is not None]
    return last._replace(fields=fields, actor=actors[0] if actors else None)
