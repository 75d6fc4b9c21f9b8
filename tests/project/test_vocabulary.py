"""The house vocabulary: no private language in names and sentences, no module stem and no class name used twice.

`python -m tests.project.test_vocabulary` lists every finding of cdc_merge and of the tests, by room.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "cdc_merge"
TESTS: Final = ROOT / "tests"

# Words that stand for a term of the field without naming it (house_style.md §3).
BANNED: Final = frozenset({"told", "tell", "tells", "asked", "asks", "somebody", "nobody", "whoever", "everybody"})
# A module stem that two packages may share, and why.
SHARED_STEMS: Final = {
    "__init__": "the package itself",
    "store": "one implementation of the store port per technology",
    "quarantine": "the part of each store that keeps quarantined rows",
    "transaction": "the store transaction of each technology",
}
# A banned part of a name that is stored under it, or public.
KEPT_NAMES: Final = frozenset({"asked_us"})  # a field of Resync, stored by its name
# A class name that two modules may share, and why.
SHARED_CLASSES: Final = {
    "Quarantine": "the part of each store that keeps quarantined rows",
}
PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
WORD: Final = re.compile(r"[A-Za-z]+")


class Finding(NamedTuple):
    """One use of a banned word, or one name that two modules share."""

    path: Path
    line: int
    text: str

    @property
    def room(self) -> str:
        """`cdc_merge/merge`, `tests/laws`: the folder whose owner mends it."""
        return "/".join(self.path.relative_to(ROOT).parts[:-1][:2])

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.text}"


def modules(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def banned_parts(name: str) -> list[str]:
    """The banned words among the parts of a name: `told_by` and `ToldRow` have one, `untold` has none."""
    return [part.lower() for part in PART.findall(name) if part.lower() in BANNED]


def names_of(node: ast.AST) -> Iterator[str]:
    """The names that a node itself writes."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
        case ast.MatchClass(kwd_attrs=names):
            yield from names
        case ast.alias(name=name, asname=renamed):
            yield from (name, *([renamed] if renamed else []))


def banned_names(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """Identifiers with a banned part: names, arguments, attributes, functions, classes, the module itself."""
    if banned_parts(path.stem):
        yield Finding(path, 1, f"module {path.stem}")
    for node in ast.walk(tree):
        for name in names_of(node):
            if name not in KEPT_NAMES and banned_parts(name):
                yield Finding(path, getattr(node, "lineno", 1), f"name {name}")


def banned_definitions(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """The same, of modules, functions and classes only."""
    if banned_parts(path.stem):
        yield Finding(path, 1, f"module {path.stem}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and banned_parts(node.name):
            yield Finding(path, node.lineno, f"name {node.name}")


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constants that are docstrings or stand alone like one."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def banned_sentences(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """Strings of two words and more that a user may read (errors, hints, log lines, metric help, output)."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            words = {word.lower() for word in WORD.findall(node.value)}
            if len(node.value.split()) > 1 and words & BANNED:
                yield Finding(path, node.lineno, f"sentence {node.value[:100]!r}")


def shared_stems() -> Iterator[Finding]:
    places: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        places[path.stem].append(path)
    for stem, paths in places.items():
        if len(paths) > 1 and stem not in SHARED_STEMS:
            yield from (Finding(path, 1, f"module stem {stem} is used {len(paths)} times") for path in paths)


def shared_classes() -> Iterator[Finding]:
    places: dict[str, list[tuple[Path, int]]] = defaultdict(list)
    for path, tree in modules(PACKAGE):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append((path, node.lineno))
    for name, defined in places.items():
        if len(defined) > 1 and name not in SHARED_CLASSES:
            yield from (Finding(path, line, f"class {name} is defined {len(defined)} times") for path, line in defined)


def findings_of_the_package() -> list[Finding]:
    return [
        finding
        for path, tree in modules(PACKAGE)
        for check in (banned_names, banned_sentences)
        for finding in check(path, tree)
    ]


def findings_of_the_tests() -> list[Finding]:
    return [finding for path, tree in modules(TESTS) for finding in banned_definitions(path, tree)]


def test_no_name_and_no_sentence_of_the_package_uses_a_banned_word() -> None:
    assert [str(finding) for finding in findings_of_the_package()] == []


def test_no_module_function_or_class_of_the_tests_uses_a_banned_word() -> None:
    assert [str(finding) for finding in findings_of_the_tests()] == []


def test_every_module_stem_is_used_once() -> None:
    assert [str(finding) for finding in shared_stems()] == []


def test_every_class_name_is_defined_once() -> None:
    assert [str(finding) for finding in shared_classes()] == []


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("def f(told: int) -> int: return 1", ["name told"]),
        ("class ToldRow: ...", ["name ToldRow"]),
        ("x.is_asked = y(asks=1)", ["name is_asked", "name asks"]),
        ("from a import b as nobody", ["name nobody"]),
        ("untold = retell = task = masks = 1", []),
        ('raise E("Nobody answers.")', ["sentence 'Nobody answers.'"]),
        ('raise E(f"Source {x}: the server was asked.")', ["sentence ': the server was asked.'"]),
        ('"""Nobody reads a docstring here."""\nx = "asks"', []),
    ],
)
def test_the_guard_finds_banned_words_and_nothing_else(source: str, texts: list[str]) -> None:
    path, tree = PACKAGE / "example.py", ast.parse(source)
    found = [*banned_names(path, tree), *banned_sentences(path, tree)]
    assert sorted(finding.text for finding in found) == sorted(texts)


def main() -> None:
    rooms: dict[str, list[Finding]] = defaultdict(list)
    for finding in (*findings_of_the_package(), *shared_stems(), *shared_classes(), *findings_of_the_tests()):
        rooms[finding.room].append(finding)
    for room, findings in sorted(rooms.items()):
        print(f"== {room}: {len(findings)}", *findings, "", sep="\n")


if __name__ == "__main__":
    main()
