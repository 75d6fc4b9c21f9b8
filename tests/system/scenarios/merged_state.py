"""The merged state of a sidecar, in a form that can be compared: records and open conflicts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

ABSENT = "(absent)"


@dataclass(frozen=True)
class OpenConflict:
    """One open conflict, without ids, revisions and times."""

    key: str
    kind: str
    field: str | None
    candidates: tuple[tuple[str, Any], ...]
    base: Any
    provisional: Any
    labels: tuple[str, ...]
    records: tuple[str, ...] = ()

    @property
    def by_source(self) -> dict[str, Any]:
        found = dict(self.candidates)
        assert len(found) == len(self.candidates), f"a source has two candidates: {self.candidates}"
        return found


def open_conflict(conflict: Document) -> OpenConflict:
    candidates = [(each["source"], each.get("value", ABSENT)) for each in conflict["candidates"]]
    return OpenConflict(
        key=conflict["key"],
        kind=conflict["kind"],
        field=conflict["group"] or conflict["field"],
        candidates=tuple(sorted(candidates, key=json.dumps)),
        base=conflict.get("base", ABSENT),
        provisional=conflict.get("provisional", ABSENT),
        labels=tuple(sorted(conflict["labels"])),
        records=tuple(conflict.get("records", ())),
    )


@dataclass(frozen=True)
class MergedState:
    """Everything that is a function of the histories and the rules alone."""

    records: Mapping[str, Document]
    open_conflicts: tuple[OpenConflict, ...]

    def differences(self, other: MergedState) -> list[str]:
        keys = sorted(self.records.keys() | other.records.keys())
        mine, theirs = self.records, other.records
        records = [f"{k}: {mine.get(k)} ≠ {theirs.get(k)}" for k in keys if mine.get(k) != theirs.get(k)]
        only = [f"open here only: {each}" for each in self.open_conflicts if each not in other.open_conflicts]
        there = [f"open there only: {each}" for each in other.open_conflicts if each not in self.open_conflicts]
        return records + only + there


def merged_state(records: Iterable[Document], conflicts: Iterable[Document]) -> MergedState:
    """`records` and the unfinished `conflicts` as contract §7 shows them."""
    return MergedState(
        {record["key"]: _record(record) for record in records},
        tuple(sorted((open_conflict(conflict) for conflict in conflicts), key=repr)),
    )


def _record(record: Document) -> Document:
    held = {
        name: {"presence": view["presence"], "values": view["values"]}
        for name, view in sorted(record["sources"].items())
    }
    return {"deleted": record["deleted"], "merged": record["merged"], "sources": held}


@dataclass(frozen=True)
class SidecarAnswers:
    """A sidecar's answers over HTTP when nothing is in flight. `closed` are the closed conflicts, oldest first."""

    records: Mapping[str, Document]
    conflicts: Sequence[Document]
    closed: Sequence[Document]

    @property
    def merged_state(self) -> MergedState:
        return merged_state(self.records.values(), self.conflicts)

    @property
    def open_conflicts(self) -> tuple[OpenConflict, ...]:
        return self.merged_state.open_conflicts

    @property
    def conflict(self) -> OpenConflict:
        """The only open conflict."""
        assert len(self.open_conflicts) == 1, self.open_conflicts
        return self.open_conflicts[0]

    def merged(self, key: str = "C1") -> Document:
        merged: Document = self.records[key]["merged"]
        return merged

    def is_deleted(self, key: str = "C1") -> bool:
        deleted: bool = self.records[key]["deleted"]
        return deleted

    def held(self, source: str, key: str = "C1") -> Document:
        values: Document = self.records[key]["sources"][source]["values"]
        return values

    def resolutions(self) -> list[tuple[str, str | None, str, tuple[str, ...]]]:
        """(kind, field, resolution, labels) of every closed conflict."""
        return [(c["kind"], c["group"] or c["field"], c["resolution"], tuple(c["labels"])) for c in self.closed]
