"""Syntax tree → type-checked closures. A closure maps the variables to a value or UNKNOWN.

NULL and unknown: an operator or function with such an operand is UNKNOWN; `&&`, `||` and `?:` evaluate only the
operands that decide them; a comparison with the literal `null` and `has(record.field)` test whether there is a value.
Errors at run time give UNKNOWN and are counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from cdc_merge.cel.operations import (
    ANY,
    BOOLEAN,
    BYTES,
    LIST,
    MAP,
    NULL,
    NUMBER,
    OPERATIONS,
    TEXT,
    Operation,
    kind_of,
    shown,
)
from cdc_merge.cel.syntax import Call, Const, Items, Loop, Name, Node, Select, SyntaxTree, parse
from cdc_merge.conflicts.expression_port import ExpressionError, Values, Variables
from cdc_merge.model import UNKNOWN, Json

Run: TypeAlias = Callable[[Mapping[str, Any]], Any]

_KINDS: Final = {
    "integer": NUMBER,
    "decimal": NUMBER,
    "float": NUMBER,
    "text": TEXT,
    "date": TEXT,
    "timestamp": TEXT,
    "boolean": BOOLEAN,
    "bytes": BYTES,
    "array": LIST,
}
"""Value type → kind; JSON and unknown types may be of any kind."""

_RESULTS: Final = {"boolean": BOOLEAN, "number": NUMBER, "text": TEXT}


class Built(NamedTuple):
    """A type-checked node: the kind of its value, and its closure."""

    kind: str
    run: Run


class CelExpression:
    """A compiled expression (conflicts/expression_port.py: Expression)."""

    __slots__ = ("_run", "errors", "fields")

    def __init__(self, run: Run, fields: frozenset[str]) -> None:
        self._run = run
        self.fields = fields
        self.errors = 0

    def evaluate(self, values: Values) -> Any:
        tally: list[Any] = []
        value = self._run({**values, _TALLY: tally})
        self.errors += bool(tally)
        return UNKNOWN if value is None else value


_TALLY: Final = "#errors"  # no identifier of an expression


def compile_expression(text: str, variables: Variables, result: str = "boolean") -> CelExpression:
    """CEL as the port's Compile (conflicts/expression_port.py)."""
    tree = parse(text)
    compiler = _Compiler(tree, variables)
    built = compiler.build(tree.root)
    required = _RESULTS[result]
    if built.kind not in (required, ANY):
        raise tree.error(tree.root, f"this gives {built.kind}, but {required} is required")
    return CelExpression(built.run, frozenset(compiler.fields))


class _Compiler:
    def __init__(self, tree: SyntaxTree, variables: Variables) -> None:
        self._tree = tree
        self._variables = variables
        self._locals: dict[str, str] = {}
        self.fields: set[str] = set()

    def build(self, node: Node) -> Built:
        return _BUILDERS[type(node)](self, node)

    def const(self, node: Const) -> Built:
        value = node.value
        return Built(kind_of(value), lambda env: value)

    def name(self, node: Name) -> Built:
        name = node.name
        if name in self._locals:
            return Built(self._locals[name], lambda env: env[name])
        if name not in self._variables:
            raise self._tree.error(
                node, f"there is no {name!r} here", "Variables: " + ", ".join(sorted(self._variables))
            )
        declared = self._variables[name]
        if not isinstance(declared, str):
            raise self._tree.error(node, f"{name} is a whole record", f"Select one of its fields: {name}.…")
        return Built(_KINDS.get(declared, ANY), lambda env: _cel_value(env.get(name, UNKNOWN)))

    # ------------------------------------------------------------ fields

    def select(self, node: Select) -> Built:
        if (field := self._record_field(node, node.operand, node.field)) is not None:
            return Built(BOOLEAN, _has_value(field.run)) if node.test else field
        operand = self.build(node.operand)
        if operand.kind not in (MAP, ANY):
            raise self._tree.error(node, f"{operand.kind} has no field {node.field!r}")
        run = _member(operand.run, node.field)
        return Built(BOOLEAN, _has_value(run)) if node.test else Built(ANY, run)

    def _record_field(self, node: Node, record: Node, field: str) -> Built | None:
        """`record.field` or `record["field"]` of a variable that is a record."""
        if not isinstance(record, Name) or record.name in self._locals:
            return None
        declared = self._variables.get(record.name)
        if declared is None or isinstance(declared, str):
            return None
        if field not in declared:
            raise self._tree.error(node, f"{record.name} has no field {field!r}", "Its fields: " + ", ".join(declared))
        name = record.name
        self.fields.add(field)
        return Built(
            _KINDS.get(declared[field], ANY), lambda env: _cel_value(env.get(name, _NO_FIELDS).get(field, UNKNOWN))
        )

    # ------------------------------------------------------------ operators and functions

    def call(self, node: Call) -> Built:
        if (field := self._indexed_field(node)) is not None:
            return field
        args = [self.build(arg) for arg in node.args]
        if node.function in _SPECIAL:
            return self._special(node, args)
        if node.function in ("_==_", "_!=_") and NULL in (args[0].kind, args[1].kind):
            return Built(BOOLEAN, _null_test(args, equal=node.function == "_==_"))
        overloads = self._overloads(node, [arg.kind for arg in args])
        gives = overloads[0].gives if len({operation.gives for operation in overloads}) == 1 else ANY
        return Built(gives, _apply_overload(overloads, [arg.run for arg in args]))

    def _indexed_field(self, node: Call) -> Built | None:
        index = node.args[-1]
        if node.function != "_[_]" or not isinstance(index, Const) or not isinstance(index.value, str):
            return None
        return self._record_field(node, node.args[0], index.value)

    def _special(self, node: Call, args: list[Built]) -> Built:
        conditions = args[:1] if node.function == "_?_:_" else args
        for condition in conditions:
            if condition.kind not in (BOOLEAN, ANY):
                raise self._tree.error(node, f"{_SPECIAL[node.function][0]} needs a boolean, not {condition.kind}")
        run = _SPECIAL[node.function][1](*[arg.run for arg in args])
        if node.function != "_?_:_":
            return Built(BOOLEAN, run)
        return Built(args[1].kind if args[1].kind == args[2].kind else ANY, run)

    def _overloads(self, node: Call, kinds: list[str]) -> tuple[Operation, ...]:
        """The overloads of a function that operands of these kinds may select."""
        operations = OPERATIONS.get(node.function)
        if operations is None:
            raise self._tree.error(node, f"there is no function {node.function!r}")
        overloads = tuple(
            operation
            for operation in operations
            if len(operation.takes) == len(kinds)
            and all(ANY in (kind, taken) or kind == taken for kind, taken in zip(kinds, operation.takes, strict=True))
        )
        never_equal = node.function in ("_==_", "_!=_") and ANY not in kinds and kinds[0] != kinds[1]
        if not overloads or never_equal:
            raise self._tree.error(node, f"{shown(node.function)} does not take {' and '.join(kinds)}")
        return overloads

    # ------------------------------------------------------------ lists and macros

    def items(self, node: Items) -> Built:
        runs = [self.build(item).run for item in node.items]
        return Built(LIST, lambda env: [run(env) for run in runs])

    def loop(self, node: Loop) -> Built:
        over, start = self.build(node.over), self.build(node.start)
        if over.kind not in (LIST, MAP, ANY):
            raise self._tree.error(node, f"{over.kind} has no items to iterate over")
        before = dict(self._locals)
        self._locals |= {node.item: ANY, node.result_name: ANY}
        condition, step, result = (self.build(part).run for part in (node.condition, node.step, node.result))
        self._locals = before
        return Built(ANY, _loop(node, (over.run, start.run), (condition, step, result)))


_BUILDERS: Final[Mapping[type, Callable[[_Compiler, Any], Built]]] = {
    Const: _Compiler.const,
    Name: _Compiler.name,
    Select: _Compiler.select,
    Call: _Compiler.call,
    Items: _Compiler.items,
    Loop: _Compiler.loop,
}

_NO_FIELDS: Final[Mapping[str, Any]] = {}


# ---------------------------------------------------------------- values


def _cel_value(value: Any) -> Any:
    """A field's value in an expression: a double is the shortest decimal that denotes it, JSON is parsed."""
    if type(value) is float:
        return Decimal(repr(value))
    if type(value) is Json:
        return json.loads(value, parse_float=Decimal)
    return value


def _blank(value: Any) -> bool:
    return value is None or value is UNKNOWN


def _has_value(run: Run) -> Run:
    return lambda env: not _blank(run(env))


def _null_test(args: list[Built], *, equal: bool) -> Run:
    """A comparison with the literal null: the only operator for which NULL is a value; UNKNOWN stays UNKNOWN."""
    other = args[0] if args[1].kind == NULL else args[1]

    def run(env: Mapping[str, Any]) -> Any:
        value = other.run(env)
        return UNKNOWN if value is UNKNOWN else (value is None) == equal

    return run


def _member(operand: Run, field: str) -> Run:
    def run(env: Mapping[str, Any]) -> Any:
        value = operand(env)
        return value.get(field, UNKNOWN) if type(value) is dict else UNKNOWN

    return run


# ---------------------------------------------------------------- running


def _apply_overload(operations: tuple[Operation, ...], args: list[Run]) -> Run:
    """The overload is selected by the operands' types and cached: they seldom change."""
    cached: dict[tuple[type, ...], Callable[..., Any]] = {}

    def run(env: Mapping[str, Any]) -> Any:
        values = [arg(env) for arg in args]
        types = tuple(map(type, values))
        apply = cached.get(types)
        if apply is None:
            apply = cached[types] = _select_overload(operations, values)
        try:
            return apply(*values)
        except (ArithmeticError, LookupError, ValueError, TypeError):
            env[_TALLY].append(None)
            return UNKNOWN

    return run


def _select_overload(operations: tuple[Operation, ...], values: list[Any]) -> Callable[..., Any]:
    if any(map(_blank, values)):
        return _unknown
    kinds = [kind_of(value) for value in values]
    for operation in operations:
        if all(taken in (ANY, kind) for taken, kind in zip(operation.takes, kinds, strict=True)):
            return operation.apply
    return _no_overload


def _unknown(*values: Any) -> Any:
    return UNKNOWN


def _no_overload(*values: Any) -> Any:
    raise TypeError("no overload of this function takes these kinds")


def _and(left: Run, right: Run) -> Run:
    """`&&`: false when either side is false, whatever the other is."""

    def run(env: Mapping[str, Any]) -> Any:
        one = left(env)
        if one is False:
            return False
        other = right(env)
        if other is False:
            return False
        return True if one is True and other is True else UNKNOWN

    return run


def _or(left: Run, right: Run) -> Run:
    def run(env: Mapping[str, Any]) -> Any:
        one = left(env)
        if one is True:
            return True
        other = right(env)
        if other is True:
            return True
        return False if one is False and other is False else UNKNOWN

    return run


def _conditional(condition: Run, then: Run, otherwise: Run) -> Run:
    def run(env: Mapping[str, Any]) -> Any:
        decided = condition(env)
        if decided is True:
            return then(env)
        return otherwise(env) if decided is False else UNKNOWN

    return run


_SPECIAL: Final[Mapping[str, tuple[str, Callable[..., Run]]]] = {
    "_&&_": ("&&", _and),
    "_||_": ("||", _or),
    "_?_:_": ("?:", _conditional),
}
"""Operators that do not need all of their operands."""


def _loop(node: Loop, begins: tuple[Run, Run], parts: tuple[Run, Run, Run]) -> Run:
    over, start = begins
    condition, step, result = parts
    item, total = node.item, node.result_name

    def run(env: Mapping[str, Any]) -> Any:
        items = over(env)
        if _blank(items) or isinstance(items, str | bytes | int | Decimal):
            return UNKNOWN
        inner = {**env, total: start(env)}
        for each in items:
            inner[item] = each
            if condition(inner) is False:
                break
            inner[total] = step(inner)
        return result(inner)

    return run


__all__ = ["CelExpression", "ExpressionError", "compile_expression"]
