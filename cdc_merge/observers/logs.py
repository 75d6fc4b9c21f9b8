"""Facts → log lines, and how every line of the process is written.

Each line has an `event`, a stable code that may be searched and alerted on; the sentence beside it may change. No line
holds a value or a key: records are named by a digest, the same for the same record of this installation, so that lines
can be joined without telling whom they are about. An exception is logged by its type and the places it passed, never by
its message, which drivers like to fill with rows.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final, TextIO

from cdc_merge.model import (
    BatchMerged,
    ClockCut,
    Conflict,
    ConflictMoved,
    Fact,
    Parked,
    SnapshotProgress,
    SourceChanged,
)

LOG: Final = logging.getLogger("cdc_merge")
FORMS: Final = ("console", "json")
Fields = Mapping[str, str | int | float | None]

SEVERITY_LEVELS: Final = {
    "critical": logging.WARNING,
    "high": logging.WARNING,
    "medium": logging.INFO,
    "low": logging.INFO,
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

    def __call__(self, fact: Fact) -> None:
        """Write what is worth a line. Never raises: logging reports its own faults on stderr."""
        match fact:
            case BatchMerged():
                self._batch(fact)
            case ConflictMoved():
                self._conflict(fact)
            case SourceChanged():
                self._source(fact)
            case Parked():
                told: Fields = {"source": fact.source, "table": fact.table, "reason": fact.reason}
                write(logging.WARNING, "row_parked", "A row was set aside; the stream went on.", told)
            case ClockCut():
                ahead: Fields = {"source": fact.source, "ahead_seconds": fact.ahead_us / 1e6}
                write(logging.WARNING, "clock_cut", "A source's clock is ahead of ours; its stamp was cut.", ahead)
            case SnapshotProgress():
                rows: Fields = {
                    "source": fact.source,
                    "entity": fact.entity,
                    "rows": fact.rows,
                    "expected": fact.expected,
                }
                write(logging.DEBUG, "snapshot_progress", "A first copy goes on.", rows)

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
        event, sentence = CONFLICT_EVENTS.get(fact.what, ("conflict_moved", "A conflict moved."))
        severity = fact.conflict.question.severity
        levels = {"announced": SEVERITY_LEVELS.get(severity, logging.INFO), "closed": logging.INFO}
        level = levels.get(fact.what, logging.DEBUG)
        write(level, event, sentence, self._conflict_fields(fact.conflict))

    def _conflict_fields(self, conflict: Conflict) -> Fields:
        question = conflict.question
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

    def _source(self, fact: SourceChanged) -> None:
        level = logging.ERROR if fact.problem else logging.INFO
        told = {"source": fact.source, "state": fact.state, "problem": fact.problem, "hint": fact.hint or None}
        write(level, "source_changed", fact.sentence, told)


def write(level: int, event: str, sentence: str, fields: Fields) -> None:
    """One line. Fields that are None are left out; the sentence is taken as it is, not as a format."""
    told = {name: figure for name, figure in fields.items() if figure is not None}
    LOG.log(level, "%s", sentence, extra={"event": event, "told": told})


# ---------------------------------------------------------------- how lines are written


def configure(form: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Write the process's log to `stream` (stderr), as JSON lines or for people. `form` is one of FORMS."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(FORMATTERS[form]())
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Its start and stop are ours to tell.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """One JSON object a line: ts, level, event, logger, message, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": _time_of(record),
            "level": record.levelname.lower(),
            "event": _event_of(record),
            "logger": record.name,
            "message": record.getMessage(),
            **_told_by(record),
        }
        return json.dumps(line, ensure_ascii=False, default=repr)


class Console(logging.Formatter):
    """`12:00:00.123 WARNING conflict_announced A conflict waits for a decision. kind=… source=…`"""

    def format(self, record: logging.LogRecord) -> str:
        told = " ".join(f"{name}={_quoted(figure)}" for name, figure in _told_by(record).items())
        words = (
            _time_of(record)[11:23],
            f"{record.levelname:<7}",
            _event_of(record),
            _one_line(record.getMessage()),
            told,
        )
        return " ".join(word for word in words if word)


FORMATTERS: Final[Mapping[str, type[logging.Formatter]]] = {"console": Console, "json": JsonLines}


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _event_of(record: logging.LogRecord) -> str:
    event = getattr(record, "event", None)
    return event if isinstance(event, str) else "log"


def _told_by(record: logging.LogRecord) -> dict[str, object]:
    told = getattr(record, "told", None)
    fields: dict[str, object] = dict(told) if isinstance(told, dict) else {}
    if record.exc_info and record.exc_info[1] is not None:
        fields |= exception_fields(record.exc_info[1])
    return fields


def exception_fields(error: BaseException) -> dict[str, object]:
    """An exception's type and the places it passed, the innermost last."""
    passed = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return {"error": type(error).__name__, "where": " > ".join(passed)}


def _quoted(figure: object) -> str:
    text = _one_line(str(figure))
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text or not text else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
