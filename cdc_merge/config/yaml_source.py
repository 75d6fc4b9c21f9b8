"""YAML 1.2 text → plain values, with the line of every path, and `${NAME}` replaced from the environment.

A tree consists of dict, list, str, int, Decimal, bool and None; keys are always text, numbers are exact. `{` and `}`
delimit a YAML mapping, so that `{ dsn: ${CRM_DSN} }` would not parse: references pass the parser between two private
characters and are replaced afterwards, and no value can be mistaken for YAML. A value with a reference is always text.
`$${` is a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cdc_merge.config.problems import ConfigProblem, Path, did_you_mean

Tree: TypeAlias = "dict[str, Tree] | list[Tree] | str | int | Decimal | bool | None"

_OPEN, _CLOSE, _LITERAL = "\ue000", "\ue001", "\ue002"
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CARRIED: Final = re.compile(f"{_OPEN}([A-Za-z_][A-Za-z0-9_]*){_CLOSE}")
DEEPEST: Final = 40  # no setting is deeper; an anchor that contains itself would never end
MOST_VALUES: Final = 100_000  # ten times a file of 300 tables; aliases of aliases would multiply without an end
TOO_DEEP: Final = f"this is nested too deeply: at most {DEEPEST} levels"


class _TooManyValuesError(Exception):
    """The file has more values than a configuration, its aliases counted as often as they are used."""


class _ShallowComposer(Composer):
    """A composer that ends at the first node below DEEPEST: the parser's own recursion has no limit."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST + 2:
            raise MarkedYAMLError(problem=TOO_DEEP, problem_mark=self.parser.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _parser() -> YAML:
    parser = YAML(typ="rt", pure=True)
    parser.Composer = _ShallowComposer
    return parser


class Document:
    """One parsed configuration file: `values`, the line of every path (from 1), and the problems of parsing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.values: dict[str, Tree] = {}
        self.lines: dict[Path, int] = {(): 1}
        self.problems: list[ConfigProblem] = []
        self._environment = environment
        self._values = 0

    def line(self, path: Path) -> int:
        """The line of a path, or of its nearest ancestor in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def read(self, text: str) -> None:
        """Parse the text; syntax errors, duplicate keys and empty references become problems."""
        carried = _REFERENCE.sub(rf"{_OPEN}\1{_CLOSE}", text.replace("$${", _LITERAL))
        try:
            root = _parser().compose(carried)
        except MarkedYAMLError as error:
            self.lines[("",)] = error.problem_mark.line + 1 if error.problem_mark else 1
            problem = _plain(error.problem or "syntax error")
            self.problems.append(
                ConfigProblem(("",), problem if problem == TOO_DEEP else f"this is not YAML: {problem}")
            )
            return
        except YAMLError:
            self.problems.append(ConfigProblem((), "this is not YAML: it contains characters that YAML forbids"))
            return
        if not isinstance(root, MappingNode):
            self.problems.append(
                ConfigProblem((), "the file is empty or not a mapping", "start with sources: and entities:")
            )
            return
        try:
            values = self._value(root, ())
        except _TooManyValuesError:
            sentence = f"the file has more than {MOST_VALUES} values, each alias counted as what it stands for"
            self.problems.append(ConfigProblem((), sentence, "use fewer aliases"))
            return
        assert isinstance(values, dict)  # noqa: S101 a MappingNode gives a dict
        self.values = values

    def _value(self, node: Node, path: Path) -> Tree:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _TooManyValuesError
        self.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > DEEPEST:
            self.problems.append(ConfigProblem(path, TOO_DEEP))
            return None
        if isinstance(node, MappingNode):
            return dict(self._members(node, path))
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, number)) for number, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)  # noqa: S101 YAML has no fourth kind of node
        return self._scalar(node, path)

    def _members(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Tree]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.problems.append(ConfigProblem(path, "a key must be plain text"))
                continue
            key = _plain(key_node.value)
            here = (*path, key)
            if key in seen:
                first = self.lines[here]
                again = f"{key} is written twice, here and in line {first}"
                self.lines[(*here, "")] = key_node.start_mark.line + 1
                self.problems.append(ConfigProblem((*here, ""), again, "keep one of them"))
                continue
            seen.add(key)
            self.lines[here] = key_node.start_mark.line + 1
            yield key, self._value(value_node, here)

    def _scalar(self, node: ScalarNode, path: Path) -> Tree:
        if _CARRIED.search(node.value):
            return self._replaced(node.value, path).replace(_LITERAL, "${")
        try:
            scalar: Tree = SCALARS.get(node.tag or "", str)(_plain(node.value))
        except (ValueError, ArithmeticError):
            self.problems.append(
                ConfigProblem(path, f"this is not a value of type {(node.tag or '').rpartition(':')[2]}")
            )
            return None
        return scalar

    def _replaced(self, text: str, path: Path) -> str:
        def resolve(match: re.Match[str]) -> str:
            value = self._environment.get(match[1], "")
            if not value:
                hint = did_you_mean(match[1], self._environment) if len(self._environment) > 0 else ""
                suggestion = hint if hint.startswith("did") else f"set the environment variable {match[1]}"
                self.problems.append(ConfigProblem(path, f"${{{match[1]}}} has no value", suggestion))
            return value

        return _CARRIED.sub(resolve, text)


def _plain(text: str) -> str:
    return _CARRIED.sub(r"${\1}", text).replace(_LITERAL, "${")


def _integer(text: str) -> int:
    return int(text.replace("_", ""), 0) if text.lower().lstrip("+-").startswith(("0x", "0o")) else int(text)


def _decimal(text: str) -> Decimal:
    return Decimal({".inf": "Infinity", "-.inf": "-Infinity", ".nan": "NaN"}.get(text.lower(), text))


# YAML 1.2's core schema; any other tag is text (a date, for instance).
SCALARS: Final[Mapping[str, Callable[[str], Any]]] = {
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _decimal,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:null": lambda _: None,
}
