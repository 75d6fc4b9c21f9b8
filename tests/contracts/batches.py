"""One batch of a store: a position and a change that belong together."""

from __future__ import annotations

from cdc_merge.model import UPDATE, Change, Place, Position, Stamp
from cdc_merge.stores.sqlite.store import SqliteStore

SOURCE = "crm"


def change(number: int, *, bytes_long: int = 1) -> Change:
    place = Place("7", 1, number, "public.customer", 0)
    fields = {"name": (None, "x" * bytes_long)}
    return Change("customer", f"C{number % 50}", Stamp(number, 0, SOURCE), place, UPDATE, fields)


def write(store: SqliteStore, first: int, count: int, *, bytes_long: int = 1) -> None:
    """A batch whose position says how many changes there are with it."""
    with store.transaction() as batch:
        batch.append(change(number, bytes_long=bytes_long) for number in range(first, first + count))
        batch.save_position(SOURCE, Position("7", 1, first + count, "done", ""), Stamp(first + count, 0, SOURCE))
