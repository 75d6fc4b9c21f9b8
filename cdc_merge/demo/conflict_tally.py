"""The demo's observer: counts merged changes and keeps the latest conflicts. Never raises, never waits."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from cdc_merge.demo.sentences import closing_sentence, conflict_sentence
from cdc_merge.model import SNAPSHOT, BatchMerged, Conflict, ConflictMoved, Fact, SourceChanged

LATEST: Final = 400  # lines kept for the screen
MOST_TIMES: Final = 1_000_000  # detection times kept; a longer demo covers its last million changes


class Line(NamedTuple):
    """One line for the screen: `tone` is raised, closed or source."""

    tone: str
    kind: str
    severity: str
    text: str


class ConflictTally:
    """The demo's observer. Read from other threads through its methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: Counter[str] = Counter()
        self._merges: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=MOST_TIMES)
        self._shown: set[tuple[str, str]] = set()
        self.lines: deque[Line] = deque(maxlen=LATEST)
        self.line_count = 0

    def __call__(self, fact: Fact) -> None:
        with self._lock:
            match fact:
                case BatchMerged():
                    self._batch(fact)
                case ConflictMoved():
                    self._moved(fact.what, fact.conflict)
                case SourceChanged():
                    self._append(Line("source", fact.state, "", f"{fact.source}: {fact.sentence}"))

    def _batch(self, fact: BatchMerged) -> None:
        for (source, _, operation), count in fact.changes.items():
            if operation != SNAPSHOT:
                self._changes[source] += count
        for (*_, outcome), count in fact.merges.items():
            self._merges[outcome] += count
        for seconds in fact.detection_seconds.values():
            self._seconds.extend(seconds)
        for conflict in fact.raised:
            self._moved("raised", conflict)
        for conflict in fact.closed:
            self._moved("closed", conflict)

    def _moved(self, what: str, conflict: Conflict) -> None:
        if what not in ("raised", "closed") or (what, conflict.id) in self._shown:
            return
        self._shown.add((what, conflict.id))
        text = conflict_sentence(conflict) if what == "raised" else closing_sentence(conflict)
        self._append(Line(what, conflict.detected.kind, conflict.detected.severity, text))

    def _append(self, line: Line) -> None:
        self.lines.append(line)
        self.line_count += 1

    def changes(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._changes)

    def merged(self, outcome: str) -> int:
        with self._lock:
            return self._merges[outcome]

    def lines_after(self, after: int) -> tuple[int, list[Line]]:
        """The lines after the count `after` (at most LATEST), and the new count."""
        with self._lock:
            unread = min(self.line_count - after, len(self.lines))
            return self.line_count, list(self.lines)[len(self.lines) - unread :]

    def detection(self) -> Mapping[str, float]:
        """p50 and p99 of commit → merged and durable, in seconds; zeros when nothing was merged."""
        with self._lock:
            ordered = sorted(self._seconds)
        return {"p50": percentile(ordered, 0.50), "p99": percentile(ordered, 0.99)}


def percentile(ordered: list[float], part: float) -> float:
    """The nearest-rank percentile of sorted values, to the microsecond; 0.0 of none."""
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 6)
