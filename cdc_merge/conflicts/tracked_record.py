"""A record as conflict detection sees it: its merged state and its unfinished conflicts. The worker's cache entries are such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from cdc_merge.conflicts.lifecycle import ConflictIdentity, conflict_identity
from cdc_merge.merge.record_state import Record
from cdc_merge.model import Conflict, RecordKey

LoadRecords: TypeAlias = Callable[[Sequence[RecordKey]], "list[Record]"]
"""The states of these records, in the same order, from the cache or the store."""


class TrackedRecord:
    """`unfinished`: the record's settling and open conflicts, by what makes each of them unique."""

    __slots__ = ("record", "unfinished")

    def __init__(self, record: Record, unfinished: Iterable[Conflict] = ()) -> None:
        self.record = record
        self.unfinished: dict[ConflictIdentity, Conflict] = {conflict_identity(c.detected): c for c in unfinished}

    def remember(self, conflict: Conflict) -> None:
        """Take over a conflict's latest revision; a closed one is dropped."""
        identity = conflict_identity(conflict.detected)
        if conflict.status != "closed":
            self.unfinished[identity] = conflict
        elif identity in self.unfinished and self.unfinished[identity].id == conflict.id:
            del self.unfinished[identity]
