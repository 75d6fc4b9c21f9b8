"""The allowed label values: those of the plan and of the closed lists of the semantics, nothing else.

Every other value becomes `other`. A conflict about a whole record has the field "": to Prometheus, no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from itertools import combinations
from typing import Final

from cdc_merge.model import DECISION, DECISION_SOURCE, DELETE, INSERT, SNAPSHOT, TRUNCATE, UPDATE, Conflict
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan

OTHER: Final = "other"
WHOLE_RECORD: Final = ""
PAIRED: Final = " / "

OPERATIONS: Final = (INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT)
OUTCOMES: Final = ("applied", "merged", "conflict", "copy", "copy_unmatched", "agreement", "repeat", "late")
SEVERITIES: Final = ("critical", "high", "medium", "low")
# The agreed time to answer a conflict, by severity, in seconds; there is none for low.
AGREED_S: Final[Mapping[str, float]] = {"critical": 4 * 3600.0, "high": 24 * 3600.0, "medium": 7 * 24 * 3600.0}
ANSWERS: Final = ("in_time", "late")
RESOLUTIONS: Final = ("auto", "decided", "converged", "dismissed", "superseded")
WAL_STATUSES: Final = ("reserved", "extended", "unreserved", "lost")
# Why a server invalidates a slot (pg_replication_slots.invalidation_reason); none: the slot is valid.
NOT_INVALIDATED: Final = "none"
INVALIDATIONS: Final = ("wal_removed", "rows_removed", "wal_level_insufficient", "idle_timeout")
MERGES: Final = frozenset(
    {"lww", "mv", "counter", "set", "flag", "max", "min", "priority", "immutable", "lattice", "map", "append"}
)
STATES: Final = ("connecting", "snapshot", "streaming", "retrying", "paused", "stopped")
EVALUATIONS: Final = ("true", "false", "unknown", "error")
STAGES: Final = ("map", "merge", "questions", "commit", "all")
BEHIND: Final = ("own", "origin")
LOADS: Final = ("memory", "store")
REMOVED: Final = ("tombstone_removed", "history_removed")
# What follows a failed attempt to read a source: a retry, or a person must act.
FAILURES: Final = ("retried", "refused")
# What failed (sources/postgres/failure_classes.py).
FAILURE_CLASSES: Final = (
    "connection",
    "protocol",
    "tls",
    "authentication",
    "permission",
    "position",
    "configuration",
    "in_use",
    "resources",
    "shutdown",
    "server",
    "disk",
    "process",
    "internal",
)
RETRYABLE: Final = {True: "true", False: "false"}
# Why a source refuses to be read (errors.SourceRefused, `problem`), and a reader that failed by an internal error.
PROBLEMS: Final = (
    "slot_lost",
    "slot_missing",
    "slot_recreated",
    "server_restored",
    "failed_over",
    "other_server",
    "publication_missing",
    "publication_changed",
    "wal_level",
    "not_permitted",
    "authentication",
    "tls",
    "database_missing",
    "table_missing",
    "column_missing",
    "configuration",
    "stream_unreadable",
    "value_unreadable",
    "transaction_too_large",
    "reader_failed",
)

ROW_KINDS: Final = ("update_delete", "key_change")
FIELD_KINDS: Final = ("concurrent_update", "concurrent_insert")
COUNTER_KINDS: Final = ("concurrent_update", "bound", "unknown_base")
# Merge types that settle every concurrent write; the series of other conflicts (writers, rules) begin when one happens.
AUTOMATIC: Final = frozenset({"lww", "priority", "max", "min", "set", "flag"})
KINDS: Final = frozenset(
    {
        *ROW_KINDS,
        *FIELD_KINDS,
        *COUNTER_KINDS,
        "duplicate",
        "divergence",
        "unauthorized",
        "business_rule",
        "invariant",
        "anomaly",
        "schema_drift",
    }
)
DEFAULT_SEVERITY: Final = "medium"


class Labels:
    """The label values of one plan: the series to start with, and the label for each value that arrives."""

    def __init__(self, plan: Plan) -> None:
        self._entities = plan.entities
        self._units = {name: {**entity.fields, **entity.groups} for name, entity in plan.entities.items()}
        expressions = [name for entity in plan.entities.values() for name in _expressions(entity)]
        self.rules = tuple(dict.fromkeys([*expressions, *(rule.name for rule in plan.rules if rule.when is not None)]))
        self._tables = {(table.source, table.table) for table in plan.tables}
        mapped = {source for entity in plan.entities.values() for source in entity.sources}
        self.sources = tuple(sorted(mapped | {table.source for table in plan.tables}))

    # ---------------------------------------------------------------- series to start with

    def changes(self) -> Iterator[tuple[str, str, str]]:
        for source, entity in self.mapped():
            yield from ((source, entity, operation) for operation in OPERATIONS)

    def mapped(self) -> Iterator[tuple[str, str]]:
        """(source, entity)"""
        for name, entity in self._entities.items():
            yield from ((source, name) for source in entity.sources)

    def merges(self) -> Iterator[tuple[str, str, str, str]]:
        for entity, units in self._units.items():
            for unit in units.values():
                yield from ((entity, unit.name, unit.merge, outcome) for outcome in OUTCOMES)

    def conflicts(self) -> Iterator[tuple[str, str, str, str]]:
        """(entity, field, kind, severity)"""
        for name, entity in self._entities.items():
            yield from ((name, *row) for row in _of_rows(entity))
            for unit in self._units[name].values():
                yield from ((name, unit.name, kind, unit.severity) for kind in _kinds_of(unit))

    def answers(self) -> Iterator[tuple[str, str, str]]:
        """(entity, severity, outcome)"""
        for entity in self._entities:
            yield from ((entity, severity, outcome) for severity in AGREED_S for outcome in ANSWERS)

    def resolutions(self) -> Iterator[tuple[str, str, str]]:
        """(entity, kind, resolution)"""
        for entity, kind in sorted({(entity, kind) for entity, _, kind, _ in self.conflicts()}):
            yield from ((entity, kind, resolution) for resolution in RESOLUTIONS)

    def tables(self) -> Iterator[tuple[str, str]]:
        """(source, table)"""
        yield from sorted(self._tables)
        yield from ((source, OTHER) for source in self.sources)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(entity, pair): each two sources that may disagree, and each source that a conflict may be about alone."""
        for name, entity in self._entities.items():
            yield from ((name, pair) for pair in _pairs({*entity.sources}))

    def problems(self) -> Iterator[tuple[str, str]]:
        """(source, problem)"""
        yield from ((source, problem) for source in self.sources for problem in (*PROBLEMS, OTHER))

    def errors(self) -> Iterator[tuple[str, str, str]]:
        """(source, class, retryable)"""
        for source in self.sources:
            yield from ((source, kind, retried) for kind in (*FAILURE_CLASSES, OTHER) for retried in RETRYABLE.values())

    # ---------------------------------------------------------------- labels of arriving values

    def error(self, failure: str, *, is_retried: bool) -> tuple[str, str]:
        """(class, retryable)"""
        return _listed(failure, FAILURE_CLASSES), RETRYABLE[is_retried]

    def change(self, source: str, entity: str, operation: str) -> tuple[str, str, str]:
        listed = operation if operation in OPERATIONS or operation == DECISION else OTHER
        return self.source(source), self.entity(entity), listed

    def merge(self, labels: tuple[str, str, str, str]) -> tuple[str, str, str, str]:
        entity, field, merge, outcome = labels
        unit = self._unit(entity, field)
        merge_type = unit.merge if unit is not None and "." not in field else _listed(merge, MERGES)
        return self.entity(entity), self.field(entity, field), merge_type, _listed(outcome, OUTCOMES)

    def conflict(self, conflict: Conflict) -> tuple[str, str, str, str]:
        """(entity, field, kind, severity)"""
        detected = conflict.detected
        field = detected.group or detected.field
        return (
            self.entity(detected.entity),
            WHOLE_RECORD if field is None else self.field(detected.entity, field),
            _listed(detected.kind, KINDS),
            _listed(detected.severity, SEVERITIES),
        )

    def pairs_of(self, conflict: Conflict) -> Iterator[tuple[str, str]]:
        """(entity, pair) of every two sources with a candidate in the conflict, or of its only source."""
        sources = {self.source(candidate.source) for candidate in conflict.detected.candidates}
        entity = self.entity(conflict.detected.entity)
        yield from ((entity, pair) for pair in _pairs(sources) if len(sources) == 1 or PAIRED in pair)

    def problem(self, problem: str) -> str:
        return _listed(problem, PROBLEMS)

    def resolution(self, resolution: str | None) -> str:
        return _listed(resolution or "", RESOLUTIONS)

    def source(self, name: str) -> str:
        return name if name in self.sources or name == DECISION_SOURCE else OTHER

    def entity(self, name: str) -> str:
        return name if name in self._entities else OTHER

    def rule(self, name: str) -> str:
        return name if name in self.rules else OTHER

    def field(self, entity: str, name: str) -> str:
        """A key inside a map (`prefs.city`) counts as its map: keys come from rows."""
        unit = self._unit(entity, name)
        return OTHER if unit is None else unit.name

    def table(self, source: str, table: str) -> tuple[str, str]:
        return (source, table) if (source, table) in self._tables else (self.source(source), OTHER)

    def _unit(self, entity: str, name: str) -> FieldPlan | None:
        units: Mapping[str, FieldPlan] = self._units.get(entity, {})
        return units.get(name) or units.get(name.partition(".")[0])


def _expressions(entity: EntityPlan) -> Iterator[str]:
    yield from (check.name for check in entity.checks)
    yield from (unique.name for unique in entity.unique if unique.when is not None)


def _of_rows(entity: EntityPlan) -> Iterator[tuple[str, str, str]]:
    yield from ((WHOLE_RECORD, kind, DEFAULT_SEVERITY) for kind in ROW_KINDS)
    yield from ((WHOLE_RECORD, "duplicate", unique.severity) for unique in entity.unique)
    yield from ((WHOLE_RECORD, "invariant", check.severity) for check in entity.checks)


def _kinds_of(unit: FieldPlan) -> tuple[str, ...]:
    if unit.merge == "counter":
        return COUNTER_KINDS
    return () if unit.merge in AUTOMATIC else FIELD_KINDS


def _listed(value: str, values: tuple[str, ...] | frozenset[str]) -> str:
    return value if value in values else OTHER


def _pairs(sources: Set[str]) -> Iterator[str]:
    ordered = sorted(sources)
    yield from ordered
    yield from (PAIRED.join(pair) for pair in combinations(ordered, 2))
