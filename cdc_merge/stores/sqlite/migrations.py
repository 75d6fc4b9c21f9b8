"""The numbered migrations of a store's layout: `sql/NNN_<kind>_*.sql`, in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from cdc_merge.sql_files import folder, query


def migrations(kind: str) -> Sequence[tuple[int, tuple[str, ...]]]:
    """The migrations of one kind of store: (number, statements)."""
    names = [file.name.removesuffix(".sql") for file in folder(__package__).iterdir()]
    migration_names = sorted(name for name in names if name[3:].startswith(f"_{kind}_"))
    numbered = {int(name[:3]): name for name in migration_names}
    assert list(numbered) == list(range(1, len(migration_names) + 1)), (
        f"migrations of {kind} are not numbered one by one: {migration_names}"
    )
    return [(number, tuple(_split(name))) for number, name in numbered.items()]


def _split(name: str) -> Iterator[str]:
    # sqlite3's executescript commits first, so a failed migration would be half applied.
    pending = ""
    for line in query(__package__, name).splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    assert not pending.strip(), f"the last statement of {name} does not end"
