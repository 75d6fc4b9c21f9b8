"""Publication members: what the publication sends of our tables, as a text to be stored and compared. Pure.

An altered publication is silent in the stream: rows of a removed table, or of a filter, do not arrive, and a table that was
removed and added again looks unchanged. Its catalog rows show it: each has an oid, and the transaction id that wrote it last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from cdc_merge.errors import SourceRefused
from cdc_merge.sources.postgres.resume_checks import RESYNC

OPERATIONS: Final = ("insert", "update", "delete", "truncate")


class PublishedTable(NamedTuple):
    """One table. `entry` identifies the catalog rows that make it a member; `columns` and `rows` are its column list and its
    row filter, as in the catalog."""

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
    tables: Mapping[str, PublishedTable]


class PublicationChange(NamedTuple):
    """A change by which rows are not sent, or may not have been sent. `table` None: all tables."""

    table: str | None
    what: str


def read_publication_members(text: str) -> PublicationMembers | None:
    """Read the text of `sql/health.sql`; None for an empty text or without a publication."""
    document = json.loads(text) if text else None
    if document is None:
        return None
    tables = {name: PublishedTable(**member) for name, member in document.pop("tables").items()}
    return PublicationMembers(published=frozenset(document.pop("published")), tables=tables, **document)


def publication_changes(before: str, now: str) -> list[PublicationChange]:
    """The changes between two texts; none when the first is empty. An addition is no change."""
    was, is_ = read_publication_members(before), read_publication_members(now)
    if was is None or was == is_:
        return []
    if is_ is None:
        return [PublicationChange(None, "was dropped")]
    if was.oid != is_.oid:
        return [PublicationChange(None, "was dropped and created again")]
    return [*_options(was, is_), *(change for name in was.tables for change in _table(name, was, is_))]


def _options(was: PublicationMembers, is_: PublicationMembers) -> Iterator[PublicationChange]:
    hidden = [operation for operation in OPERATIONS if operation in was.published - is_.published]
    if hidden:
        yield PublicationChange(None, f"does not publish {', '.join(hidden)} any more")
    if was.via_root != is_.via_root:
        yield PublicationChange(None, "shows partitioned tables under other names")
    is_explained = (was.owner, was.published, was.via_root) != (is_.owner, is_.published, is_.via_root)
    if was.generation != is_.generation and not is_explained:
        yield PublicationChange(None, "was altered, and then altered back")


def _table(name: str, was: PublicationMembers, is_: PublicationMembers) -> Iterator[PublicationChange]:
    before, now = was.tables[name], is_.tables.get(name)
    if now is None:
        yield PublicationChange(name, "left it")
    elif before.oid != now.oid:
        yield PublicationChange(name, "was dropped and created again")
    elif before.columns != now.columns:
        yield PublicationChange(name, "has another column list")
    elif before.rows != now.rows:
        yield PublicationChange(name, "has another row filter")
    elif before.entry != now.entry:
        yield PublicationChange(name, "left it and came back")


def describe_changes(changes: list[PublicationChange]) -> str:
    """The changes as the end of a sentence about the publication."""
    return "; ".join(change.what if change.table is None else f"{change.table} {change.what}" for change in changes)


def check_publication_members(source: str, publication: str, before: str, now: str) -> None:
    """SourceRefused `publication_changed` when row changes may have been, or will be, missed in silence."""
    changes = publication_changes(before, now)
    if changes:
        raise SourceRefused(
            f"Source {source}: publication {publication} has changed: {describe_changes(changes)}.",
            problem="publication_changed",
            hint="Row changes made meanwhile may be missing. If the publication is as intended: "
            f"{RESYNC.format(source=source)}",
        )
