"""Facts → log lines (`log_lines` says how a line is written).

Each line has an event code, stable, that may be searched and alerted on and that the runbooks cite; the sentence beside
it may change. No line holds a value or a key: records are named by a digest, the same for the same record of this
installation, so that lines can be joined without telling whom they are about.
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
# How far a table is that is read again: its level, event and sentence.
RESYNC_EVENTS: Final = {
    "rows": (logging.DEBUG, "resync_progress", "A table is read again."),
    "missing": (logging.DEBUG, "resync_progress", "What is not there any more is looked for."),
    "done": (logging.INFO, "resync_done", "A table was read again."),
    "failed": (logging.ERROR, "resync_failed", "A table could not be read again; the stream goes on."),
}
# What a conflict did: its event and its sentence. While it settles it may still turn out to be nothing.
CONFLICT_EVENTS: Final = {
    "raised": ("conflict_raised", "A conflict was found and settles."),
    "revised": ("conflict_revised", "A conflict has new evidence."),
    "announced": ("conflict_announced", "A conflict waits for a decision."),
    "closed": ("conflict_closed", "A conflict is closed."),
}


class Logs:
    """An observer that writes a line for what an operator wants to read afterwards.

    `salt` makes the digests of records this installation's own: business keys are few enough to try them all.
    """

    def __init__(self, salt: bytes = b"") -> None:
        self._salt = salt[: blake2b.MAX_KEY_SIZE]
        self._telling: Mapping[type, Callable[[Any], None]] = {
            BatchMerged: self._batch,
            ConflictMoved: self._conflict,
            SourceChanged: self._source,
            Parked: _parked,
            QuarantineReleased: _unparked,
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
        """Write what is worth a line. Never raises: logging reports its own faults on stderr."""
        tell = self._telling.get(type(fact))
        if tell is not None:
            tell(fact)

    def record_digest(self, entity: str, key: str) -> str:
        """What stands for a record in the log: 12 hex digits."""
        return blake2b(f"{entity}\0{key}".encode(errors="surrogatepass"), digest_size=6, key=self._salt).hexdigest()

    def _batch(self, fact: BatchMerged) -> None:
        told = {
            "changes": sum(fact.changes.values()),
            "late_changes": fact.late_changes,
            "raised": len(fact.raised),
            "closed": len(fact.closed),
            **{f"{stage}_seconds": round(seconds, 6) for stage, seconds in fact.seconds.items()},
        }
        write(logging.DEBUG, "batch_merged", "A batch is on disk.", told)

    def _conflict(self, fact: ConflictMoved) -> None:
        event, sentence = CONFLICT_EVENTS[fact.what]
        severity = fact.conflict.detected.severity
        levels = {"announced": SEVERITY_LEVELS.get(severity, logging.INFO), "closed": logging.INFO}
        level = levels.get(fact.what, logging.DEBUG)
        write(level, event, sentence, self._conflict_fields(fact.conflict))

    def _conflict_fields(self, conflict: Conflict) -> Fields:
        question = conflict.detected
        return {
            "conflict": conflict.id,
            "entity": question.entity,
            "record": self.record_digest(question.entity, question.key),
            "field": question.group or question.field,
            "kind": question.kind,
            "severity": question.severity,
            "revision": conflict.revision,
            "resolution": conflict.resolution,
            "sources": " ".join(sorted({candidate.source for candidate in question.candidates})),
        }

    def _loop(self, fact: LoopDetected) -> None:
        told: Fields = {
            "entity": fact.entity,
            "record": self.record_digest(fact.entity, fact.key),
            "sources": " ".join(sorted(fact.sources)),
        }
        write(logging.WARNING, "loop_detected", "Two sources write the same values to and fro.", told)

    def _source(self, fact: SourceChanged) -> None:
        level = logging.ERROR if fact.problem else logging.INFO
        told = {"source": fact.source, "state": fact.state, "problem": fact.problem, "hint": fact.hint or None}
        write(level, "source_changed", fact.sentence, told)


def _parked(fact: Parked) -> None:
    told: Fields = {"source": fact.source, "table": fact.table, "reason": fact.reason, "kept": fact.is_kept}
    write(logging.WARNING, "row_parked", "A row was set aside; the stream went on.", told)


def _unparked(fact: QuarantineReleased) -> None:
    told: Fields = {"source": fact.source, "table": fact.table, "outcome": fact.outcome, "changes": fact.count}
    level = logging.WARNING if fact.outcome == "expired" else logging.INFO
    write(level, "row_unparked", "Changes of rows that nobody had named wait no longer.", told)


def _clock_cut(fact: ClockCut) -> None:
    told: Fields = {"source": fact.source, "ahead_seconds": fact.ahead_us / 1e6}
    write(logging.WARNING, "clock_cut", "A source's clock is ahead of ours; its stamp was cut.", told)


def _degraded(fact: DetectionDegraded) -> None:
    told: Fields = {"source": fact.source, "entity": fact.entity, "reason": fact.reason}
    write(logging.WARNING, "detection_degraded", "A change met what retention had removed.", told)


def _heartbeat(fact: HeartbeatPassed) -> None:
    if fact.lost:
        told: Fields = {"source": fact.source, "lost": fact.lost}
        write(logging.ERROR, "heartbeats_lost", "Heartbeats never came: part of the source's log was skipped.", told)


def _progress(fact: SnapshotProgress) -> None:
    told: Fields = {"source": fact.source, "entity": fact.entity, "rows": fact.rows, "expected": fact.expected}
    write(logging.DEBUG, "snapshot_progress", "A first copy goes on.", told)


def _resync(fact: ResyncProgress) -> None:
    level, event, sentence = RESYNC_EVENTS[fact.state]
    told: Fields = {"source": fact.source, "table": fact.table, "rows": fact.rows, "expected": fact.expected}
    write(level, event, sentence, {**told, "problem": fact.problem or None})


def _store(fact: StoreWaits) -> None:
    if fact.problem is None:
        write(logging.INFO, "store_released", "The store is free again; merging goes on.", {"seconds": fact.seconds})
        return
    told: Fields = {"problem": fact.problem, "hint": fact.hint}
    write(logging.ERROR, "store_held", "Merging waits; it goes on by itself, and nothing is lost.", told)


def _reloaded(fact: ConfigReloaded) -> None:
    if fact.problem is None:
        sentence = "The configuration file was read again and is in force."
        write(logging.INFO, "config_reloaded", sentence, {"policy": fact.policy})
        return
    told: Fields = {"policy": fact.policy, "problem": fact.problem, "problems": " | ".join(fact.problems) or None}
    write(logging.ERROR, "config_reload_failed", "The old configuration stays in force.", told)


def write(level: int, event: str, sentence: str, fields: Fields) -> None:
    """One line. Fields that are None are left out; the sentence is taken as it is, not as a format."""
    LOG.log(level, sentence, code=event, **{name: figure for name, figure in fields.items() if figure is not None})
