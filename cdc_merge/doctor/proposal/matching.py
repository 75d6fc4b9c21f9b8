"""Matching of tables to entities: groups of tables, their keys and fields. Pure.

Greedy and explainable: pairs by descending score, each table and column once. The first source of a group gives the
names of the entity and its fields.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from cdc_merge.doctor.proposal.candidates import pairs_of
from cdc_merge.doctor.proposal.catalog_sample import ColumnSeen, EntityProposed, FieldProposed, TableSeen
from cdc_merge.doctor.proposal.similarity import of_columns, of_names, of_types, words

ALIKE: Final = 0.45  # the score from which two columns or tables are proposed as the same
FEWEST_FIELDS: Final = 1
BOOKKEEPING: Final = frozenset({"created", "updated", "modified", "changed", "version", "deleted"})
NAMES_WEIGHT: Final = 0.5
"""The weight of the names in the score of two tables; the rest is the columns."""


class Proposal(NamedTuple):
    """`left_out`: a sentence for each group of similar tables that cannot be an entity."""

    entities: list[EntityProposed]
    left_out: list[str]


def propose(tables: Sequence[TableSeen], progress: Callable[[int, int], None] = lambda done, total: None) -> Proposal:
    """The entities that several sources share; with a single source, one per table with a key.

    `progress` is called with the compared pairs of tables and their number.
    """
    sources = list(dict.fromkeys(table.source for table in tables))
    groups = _groups(tables, progress) if len(sources) > 1 else [[table] for table in tables]
    entities, left_out = [], []
    for group in groups:
        outcome = _entity(group)
        if isinstance(outcome, EntityProposed):
            entities.append(outcome)
        elif len(group) > 1:
            left_out.append(outcome)
    return Proposal(_with_unique_names(sorted(entities, key=lambda entity: -entity.confidence)), left_out)


def propose_entities(tables: Sequence[TableSeen]) -> list[EntityProposed]:
    return propose(tables).entities


# ---------------------------------------------------------------- tables


class Pair(NamedTuple):
    score: float
    one: TableSeen
    other: TableSeen


def _groups(tables: Sequence[TableSeen], progress: Callable[[int, int], None]) -> list[list[TableSeen]]:
    """Groups of matching tables, at most one per source, joined by descending score."""
    compared = list(pairs_of(tables))
    pairs = []
    for done, (one, other) in enumerate(compared, 1):
        pairs.append(Pair(_of_tables(one, other), one, other))
        progress(done, len(compared))
    groups: dict[tuple[str, str], list[TableSeen]] = {(table.source, table.name): [table] for table in tables}
    for pair in sorted(pairs, key=lambda pair: -pair.score):
        left, right = groups[pair.one.source, pair.one.name], groups[pair.other.source, pair.other.name]
        if pair.score < ALIKE or left is right or {t.source for t in left} & {t.source for t in right}:
            continue
        left += right
        for table in right:
            groups[table.source, table.name] = left
    order = list(dict.fromkeys(table.source for table in tables))
    distinct = {id(group): sorted(group, key=lambda t: order.index(t.source)) for group in groups.values()}
    return [group for group in distinct.values() if len(group) > 1]


def _of_tables(one: TableSeen, other: TableSeen) -> float:
    by_name = of_names(_plain(one), _plain(other))
    fields = _matching_columns(one, other, _real(one), _real(other))
    most = min(len(_real(one)), len(_real(other))) or 1
    by_columns = sum(score for score, _, _ in fields) / most
    return NAMES_WEIGHT * by_name + (1 - NAMES_WEIGHT) * min(1.0, by_columns)


def _plain(table: TableSeen) -> str:
    return table.schema_and_name.name


def _real(table: TableSeen) -> list[ColumnSeen]:
    """Columns that applications write."""
    return [column for column in table.columns if not column.is_made and not words(column.name) & BOOKKEEPING]


def _matching_columns(
    one: TableSeen, other: TableSeen, left: Iterable[ColumnSeen], right: Iterable[ColumnSeen]
) -> list[tuple[float, ColumnSeen, ColumnSeen]]:
    """Pairs of columns by descending score, each column once."""
    tables = (_plain(one), _plain(other))
    scores = [(of_columns(a, b, tables), a, b) for a, b in itertools.product(left, right)]
    found: list[tuple[float, ColumnSeen, ColumnSeen]] = []
    taken: set[tuple[str, str]] = set()
    for score, a, b in sorted(scores, key=lambda each: -each[0]):
        if score >= ALIKE and not {("left", a.name), ("right", b.name)} & taken:
            taken |= {("left", a.name), ("right", b.name)}
            found.append((score, a, b))
    return found


# ---------------------------------------------------------------- one entity


def _entity(group: list[TableSeen]) -> EntityProposed | str:
    """The entity, or a sentence that says why these tables are none."""
    first = group[0]
    keys = _keys(group)
    if not all(keys.values()):
        return _why_no_key(group)
    fields = _fields(group, keys)
    if len(fields) < FEWEST_FIELDS:
        return f"{_listed(group)} look alike, but share no field beside the key."
    doubts = [
        f"{table.source}: {', '.join(keys[table.source])} is generated by the database: other systems cannot have the same value."
        for table in group
        if len(group) > 1 and all(table.column(name).is_made for name in keys[table.source])
    ]
    scores = [_of_tables(first, table) for table in group[1:]]
    return EntityProposed(
        name=as_name(_plain(first)),
        tables={table.source: table for table in group},
        keys=keys,
        fields=tuple(fields),
        confidence=min(scores, default=1.0),
        doubts=tuple(doubts),
    )


def _listed(group: Iterable[TableSeen]) -> str:
    return " and ".join(f"{table.source} {table.schema_and_name.written}" for table in group)


def _why_no_key(group: list[TableSeen]) -> str:
    keyless = [table for table in group if not _candidates(table)]
    if keyless:
        return f"{_listed(group)} look alike, but {_listed(keyless)} has no primary key and no unique key."
    kinds = []
    for table in group:
        key = _own_key(table)
        types = ", ".join(f"{name} {table.column(name).value_type}" for name in key)
        kinds.append(f"{table.source} has {types}")
    return f"{_listed(group)} look alike, but their keys cannot be equal: {'; '.join(kinds)}."


def as_name(text: str) -> str:
    """The text in the characters of a configuration name: letters, digits, _ and -."""
    name = re.sub(r"[^\w-]", "_", text)
    return (name if re.match(r"[^\W\d]", name) else f"_{name}")[:63]


def _keys(group: list[TableSeen]) -> dict[str, tuple[str, ...]]:
    """The business key of each table: the most similar unique keys, generated ones last."""
    first = group[0]
    best: dict[str, tuple[str, ...]] = {table.source: _own_key(table) for table in group}
    scored = [(_key_score(first, key, group[1:]), key) for key in _candidates(first)]
    if len(group) == 1 or not scored:
        return best
    _, chosen = max(scored, key=lambda pair: pair[0])
    best[first.source] = chosen
    for table in group[1:]:
        fitting = [(_key_likeness(first, chosen, table, key), key) for key in _candidates(table)]
        fitting = [pair for pair in fitting if pair[0] > 0]
        best[table.source] = max(fitting, key=lambda pair: pair[0])[1] if fitting else ()
    return best


def _candidates(table: TableSeen) -> list[tuple[str, ...]]:
    """Unique keys, the shortest first; a primary key is one of them."""
    return sorted(
        {*table.unique_keys, *([table.primary_key] if table.primary_key else [])}, key=lambda key: (len(key), key)
    )


def _own_key(table: TableSeen) -> tuple[str, ...]:
    written = [key for key in _candidates(table) if not any(table.column(name).is_made for name in key)]
    return (written or [table.primary_key])[0]


def _key_score(first: TableSeen, key: tuple[str, ...], others: Iterable[TableSeen]) -> float:
    return sum(
        max((_key_likeness(first, key, table, candidate) for candidate in _candidates(table)), default=0.0)
        for table in others
    )


def _key_likeness(one: TableSeen, key: tuple[str, ...], other: TableSeen, candidate: tuple[str, ...]) -> float:
    """0 when the keys could not be equal; a generated column reduces the score to a quarter."""
    if len(key) != len(candidate):
        return 0.0
    pairs = [(one.column(a), other.column(b)) for a, b in zip(key, candidate, strict=True)]
    if not all(of_types(a.value_type, b.value_type) for a, b in pairs):
        return 0.0
    tables = (_plain(one), _plain(other))
    likeness = sum(0.1 + of_columns(a, b, tables) for a, b in pairs) / len(pairs)
    return likeness * (0.25 if any(a.is_made or b.is_made for a, b in pairs) else 1.0)


def _fields(group: list[TableSeen], keys: dict[str, tuple[str, ...]]) -> list[FieldProposed]:
    """Fields in the column order of the first table, then columns that only later tables share."""
    fields: list[FieldProposed] = []
    for position, table in enumerate(group):
        unmatched = [c for c in _real(table) if c.name not in keys[table.source] and not _is_taken(fields, table, c)]
        matched = {
            column.name: FieldProposed(as_name(column.name), {table.source: column.name}, 1.0, column.value_type)
            for column in unmatched
        }
        for other in group[position + 1 :]:
            free = [c for c in _real(other) if c.name not in keys[other.source] and not _is_taken(fields, other, c)]
            for score, a, b in _matching_columns(table, other, unmatched, free):
                field = matched[a.name]
                matched[a.name] = field._replace(
                    columns={**field.columns, other.source: b.name}, confidence=min(field.confidence, score)
                )
        shared = [field for field in matched.values() if len(field.columns) > 1 or len(group) == 1]
        names = {field.name for field in fields}
        fields += [field for field in shared if field.name not in names]
    return fields


def _is_taken(fields: Iterable[FieldProposed], table: TableSeen, column: ColumnSeen) -> bool:
    return any(field.columns.get(table.source) == column.name for field in fields)


def _with_unique_names(entities: list[EntityProposed]) -> list[EntityProposed]:
    """A repeated name gets a number."""
    counts: dict[str, int] = {}
    renamed = []
    for entity in entities:
        counts[entity.name] = counts.get(entity.name, 0) + 1
        number = counts[entity.name]
        renamed.append(entity if number == 1 else entity._replace(name=f"{entity.name[:60]}_{number}"))
    return renamed
