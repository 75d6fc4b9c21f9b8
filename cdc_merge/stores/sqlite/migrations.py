"""The numbered steps that bring a store's layout up to date: `sql/NNN_<kind>_*.sql`, in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from cdc_merge.sql_files import folder, query


def migrations(kind: str) -> Sequence[tuple[int, tuple[str, ...]]]:
    """The migrations of a kind of store: (number, its statements)."""
    names = [file.name.removesuffix(".sql") for file in folder(__package__).iterdir()]
    found = sorted(name for name in names if name[3:].startswith(f"_{kind}_"))
    numbered = {int(name[:3]): name for name in found}
    assert list(numbered) == list(range(1, len(found) + 1)), (
        f"migrations of {kind} are not numbered one by one: {found}"
    )
    return [(number, tuple(_split(name))) for number, name in numbered.items()]


def _split(name: str) -> Iterator[str]:
    # sqlite3's own executescript commits first, which would tear a migration apart.
    pending = ""
    for line in query(__package__, name).splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    assert not pending.strip(), f"the last statement of {name} does not end"
