"""Step 7: facts for the observers, after the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cdc_merge.model import BatchMerged, Conflict, ConflictMoved, HeartbeatPassed
from cdc_merge.model.ports import Observer
from cdc_merge.worker.batch import Batch
from cdc_merge.worker.fold_step import count_merges
from cdc_merge.worker.state import WorkerState


def publish(state: WorkerState, batch: Batch, observe: Observer, seconds: float) -> None:
    """`seconds`: the time of the whole batch."""
    count_merges(state, batch)
    for fact in batch.facts:
        observe(fact)
    now_us = state.environment.now_us()
    for source, sent_us, lost in batch.heartbeats:
        observe(HeartbeatPassed(source, (now_us - sent_us) / 1e6, lost))
    observe(
        BatchMerged(
            seconds={**batch.seconds, "all": seconds},
            changes=dict(batch.changes),
            merges=dict(batch.merges),
            detection_seconds={s: tuple((now_us - t) / 1e6 for t in times) for s, times in batch.commits.items()},
            late_changes=batch.late_changes,
            raised=tuple(c for c in batch.conflicts if c.status == "settling" and c.revision == 1),
            closed=tuple(c for c in batch.conflicts if c.status == "closed"),
            rules=_expression_outcomes(state),
            transactions={source: tuple(rows) for source, rows in batch.rows.items()},
            behind=dict(batch.behind),
            loads=dict(state.records.loads),
        )
    )
    state.records.loads.clear()
    for conflict in batch.conflicts:
        observe(ConflictMoved(_transition(conflict), conflict))


def _expression_outcomes(state: WorkerState) -> Mapping[tuple[str, str], int]:
    """(check or rule, outcome) → evaluations since the last batch."""
    total: Counter[tuple[str, str]] = Counter()
    for rulebook in state.rulebooks.values():
        total.update(rulebook.tally)
        rulebook.tally.clear()
    return total


def _transition(conflict: Conflict) -> str:
    if conflict.status == "closed":
        return "closed"
    if conflict.status == "open" and conflict.announced_us is not None:
        return "announced"
    return "raised" if conflict.revision == 1 else "revised"
