"""The options of each merge type, and the column types it can merge (semantics §3). One line per merge type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

ORDERED: Final = frozenset({"text", "integer", "decimal", "float", "date", "timestamp"})
NUMBERS: Final = frozenset({"integer", "decimal"})
COLLECTIONS: Final = frozenset({"array", "json", "text"})
TEXT: Final = frozenset({"text"})


class Options(NamedTuple):
    """`allowed` are the type's own keys, `required` the mandatory ones; `wins` the values of that key.

    `value_types` are the column types that it can merge; None: any. `groups`: a group may use it. `agrees`: equal values
    may count as having seen each other.
    """

    allowed: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    wins: tuple[str | bool, ...] = ()
    value_types: frozenset[str] | None = None
    groups: bool = False
    agrees: bool = True
    needs_marked_copies: bool = False


OPTIONS: Final[Mapping[str, Options]] = {
    "mv": Options(groups=True),
    "lww": Options(groups=True),
    "priority": Options(allowed=frozenset({"order"}), required=frozenset({"order"}), groups=True),
    "counter": Options(allowed=frozenset({"min", "max"}), value_types=NUMBERS, agrees=False, needs_marked_copies=True),
    "max": Options(value_types=ORDERED),
    "min": Options(value_types=ORDERED),
    "set": Options(
        allowed=frozenset({"separator", "wins"}),
        wins=("add", "remove"),
        value_types=COLLECTIONS,
        agrees=False,
        needs_marked_copies=True,
    ),
    "map": Options(allowed=frozenset({"keys"}), value_types=frozenset({"json"})),
    "flag": Options(allowed=frozenset({"wins"}), wins=(True, False), value_types=frozenset({"boolean"})),
    "lattice": Options(allowed=frozenset({"order"}), required=frozenset({"order"}), value_types=TEXT),
    "append": Options(value_types=TEXT, agrees=False, needs_marked_copies=True),
    "immutable": Options(groups=True),
}

KEYS: Final = ("min", "max", "separator", "wins", "order", "keys")
"""Every key that belongs to some merge types; the other keys of a field belong to all."""
