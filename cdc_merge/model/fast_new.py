"""`fast_new`: a NamedTuple made without its constructor, for values that are made once per row.

Measured: `tuple.__new__(Stamp, (…))` makes the same value as `Stamp(…)` in half the time, because the constructor of a
NamedTuple is a Python function. The call names no fields and fills in no defaults: the tuple must be complete and in order.
Elsewhere the constructor is used: it is checked by mypy.
"""

from __future__ import annotations

from typing import Final

fast_new: Final = tuple.__new__
