"""Similarity of names, types and columns, from 0 to 1. Pure.

Names are compared by their words, in the singular and with synonyms unified; the table's name as prefix of a column
(`partner_name` of `partner`) is ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from cdc_merge.doctor.proposal.catalog_sample import ColumnSeen

NUMBERS: Final = frozenset({"integer", "decimal"})
DIFFERENT_WORDS: Final = 0.7  # the largest score by letters alone, without a common word
FEWEST_VALUES: Final = 5  # fewer distinct values are equal by chance: yes and no, open and closed

# One line per idea: the first word stands for the others.
SYNONYMS: Final = """
customer client partner debtor account buyer
supplier vendor creditor
order purchase sale head header
contract agreement
invoice bill
product item article sku material
employee staff worker
name fullname
title subject heading
phone mobile tel telephone cell cellphone handset
email mail emailaddress
code no number nr num key ref id
amount total sum value price
balance open outstanding remaining
status state stage phase
remark note memo comment body description text
tag label category keyword
point bonus score credit
last latest recent
contact seen reminder visit touch
due promised deadline expected
payment pay days term
party signed signer signatory
address street addr
city town
province region county
zip postcode postal zipcode
country nation
quantity qty count stock
currency cur
tax vat taxno
gender sex
birthday birthdate dob born
company firm organisation organization corporation
manager owner responsible
begin start from
end finish until
"""
FILLING: Final = frozenset({"the", "of", "to", "by", "at", "in", "tbl", "t", "tab", "sys", "data"})
_CANONICAL: Final = {word: line.split()[0] for line in SYNONYMS.strip().splitlines() for word in line.split()}
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


@lru_cache(maxsize=20_000)  # every name of a few large schemas
def words(name: str) -> frozenset[str]:
    """The words of a name, each as the first of its synonyms."""
    folded = (word.casefold() for word in _WORDS.findall(name))
    return frozenset(_canonical(word) for word in folded if word not in FILLING)


def _canonical(word: str) -> str:
    for form in (word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word)):
        if form in _CANONICAL:
            return _CANONICAL[form]
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def of_names(one: str, other: str, tables: Iterable[str] = ()) -> float:
    """`tables` are the names of the tables that the columns belong to."""
    if one.casefold() == other.casefold():
        return 1.0
    table_words = frozenset[str]().union(*(words(table) for table in tables))
    left, right = words(one) - table_words or words(one), words(other) - table_words or words(other)
    if left == right and left:
        return 0.95
    if left & right:
        # `contact_phone` contains `phone`: half the score for the shared words, half for their share of the shorter name.
        share = len(left & right)
        return 0.9 * (share / len(left | right) + share / min(len(left), len(right))) / 2
    return DIFFERENT_WORDS * _by_letters(one.casefold(), other.casefold())


@lru_cache(maxsize=200_000)  # large schemas repeat the same columns in every table
def _by_letters(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def of_types(one: str, other: str) -> float:
    """0 when values of these types cannot be compared."""
    if one == other:
        return 1.0
    return 0.9 if {one, other} <= NUMBERS else 0.0


def of_values(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of the smaller sample that is in the other as well; 0 for small samples."""
    if min(len(one), len(other)) < FEWEST_VALUES:
        return 0.0
    return len(one & other) / min(len(one), len(other))


def of_columns(one: ColumnSeen, other: ColumnSeen, tables: Iterable[str]) -> float:
    """Common values raise the score; different samples do not lower it."""
    types = of_types(one.value_type, other.value_type)
    if not types:
        return 0.0
    by_name = types * of_names(one.name, other.name, tables)
    return 1 - (1 - by_name) * (1 - 0.8 * of_values(one.sample, other.sample))
