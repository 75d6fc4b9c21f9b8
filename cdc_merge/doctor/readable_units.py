"""Bytes and seconds as people say them. Pure."""

from __future__ import annotations

from typing import Final

_BYTES: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_SECONDS: Final = (("days", 86400.0), ("h", 3600.0), ("min", 60.0))


def size(count: float) -> str:
    """`1.5 GiB`; exact below a kibibyte."""
    for unit, worth in _BYTES:
        if abs(count) >= worth:
            return f"{count / worth:.1f} {unit}"
    return f"{count:.0f} bytes"


def span(seconds: float) -> str:
    """`2.0 h`; the largest unit of which there is at least one and a half."""
    for unit, worth in _SECONDS:
        if seconds >= 1.5 * worth:
            return f"{seconds / worth:.1f} {unit}"
    return f"{seconds:.0f} s"


def gib(count: float) -> int:
    """Whole gibibytes that hold so many bytes."""
    return max(1, -int(-count // (1 << 30)))
