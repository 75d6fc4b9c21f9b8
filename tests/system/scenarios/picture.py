"""What a sidecar says, in the form in which two sidecars are compared and tests ask: records and open questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

ABSENT = "(absent)"


@dataclass(frozen=True)
class OpenConflict:
    """One open question, without what belongs to the queue (ids, revisions, times)."""

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
class Picture:
    """Everything that is a function of the histories and the rules alone."""

    records: Mapping[str, Document]
    questions: tuple[OpenConflict, ...]

    def differences(self, other: Picture) -> list[str]:
        keys = sorted(self.records.keys() | other.records.keys())
        mine, theirs = self.records, other.records
        records = [f"{k}: {mine.get(k)} ≠ {theirs.get(k)}" for k in keys if mine.get(k) != theirs.get(k)]
        only = [f"asked here only: {each}" for each in self.questions if each not in other.questions]
        there = [f"asked there only: {each}" for each in other.questions if each not in self.questions]
        return records + only + there


def picture(records: Iterable[Document], conflicts: Iterable[Document]) -> Picture:
    """`records` and the unfinished `conflicts` as contract §7 shows them."""
    return Picture(
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
class Said:
    """What the sidecar says when nothing is in flight. `closed` are the questions that are over, oldest first."""

    records: Mapping[str, Document]
    conflicts: Sequence[Document]
    closed: Sequence[Document]

    @property
    def picture(self) -> Picture:
        return picture(self.records.values(), self.conflicts)

    @property
    def questions(self) -> tuple[OpenConflict, ...]:
        return self.picture.questions

    @property
    def only(self) -> OpenConflict:
        """The one open question."""
        assert len(self.questions) == 1, self.questions
        return self.questions[0]

    def merged(self, key: str = "C1") -> Document:
        merged: Document = self.records[key]["merged"]
        return merged

    def is_deleted(self, key: str = "C1") -> bool:
        deleted: bool = self.records[key]["deleted"]
        return deleted

    def held(self, source: str, key: str = "C1") -> Document:
        values: Document = self.records[key]["sources"][source]["values"]
        return values

    def endings(self) -> list[tuple[str, str | None, str, tuple[str, ...]]]:
        """(kind, field, resolution, labels) of every question that is over."""
        return [(c["kind"], c["group"] or c["field"], c["resolution"], tuple(c["labels"])) for c in self.closed]
