"""What the publication sends of our tables, as a text that can be kept and compared, so that no change of it is silent. Pure.

Postgres says nothing when a publication is altered: rows of a table that left it, or that a filter drops, simply never
come, and a table that left and came back looks as if nothing had happened. Its catalog rows do not: each has an oid, and
the number of the transaction that wrote it last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from cdc_merge.errors import SourceRefused
from cdc_merge.sources.postgres.resume_checks import RESYNC

OPERATIONS: Final = ("insert", "update", "delete", "truncate")


class Member(NamedTuple):
    """One table. `entry` names the catalog rows by which it is a member; `columns` and `rows` its column list and row
    filter, as the catalog has them."""

    oid: str
    entry: str | None
    columns: str | None
    rows: str | None


class PublicationMembers(NamedTuple):
    """`generation` changes with every ALTER of the publication itself, its owner included."""

    oid: str
    generation: str
    owner: str
    published: frozenset[str]
    via_root: bool
    tables: Mapping[str, Member]


class Change(NamedTuple):
    """Something by which rows were not sent, are not sent, or may not have been. `table` None: all tables."""

    table: str | None
    what: str


def read_publication_members(text: str) -> PublicationMembers | None:
    """What `sql/health.sql` wrote; None for an empty text or when there is no publication."""
    told = json.loads(text) if text else None
    if told is None:
        return None
    tables = {name: Member(**member) for name, member in told.pop("tables").items()}
    return PublicationMembers(published=frozenset(told.pop("published")), tables=tables, **told)


def changes(before: str, now: str) -> list[Change]:
    """What happened between the two; nothing when it is not known how it was before. What only adds is no change."""
    was, is_ = read_publication_members(before), read_publication_members(now)
    if was is None or was == is_:
        return []
    if is_ is None:
        return [Change(None, "was dropped")]
    if was.oid != is_.oid:
        return [Change(None, "was dropped and created again")]
    return [*_options(was, is_), *(change for name in was.tables for change in _table(name, was, is_))]


def _options(was: PublicationMembers, is_: PublicationMembers) -> Iterator[Change]:
    hidden = [operation for operation in OPERATIONS if operation in was.published - is_.published]
    if hidden:
        yield Change(None, f"does not publish {', '.join(hidden)} any more")
    if was.via_root != is_.via_root:
        yield Change(None, "shows partitioned tables under other names")
    is_explained = (was.owner, was.published, was.via_root) != (is_.owner, is_.published, is_.via_root)
    if was.generation != is_.generation and not is_explained:
        yield Change(None, "was altered, and then altered back")


def _table(name: str, was: PublicationMembers, is_: PublicationMembers) -> Iterator[Change]:
    before, now = was.tables[name], is_.tables.get(name)
    if now is None:
        yield Change(name, "left it")
    elif before.oid != now.oid:
        yield Change(name, "was dropped and created again")
    elif before.columns != now.columns:
        yield Change(name, "has another column list")
    elif before.rows != now.rows:
        yield Change(name, "has another row filter")
    elif before.entry != now.entry:
        yield Change(name, "left it and came back")


def told(found: list[Change]) -> str:
    """The changes as the end of a sentence about the publication."""
    return "; ".join(change.what if change.table is None else f"{change.table} {change.what}" for change in found)


def check_publication_members(source: str, publication: str, before: str, now: str) -> None:
    """SourceRefused `publication_changed` when changes may have been, or will be, missed in silence."""
    found = changes(before, now)
    if found:
        raise SourceRefused(
            f"Source {source}: publication {publication} is not what it was: {told(found)}.",
            problem="publication_changed",
            hint="What was changed meanwhile may be missing. If the publication is as it should be: "
            f"{RESYNC.format(source=source)}",
        )
