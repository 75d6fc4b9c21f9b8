"""The summary of a demo run: as JSON (`--output json`) and as text lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cdc_merge.demo.verify import Verdict

MOST_DEVIATIONS: Final = 200  # listed; the counts are always complete


@dataclass(frozen=True, slots=True)
class Summary:
    """`problem` is the reason why the comparison is incomplete, None when it is complete."""

    seconds: float
    acts: int
    changes: Mapping[str, int]
    records: int
    merged_automatically: int
    conflicts: Mapping[str, int]
    open_conflicts: int
    detection_seconds: Mapping[str, float]
    verdict: Verdict
    problem: str | None = None

    @property
    def is_verified(self) -> bool:
        return self.problem is None and not self.verdict.deviations

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "seconds": round(self.seconds, 1),
            "acts": self.acts,
            "sources": {name: {"changes": count} for name, count in self.changes.items()},
            "records": self.records,
            "merged_automatically": self.merged_automatically,
            "conflicts": dict(self.conflicts),
            "conflicts_open": self.open_conflicts,
            "detection_seconds": dict(self.detection_seconds),
            "verified": dict(self.verdict.summary),
            "deviations": [deviation._asdict() for deviation in self.verdict.deviations[:MOST_DEVIATIONS]],
            "problem": self.problem,
        }

    def lines(self) -> Iterator[str]:
        """The text lines."""
        changes = ", ".join(f"{name} {count}" for name, count in self.changes.items())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.conflicts.items())) or "none"
        yield f"{self.acts} acts in {self.seconds:.0f} s; changes merged: {changes}"
        yield f"merged automatically: {self.merged_automatically}"
        yield f"conflicts: {kinds}; {self.open_conflicts} still open"
        times = {name: f"{seconds * 1000:.0f} ms" for name, seconds in self.detection_seconds.items()}
        yield f"commit at the source → merged and on disk: p50 {times['p50']}, p99 {times['p99']}"
        counts = self.verdict.summary
        yield (
            f"compared with the ground truth: {counts['records_checked']} records, {counts['mismatches']} mismatches, "
            f"{counts['conflicts_missed']} conflicts missed, {counts['conflicts_unplanned']} unexpected"
        )
        yield from (f"  {deviation.about}: {deviation}" for deviation in self.verdict.deviations[:MOST_DEVIATIONS])
        if self.problem is not None:
            yield f"not verified: {self.problem}"
