"""Facts that observers receive after they are durable, and figures that they read on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cdc_merge.model.conflict import Conflict


@dataclass(frozen=True, slots=True)
class BatchMerged:
    """A batch is on disk. Counters are keyed by the label values of contract §5.

    `transactions`: how many rows each transaction changed, by source. `behind`: transactions whose commit time lay before
    one that was committed earlier, by (source, why): `own` where the source's clock or its concurrent commits did that,
    `origin` where they were applied under a replication origin and carry its time. `loads`: records that were wanted, by
    where their state was, `memory` or `store`.
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
    """A source's connection or health changed; `sentence` is for people, `problem` a stable name or None. `failure`: what
    kind of failure that was, "" where nothing failed."""

    source: str
    state: str
    sentence: str
    problem: str | None = None
    hint: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """A row was set aside because it could not be read, or because nobody knows whose it is; the stream went on. `is_kept`: it
    is merged as soon as its identity is named."""

    source: str
    table: str
    reason: str
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class QuarantineReleased:
    """Changes that had been kept wait no longer. `outcome`: `named` (they were merged), `emptied` (their table was),
    `expired` (older than the retention, and still nobody knew whose they were)."""

    source: str
    table: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class ClockCut:
    """A commit lay further ahead of our clock than allowed and was cut for stamping."""

    source: str
    ahead_us: int


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    source: str
    entity: str
    rows: int
    expected: int


@dataclass(frozen=True, slots=True)
class ResyncProgress:
    """A piece of a table was read again and is on disk: `rows` of about `expected` so far. With it `read` rows came, and
    `gone` records were found not to be there. `state` is rows, missing (what no piece named is looked for), done or
    failed."""

    source: str
    table: str
    state: str
    rows: int
    expected: int
    read: int
    gone: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DetectionDegraded:
    """A change met a record of which something was removed by retention. `reason`: tombstone_removed (it cannot be told
    whether its row was deleted or never seen), history_removed (it is older than what is left, and is not merged)."""

    source: str
    entity: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoopDetected:
    """Two sources have set fields of a record to the same values to and fro, many times and shortly after each other."""

    entity: str
    key: str
    sources: tuple[str, str]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """The configuration file was read again while running. `policy` is the one in force afterwards; `problem` says why
    that is still the old one, None when the file's is; `problems` lists each place."""

    policy: str
    problem: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatPassed:
    """A message that we wrote into a source is merged and on disk, `seconds` after it was sent; `lost` before it never
    came."""

    source: str
    seconds: float
    lost: int


@dataclass(frozen=True, slots=True)
class StoreWaits:
    """Merging waits because another program holds the store, `problem` says so; None: it goes on after `seconds`."""

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
    """Sizes that observers read when they are asked, not when something happens."""

    records_cached: int = 0
    history_changes: int = 0
    watermark_us: int = 0
    conflicts_open: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    oldest_open_us: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missing: Mapping[tuple[str, str], int] = field(default_factory=dict)
    parked: Mapping[tuple[str, str], int] = field(default_factory=dict)
