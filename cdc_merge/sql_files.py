"""SQL files of each package, `<package>/sql/*.sql`, loaded only here.

Two forms: a file with one query (its first line gives the reason; parameters are $1, $2 … of a RawCursor), and a file of
blocks, each `-- name: word`, one line with the reason, one statement. No code builds SQL from pieces.
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
    """The statements of `sql/<name>.sql` by name, without comments."""
    blocks = query(package, name).split(_MARK)[1:]
    return {block.partition("\n")[0].strip(): _without_comments(block.partition("\n")[2]) for block in blocks}


def _without_comments(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if not line.startswith("--")).strip()
