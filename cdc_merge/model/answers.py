"""What queries answer: merged records, explanations, restore plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_merge.model.changes import Change
from cdc_merge.model.positions import Stamp
from cdc_merge.model.value_types import MaybeValue, Value


@dataclass(frozen=True, slots=True)
class SourceView:
    """What one source holds: presence is unknown, present or deleted; `values` leaves unknown fields out."""

    presence: str
    values: Mapping[str, Value]
    last_stamp: Stamp | None


@dataclass(frozen=True, slots=True)
class MergedRecord:
    """What a history means. `values` leaves unknown fields out; groups appear as their member fields. `missing`: the
    sources that lack the record, where that is told (`on_missing: report`)."""

    entity: str
    key: str
    deleted: bool
    values: Mapping[str, Value]
    sources: Mapping[str, SourceView]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """One write of one field, and what became of it: won, lost, merged, candidate or overwritten. `saw`: writes that its
    writer had seen, the latest ones where they are many; `saw_earlier`: how many more there are, all earlier."""

    stamp: Stamp
    source: str
    kind: str
    before: MaybeValue
    after: MaybeValue
    saw: tuple[Stamp, ...]
    outcome: str
    because: str
    saw_earlier: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a field has its value (contract §7, `explain`). `rule` names the rule that answers its questions by itself."""

    entity: str
    key: str
    field: str
    merge: str
    value: MaybeValue
    frontier: tuple[Stamp, ...]
    writes: tuple[Explained, ...]
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreWrite:
    """What would be written to one source: `action` is insert, update or delete; `fields` field → (what it holds, what
    it would hold)."""

    source: str
    action: str
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]


@dataclass(frozen=True, slots=True)
class LaterEdit:
    """An edit since the time that a record would be restored to; its `fields` are those that it wrote. `undone`: those of
    them whose value would go."""

    change: Change
    undone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """How a record would be brought back to what it meant at `to`. `deleted` and `fields` say (now, then); `fields` only
    those that differ."""

    entity: str
    key: str
    to: Stamp
    deleted: tuple[bool, bool]
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]
    writes: tuple[RestoreWrite, ...]
    later: tuple[LaterEdit, ...]
