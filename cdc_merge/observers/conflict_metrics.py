"""Metrics of conflicts: raised, answered, closed, time to resolution and whether it was within the agreed time.

An answered conflict is one that was announced and is closed, with whatever resolution. A conflict that rules or copies in
flight settle before it is announced is closed, not answered: it would dominate every ratio.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from cdc_merge.model import Conflict, ConflictMoved
from cdc_merge.observers.labels import AGREED_S, Labels

# From a copy in flight to a week of waiting for a decision; the agreed times are among them.
RESOLUTION_BUCKETS: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0, 604_800.0)
# The facts of a batch and of a moved conflict may both report one conflict; repeats follow each other closely.
REMEMBERED: Final = 10_000


class ConflictMetrics:
    """The metrics of conflicts in a registry."""

    def __init__(self, prefix: str, labels: Labels, registry: CollectorRegistry) -> None:
        self._labels = labels
        self._first_raised, self._first_closed = _FirstTime(), _FirstTime()

        def counter(name: str, text: str, *names: str) -> Counter:
            return Counter(prefix + name, text, names, registry=registry)

        self._conflicts = counter("conflicts", "Conflicts raised.", "entity", "field", "kind", "severity")
        self._pairs = counter(
            "conflict_pairs",
            "Conflicts raised, for each pair of sources that disagree.",
            "entity",
            "pair",
        )
        self._resolutions = counter("resolutions", "Conflicts closed.", "entity", "kind", "resolution")
        self._answers = counter(
            "conflicts_answered",
            "Announced conflicts that were closed, by whether it was within the agreed time.",
            "entity",
            "severity",
            "outcome",
        )
        self._resolution_seconds = Histogram(
            f"{prefix}resolution_seconds",
            "From raising a conflict to closing it.",
            ("entity", "resolution"),
            buckets=RESOLUTION_BUCKETS,
            registry=registry,
        )

    def preset_series(self, labels: Labels) -> None:
        """Create every series whose labels the plan has, at zero."""
        for conflict in labels.conflicts():
            self._conflicts.labels(*conflict)
        for pair in labels.pairs():
            self._pairs.labels(*pair)
        for answer in labels.answers():
            self._answers.labels(*answer)
        for entity, kind, resolution in labels.resolutions():
            self._resolutions.labels(entity, kind, resolution)
            self._resolution_seconds.labels(entity, resolution)

    def follow(self, labels: Labels) -> None:
        self._labels = labels

    def moved(self, fact: ConflictMoved) -> None:
        if fact.what == "raised":
            self.raised(fact.conflict)
        elif fact.what == "closed":
            self.closed(fact.conflict)

    def raised(self, conflict: Conflict) -> None:
        """Count it once, however often it is reported."""
        if self._first_raised(conflict.id):
            self._conflicts.labels(*self._labels.conflict(conflict)).inc()
            for pair in self._labels.pairs_of(conflict):
                self._pairs.labels(*pair).inc()

    def closed(self, conflict: Conflict) -> None:
        """Count it once, however often it is reported."""
        if not self._first_closed(conflict.id):
            return
        if conflict.announced_us is None:
            # Settled before it was announced: closing is the first fact about it.
            self.raised(conflict)
        entity, _, kind, severity = self._labels.conflict(conflict)
        resolution = self._labels.resolution(conflict.resolution)
        self._resolutions.labels(entity, kind, resolution).inc()
        if conflict.closed_us is None:
            return
        took_s = max(0, conflict.closed_us - conflict.raised_us) / 1e6
        self._resolution_seconds.labels(entity, resolution).observe(took_s)
        if conflict.announced_us is not None and severity in AGREED_S:
            self._answers.labels(entity, severity, "in_time" if took_s <= AGREED_S[severity] else "late").inc()


class _FirstTime:
    """True for an id that is not among the recent ones."""

    def __init__(self) -> None:
        self._recent: OrderedDict[str, None] = OrderedDict()

    def __call__(self, identity: str) -> bool:
        if identity in self._recent:
            return False
        self._recent[identity] = None
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return True
