"""Postgres array text → nested tuples ("Array Input and Output Syntax", Postgres documentation §8.15.6).

An array whose lower bounds are not 1 (`[0:1]={1,2}`) is not representable as a tuple; it stays the text that the database
wrote, and is thus unequal to `{1,2}`, as it is for Postgres.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from cdc_merge.model import Value
from cdc_merge.values.json_text import unescaped

_BOUNDS: Final = re.compile(r"((?:\[-?\d+:-?\d+\])+)=(?=\{)", re.ASCII)
_LOWER_BOUND: Final = re.compile(r"\[(-?\d+):", re.ASCII)
_TOKENS: Final = {
    delimiter: re.compile(rf'[{{}}]|{delimiter}|"(?:[^"\\]|\\.)*"|[^{{}}"{delimiter}]+', re.DOTALL)
    for delimiter in ",;"
}


def array_reader(read: Callable[[bytes], Value], delimiter: str = ",") -> Callable[[bytes], Value]:
    """A reader of arrays whose elements `read` reads. Only the type box separates its elements by `;`."""
    tokens = _TOKENS[delimiter]

    def read_array(cell: bytes) -> Value:
        text = cell.decode()
        bounds = _BOUNDS.match(text)
        if bounds is not None:
            if any(lower != "1" for lower in _LOWER_BOUND.findall(bounds[1])):
                return text
            text = text[bounds.end() :]
        elements = tokens.findall(text)
        if sum(map(len, elements)) != len(text):
            raise ValueError("an array element is not closed")
        return _nested(elements, read, delimiter)

    return read_array


def _nested(tokens: Iterable[str], read: Callable[[bytes], Value], delimiter: str) -> tuple[Value, ...]:
    root: list[Value] = []
    open_lists = [root]
    after_element = False
    for token in tokens:
        if after_element and token not in (delimiter, "}"):
            raise ValueError("array elements are not separated")
        if token == "{":
            open_lists.append([])
        elif token == "}":
            closed = tuple(open_lists.pop())
            open_lists[-1].append(closed)  # IndexError: more braces close than open
            after_element = True
        elif token == delimiter:
            after_element = False
        else:
            open_lists[-1].append(_element(token, read))
            after_element = True
    if len(open_lists) != 1 or len(root) != 1 or not isinstance(root[0], tuple):
        raise ValueError("array braces do not match")
    return root[0]


def _element(token: str, read: Callable[[bytes], Value]) -> Value:
    if token[0] == '"':
        return read(unescaped(token[1:-1]).encode())
    return None if token.upper() == "NULL" else read(token.encode())
