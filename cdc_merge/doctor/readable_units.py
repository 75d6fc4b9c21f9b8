"""Readable sizes and durations. Pure."""

from __future__ import annotations

from typing import Final

_BYTES: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_SECONDS: Final = (("days", 86400.0), ("h", 3600.0), ("min", 60.0))


def size(count: float) -> str:
    """`1.5 GiB`; exact below a kibibyte."""
    for unit, unit_bytes in _BYTES:
        if abs(count) >= unit_bytes:
            return f"{count / unit_bytes:.1f} {unit}"
    return f"{count:.0f} bytes"


def span(seconds: float) -> str:
    """`2.0 h`; in the largest unit that gives at least 1.5."""
    for unit, unit_s in _SECONDS:
        if seconds >= 1.5 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"


def gib(count: float) -> int:
    """Bytes as whole gibibytes, rounded up."""
    return max(1, -int(-count // (1 << 30)))
