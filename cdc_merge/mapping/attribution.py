"""Attribution: the actor of a change, and whether the change is a genuine edit or a copy (semantics §2 rule 2, §4 "Actor").

Logical messages anywhere in the transaction attribute all of its changes: `cdc_merge.actor` names the actor,
`cdc_merge.copy` marks a copy, `cdc_merge.apply` marks our own write-back and lists the written changes by place. An
unreadable message still marks its copy, without source or places: a damaged mark must not turn a copy into an edit.
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

_COPY_WITHOUT_SOURCE: Final = Copy()
_PLACE_TYPES: Final = (str, int, int, str, int)


class Attribution(NamedTuple):
    """Actor and copy mark that a transaction's logical messages give to all of its changes."""

    actor: str | None = None
    copy: Copy | None = None


_UNMARKED: Final = Attribution()


def read_attribution(messages: Iterable[Message]) -> Attribution:
    """The attribution of a transaction with these messages; never raises. Non-transactional messages do not count; of
    several actors the last one does."""
    attribution = _UNMARKED
    for message in messages:
        if not message.transactional:
            continue
        if message.prefix == ACTOR_PREFIX:
            attribution = attribution._replace(actor=_actor_in(message.content) or attribution.actor)
        elif message.prefix == COPY_PREFIX:
            copy = Copy(from_source=_source_in(message.content))
            attribution = attribution._replace(copy=_joined(attribution.copy, copy))
        elif message.prefix == APPLY_PREFIX:
            copy = Copy(of=_places_in(message.content))
            attribution = attribution._replace(copy=_joined(attribution.copy, copy))
    return attribution


def is_write_back(messages: Iterable[Message]) -> bool:
    """Whether the transaction is our own write-back (`cdc_merge.apply`)."""
    return any(message.prefix == APPLY_PREFIX for message in messages)


def copy_of(attribution: Attribution, origin: str | None, table: TableMap, actor: str | None) -> Copy | None:
    """The copy mark of a change of this table by this actor; None for a genuine edit."""
    if attribution.copy is not None:
        return attribution.copy
    return _COPY_WITHOUT_SOURCE if origin in table.copy_origins or actor in table.copy_actors else None


def column_actor(mapping: RelationMapping, change: RowChange) -> str | None:
    """The value of the actor column, if this change wrote it; else None."""
    if mapping.actor is None or change.new is None:
        return None
    index, read = mapping.actor
    value = change.new[index]
    was_full = change.old is not None and change.old_is_full
    if change.operation == "update" and not mapping.table.actor_always_written:
        if not was_full or value == change.old[index]:  # type: ignore[index] # was_full says that there is an old row
            return None
    elif value is UNCHANGED and was_full:
        value = change.old[index]  # type: ignore[index] # as above
    return None if value is None or value is UNCHANGED else value_text(read(value))


def _joined(first: Copy | None, second: Copy) -> Copy:
    if first is None:
        return second
    return Copy(first.from_source or second.from_source, first.of + second.of)


def _document(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _actor_in(content: bytes) -> str | None:
    document = _document(content)
    if isinstance(document, dict):
        name = document.get("actor")
        return name if isinstance(name, str) else None
    try:
        return content.decode() or None
    except UnicodeDecodeError:
        return None


def _source_in(content: bytes) -> str | None:
    document = _document(content)
    source = document.get("from") if isinstance(document, dict) else None
    return source if isinstance(source, str) else None


def _places_in(content: bytes) -> tuple[Place, ...]:
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
