"""Parsing of durations and addresses. Durations become whole microseconds."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

UNITS_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
DURATION_PATTERN: Final = r"^(\d+(us|ms|s|m|h|d|w))+$"
_DURATION: Final = re.compile(DURATION_PATTERN)
_PART: Final = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")
_LISTEN: Final = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(?P<port>\d{1,5})$")
HIGHEST_PORT: Final = 65_535
LONGEST_US: Final = 100 * 365 * UNITS_US["d"]  # a century; more is a typing error and would overflow date arithmetic


class Listen(NamedTuple):
    """The address of the HTTP server; port 0 takes a free port."""

    host: str
    port: int


def duration_us(text: object) -> int:
    """`2s`, `10m`, `1h30m` in microseconds; the ValueError explains the format."""
    if not isinstance(text, str) or not _DURATION.match(text):
        raise ValueError("a duration is a whole number and a unit (us, ms, s, m, h, d, w), such as 2s, 10m or 1h30m")
    duration = sum(int(count) * UNITS_US[unit] for count, unit in _PART.findall(text))
    if duration > LONGEST_US:
        raise ValueError("a duration of more than a hundred years is not allowed")
    return duration


def listen_address(text: object) -> Listen:
    """`127.0.0.1:8787` or `[::1]:8787`; the ValueError explains the format."""
    match = _LISTEN.match(text) if isinstance(text, str) else None
    if match is None or int(match["port"]) > HIGHEST_PORT:
        raise ValueError("an address is host:port, such as 127.0.0.1:8787 or [::1]:8787")
    return Listen(match["host"].strip("[]"), int(match["port"]))
