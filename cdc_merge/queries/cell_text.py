"""How a member of a document reads in a table, on a page as in a terminal."""

from __future__ import annotations

from typing import Final

from cdc_merge.queries.documents import Document, Fields, json_text

ABSENT: Final = "–"


def word_of(document: Fields, name: str) -> str:
    """A member as a word in a table: a dash where it is absent, NULL for null."""
    return shown(document[name]) if name in document else ABSENT


def cell_of(document: Fields, name: str) -> str:
    """A member that is no value of a record: a dash where there is none."""
    return ABSENT if document.get(name) is None else shown(document[name])


def shown(value: Document) -> str:
    """A value as people read it: text as it is, NULL, and JSON for everything else."""
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json_text(value)


def objects(document: Fields, name: str) -> dict[str, Fields]:
    """The members of a member that are objects themselves, by name."""
    members = document[name]
    found = members.items() if isinstance(members, dict) else ()
    return {key: member for key, member in found if isinstance(member, dict)}


def items(document: Fields, name: str = "items") -> list[Fields]:
    """The objects in a member that is a list."""
    listed = document[name]
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
