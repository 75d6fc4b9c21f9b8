"""Facts → log lines (`log_format` formats them).

Each line has a stable event code, to search, to alert on and to cite in runbooks; the sentence beside it may change. No
line holds a value or a key: a record is identified by a digest, the same for the same record of this installation, so
that lines can be joined without revealing the record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

from cdc_merge.model import (
    BatchMerged,
    ClockCut,
    ConfigReloaded,
    Conflict,
    ConflictMoved,
    DetectionDegraded,
    Fact,
    HeartbeatPassed,
    LoopDetected,
    Parked,
    QuarantineReleased,
    ResyncProgress,
    SnapshotProgress,
    SourceChanged,
    StoreWaits,
)
from cdc_merge.observers.log_format import logger

LOG: Final = logger("cdc_merge")
Fields = Mapping[str, str | int | float | None]

SEVERITY_LEVELS: Final = {
    "critical": logging.WARNING,
    "high": logging.WARNING,
    "medium": logging.INFO,
    "low": logging.INFO,
}
# The state of an incremental snapshot: level, event and sentence.
RESYNC_EVENTS: Final = {
    "rows": (logging.DEBUG, "resync_progress", "An incremental snapshot is reading a table."),
    "missing": (logging.DEBUG, "resync_progress", "An incremental snapshot is checking for missing records."),
    "done": (logging.INFO, "resync_done", "The incremental snapshot of a table is complete."),
    "failed": (logging.ERROR, "resync_failed", "The incremental snapshot of a table failed; the stream continues."),
}
# A step of a conflict: event and sentence. A settling conflict may still close by itself.
CONFLICT_EVENTS: Final = {
    "raised": ("conflict_raised", "A conflict was detected and is settling."),
    "revised": ("conflict_revised", "A conflict has new evidence."),
    "announced": ("conflict_announced", "A conflict waits for a decision."),
    "closed": ("conflict_closed", "A conflict was closed."),
}


class Logs:
    """An observer that writes a line for each fact that an operator wants to read afterwards.

    `salt` keys the record digests per installation: business keys are few enough to try them all.
    """

    def __init__(self, salt: bytes = b"") -> None:
        self._salt = salt[: blake2b.MAX_KEY_SIZE]
        self._writers: Mapping[type, Callable[[Any], None]] = {
            BatchMerged: self._batch,
            ConflictMoved: self._conflict,
            SourceChanged: self._source,
            Parked: _parked,
            QuarantineReleased: _released,
            ClockCut: _clock_cut,
            DetectionDegraded: _degraded,
            SnapshotProgress: _progress,
            LoopDetected: self._loop,
            ConfigReloaded: _reloaded,
            HeartbeatPassed: _heartbeat,
            ResyncProgress: _resync,
            StoreWaits: _store,
        }

    def __call__(self, fact: Fact) -> None:
        """Write the fact's line, if it has one. Never raises: logging reports its own faults on stderr."""
        write_line = self._writers.get(type(fact))
        if write_line is not None:
            write_line(fact)

    def record_digest(self, entity: str, key: str) -> str:
        """The digest that identifies a record in the log: 12 hex digits."""
        return blake2b(f"{entity}\0{key}".encode(errors="surrogatepass"), digest_size=6, key=self._salt).hexdigest()

    def _batch(self, fact: BatchMerged) -> None:
        fields = {
            "changes": sum(fact.changes.values()),
            "late_changes": fact.late_changes,
            "raised": len(fact.raised),
            "closed": len(fact.closed),
            **{f"{stage}_seconds": round(seconds, 6) for stage, seconds in fact.seconds.items()},
        }
        write(logging.DEBUG, "batch_merged", "A batch is on disk.", fields)

    def _conflict(self, fact: ConflictMoved) -> None:
        event, sentence = CONFLICT_EVENTS[fact.what]
        severity = fact.conflict.detected.severity
        levels = {"announced": SEVERITY_LEVELS.get(severity, logging.INFO), "closed": logging.INFO}
        level = levels.get(fact.what, logging.DEBUG)
        write(level, event, sentence, self._conflict_fields(fact.conflict))

    def _conflict_fields(self, conflict: Conflict) -> Fields:
        detected = conflict.detected
        return {
            "conflict": conflict.id,
            "entity": detected.entity,
            "record": self.record_digest(detected.entity, detected.key),
            "field": detected.group or detected.field,
            "kind": detected.kind,
            "severity": detected.severity,
            "revision": conflict.revision,
            "resolution": conflict.resolution,
            "sources": " ".join(sorted({candidate.source for candidate in detected.candidates})),
        }

    def _loop(self, fact: LoopDetected) -> None:
        fields: Fields = {
            "entity": fact.entity,
            "record": self.record_digest(fact.entity, fact.key),
            "sources": " ".join(sorted(fact.sources)),
        }
        write(logging.WARNING, "loop_detected", "Two sources alternately restore each other's value.", fields)

    def _source(self, fact: SourceChanged) -> None:
        level = logging.ERROR if fact.problem else logging.INFO
        fields = {"source": fact.source, "state": fact.state, "problem": fact.problem, "hint": fact.hint or None}
        write(level, "source_changed", fact.sentence, fields)


def _parked(fact: Parked) -> None:
    fields: Fields = {"source": fact.source, "table": fact.table, "reason": fact.reason, "kept": fact.is_quarantined}
    write(logging.WARNING, "row_parked", "A row was parked; the stream continues.", fields)


def _released(fact: QuarantineReleased) -> None:
    fields: Fields = {"source": fact.source, "table": fact.table, "outcome": fact.outcome, "changes": fact.count}
    level = logging.WARNING if fact.outcome == "expired" else logging.INFO
    write(level, "row_unparked", "Changes left the quarantine.", fields)


def _clock_cut(fact: ClockCut) -> None:
    fields: Fields = {"source": fact.source, "ahead_seconds": fact.ahead_us / 1e6}
    write(logging.WARNING, "clock_cut", "The clock of a source is ahead of ours; the stamp was cut.", fields)


def _degraded(fact: DetectionDegraded) -> None:
    fields: Fields = {"source": fact.source, "entity": fact.entity, "reason": fact.reason}
    write(
        logging.WARNING, "detection_degraded", "The change refers to history that retention has already pruned.", fields
    )


def _heartbeat(fact: HeartbeatPassed) -> None:
    if fact.lost:
        fields: Fields = {"source": fact.source, "lost": fact.lost}
        write(logging.ERROR, "heartbeats_lost", "Heartbeats are missing: part of the source's WAL was skipped.", fields)


def _progress(fact: SnapshotProgress) -> None:
    fields: Fields = {"source": fact.source, "entity": fact.entity, "rows": fact.rows, "expected": fact.expected}
    write(logging.DEBUG, "snapshot_progress", "An initial snapshot is in progress.", fields)


def _resync(fact: ResyncProgress) -> None:
    level, event, sentence = RESYNC_EVENTS[fact.state]
    fields: Fields = {"source": fact.source, "table": fact.table, "rows": fact.rows, "expected": fact.expected}
    write(level, event, sentence, {**fields, "problem": fact.problem or None})


def _store(fact: StoreWaits) -> None:
    if fact.problem is None:
        write(
            logging.INFO,
            "store_released",
            "The store is available again; merging continues.",
            {"seconds": fact.seconds},
        )
        return
    fields: Fields = {"problem": fact.problem, "hint": fact.hint}
    write(
        logging.ERROR, "store_held", "Merging waits for the store; it continues by itself, and nothing is lost.", fields
    )


def _reloaded(fact: ConfigReloaded) -> None:
    if fact.problem is None:
        sentence = "The configuration was reloaded and is in force."
        write(logging.INFO, "config_reloaded", sentence, {"policy": fact.policy})
        return
    fields: Fields = {"policy": fact.policy, "problem": fact.problem, "problems": " | ".join(fact.problems) or None}
    write(
        logging.ERROR, "config_reload_failed", "The reload failed; the previous configuration stays in force.", fields
    )


def write(level: int, event: str, sentence: str, fields: Fields) -> None:
    """Write one line. Fields that are None are left out; the sentence is no format string."""
    LOG.log(level, sentence, code=event, **{name: figure for name, figure in fields.items() if figure is not None})
