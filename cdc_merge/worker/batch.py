"""A batch: what the steps collect within one store transaction, for the steps after them. It decides nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from cdc_merge.conflicts.lifecycle import LifecycleContext
from cdc_merge.conflicts.schema_drift import AnnouncedColumns
from cdc_merge.model import Change, Conflict, Fact, RecordKey, Stamp


@dataclass(slots=True)
class Batch:
    context: LifecycleContext

    # ------------------------------------------------------------ between the steps
    pending: list[Change] = field(default_factory=list)
    """Mapped changes that are not in the log yet."""
    announced_columns: dict[tuple[str, str, str], AnnouncedColumns] = field(default_factory=dict)
    """(source, entity, table) → the columns announced last."""
    truncated: list[tuple[RecordKey, Stamp]] = field(default_factory=list)
    """Records of truncated tables, until their transaction is complete."""
    previous_keys: set[RecordKey] = field(default_factory=set)
    """Records that rows left which arrive elsewhere: the conflict about the move stands there."""

    # ------------------------------------------------------------ to be committed
    conflicts: list[Conflict] = field(default_factory=list)
    deadlines: dict[RecordKey, int | None] = field(default_factory=dict)
    removed: list[RecordKey] = field(default_factory=list)
    """Records that retention removed."""
    uncached: list[RecordKey] = field(default_factory=list)
    """Records that only their re-evaluation brought into the cache."""

    # ------------------------------------------------------------ to be published
    facts: list[Fact] = field(default_factory=list)
    heartbeats: list[tuple[str, int, int]] = field(default_factory=list)
    """(source, sent_us, heartbeats lost before it)."""
    changes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(source, entity, operation) → changes."""
    commits: dict[str, list[int]] = field(default_factory=dict)
    """Source → commit times of its transactions, µs."""
    rows: dict[str, list[int]] = field(default_factory=dict)
    """Source → row changes of each transaction."""
    behind: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(source, own or origin) → transactions with an earlier commit time than one before them."""
    merges: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """(entity, field, merge, outcome) → how often."""
    late_changes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage → time spent in it."""

    @property
    def now_us(self) -> int:
        return self.context.now_us

    def add_seconds(self, stage: str, started: float) -> None:
        """`started`: the perf_counter at which the stage began."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - started
