"""SQL from files. A file of statements is a list of blocks: `-- name: word`, one line of why, the statement.

Rules: statements are read once, when the package is; nothing here builds SQL out of pieces.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Final

_FOLDER: Final = files("cdc_merge.stores") / "sql"
_MARK: Final = "-- name: "


def named_statements(file_name: str) -> Mapping[str, str]:
    """The statements of a file in `sql/` by name, comments left out."""
    blocks = (_FOLDER / file_name).read_text(encoding="utf-8").split(_MARK)[1:]
    return {block.partition("\n")[0].strip(): _without_comments(block.partition("\n")[2]) for block in blocks}


def migrations(kind: str) -> Sequence[tuple[int, tuple[str, ...]]]:
    """The numbered migrations of a kind of store, `NNN_<kind>_*.sql`, in order: (number, its statements)."""
    found = sorted(file.name for file in _FOLDER.iterdir() if file.name[3:].startswith(f"_{kind}_"))
    numbered = {int(name[:3]): name for name in found}
    assert list(numbered) == list(range(1, len(found) + 1)), (
        f"migrations of {kind} are not numbered one by one: {found}"
    )
    return [(number, tuple(_split(name))) for number, name in numbered.items()]


def _without_comments(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if not line.startswith("--")).strip()


def _split(file_name: str) -> Iterator[str]:
    # sqlite3's own executescript commits first, which would tear a migration apart.
    pending = ""
    for line in (_FOLDER / file_name).read_text(encoding="utf-8").splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    assert not pending.strip(), f"the last statement of {file_name} does not end"
