"""Who changed a row, and whether the change is a copy (semantics §2 rule 2, §4 "Actor").

A transaction says so in logical messages, wherever they stand in it: `cdc_merge.actor` names the actor,
`cdc_merge.copy` marks a copy, `cdc_merge.apply` marks our own write-back and names the writes by place. A message
that cannot be read still marks its copy, and names nothing: a damaged mark must not turn a copy into somebody's edit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import UNCHANGED, Copy, Message, Place, RowChange
from cdc_merge.model.plan import TableMap
from cdc_merge.values.keys import value_text

ACTOR_PREFIX: Final = "cdc_merge.actor"
COPY_PREFIX: Final = "cdc_merge.copy"
APPLY_PREFIX: Final = "cdc_merge.apply"

_UNNAMED_COPY: Final = Copy()
_PLACE_TYPES: Final = (str, int, int, str, int)


class Attribution(NamedTuple):
    """What a transaction's messages say about all of its changes."""

    actor: str | None = None
    copy: Copy | None = None


_UNMARKED: Final = Attribution()


def attribution(messages: Iterable[Message]) -> Attribution:
    """Never raises. Messages that are not transactional say nothing about their neighbours; the last actor counts."""
    found = _UNMARKED
    for message in messages:
        if not message.transactional:
            continue
        if message.prefix == ACTOR_PREFIX:
            found = found._replace(actor=_named_actor(message.content) or found.actor)
        elif message.prefix == COPY_PREFIX:
            found = found._replace(copy=_joined(found.copy, Copy(from_source=_named_source(message.content))))
        elif message.prefix == APPLY_PREFIX:
            found = found._replace(copy=_joined(found.copy, Copy(of=_named_places(message.content))))
    return found


def names_writes(messages: Iterable[Message]) -> bool:
    """Whether it is our own write-back, which names the writes that it brings."""
    return any(message.prefix == APPLY_PREFIX for message in messages)


def copy_of(said: Attribution, origin: str | None, table: TableMap, actor: str | None) -> Copy | None:
    """The mark of a change of this table by this actor; None for a genuine edit."""
    if said.copy is not None:
        return said.copy
    return _UNNAMED_COPY if origin in table.copy_origins or actor in table.copy_actors else None


def column_actor(reading: RelationMapping, change: RowChange) -> str | None:
    """Who the actor column names, if this change wrote it; None when nobody is named."""
    if reading.actor is None or change.new is None:
        return None
    index, read = reading.actor
    cell = change.new[index]
    was_full = change.old is not None and change.old_is_full
    if change.operation == "update" and not reading.table.actor_always_written:
        if not was_full or cell == change.old[index]:  # type: ignore[index] # was_full says that there is an old row
            return None
    elif cell is UNCHANGED and was_full:
        cell = change.old[index]  # type: ignore[index] # as above
    return None if cell is None or cell is UNCHANGED else value_text(read(cell))


def _joined(first: Copy | None, second: Copy) -> Copy:
    if first is None:
        return second
    return Copy(first.from_source or second.from_source, first.of + second.of)


def _document(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _named_actor(content: bytes) -> str | None:
    document = _document(content)
    if isinstance(document, dict):
        name = document.get("actor")
        return name if isinstance(name, str) else None
    try:
        return content.decode() or None
    except UnicodeDecodeError:
        return None


def _named_source(content: bytes) -> str | None:
    document = _document(content)
    source = document.get("from") if isinstance(document, dict) else None
    return source if isinstance(source, str) else None


def _named_places(content: bytes) -> tuple[Place, ...]:
    document = _document(content)
    writes = document.get("writes") if isinstance(document, dict) else None
    if not isinstance(writes, list) or not all(map(_is_place, writes)):
        return ()
    return tuple(Place(*write) for write in writes)


def _is_place(write: object) -> bool:
    return (
        isinstance(write, list)
        and len(write) == len(_PLACE_TYPES)
        and all(type(part) is kind for part, kind in zip(write, _PLACE_TYPES, strict=True))
    )
