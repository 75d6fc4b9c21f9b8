"""Which event codes the program can write: read in its source, wherever a line of the log is made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from cdc_merge.observers.log_events import CONFLICT_EVENTS, RESYNC_EVENTS
from cdc_merge.observers.log_format import NO_CODE
from tests.support.alerting import ROOT
from tests.system.observability.tables import PAGE


@cache
def written_codes() -> frozenset[str]:
    """`write(level, "code", …)`, `code="code"`, `{"event": "code"}`, and the tables of the observer of facts."""
    found = {NO_CODE, *(code for code, _ in CONFLICT_EVENTS.values()), *(code for _, code, _ in RESYNC_EVENTS.values())}
    for file in (ROOT / "cdc_merge").rglob("*.py"):
        found.update(_codes(ast.parse(file.read_text(encoding="utf-8"))))
    return frozenset(found)


def _codes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _texts(keyword.value for keyword in node.keywords if keyword.arg == "code")
            if isinstance(node.func, ast.Name) and node.func.id == "write":
                yield from _texts(node.args[1:2])
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from _texts(value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "event")


def _texts(nodes: Iterator[ast.expr] | list[ast.expr]) -> Iterator[str]:
    yield from (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def documented_codes() -> frozenset[str]:
    """The first column of the table of events in docs/observability.md."""
    table = PAGE.read_text(encoding="utf-8").partition("| `event.code` | meaning |\n|---|---|\n")[2]
    rows = table.partition("\n\n")[0].splitlines()
    return frozenset(code for row in rows for code in re.findall(r"`(\w+)`", row.split("|")[1]))
