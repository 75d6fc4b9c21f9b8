"""Dates and timestamps as canonical text: ISO 8601, six digits of a second, instants in UTC with `Z`.

`infinity`, `-infinity`, years before Christ (` BC` at the end) and years above 9999 stay text: Postgres has them,
datetime does not. Dates are read as Postgres writes them (datestyle ISO) and as ISO 8601 does (`T`, `Z`).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

_INFINITE: Final = frozenset({"infinity", "-infinity"})
_DATE: Final = re.compile(r"(\d{4,7})-(\d\d)-(\d\d)( BC)?", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"(\d{4,6})(-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?( BC)?", re.ASCII
)
_ZERO_OFFSETS: Final = frozenset({"Z", "+00", "-00", "+00:00", "-00:00", "+0000", "-0000"})

# The Gregorian calendar repeats after 400 years, so any year can be moved to where datetime works.
_CYCLE_YEARS: Final = 400
_MOVED_TO: Final = 2000


def read_date(cell: bytes) -> str:
    """`2026-01-31`, `0044-03-15 BC`, `infinity`. ValueError when it is no date."""
    text = cell.decode()
    if _DATE.fullmatch(text) is None and text not in _INFINITE:
        raise ValueError("no date")
    return text


def read_timestamp(cell: bytes) -> str:
    """A timestamp without time zone: `2026-01-31T08:00:00.000000`. An offset is refused: it would be lost."""
    text = cell.decode()
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return _infinite(text)
    year, day, time, fraction, offset, era = match.groups()
    if offset:
        raise ValueError("a timestamp without time zone has no offset")
    return f"{year}{day}T{time}.{fraction or '':0<6}{era or ''}"


def read_timestamptz(cell: bytes) -> str:
    """An instant in UTC: `2026-01-31T08:00:00.000000Z`, whatever offset it came with. ValueError without an offset."""
    text = cell.decode()
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return _infinite(text)
    year, day, time, fraction, offset, era = match.groups()
    if offset is None:
        raise ValueError("an instant needs an offset")
    if offset not in _ZERO_OFFSETS:
        year, day, time, era = _in_utc(int(year), f"{day}T{time}", offset, era)
    return f"{year}{day}T{time}.{fraction or '':0<6}Z{era or ''}"


def _infinite(text: str) -> str:
    if text not in _INFINITE:
        raise ValueError("no timestamp")
    return text


def _in_utc(year: int, moment: str, offset: str, era: str | None) -> tuple[str, str, str, str]:
    astronomical = 1 - year if era else year
    cycles, within = divmod(astronomical - _MOVED_TO, _CYCLE_YEARS)
    moved = datetime.fromisoformat(f"{within + _MOVED_TO:04}{moment}") - _offset(offset)
    astronomical = moved.year + cycles * _CYCLE_YEARS
    shown, era = (astronomical, "") if astronomical > 0 else (1 - astronomical, " BC")
    return f"{shown:04}", f"{moved:-%m-%d}", f"{moved:%H:%M:%S}", era


def _offset(text: str) -> timedelta:
    digits = text[1:].replace(":", "").ljust(6, "0")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
    return -size if text[0] == "-" else size
