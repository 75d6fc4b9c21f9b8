"""The signatures of operators and functions: one table, OPERATIONS. To add a function, write it and add a line.

Numbers are one kind: exact integers and decimals. They mix, `+ - *` never round, `/` gives 50 digits, and the range
includes the largest double. NaN equals itself and is greater than every number, as in Postgres.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any, Final, NamedTuple

from cel_expr_python import cel

ANY, NUMBER, TEXT, BOOLEAN, BYTES, LIST, MAP, NULL = (
    "any",
    "a number",
    "text",
    "a boolean",
    "bytes",
    "a list",
    "a mapping",
    "null",
)

# More digits than a numeric column can have (131072 before the point, 16383 after): sums and products never round.
_EXACT: Final = Context(prec=150_000)
_QUOTIENT: Final = Context(prec=50)


class Operation(NamedTuple):
    """One overload of a function: the kinds of its operands, the kind of its result, and the implementation."""

    takes: tuple[str, ...]
    gives: str
    apply: Callable[..., Any]


def kind_of(value: Any) -> str:
    """The kind of a value at run time."""
    return _KIND_OF.get(type(value), ANY)


_KIND_OF: Final[Mapping[type, str]] = {
    bool: BOOLEAN,
    int: NUMBER,
    Decimal: NUMBER,
    str: TEXT,
    bytes: BYTES,
    tuple: LIST,
    list: LIST,
    dict: MAP,
    type(None): NULL,
}


def _arithmetic(
    on_ints: Callable[[int, int], Any], on_decimals: Callable[[Decimal, Decimal], Decimal]
) -> Callable[..., Any]:
    def apply(left: Any, right: Any) -> Any:
        if type(left) is int and type(right) is int:
            return on_ints(left, right)
        return on_decimals(Decimal(left), Decimal(right))

    return apply


def _divide(left: Any, right: Any) -> Decimal:
    return _QUOTIENT.divide(Decimal(left), Decimal(right))


def _minus(value: Any) -> Any:
    return -value if type(value) is int else value.copy_negate()


def _absolute(value: Any) -> Any:
    return abs(value) if type(value) is int else value.copy_abs()


def _whole(value: Any) -> int:
    return int(Decimal(value).to_integral_value(rounding=ROUND_DOWN))


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def apply(left: Any, right: Any) -> bool:
        if type(left) is Decimal and left.is_nan() or type(right) is Decimal and right.is_nan():
            return compare(_is_nan(left), _is_nan(right))
        return compare(left, right)

    return apply


def _is_nan(value: Any) -> bool:
    return type(value) is Decimal and value.is_nan()


def same(left: Any, right: Any) -> bool:
    """Equal and of one kind; lists and mappings item by item. 1 is 1.0, and true is not 1."""
    kind = kind_of(left)
    if kind != kind_of(right):
        return False
    if kind == LIST:
        return len(left) == len(right) and all(map(same, left, right))
    if kind == MAP:
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right) or (_is_nan(left) and _is_nan(right))


def _different(left: Any, right: Any) -> bool:
    return not same(left, right)


def _within(item: Any, items: Any) -> bool:
    return any(same(item, each) for each in items)


def _item(items: Any, index: Any) -> Any:
    if not 0 <= index < len(items) or index != int(index):
        raise IndexError
    return items[int(index)]


_PATTERN: Final = cel.NewEnv(variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING})
_MATCHES: Final = _PATTERN.compile("text.matches(pattern)")


def _matches(text: str, pattern: str) -> bool:
    result = _MATCHES.eval(data={"text": text, "pattern": pattern})
    if result.type() != cel.Type.BOOL:
        raise ValueError("this is not a regular expression of RE2")
    return bool(result.value())


def _order(compare: Callable[[Any, Any], bool]) -> tuple[Operation, ...]:
    return tuple(Operation((kind, kind), BOOLEAN, _ordered(compare)) for kind in (NUMBER, TEXT, BYTES, BOOLEAN))


OPERATIONS: Final[Mapping[str, tuple[Operation, ...]]] = {
    "_+_": (
        Operation((NUMBER, NUMBER), NUMBER, _arithmetic(operator.add, _EXACT.add)),
        Operation((TEXT, TEXT), TEXT, operator.add),
        Operation((BYTES, BYTES), BYTES, operator.add),
        Operation((LIST, LIST), LIST, lambda left, right: [*left, *right]),
    ),
    "_-_": (Operation((NUMBER, NUMBER), NUMBER, _arithmetic(operator.sub, _EXACT.subtract)),),
    "_*_": (Operation((NUMBER, NUMBER), NUMBER, _arithmetic(operator.mul, _EXACT.multiply)),),
    "_/_": (Operation((NUMBER, NUMBER), NUMBER, _divide),),
    "_%_": (Operation((NUMBER, NUMBER), NUMBER, lambda left, right: _EXACT.remainder(Decimal(left), Decimal(right))),),
    "-_": (Operation((NUMBER,), NUMBER, _minus),),
    "!_": (Operation((BOOLEAN,), BOOLEAN, operator.not_),),
    "_<_": _order(operator.lt),
    "_<=_": _order(operator.le),
    "_>_": _order(operator.gt),
    "_>=_": _order(operator.ge),
    "_==_": (Operation((ANY, ANY), BOOLEAN, same),),
    "_!=_": (Operation((ANY, ANY), BOOLEAN, _different),),
    "@in": (Operation((ANY, LIST), BOOLEAN, _within), Operation((TEXT, MAP), BOOLEAN, lambda key, items: key in items)),
    "_[_]": (
        Operation((LIST, NUMBER), ANY, _item),
        Operation((MAP, TEXT), ANY, lambda items, key: items[key]),
    ),
    "abs": (Operation((NUMBER,), NUMBER, _absolute),),
    "size": tuple(Operation((kind,), NUMBER, len) for kind in (TEXT, LIST, MAP, BYTES)),
    "contains": (Operation((TEXT, TEXT), BOOLEAN, lambda text, part: part in text),),
    "startsWith": (Operation((TEXT, TEXT), BOOLEAN, str.startswith),),
    "endsWith": (Operation((TEXT, TEXT), BOOLEAN, str.endswith),),
    "matches": (Operation((TEXT, TEXT), BOOLEAN, _matches),),
    "int": (Operation((NUMBER,), NUMBER, _whole), Operation((TEXT,), NUMBER, _whole)),
    "uint": (Operation((NUMBER,), NUMBER, _whole), Operation((TEXT,), NUMBER, _whole)),
    "double": (Operation((NUMBER,), NUMBER, lambda value: value), Operation((TEXT,), NUMBER, Decimal)),
    "string": (
        Operation((TEXT,), TEXT, lambda text: text),
        Operation((NUMBER,), TEXT, lambda value: f"{value:f}" if isinstance(value, Decimal) else str(value)),
        Operation((BOOLEAN,), TEXT, lambda value: "true" if value else "false"),
    ),
    "bool": (Operation((BOOLEAN,), BOOLEAN, lambda value: value),),
    "dyn": (Operation((ANY,), ANY, lambda value: value),),
    "@not_strictly_false": (Operation((ANY,), BOOLEAN, lambda value: value is not False),),
}
"""By CEL's names of operators and functions (cel-spec, "List of Standard Definitions")."""

SIGNS: Final[Mapping[str, str]] = {"@in": "in", "_[_]": "[]"}


def shown(function: str) -> str:
    """The function as in the expression's text: `+`, `in`, `size`."""
    return SIGNS.get(function, function.replace("_", "") if function.startswith(("_", "-", "!")) else function)
