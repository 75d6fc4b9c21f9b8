"""A `Reading` over values in memory, for tests of what is built upon one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from cdc_merge.errors import NotFound
from cdc_merge.model import (
    UNKNOWN,
    Candidate,
    Change,
    Conflict,
    DetectedConflict,
    Explained,
    Explanation,
    LaterEdit,
    MergedRecord,
    Missing,
    Place,
    Position,
    RecordKey,
    RestorePlan,
    RestoreWrite,
    SourceStatus,
    SourceView,
    Stamp,
)
from cdc_merge.model.plan import Rule
from cdc_merge.queries.port import Page
from cdc_merge.queries.source_documents import SourceReport

Item = TypeVar("Item")
T0 = 1_790_000_000_000_000


def stamp(offset_us: int, source: str) -> Stamp:
    return Stamp(T0 + offset_us, 0, source)


def place(lsn: int) -> Place:
    return Place("7300000000000000001", 1, lsn, "public.customer", 0)


def phone_conflict(conflict_id: str = "c1", key: str = "C001", status: str = "open", raised_us: int = T0) -> Conflict:
    crm = Candidate("crm", "2", stamp(1, "crm"), T0 + 1, "wang", place(0x16B3748), (stamp(0, "erp"),))
    erp = Candidate("erp", "3", stamp(2, "erp"), T0 + 2, None, place(0x16B3750))
    detected = DetectedConflict(
        "customer", key, "phone", None, "concurrent_update", "high", (crm, erp), base="1", provisional="3"
    )
    closed_us, resolution = (T0 + 9_000_000, "converged") if status == "closed" else (None, None)
    return Conflict(
        conflict_id, detected, status, 2, raised_us, T0 + 2_000_000, closed_us, resolution, policy="sha256:ab"
    )


def customer(key: str = "C001") -> MergedRecord:
    views = {
        "crm": SourceView("present", {"phone": "2"}, stamp(1, "crm")),
        "erp": SourceView("present", {"phone": "3"}, stamp(2, "erp")),
    }
    return MergedRecord("customer", key, False, {"phone": "3", "points": 8, "balance": Decimal("1E+3")}, views)


def phone_changes(key: str = "C001") -> list[Change]:
    return [
        Change("customer", key, stamp(1, "crm"), place(1), "update", {"phone": ("1", "2")}, "wang", None, T0 + 1),
        Change("customer", key, stamp(2, "erp"), place(2), "update", {"phone": (UNKNOWN, "3")}, None, None, T0 + 2),
    ]


def phone_explanation(key: str = "C001") -> Explanation:
    writes = (
        Explained(stamp(1, "crm"), "crm", "write", "1", "2", (), "candidate", "erp had not seen it."),
        Explained(stamp(2, "erp"), "erp", "write", UNKNOWN, "3", (), "candidate", "It is the latest of two."),
    )
    return Explanation("customer", key, "phone", "mv", "3", (stamp(1, "crm"), stamp(2, "erp")), writes)


def phone_restore(key: str = "C001") -> RestorePlan:
    edit = LaterEdit(phone_changes(key)[1], ("phone",))
    write = RestoreWrite("erp", "update", {"phone": ("3", "2")})
    return RestorePlan("customer", key, stamp(1, "crm"), (False, False), {"phone": ("3", "2")}, (write,), (edit,))


def crm_source() -> SourceReport:
    status = SourceStatus("crm", "postgres", True, "streaming", 0x16B3748, 0x16B3748, T0, slot="cdc_merge_crm")
    return SourceReport(status, Position("7", 1, 0x16B3700, "done", "cdc_merge_crm"), T0)


@dataclass
class MemoryReading:
    """`broken` makes every query fail with that error."""

    all_conflicts: list[Conflict] = field(default_factory=list)
    all_records: dict[RecordKey, MergedRecord] = field(default_factory=dict)
    all_sources: list[SourceReport] = field(default_factory=list)
    all_missing: list[Missing] = field(default_factory=list)
    all_rules: list[Rule] = field(default_factory=list)
    readiness: tuple[bool, str] = (True, "Every source streams.")
    why_nothing_is_merged: str | None = None
    broken: Exception | None = None
    reload_error: Exception | None = None
    reloads: int = 0
    moments: list[Stamp | None] = field(default_factory=list)

    def conflicts(self, where: Mapping[str, str], cursor: str | None, limit: int) -> Page[Conflict]:
        self._check()
        selected = [conflict for conflict in self.all_conflicts if _matches(conflict, where)]
        begin = int(cursor) if cursor else 0
        return _page(selected, begin, limit)

    def conflict(self, conflict_id: str) -> Conflict | None:
        self._check()
        return next((conflict for conflict in self.all_conflicts if conflict.id == conflict_id), None)

    def record(self, record: RecordKey, as_of: Stamp | None) -> MergedRecord | None:
        self._check()
        self.moments.append(as_of)
        return self.all_records.get(record)

    def records(self, entity: str, cursor: str | None, limit: int) -> Page[MergedRecord]:
        self._check()
        if entity != "customer":
            raise NotFound(f"There is no entity {entity}.", hint="The configured ones: customer.")
        return _page(list(self.all_records.values()), int(cursor) if cursor else 0, limit)

    def missing(self, entity: str, source: str | None, cursor: str | None, limit: int) -> Page[Missing]:
        self._check()
        selected = [each for each in self.all_missing if source in (None, each.source)]
        return _page(selected, int(cursor) if cursor else 0, limit)

    def history(self, record: RecordKey, cursor: str | None, limit: int) -> Page[Change]:
        self._check()
        selected = phone_changes(record.key) if record in self.all_records else []
        return _page(selected, int(cursor) if cursor else 0, limit)

    def explain(self, record: RecordKey, field: str) -> Explanation | None:
        self._check()
        if field != "phone":
            raise NotFound(f"The entity {record.entity} has no field {field}.")
        return phone_explanation(record.key) if record in self.all_records else None

    def restore(self, record: RecordKey, to: Stamp | None, fields: Sequence[str]) -> RestorePlan | None:
        self._check()
        self.moments.append(to)
        return phone_restore(record.key) if record in self.all_records else None

    def sources(self) -> Sequence[SourceReport]:
        self._check()
        return self.all_sources

    def rules(self) -> Sequence[Rule]:
        return self.all_rules

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    def problem(self) -> str | None:
        return self.why_nothing_is_merged

    def reload(self) -> None:
        if self.reload_error is not None:
            raise self.reload_error
        self.reloads += 1

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken


def with_records(*keys: str) -> MemoryReading:
    return MemoryReading(
        all_conflicts=[phone_conflict(key=keys[0])] if keys else [],
        all_records={RecordKey("customer", key): customer(key) for key in keys},
        all_sources=[crm_source()],
    )


def _page(selected: list[Item], begin: int, limit: int) -> Page[Item]:
    end = begin + limit
    return Page(selected[begin:end], str(end) if end < len(selected) else None)


def _matches(conflict: Conflict, where: Mapping[str, str]) -> bool:
    detected = conflict.detected
    facts: dict[str, set[str | None]] = {
        "status": {conflict.status},
        "entity": {detected.entity},
        "key": {detected.key},
        "field": {detected.field},
        "kind": {detected.kind},
        "severity": {detected.severity},
        "source": {*(candidate.source for candidate in detected.candidates)},
    }
    return all(wanted in facts[name] for name, wanted in where.items())
