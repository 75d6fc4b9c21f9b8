"""invariant: a check that does not hold of the merged record (semantics §3, Checks).

Candidates are the frontier's writes of the fields that the check mentions. A record that nobody has written raises
none: a first snapshot never makes a question of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from cdc_merge.conflicts.expression_port import Expression
from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.conflict_detection import updates
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Unit
from cdc_merge.merge.views import effective, values
from cdc_merge.merge.writes import BASELINE, Write
from cdc_merge.model import UNKNOWN, DetectedConflict


def detect(record: Record, rulebook: Rulebook, stage: RuleContext) -> Iterator[DetectedConflict]:
    if not rulebook.checks:
        return
    merged = {"record": values(record)}
    for check, test in rulebook.checks:
        errors = test.errors
        holds = test.evaluate(merged)
        said = "error" if test.errors > errors else "unknown" if holds is UNKNOWN else "true" if holds else "false"
        rulebook.tally[check.name, said] += 1
        if holds is not False:
            continue
        candidates = updates(_writes(record, test))
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


def _writes(record: Record, test: Expression) -> list[tuple[Unit, Write]]:
    groups = record.units.group_of
    owners = {groups[name].name if name in groups else name for name in test.fields}
    found = []
    for name in sorted(record.cells):
        unit = record.unit_of[name]
        if unit.owner in owners:
            front = effective(record, unit, record.cells[name])
            found += [(unit, write) for write in front if write.kind != BASELINE]
    return found
