"""Retention: changes older than `history.retention` leave the log, a bounded piece per batch (semantics §2 Stability, §4, §8).

Rules: a change leaves only when a pruned checkpoint contains it, when every source has passed it, and when it is older than
`history.keep_folded` as well. A record that has ended everywhere is removed; the store remembers its entity, because "update
after delete" and "update of a row never seen" can then not be distinguished.

A pruned checkpoint is made at the horizon, not at the piece: it contains everything that leaves in the next interval, so the
following pieces need no other. The interval is a part of the retention, so a change is folded for it a few times at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cdc_merge.merge.checkpoint import dump_state
from cdc_merge.merge.replay import fold_from_checkpoint, policy_of
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import ended
from cdc_merge.model import Checkpoint, QuarantineReleased, RecordKey, Stamp
from cdc_merge.model.plan import Plan
from cdc_merge.model.ports import StoreTransaction

# Changes that leave in one batch: a few milliseconds of it.
CHANGES_PER_BATCH: Final = 500
# Changes leave when they are older than the retention by this part of it.
SLACK: Final = 8


class Retention:
    """The retention of one worker. `sweep` belongs into a batch, after its changes were appended."""

    def __init__(self, plan: Plan, units: Mapping[str, Units]) -> None:
        self._plan = plan
        self._units = units
        self._policy = policy_of(plan)

    def sweep(self, tx: StoreTransaction, watermark_us: int, now_us: int) -> list[RecordKey]:
        """Remove a piece of the expired history. The records that were removed altogether."""
        keep_us = self._plan.retention_us
        if not keep_us:
            return []
        horizon_us = min(now_us - keep_us, watermark_us - self._plan.keep_folded_us)
        before_us = horizon_us - keep_us // SLACK
        if not _expired(tx.oldest(1), before_us):
            return []
        expired = _expired(tx.oldest(CHANGES_PER_BATCH), before_us)
        latest: dict[RecordKey, Stamp] = {}
        for key, stamp in expired:
            latest[key] = max(stamp, latest.get(key, stamp))
        for key, stamp in latest.items():
            self._ensure_pruned_checkpoint(tx, key, stamp, Stamp(horizon_us + 1, 0, ""))
        tx.forget_oldest(len(expired))
        return [key for key in latest if self._is_removed(tx, key)]

    def sweep_quarantine(self, tx: StoreTransaction, now_us: int) -> list[QuarantineReleased]:
        """Remove changes that are quarantined for longer than the retention."""
        if not self._plan.retention_us:
            return []
        dropped = tx.forget_quarantined_before(now_us - self._plan.retention_us)
        return [QuarantineReleased(source, table, "expired", count) for (source, table), count in dropped.items()]

    def _ensure_pruned_checkpoint(self, tx: StoreTransaction, key: RecordKey, stamp: Stamp, horizon: Stamp) -> None:
        """Make sure that a pruned checkpoint contains the record's changes up to and with `stamp`."""
        pruned = tx.pruned(key)
        if pruned is not None and pruned.stamp >= stamp:
            return
        checkpoint = tx.checkpoints({key: horizon}).get(key)
        if checkpoint is not None and not checkpoint.pruned and checkpoint.policy != self._policy:
            checkpoint = pruned
        if checkpoint is None or checkpoint.stamp < stamp:
            checkpoint = self._checkpoint_at(tx, key, checkpoint, horizon)
        tx.save_pruned_checkpoint(key, checkpoint)

    def _checkpoint_at(
        self, tx: StoreTransaction, key: RecordKey, earlier: Checkpoint | None, horizon: Stamp
    ) -> Checkpoint:
        later = tx.histories([key], {} if earlier is None else {key: earlier.stamp})[key]
        changes = [change for change in later if change.stamp < horizon]
        units, ahead_us = self._units[key.entity], self._plan.max_ahead_us
        record = fold_from_checkpoint(units, key.key, (earlier, changes), max_ahead_us=ahead_us)
        assert record.last is not None, "a checkpoint without changes"
        return Checkpoint(record.last, 0 if earlier is None else earlier.number, self._policy, dump_state(record))

    def _is_removed(self, tx: StoreTransaction, key: RecordKey) -> bool:
        """Remove a record that has ended in every source and has no unfinished conflict; whether it was removed."""
        pruned = tx.pruned(key)
        if pruned is None or tx.histories([key])[key] or tx.open_conflicts([key])[key]:
            return False
        record = fold_from_checkpoint(
            self._units[key.entity], key.key, (pruned, ()), max_ahead_us=self._plan.max_ahead_us
        )
        if not ended(record) or any(not record.is_absent(source) for source in record.rows):
            return False
        tx.forget_record(key)
        return True


def _expired(oldest: Iterable[tuple[RecordKey, Stamp]], before_us: int) -> list[tuple[RecordKey, Stamp]]:
    """The changes before the first that is not expired."""
    expired = []
    for key, stamp in oldest:
        if stamp.wall_us >= before_us:
            break
        expired.append((key, stamp))
    return expired
