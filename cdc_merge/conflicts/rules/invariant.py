"""invariant: the merged record violates a check (semantics §3, Checks).

Candidates are the frontier writes of the fields in the check. A record without writes raises no conflict: an initial
snapshot alone never does.
"""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.conflicts.expression_port import Expression
from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.conflict_detection import update_candidates
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import readable_frontier, values
from cdc_merge.merge.writes import BASELINE, Write
from cdc_merge.model import UNKNOWN, DetectedConflict


def detect(record: Record, rulebook: Rulebook, context: RuleContext) -> Iterator[DetectedConflict]:
    if not rulebook.checks:
        return
    merged = {"record": values(record)}
    for check, test in rulebook.checks:
        errors = test.errors
        holds = test.evaluate(merged)
        outcome = "error" if test.errors > errors else "unknown" if holds is UNKNOWN else "true" if holds else "false"
        rulebook.tally[check.name, outcome] += 1
        if holds is not False:
            continue
        candidates = update_candidates(_frontier_writes(record, test))
        if candidates:
            yield DetectedConflict(
                entity=record.units.entity.name,
                key=record.key,
                field=None,
                group=None,
                kind="invariant",
                severity=check.severity,
                candidates=tuple(sorted(candidates, key=lambda candidate: candidate.stamp)),
                provisional=None,
                rule=check.name,
            )


def _frontier_writes(record: Record, test: Expression) -> list[tuple[Unit, Write]]:
    groups = record.units.group_of
    owners = {groups[name].name if name in groups else name for name in test.fields}
    writes = []
    for name in sorted(record.unit_states):
        unit = record.unit_of[name]
        if unit.owner in owners:
            frontier = readable_frontier(record, unit, record.unit_states[name])
            writes += [(unit, write) for write in frontier if write.kind != BASELINE]
    return writes
