"""The format of every log line of the process: structlog over the standard library, so that all packages' lines are alike.

A JSON line has the names of the Elastic Common Schema: `@timestamp`, `log.level`, `event.code`, `message` …; our own
fields stand below `cdc_merge.`. An exception is logged by its type and stack, never by its message. A repeated line is
written a few times a minute; the next written one carries the number of lines left out.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

ECS_VERSION: Final = "8.11.0"
SERVICE: Final = "cdc-merge"
NO_CODE: Final = "log"
# Lines of one kind that are written in one window; more are left out and counted.
BURST: Final = 20
WINDOW_S: Final = 60.0
KINDS_REMEMBERED: Final = 1_000
# Fields that may differ between two lines of one kind.
VARYING: Final = frozenset({"conflict", "record", "revision", "rows", "ahead_seconds", "changes"})
# Bookkeeping of the standard library and of structlog: not written.
INTERNAL: Final = frozenset({"_record", "_from_structlog", "_message", "color_message", "code", "event", "exc_info"})


def configure(form: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Write the process's log to `stream` (stderr), as JSON lines or for people. `form` is one of FORMS."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(form))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # We log its start and stop ourselves.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def capture_uncaught() -> None:
    """Route everything into the log that would be printed beside it: exceptions that end a thread, exceptions that no code
    can catch, and warnings."""
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable
    logging.captureWarnings(True)  # noqa: FBT003 the library's own signature


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        name = failed.thread.name if failed.thread is not None else ""
        error = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        logger(SERVICE).error("A thread ended by an internal error.", code="thread_failed", thread=name, exc_info=error)


def _unraisable(failed: sys.UnraisableHookArgs) -> None:
    if failed.exc_value is not None:
        error = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        logger(SERVICE).error("An internal error was raised outside any handler.", code="thread_failed", exc_info=error)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines go the standard library's way, whatever else uses structlog in this process."""
    wrapped: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return wrapped


def _formatter(form: str) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_keep_message, structlog.stdlib.ExtraAdder()], processors=[ecs_fields, FORMS[form]]
    )


# ---------------------------------------------------------------- repeats


class Repeats(logging.Filter):
    """Lets the first lines of a kind through in each window. Errors always pass: there are few, and each counts."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._kinds: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        kind = _kind(record)
        now_s = self._monotonic()
        begun_s, written = self._kinds.pop(kind, (now_s, 0))
        left_out = 0
        if now_s - begun_s >= WINDOW_S:
            begun_s, written, left_out = now_s, 0, max(0, written - BURST)
        self._kinds[kind] = (begun_s, written + 1)
        if len(self._kinds) > KINDS_REMEMBERED:
            self._kinds.popitem(last=False)
        if left_out:
            record.repeats_left_out = left_out
        return written < BURST


def _kind(record: logging.LogRecord) -> object:
    """What two lines of one kind have in common."""
    if not isinstance(record.msg, dict):
        return record.name, record.levelno, record.msg
    same = {name: str(figure) for name, figure in record.msg.items() if name not in VARYING and name[0] != "_"}
    return record.name, record.levelno, tuple(sorted(same.items()))


# ---------------------------------------------------------------- fields


def _keep_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep the message of a standard library line: its `extra` may hold an `event`, which is a code."""
    event["_message"] = event["event"]
    return event


def ecs_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The line under the names of the Elastic Common Schema."""
    record: logging.LogRecord = event["_record"]
    code = event.get("code") or getattr(record, "event", None)
    line: dict[str, Any] = {
        "@timestamp": _time_of(record),
        "log.level": record.levelname.lower(),
        "event.code": code if isinstance(code, str) else NO_CODE,
        "message": str(event.get("_message", event["event"])),
        "log.logger": record.name,
        "service.name": SERVICE,
        "ecs.version": ECS_VERSION,
    }
    ours = {**event, "repeats_left_out": getattr(record, "repeats_left_out", None)}
    line |= {f"cdc_merge.{name}": ours[name] for name in ours if name not in INTERNAL and ours[name] is not None}
    error = _error_of(event)
    return line if error is None else line | _exception_fields(error)


def _error_of(event: EventDict) -> BaseException | None:
    info = event.get("exc_info")
    if isinstance(info, tuple):
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


def _exception_fields(error: BaseException) -> dict[str, object]:
    """An exception's type and the places it passed, the innermost last."""
    passed = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return {"error.type": type(error).__name__, "error.stack_trace": " > ".join(passed)}


def as_json(_: WrappedLogger, __: str, line: EventDict) -> str:
    return json.dumps(line, ensure_ascii=False, default=repr)


def for_people(_: WrappedLogger, __: str, line: EventDict) -> str:
    """`12:00:00.123 WARNING conflict_announced A conflict waits for a decision. kind=… source=…`"""
    names = [name for name in line if name.startswith(("cdc_merge.", "error."))]
    more = (f"{name.removeprefix('cdc_merge.')}={_quoted(line[name])}" for name in names)
    level = str(line["log.level"]).upper()
    words = (line["@timestamp"][11:23], f"{level:<7}", line["event.code"], _one_line(line["message"]), *more)
    return " ".join(words)


FORMS: Final[Mapping[str, Callable[[WrappedLogger, str, EventDict], str]]] = {"console": for_people, "json": as_json}


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _quoted(figure: object) -> str:
    text = _one_line(str(figure))
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text or not text else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
