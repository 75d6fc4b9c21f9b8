"""What is older than `history.retention` leaves the log, a bounded piece per batch (semantics §2 Stability, §4, §8).

Rules: a change leaves only when a root holds it, when every source has passed it, and when it is older than
`history.keep_folded` as well. Of a record that has ended everywhere nothing stays; that its entity has lost such ones
is remembered, because "update after delete" and "update of a row never seen" can then no longer be told apart.

A root is made at the horizon, not at the piece: it holds all that will leave in the next while, and the pieces that
follow find it made. That while is a part of the retention, so a change is folded for roots a few times in its life.
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
PIECE: Final = 500
# Changes leave when they are older than the retention by this part of it.
SLACK: Final = 8


class Retention:
    """The rule for one worker. `sweep` belongs into a batch, after its changes were appended."""

    def __init__(self, plan: Plan, units: Mapping[str, Units]) -> None:
        self._plan = plan
        self._units = units
        self._policy = policy_of(plan)

    def sweep(self, tx: StoreTransaction, watermark_us: int, now_us: int) -> list[RecordKey]:
        """Remove a piece of what is over. The records that were removed altogether."""
        keep_us = self._plan.retention_us
        if not keep_us:
            return []
        horizon_us = min(now_us - keep_us, watermark_us - self._plan.keep_folded_us)
        before_us = horizon_us - keep_us // SLACK
        if not _over(tx.oldest(1), before_us):
            return []
        piece = _over(tx.oldest(PIECE), before_us)
        latest: dict[RecordKey, Stamp] = {}
        for key, stamp in piece:
            latest[key] = max(stamp, latest.get(key, stamp))
        for key, stamp in latest.items():
            self._root(tx, key, stamp, Stamp(horizon_us + 1, 0, ""))
        tx.forget_oldest(len(piece))
        return [key for key in latest if self._forgotten(tx, key)]

    def sweep_parked(self, tx: StoreTransaction, now_us: int) -> list[QuarantineReleased]:
        """Remove what has waited for its row's name longer than the log remembers anything."""
        if not self._plan.retention_us:
            return []
        gone = tx.forget_quarantined_before(now_us - self._plan.retention_us)
        return [QuarantineReleased(source, table, "expired", count) for (source, table), count in gone.items()]

    def _root(self, tx: StoreTransaction, key: RecordKey, stamp: Stamp, horizon: Stamp) -> None:
        """See to it that a root holds the record's changes up to and with `stamp`."""
        root = tx.pruned(key)
        if root is not None and root.stamp >= stamp:
            return
        base = tx.checkpoints({key: horizon}).get(key)
        if base is not None and not base.pruned and base.policy != self._policy:
            base = root
        if base is None or base.stamp < stamp:
            base = self._folded(tx, key, base, horizon)
        tx.save_pruned_checkpoint(key, base)

    def _folded(self, tx: StoreTransaction, key: RecordKey, base: Checkpoint | None, horizon: Stamp) -> Checkpoint:
        later = tx.histories([key], {} if base is None else {key: base.stamp})[key]
        changes = [change for change in later if change.stamp < horizon]
        units, ahead_us = self._units[key.entity], self._plan.max_ahead_us
        record = fold_from_checkpoint(units, key.key, (base, changes), max_ahead_us=ahead_us)
        assert record.last is not None, "a piece of the log has changes"
        return Checkpoint(record.last, 0 if base is None else base.number, self._policy, dump_state(record))

    def _forgotten(self, tx: StoreTransaction, key: RecordKey) -> bool:
        """Remove a record that has ended in every source and of which nothing is asked any more."""
        root = tx.pruned(key)
        if root is None or tx.histories([key])[key] or tx.open_conflicts([key])[key]:
            return False
        record = fold_from_checkpoint(self._units[key.entity], key.key, (root, ()), max_ahead_us=self._plan.max_ahead_us)
        if not ended(record) or any(not record.absent(source) for source in record.rows):
            return False
        tx.forget_record(key)
        return True


def _over(oldest: Iterable[tuple[RecordKey, Stamp]], before_us: int) -> list[tuple[RecordKey, Stamp]]:
    """The first of these, up to the first that is not over yet."""
    piece = []
    for key, stamp in oldest:
        if stamp.wall_us >= before_us:
            break
        piece.append((key, stamp))
    return piece
