"""What happens to conflicts, counted: raised, answered, closed, how long it took and whether that was in time.

An answer is one that somebody waited for: a conflict that was announced and is over, however it ended. What rules and
copies in flight settle at once is closed, and no answer: it would hide the others in every ratio.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from cdc_merge.model import Conflict, ConflictMoved
from cdc_merge.observers.labels import AGREED_S, Labels

# From a copy that was in flight to a week on somebody's desk; the agreed times are among them.
RESOLUTION_BUCKETS: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0, 604_800.0)
# A conflict may be told in its batch and again when it moves; repeats come soon after each other.
REMEMBERED: Final = 10_000


class ConflictMetrics:
    """The metrics of conflicts in a registry."""

    def __init__(self, prefix: str, labels: Labels, registry: CollectorRegistry) -> None:
        self._labels = labels
        self._first_raised, self._first_closed = _FirstTime(), _FirstTime()

        def counter(name: str, text: str, *names: str) -> Counter:
            return Counter(prefix + name, text, names, registry=registry)

        self._conflicts = counter("conflicts", "Conflicts that were raised.", "entity", "field", "kind", "severity")
        self._pairs = counter(
            "conflict_pairs",
            "Conflicts that were raised, for every two sources that disagree in them.",
            "entity",
            "pair",
        )
        self._resolutions = counter("resolutions", "Conflicts that were closed.", "entity", "kind", "resolution")
        self._answers = counter(
            "conflicts_answered",
            "Conflicts that somebody was asked about and that are over, by whether that was within the agreed time.",
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
        """Make every series that the labels let us foresee, at zero."""
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
        """Count it once, however often it is told."""
        if self._first_raised(conflict.id):
            self._conflicts.labels(*self._labels.conflict(conflict)).inc()
            for pair in self._labels.pairs_of(conflict):
                self._pairs.labels(*pair).inc()

    def closed(self, conflict: Conflict) -> None:
        """Count it once, however often it is told."""
        if not self._first_closed(conflict.id):
            return
        if conflict.announced_us is None:
            # Settled by itself at once: closing is the first that is told of it.
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
    """True for an id that was not met lately."""

    def __init__(self) -> None:
        self._met: OrderedDict[str, None] = OrderedDict()

    def __call__(self, identity: str) -> bool:
        if identity in self._met:
            return False
        self._met[identity] = None
        if len(self._met) > REMEMBERED:
            self._met.popitem(last=False)
        return True
