"""The imports of the tests: what two test modules share has a module of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_private(module: str) -> bool:
    """Test modules and conftest modules: their definitions are for their own tests."""
    parts = module.split(".")
    return parts[0] == "tests" and (parts[-1].startswith("test_") or parts[-1] == "conftest")


# A conftest may give its folder the fixtures of another folder.
ALLOWED: Final = {("tests/system/crash/conftest.py", "tests.system.scenarios.conftest")}


def test_no_module_imports_a_test_module_or_a_conftest() -> None:
    imports = {
        (str(path.relative_to(ROOT)), module)
        for path in (ROOT / "tests").rglob("*.py")
        for module in imported_modules(path)
        if is_private(module)
    }
    assert imports - ALLOWED == set()
