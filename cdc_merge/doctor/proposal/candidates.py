"""Which pairs of tables are worth comparing: the nearest few of each table by words, columns and values. Pure.

Every pair of two large schemas would be compared for hours (4,000 × 4,000 tables: 16 million pairs of about a millisecond).
A table that shares a rare feature with another (a word of its name, a column, a sampled value) is likelier its counterpart
than one that shares the columns that all tables have, so that features count by their rarity, and common ones not at all.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from cdc_merge.doctor.proposal.catalog_sample import TableSeen
from cdc_merge.doctor.proposal.similarity import words

ALL_PAIRS: Final = 5_000
"""So many pairs of two sources are all compared: some seconds."""
NEAREST: Final = 8
"""The tables of another source that one table is compared with; the right one was among three in the tests' schemas."""
COMMONEST: Final = 100
"""A feature of more tables than this tells nothing about one of them."""
VALUES: Final = 40
"""The sampled values of a column that count as features."""

TablePair: TypeAlias = tuple[TableSeen, TableSeen]


def pairs_of(tables: Sequence[TableSeen]) -> Iterator[TablePair]:
    """The pairs of tables of different sources to compare, each once, in the order of the tables."""
    by_source: dict[str, list[TableSeen]] = defaultdict(list)
    for table in tables:
        by_source[table.source].append(table)
    for left, right in itertools.combinations(by_source.values(), 2):
        if len(left) * len(right) <= ALL_PAIRS:
            yield from itertools.product(left, right)
        else:
            yield from _nearest_pairs(left, right)


def _nearest_pairs(left: Sequence[TableSeen], right: Sequence[TableSeen]) -> Iterator[TablePair]:
    features = [[_features(table) for table in side] for side in (left, right)]
    near = {(one, other) for one, others in enumerate(_nearest(*features)) for other in others}
    near |= {(one, other) for other, ones in enumerate(_nearest(features[1], features[0])) for one in ones}
    yield from ((left[one], right[other]) for one, other in sorted(near))


def _features(table: TableSeen) -> frozenset[tuple[str, str]]:
    name = table.schema_and_name.name.casefold()
    features = {("table", word) for word in words(name)} | {("table", name)}
    features |= {("letters", name[start : start + 3]) for start in range(len(name) - 2)}
    for column in table.columns:
        features |= {("column", word) for word in words(column.name)}
        features |= {("value", value) for value in sorted(column.sample)[:VALUES]}
    return frozenset(features)


def _nearest(
    tables: Sequence[frozenset[tuple[str, str]]], others: Sequence[frozenset[tuple[str, str]]]
) -> Iterator[list[int]]:
    """For each table the numbers of the nearest others."""
    posted: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, features in enumerate(others):
        for feature in features:
            posted[feature].append(number)
    for features in tables:
        scores: Counter[int] = Counter()
        for feature in sorted(features):
            having = posted.get(feature, ())
            if 0 < len(having) <= COMMONEST:
                for number in having:
                    scores[number] += math.ceil(1000 / len(having))
        yield [number for number, _ in sorted(scores.items(), key=lambda each: (-each[1], each[0]))[:NEAREST]]
