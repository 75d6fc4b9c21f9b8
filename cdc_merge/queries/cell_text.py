"""Members of a document as text for table cells, on pages and in the terminal."""

from __future__ import annotations

from typing import Final

from cdc_merge.queries.documents import Document, Fields, json_text

ABSENT: Final = "–"


def word_of(document: Fields, name: str) -> str:
    """A record value as text: a dash if absent, NULL for null."""
    return shown(document[name]) if name in document else ABSENT


def cell_of(document: Fields, name: str) -> str:
    """Any other member as text: a dash if absent or null."""
    return ABSENT if document.get(name) is None else shown(document[name])


def shown(value: Document) -> str:
    """A value for people: text unchanged, NULL, and JSON for everything else."""
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json_text(value)


def objects(document: Fields, name: str) -> dict[str, Fields]:
    """The objects inside a member, by name."""
    members = document[name]
    pairs = members.items() if isinstance(members, dict) else ()
    return {key: member for key, member in pairs if isinstance(member, dict)}


def items(document: Fields, name: str = "items") -> list[Fields]:
    """The objects in a list member."""
    listed = document[name]
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
