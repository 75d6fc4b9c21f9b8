"""The port for expressions: checks over `record`, rules over `old` and `new` (semantics §3, Checks).

The application passes in a `Compile`; nothing here depends on a grammar. An operand that is NULL or unknown makes the
result UNKNOWN, unless the rest decides without it; so does an error at run time, which is counted besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from cdc_merge.errors import CdcMergeError
from cdc_merge.model import MaybeValue

Variables: TypeAlias = "Mapping[str, str | Mapping[str, str]]"
"""Name → value type ("" while the type is unknown), or for a record: field → value type."""

Values: TypeAlias = "Mapping[str, MaybeValue | Mapping[str, MaybeValue]]"
"""Name → value, or for a record: field → value. Names that are left out are unknown."""


class ExpressionError(CdcMergeError):
    """The text is not an expression over these variables. `line` and `column` count from 1, within the text."""

    def __init__(self, sentence: str, *, line: int = 1, column: int = 1, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)
        self.line = line
        self.column = column


class Expression(Protocol):
    """A compiled expression. `fields`: those of `record` that it reads; `errors`: its failures at run time."""

    fields: frozenset[str]
    errors: int

    def evaluate(self, values: Values) -> MaybeValue:
        """Its value, UNKNOWN when operands are NULL or unknown or when it fails. Never raises."""
        ...


class Compile(Protocol):
    """Makes expressions. ExpressionError has line and column of the problem: grammar, unknown fields, types."""

    def __call__(self, text: str, variables: Variables, result: str = "boolean") -> Expression: ...
