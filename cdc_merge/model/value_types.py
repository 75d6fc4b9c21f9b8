"""Field values: canonical, hashable, equal exactly when Postgres calls them equal (values/ makes them).

None (SQL NULL) · str (text, enum, date, timestamp and every type without a form of its own) · int · Decimal · bool ·
float · bytes · `Json` (canonical JSON text) · tuple (array). UNKNOWN is neither NULL nor a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Final, TypeAlias


class Unknown(Enum):
    """The type of UNKNOWN: a value that no source has sent; neither NULL nor a value."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN


class Json(str):
    """Canonical JSON text: keys sorted, no spaces, numbers exact. A class of its own, so that text stays text."""

    __slots__ = ()


Value: TypeAlias = "None | str | int | Decimal | bool | float | bytes | tuple[Value, ...]"


MaybeValue: TypeAlias = "Value | Unknown"


EMPTY: Final[Mapping[str, Value]] = {}
