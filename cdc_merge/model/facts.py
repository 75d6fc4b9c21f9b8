"""Facts: events that observers receive after they are durable; and the figures that observers read on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cdc_merge.model.conflict import Conflict


@dataclass(frozen=True, slots=True)
class BatchMerged:
    """A batch is on disk. Counters are keyed by the label values of contract §5.

    `seconds`: duration by stage. `transactions`: changed rows of each transaction, by source. `behind`: transactions whose
    commit time lies before that of an earlier commit, by (source, cause): `own` for the source's clock or its concurrent
    commits, `origin` for transactions that were applied under a replication origin and carry its time. `loads`: record states
    loaded by the batch, by origin, `memory` or `store`. `late_changes` arrived behind a later stamp of their record.
    """

    seconds: Mapping[str, float]
    changes: Mapping[tuple[str, str, str], int]
    merges: Mapping[tuple[str, str, str, str], int]
    detection_seconds: Mapping[str, tuple[float, ...]]
    late_changes: int
    raised: tuple[Conflict, ...] = ()
    closed: tuple[Conflict, ...] = ()
    rules: Mapping[tuple[str, str], int] = field(default_factory=dict)
    transactions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    behind: Mapping[tuple[str, str], int] = field(default_factory=dict)
    loads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConflictMoved:
    """A conflict was raised, revised, announced or closed; `what` says which."""

    what: str
    conflict: Conflict


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """A source's connection or health changed; `sentence` is for people, `problem` a stable name or None. `failure` is the
    class of the failure (sources/postgres/failure_classes.py), "" without one."""

    source: str
    state: str
    sentence: str
    problem: str | None = None
    hint: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """A row was parked: a value is unreadable, or the business key is unknown; the stream continues. `is_quarantined`: it is
    quarantined, and merged as soon as its business key is resolved."""

    source: str
    table: str
    reason: str
    is_quarantined: bool = False


@dataclass(frozen=True, slots=True)
class QuarantineReleased:
    """Changes left quarantine. `outcome`: `named` (key resolved, merged), `emptied` (their table was truncated), `expired`
    (older than the retention, key still unresolved)."""

    source: str
    table: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class ClockCut:
    """A commit time lay further ahead of our clock than allowed and was cut for its stamp."""

    source: str
    ahead_us: int


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """Progress of an initial snapshot: `rows` of about `expected` of one entity."""

    source: str
    entity: str
    rows: int
    expected: int


@dataclass(frozen=True, slots=True)
class ResyncProgress:
    """A chunk of an incremental snapshot is on disk: `rows` of about `expected` so far, `read` of them in this chunk; `deleted`
    records are missing at the source. `state` is rows, missing (records that no chunk contained are looked up), done or
    failed."""

    source: str
    table: str
    state: str
    rows: int
    expected: int
    read: int
    deleted: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DetectionDegraded:
    """A change refers to history that retention has pruned. `reason`: tombstone_removed (its row was either deleted or never
    seen), history_removed (it is older than the remaining history, and is not merged)."""

    source: str
    entity: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoopDetected:
    """A write loop: two sources alternately restore each other's value of a record, many times within a short time."""

    entity: str
    key: str
    sources: tuple[str, str]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """The configuration was reloaded. `policy` is the digest in force afterwards; `problem` is why that is still the previous
    one, None after a successful reload; `problems` lists each place."""

    policy: str
    problem: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatPassed:
    """A heartbeat is merged and on disk, `seconds` after it was written into its source; `lost` heartbeats before it never
    arrived."""

    source: str
    seconds: float
    lost: int


@dataclass(frozen=True, slots=True)
class StoreWaits:
    """Merging waits: another program has locked the store (`problem`); None: it continues after `seconds`."""

    problem: str | None
    hint: str = ""
    seconds: float = 0.0


Fact: TypeAlias = (
    "BatchMerged | ConflictMoved | SourceChanged | Parked | QuarantineReleased | ClockCut | SnapshotProgress | DetectionDegraded"
    " | LoopDetected | ConfigReloaded | ResyncProgress"
    " | HeartbeatPassed | StoreWaits"
)


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Gauges that observers read on demand: sizes of the store, and the watermark."""

    records_cached: int = 0
    history_changes: int = 0
    watermark_us: int = 0
    conflicts_open: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    oldest_open_us: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missing: Mapping[tuple[str, str], int] = field(default_factory=dict)
    parked: Mapping[tuple[str, str], int] = field(default_factory=dict)
