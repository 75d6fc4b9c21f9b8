"""Validation of the file's values, with every violation as a problem with the file's own path.

An invalid part is removed and the rest is validated again, so that the checks of meaning cover all valid parts: every
problem in one report.
"""

from __future__ import annotations

import copy
import re
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cdc_merge.config.problems import ConfigProblem, Path, did_you_mean
from cdc_merge.config.schema.file_schema import ConfigShape
from cdc_merge.config.yaml_source import Tree

PASSES: Final = 20  # each pass removes every invalid part; a file needs one or two


class Validated(NamedTuple):
    """`shape` is the valid part of the file (None: nothing), `problems` are the violations."""

    shape: ConfigShape | None
    problems: list[ConfigProblem]


def validate(values: dict[str, Tree]) -> Validated:
    """The valid part of a file's values. Never raises; `values` are not changed."""
    problems: list[ConfigProblem] = []
    rest = copy.deepcopy(values)
    for number in range(PASSES):
        try:
            return Validated(ConfigShape.model_validate(rest), problems)
        except ValidationError as error:
            details = error.errors(include_url=False)
        if number == 0:
            problems = [_problem(detail, values) for detail in details]
        if not _remove_invalid(details, rest):
            break
    return Validated(None, problems)


# ---------------------------------------------------------------- from pydantic's locations to the file's paths


def _path(location: tuple[str | int, ...], values: Tree) -> Path:
    """pydantic's location without the names of union members, which are not part of the file."""
    path: list[str | int] = []
    here: Any = values
    for part in location:
        if (isinstance(here, dict) and part in here) or isinstance(here, list):
            here = here[part]  # type: ignore[index]  # pydantic numbers a list's items
            path.append(part)
    return tuple(path)


def _problem(detail: ErrorDetails, values: Tree) -> ConfigProblem:
    path = _path(detail["loc"], values)
    return SENTENCES.get(detail["type"], _pydantic_sentence)(detail, path)


def _unknown_key(detail: ErrorDetails, path: Path) -> ConfigProblem:
    key = str(detail["loc"][-1])
    return ConfigProblem(path, f"there is no key {key!r} here", did_you_mean(key, _allowed(detail["loc"][:-1])))


def _missing(detail: ErrorDetails, path: Path) -> ConfigProblem:
    return ConfigProblem((*path, str(detail["loc"][-1])), "this key is missing")


def _missing_type(detail: ErrorDetails, path: Path) -> ConfigProblem:
    return ConfigProblem((*path, "type"), "this key is missing", "one of: postgres, debezium, http")


def _unknown_type(detail: ErrorDetails, path: Path) -> ConfigProblem:
    context = detail.get("ctx", {})
    tags = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
    tag = str(context.get("tag", ""))
    return ConfigProblem((*path, "type"), f"there is no source type {tag!r}", did_you_mean(tag, tags))


def _not_listed(detail: ErrorDetails, path: Path) -> ConfigProblem:
    words = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    given = detail["input"]
    if not isinstance(given, str):
        return ConfigProblem(path, "this must be one word", did_you_mean("", words))
    return ConfigProblem(path, f"{given!r} is not allowed here", did_you_mean(given, words))


def _too_short(detail: ErrorDetails, path: Path) -> ConfigProblem:
    least = detail.get("ctx", {}).get("min_length", 1)
    return ConfigProblem(path, f"this needs at least {least} {'entry' if least == 1 else 'entries'}")


def _validator_sentence(detail: ErrorDetails, path: Path) -> ConfigProblem:
    return ConfigProblem(path, str(detail.get("ctx", {}).get("error", "this cannot be read")))


def _must_be(kind: str, suggestion: str = "") -> Callable[[ErrorDetails, Path], ConfigProblem]:
    return lambda detail, path: ConfigProblem(path, f"this must be {kind}", suggestion)


def _pydantic_sentence(detail: ErrorDetails, path: Path) -> ConfigProblem:
    # pydantic's own sentence names limits and types ("Input should be greater than 0"), never the input.
    return ConfigProblem(path, detail["msg"][:1].lower() + detail["msg"][1:])


SENTENCES: Final[Mapping[str, Callable[[ErrorDetails, Path], ConfigProblem]]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_not_found": _missing_type,
    "union_tag_invalid": _unknown_type,
    "literal_error": _not_listed,
    "value_error": _validator_sentence,
    "string_type": _must_be("text", "put it in quotes"),
    "list_type": _must_be("a list", "write [a, b]"),
    "dict_type": _must_be("a mapping"),
    "model_type": _must_be("a mapping"),
    "model_attributes_type": _must_be("a mapping"),
    "bool_type": _must_be("true or false"),
    "int_type": _must_be("a whole number"),
    "too_short": _too_short,
    "string_too_short": _must_be("a text that is not empty"),
    "string_pattern_mismatch": _must_be("a name of at most 63 of the characters a-z, 0-9 and _"),
}


# ---------------------------------------------------------------- the keys that the schema allows at a path


def _allowed(location: tuple[str | int, ...]) -> list[str]:
    shape: Any = ConfigShape
    for part in location:
        shape = _within(shape, part)
    if not (isinstance(shape, type) and issubclass(shape, BaseModel)):
        return []
    return [field.alias or name for name, field in shape.model_fields.items()]


def _within(shape: Any, part: str | int) -> Any:
    """The annotation one level down: of a model's key, a mapping's values, a list's items or a union's member."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        keyed = {field.alias or name: field.annotation for name, field in shape.model_fields.items()}
        return _bare(keyed.get(str(part)))
    if get_origin(shape) in (dict, list):
        return _bare(get_args(shape)[-1])
    return next((member for member in get_args(shape) if part in _tags(member)), None)


def _bare(annotation: Any) -> Any:
    """Without Annotated and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _tags(member: Any) -> tuple[Any, ...]:
    tag = member.model_fields.get("type") if isinstance(member, type) and issubclass(member, BaseModel) else None
    return get_args(tag.annotation) if tag is not None and get_origin(tag.annotation) is Literal else ()


# ---------------------------------------------------------------- removal of invalid parts


def _remove_invalid(details: list[ErrorDetails], values: dict[str, Tree]) -> bool:
    """Remove the locations of the errors from `values`; False when that would leave nothing."""
    paths = {_path(detail["loc"], values) for detail in details}
    if () in paths:
        return False
    outermost = [path for path in paths if not any(path[:length] in paths for length in range(1, len(path)))]
    # From the end, so that the indices of a list's earlier items stay valid.
    for path in sorted(outermost, key=_in_file_order, reverse=True):
        parent: Any = values
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
    return True


def _in_file_order(path: Path) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in path]
