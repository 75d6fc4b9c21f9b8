"""SQL lies in files beside the package that speaks it, `<package>/sql/*.sql`, and is read here only.

Two forms: a file of one text, asked for by its name (its first line says why; parameters are $1, $2 … of a RawCursor),
and a file of blocks, each `-- name: word`, one line of why, one statement. Nothing builds SQL out of pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

_MARK: Final = "-- name: "


def folder(package: str) -> Traversable:
    return files(package) / "sql"


@cache
def query(package: str, name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return (folder(package) / f"{name}.sql").read_text(encoding="utf-8")


def named_statements(package: str, name: str) -> Mapping[str, str]:
    """The statements of `sql/<name>.sql` by their names, comments left out."""
    blocks = query(package, name).split(_MARK)[1:]
    return {block.partition("\n")[0].strip(): _without_comments(block.partition("\n")[2]) for block in blocks}


def _without_comments(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if not line.startswith("--")).strip()
