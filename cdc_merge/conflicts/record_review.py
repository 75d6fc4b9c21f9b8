"""The review of one record: its detected conflicts against its unfinished ones. The transitions are to be stored.

Conflicts between records are unique_index.py's, those of a table schema_drift.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from cdc_merge.conflicts.detect import Detection, detect
from cdc_merge.conflicts.lifecycle import (
    ConflictIdentity,
    LifecycleContext,
    conflict_identity,
    is_same_auto_resolution,
    lost_update_conflicts,
    resolved_by_rule,
    transitions,
)
from cdc_merge.conflicts.rules.duplicate import without_duplicates
from cdc_merge.conflicts.rules.rulebook import Rulebook
from cdc_merge.conflicts.tracked_record import TrackedRecord
from cdc_merge.merge.record_state import Record, Row
from cdc_merge.model import Conflict, DetectedConflict
from cdc_merge.model.ports import Store

# A field of a record has few conflicts.
CONFLICTS_READ: Final = 1_000


class ReviewedRecord(NamedTuple):
    """`due_us`: the stamp time after which the record is to be reviewed again although nothing changes it."""

    transitions: list[Conflict]
    due_us: int | None


class RecordReview:
    """Reviews records at one watermark. `store` is read for conflicts recorded earlier."""

    def __init__(
        self, store: Store, rulebooks: Mapping[str, Rulebook], watermark_us: int, context: LifecycleContext
    ) -> None:
        self._store = store
        self._rulebooks = rulebooks
        self._watermark_us = watermark_us
        self._context = context

    def is_needed(self, tracked: TrackedRecord) -> bool:
        """Whether the record may have a conflict; most records that a busy source writes have none."""
        record = tracked.record
        if tracked.unfinished or record.unsettled or record.deletes or record.moves:
            return True
        return self._rulebooks[record.units.entity.name].has_any_rule or any(
            map(_has_key_trouble, record.rows.values())
        )

    def review(self, tracked: TrackedRecord, targets: Mapping[str, Record]) -> ReviewedRecord:
        """`targets`: the records under the keys to which the record's rows moved."""
        record, unfinished = tracked.record, without_duplicates(tracked.unfinished)
        lost_due_us, lost = self._lost_updates_due_us(record), list[Conflict]()
        if lost_due_us == 0:
            lost = [
                each
                for each in lost_update_conflicts(record, unfinished, self._context)
                if not self._is_recorded_loss(each)
            ]
        rulebook = self._rulebooks[record.units.entity.name]
        detection = detect(record, rulebook, self._watermark_us, targets)
        due_us = min(filter(None, (detection.due_us, lost_due_us)), default=None)
        return ReviewedRecord([*lost, *self._transitions(record, detection, unfinished)], due_us)

    def _lost_updates_due_us(self, record: Record) -> int | None:
        """When the record's lost updates may be recorded: 0 for at once, None without any. A late change may still turn
        them into an open conflict."""
        if record.last is None or not any(record.unit_states[name].lost_updates for name in record.unsettled):
            return None
        return 0 if self._watermark_us > record.last.wall_us else record.last.wall_us

    def _transitions(
        self, record: Record, detection: Detection, unfinished: dict[ConflictIdentity, Conflict]
    ) -> Iterator[Conflict]:
        conflicts = list(detection.conflicts)
        if detection.auto_resolved:
            unfinished = dict(unfinished)
            resolved = self._resolved_by_rules(detection, unfinished)
            yield from resolved
            closed = {conflict_identity(conflict.detected) for conflict in resolved}
            conflicts = [
                each
                for each in conflicts
                if conflict_identity(each) not in closed and not self._is_recorded(each, detection, unfinished)
            ]
        if conflicts or unfinished:
            yield from transitions(record, conflicts, unfinished, self._context)

    def _resolved_by_rules(self, detection: Detection, unfinished: dict[ConflictIdentity, Conflict]) -> list[Conflict]:
        """Open conflicts that a rule resolves from here on; they leave `unfinished`."""
        resolved = []
        for each in detection.conflicts:
            identity = conflict_identity(each)
            if identity in detection.auto_resolved and identity in unfinished and unfinished[identity].status == "open":
                resolved.append(resolved_by_rule(unfinished.pop(identity), each, self._context.now_us))
        return resolved

    def _is_recorded(
        self, detected: DetectedConflict, detection: Detection, unfinished: Mapping[ConflictIdentity, Conflict]
    ) -> bool:
        """Whether the store has it that a rule resolved these candidates."""
        identity = conflict_identity(detected)
        if identity in unfinished or identity not in detection.auto_resolved:
            return False
        return any(is_same_auto_resolution(conflict, detected) for conflict in self._earlier(detected))

    def _is_recorded_loss(self, lost_update: Conflict) -> bool:
        """Whether a recorded conflict has the lost write among its candidates."""
        place = lost_update.detected.candidates[0].place
        return any(
            candidate.place == place
            for conflict in self._earlier(lost_update.detected)
            for candidate in conflict.detected.candidates
        )

    def _earlier(self, detected: DetectedConflict) -> list[Conflict]:
        """All recorded conflicts of the same field of the record."""
        where = {"entity": detected.entity, "key": detected.key, "field": detected.group or detected.field or ""}
        return self._store.conflicts(where, None, CONFLICTS_READ)


def _has_key_trouble(row: Row) -> bool:
    """Whether its source has other rows under the same key, or the row moved from another key."""
    return bool(row.duplicates) or (row.entered_by is not None and row.entered_by.moved_from is not None)
