"""Syntax tree → checked closures. A closure takes the variables and gives a value, or UNKNOWN.

NULL and unknown: an operator or function with such an operand is UNKNOWN; `&&`, `||` and `?:` need only what decides
them; comparing with the literal `null` asks whether there is a value, and so does `has(record.field)`. Errors at run
time are UNKNOWN and counted.
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
from cdc_merge.cel.syntax import Call, Const, Items, Loop, Name, Node, Select, Tree, parsed
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
"""Value type → kind; JSON and what is not known yet may be anything."""

_RESULTS: Final = {"boolean": BOOLEAN, "number": NUMBER, "text": TEXT}


class Built(NamedTuple):
    """A checked node: what kind of value it gives, and how."""

    kind: str
    run: Run


class CelExpression:
    """decision.expression.Expression."""

    __slots__ = ("_run", "errors", "fields")

    def __init__(self, run: Run, fields: frozenset[str]) -> None:
        self._run = run
        self.fields = fields
        self.errors = 0

    def evaluate(self, values: Values) -> Any:
        tally: list[Any] = []
        found = self._run({**values, _TALLY: tally})
        self.errors += bool(tally)
        return UNKNOWN if found is None else found


_TALLY: Final = "#errors"  # no name that a text could have


def compile_expression(text: str, variables: Variables, result: str = "boolean") -> CelExpression:
    """decision.expression.Compile, for CEL."""
    tree = parsed(text)
    compiler = _Compiler(tree, variables)
    built = compiler.build(tree.root)
    wanted = _RESULTS[result]
    if built.kind not in (wanted, ANY):
        raise tree.error(tree.root, f"this gives {built.kind}, and {wanted} is wanted")
    return CelExpression(built.run, frozenset(compiler.fields))


class _Compiler:
    def __init__(self, tree: Tree, variables: Variables) -> None:
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
                node, f"there is no {name!r} here", "It knows: " + ", ".join(sorted(self._variables))
            )
        declared = self._variables[name]
        if not isinstance(declared, str):
            raise self._tree.error(node, f"{name} is a whole record", f"Name one of its fields: {name}.…")
        return Built(_KINDS.get(declared, ANY), lambda env: _entered(env.get(name, UNKNOWN)))

    # ------------------------------------------------------------ fields

    def select(self, node: Select) -> Built:
        if (found := self._field(node, node.operand, node.field)) is not None:
            return Built(BOOLEAN, _is_there(found.run)) if node.test else found
        operand = self.build(node.operand)
        if operand.kind not in (MAP, ANY):
            raise self._tree.error(node, f"{operand.kind} has no field {node.field!r}")
        run = _selected(operand.run, node.field)
        return Built(BOOLEAN, _is_there(run)) if node.test else Built(ANY, run)

    def _field(self, node: Node, record: Node, field: str) -> Built | None:
        """`record.field` or `record["field"]` of a variable that is a record."""
        if not isinstance(record, Name) or record.name in self._locals:
            return None
        declared = self._variables.get(record.name)
        if declared is None or isinstance(declared, str):
            return None
        if field not in declared:
            raise self._tree.error(node, f"{record.name} has no field {field!r}", "It has: " + ", ".join(declared))
        name = record.name
        self.fields.add(field)
        return Built(
            _KINDS.get(declared[field], ANY), lambda env: _entered(env.get(name, _NOTHING).get(field, UNKNOWN))
        )

    # ------------------------------------------------------------ operators and functions

    def call(self, node: Call) -> Built:
        if (found := self._indexed(node)) is not None:
            return found
        args = [self.build(arg) for arg in node.args]
        if node.function in _SPECIAL:
            return self._special(node, args)
        if node.function in ("_==_", "_!=_") and NULL in (args[0].kind, args[1].kind):
            return Built(BOOLEAN, _null_test(args, equal=node.function == "_==_"))
        fitting = self._fitting(node, [arg.kind for arg in args])
        gives = fitting[0].gives if len({operation.gives for operation in fitting}) == 1 else ANY
        return Built(gives, _applied(fitting, [arg.run for arg in args]))

    def _indexed(self, node: Call) -> Built | None:
        index = node.args[-1]
        if node.function != "_[_]" or not isinstance(index, Const) or not isinstance(index.value, str):
            return None
        return self._field(node, node.args[0], index.value)

    def _special(self, node: Call, args: list[Built]) -> Built:
        conditions = args[:1] if node.function == "_?_:_" else args
        for condition in conditions:
            if condition.kind not in (BOOLEAN, ANY):
                raise self._tree.error(node, f"{_SPECIAL[node.function][0]} needs a boolean, not {condition.kind}")
        run = _SPECIAL[node.function][1](*[arg.run for arg in args])
        if node.function != "_?_:_":
            return Built(BOOLEAN, run)
        return Built(args[1].kind if args[1].kind == args[2].kind else ANY, run)

    def _fitting(self, node: Call, kinds: list[str]) -> tuple[Operation, ...]:
        known = OPERATIONS.get(node.function)
        if known is None:
            raise self._tree.error(node, f"there is no function {node.function!r}")
        fitting = tuple(
            operation
            for operation in known
            if len(operation.takes) == len(kinds) and all(map(_may_be, kinds, operation.takes))
        )
        told = " and ".join(kinds)
        compared = node.function in ("_==_", "_!=_") and ANY not in kinds and kinds[0] != kinds[1]
        if not fitting or compared:
            raise self._tree.error(node, f"{shown(node.function)} does not take {told}")
        return fitting

    # ------------------------------------------------------------ lists and macros

    def items(self, node: Items) -> Built:
        runs = [self.build(item).run for item in node.items]
        return Built(LIST, lambda env: [run(env) for run in runs])

    def loop(self, node: Loop) -> Built:
        over, start = self.build(node.over), self.build(node.start)
        if over.kind not in (LIST, MAP, ANY):
            raise self._tree.error(node, f"{over.kind} has no items to go through")
        before = dict(self._locals)
        self._locals |= {node.item: ANY, node.result_name: ANY}
        goes_on, step, result = (self.build(part).run for part in (node.goes_on, node.step, node.result))
        self._locals = before
        return Built(ANY, _looped(node, (over.run, start.run), (goes_on, step, result)))


_BUILDERS: Final[Mapping[type, Callable[[_Compiler, Any], Built]]] = {
    Const: _Compiler.const,
    Name: _Compiler.name,
    Select: _Compiler.select,
    Call: _Compiler.call,
    Items: _Compiler.items,
    Loop: _Compiler.loop,
}

_NOTHING: Final[Mapping[str, Any]] = {}


def _may_be(kind: str, taken: str) -> bool:
    return ANY in (kind, taken) or kind == taken


# ---------------------------------------------------------------- values


def _entered(value: Any) -> Any:
    """A field's value as expressions know it: a double is the shortest decimal that denotes it, JSON is what it
    holds."""
    if type(value) is float:
        return Decimal(repr(value))
    if type(value) is Json:
        return json.loads(value, parse_float=Decimal)
    return value


def _blank(value: Any) -> bool:
    return value is None or value is UNKNOWN


def _is_there(run: Run) -> Run:
    return lambda env: not _blank(run(env))


def _null_test(args: list[Built], *, equal: bool) -> Run:
    """A comparison with the literal null is the one place where NULL is an answer; the unknown stays unknown."""
    other = args[0] if args[1].kind == NULL else args[1]

    def run(env: Mapping[str, Any]) -> Any:
        value = other.run(env)
        return UNKNOWN if value is UNKNOWN else (value is None) == equal

    return run


def _selected(operand: Run, field: str) -> Run:
    def run(env: Mapping[str, Any]) -> Any:
        value = operand(env)
        return value.get(field, UNKNOWN) if type(value) is dict else UNKNOWN

    return run


# ---------------------------------------------------------------- running


def _applied(operations: tuple[Operation, ...], args: list[Run]) -> Run:
    """The meaning of a function is chosen by the types of its operands, and remembered: they seldom change."""
    known: dict[tuple[type, ...], Callable[..., Any]] = {}

    def run(env: Mapping[str, Any]) -> Any:
        values = [arg(env) for arg in args]
        types = tuple(map(type, values))
        apply = known.get(types)
        if apply is None:
            apply = known[types] = _meaning(operations, values)
        try:
            return apply(*values)
        except (ArithmeticError, LookupError, ValueError, TypeError):
            env[_TALLY].append(None)
            return UNKNOWN

    return run


def _meaning(operations: tuple[Operation, ...], values: list[Any]) -> Callable[..., Any]:
    if any(map(_blank, values)):
        return _unknown
    kinds = [kind_of(value) for value in values]
    fitting = (o for o in operations if all(t in (ANY, kind) for t, kind in zip(o.takes, kinds, strict=True)))
    operation = next(fitting, None)
    return _refused if operation is None else operation.apply


def _unknown(*values: Any) -> Any:
    return UNKNOWN


def _refused(*values: Any) -> Any:
    raise TypeError("no meaning of this function takes these kinds")


def _all(left: Run, right: Run) -> Run:
    """`&&`: false when either side is, whatever the other says."""

    def run(env: Mapping[str, Any]) -> Any:
        one = left(env)
        if one is False:
            return False
        other = right(env)
        if other is False:
            return False
        return True if one is True and other is True else UNKNOWN

    return run


def _any(left: Run, right: Run) -> Run:
    def run(env: Mapping[str, Any]) -> Any:
        one = left(env)
        if one is True:
            return True
        other = right(env)
        if other is True:
            return True
        return False if one is False and other is False else UNKNOWN

    return run


def _chosen(condition: Run, then: Run, otherwise: Run) -> Run:
    def run(env: Mapping[str, Any]) -> Any:
        decided = condition(env)
        if decided is True:
            return then(env)
        return otherwise(env) if decided is False else UNKNOWN

    return run


_SPECIAL: Final[Mapping[str, tuple[str, Callable[..., Run]]]] = {
    "_&&_": ("&&", _all),
    "_||_": ("||", _any),
    "_?_:_": ("?:", _chosen),
}
"""What does not need all of its operands."""


def _looped(node: Loop, begins: tuple[Run, Run], parts: tuple[Run, Run, Run]) -> Run:
    over, start = begins
    goes_on, step, result = parts
    item, total = node.item, node.result_name

    def run(env: Mapping[str, Any]) -> Any:
        items = over(env)
        if _blank(items) or isinstance(items, str | bytes | int | Decimal):
            return UNKNOWN
        inner = {**env, total: start(env)}
        for each in items:
            inner[item] = each
            if goes_on(inner) is False:
                break
            inner[total] = step(inner)
        return result(inner)

    return run


__all__ = ["CelExpression", "ExpressionError", "compile_expression"]
