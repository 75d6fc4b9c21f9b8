"""Text → syntax tree, by the library's parser, which returns a serialized cel.expr.ParsedExpr (cel-spec, syntax.proto).

This module decodes its wire format: the field numbers below are those of syntax.proto.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from cel_expr_python import cel

from cdc_merge.conflicts.expression_port import ExpressionError

LONGEST: Final = 4_000  # characters; a longer rule cannot be reviewed
DEEPEST: Final = 100  # levels of the tree: the decoder is recursive


class Const(NamedTuple):
    """A literal: bool, int, Decimal, str, bytes or None."""

    id: int
    value: Any


class Name(NamedTuple):
    id: int
    name: str


class Select(NamedTuple):
    """`operand.field`; with `test` it is `has(operand.field)`."""

    id: int
    operand: Node
    field: str
    test: bool


class Call(NamedTuple):
    """An operator or function; with `member` the target of the call is the first of `args`."""

    id: int
    function: str
    args: tuple[Node, ...]
    member: bool


class Items(NamedTuple):
    """A list literal."""

    id: int
    items: tuple[Node, ...]


class Loop(NamedTuple):
    """A comprehension: the expansion of the macros all, exists, exists_one, filter and map."""

    id: int
    item: str
    over: Node
    result_name: str
    start: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = "Const | Name | Select | Call | Items | Loop"


class SyntaxTree(NamedTuple):
    """A parsed text. `offsets`: node id → offset in characters."""

    text: str
    root: Node
    offsets: dict[int, int]

    def error(self, node: Node, sentence: str, hint: str = "") -> ExpressionError:
        """An error at a node, with its line and column."""
        before = self.text[: self.offsets.get(node.id, 0)]
        line = before.count("\n") + 1
        return ExpressionError(sentence, line=line, column=len(before) - before.rfind("\n"), hint=hint)


_ENV: Final = cel.NewEnv()
_LOCATED: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


def parse(text: str) -> SyntaxTree:
    """The syntax tree. ExpressionError with line and column of a syntax error."""
    if len(text) > LONGEST:
        raise ExpressionError(f"an expression has at most {LONGEST} characters")
    try:
        wire = _ENV.compile(text, disable_check=True).serialize()
    except RuntimeError as error:
        raise _syntax_error(str(error)) from None
    message = _one(wire, 2)  # google.protobuf.Any: type_url = 1, value = 2
    offsets = {_number(entry, 1): _number(entry, 2) for entry in _all(_one(message, 3), 4)}
    return SyntaxTree(text, _node(_one(message, 2), 0), offsets)


def _syntax_error(message: str) -> ExpressionError:
    located = _LOCATED.search(message)
    if located is None:
        return ExpressionError("this is not a CEL expression")
    sentence = located[3].partition(" expecting {")[0].replace("'<EOF>'", "end of text")
    return ExpressionError(f"this is not CEL: {sentence}", line=int(located[1]), column=int(located[2]))


# ---------------------------------------------------------------- the tree


def _node(wire: bytes, depth: int) -> Node:
    if depth > DEEPEST:
        raise ExpressionError("this is nested too deeply")
    fields = dict(_fields(wire))
    identity = fields.get(2, 0)
    kind = next((number for number in _KINDS if number in fields), 0)
    if kind not in _KINDS:
        raise ExpressionError("messages and mappings cannot be written in an expression", hint="Use a list.")
    return _KINDS[kind](identity, fields[kind], depth + 1)


def _const(identity: int, wire: bytes, depth: int) -> Const:
    (number, raw), *_ = _fields(wire)
    return Const(identity, _CONSTANTS[number](raw))


def _name(identity: int, wire: bytes, depth: int) -> Name:
    return Name(identity, _text(wire, 1))


def _select(identity: int, wire: bytes, depth: int) -> Select:
    return Select(identity, _node(_one(wire, 1), depth), _text(wire, 2), bool(_number(wire, 3)))


def _call(identity: int, wire: bytes, depth: int) -> Call:
    target = [_node(raw, depth) for raw in _all(wire, 1)]
    args = [_node(raw, depth) for raw in _all(wire, 3)]
    return Call(identity, _text(wire, 2), (*target, *args), bool(target))


def _items(identity: int, wire: bytes, depth: int) -> Items:
    return Items(identity, tuple(_node(raw, depth) for raw in _all(wire, 1)))


def _loop(identity: int, wire: bytes, depth: int) -> Loop:
    parts = [_node(_one(wire, number), depth) for number in (2, 4, 5, 6, 7)]
    return Loop(identity, _text(wire, 1), parts[0], _text(wire, 3), *parts[1:])


_KINDS: Final[Mapping[int, Callable[[int, bytes, int], Node]]] = {
    3: _const,
    4: _name,
    5: _select,
    6: _call,
    7: _items,
    9: _loop,
}


def _exact(raw: bytes) -> Any:
    """A floating-point literal denotes the shortest decimal that reads as it, as in the text."""
    return Decimal(repr(struct.unpack("<d", raw)[0]))


def _signed(raw: int) -> int:
    return raw - (1 << 64) if raw >> 63 else raw


_CONSTANTS: Final[Mapping[int, Callable[[Any], Any]]] = {
    1: lambda raw: None,
    2: bool,
    3: _signed,
    4: int,
    5: _exact,
    6: lambda raw: raw.decode(),
    7: bytes,
}


# ---------------------------------------------------------------- the wire format (protobuf.dev, Encoding)


def _fields(wire: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message: an int for varints, bytes for the rest."""
    at = 0
    while at < len(wire):
        tag, at = _varint(wire, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(wire, at)
            yield number, value
            continue
        length, at = (8, at) if kind == 1 else _varint(wire, at)
        yield number, wire[at : at + length]
        at += length


def _varint(wire: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wire[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _all(wire: bytes, number: int) -> list[bytes]:
    return [value for field, value in _fields(wire) if field == number]


def _one(wire: bytes, number: int) -> bytes:
    values = _all(wire, number)
    return values[-1] if values else b""


def _number(wire: bytes, number: int) -> int:
    return next((value for field, value in _fields(wire) if field == number), 0)


def _text(wire: bytes, number: int) -> str:
    return _one(wire, number).decode()
