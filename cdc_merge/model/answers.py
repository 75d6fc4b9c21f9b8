"""Results of queries: merged records, explanations, restore plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_merge.model.changes import Change
from cdc_merge.model.positions import Stamp
from cdc_merge.model.value_types import MaybeValue, Value


@dataclass(frozen=True, slots=True)
class SourceView:
    """The values at one source: presence is unknown, present or deleted; `values` leaves unknown fields out."""

    presence: str
    values: Mapping[str, Value]
    last_stamp: Stamp | None


@dataclass(frozen=True, slots=True)
class MergedRecord:
    """The merged value of a record's history. `values` leaves unknown fields out; groups appear as their member fields.
    `missing`: the sources that lack the record (`on_missing: report`)."""

    entity: str
    key: str
    deleted: bool
    values: Mapping[str, Value]
    sources: Mapping[str, SourceView]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """One write of one field and its outcome: won, lost, merged, candidate or overwritten, with the reason in `because`.
    `saw`: writes that its writer had seen, the latest ones where they are many; `saw_earlier`: the number of earlier ones."""

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
    """Why a field has its value (contract §7, `explain`). `frontier`: writes that no other write has seen; `rule`: the rule
    that resolves its conflicts automatically."""

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
    """The write to one source in a restore plan: `action` is insert, update or delete; `fields` maps field → (current value
    at the source, restored value)."""

    source: str
    action: str
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]


@dataclass(frozen=True, slots=True)
class LaterEdit:
    """An edit after the restore time; its `fields` are those that it wrote. `undone`: the fields whose value a restore
    overwrites."""

    change: Change
    undone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The plan to restore a record to its merged value at `to`. `deleted` and `fields` are (current, restored); `fields` only
    those that differ."""

    entity: str
    key: str
    to: Stamp
    deleted: tuple[bool, bool]
    fields: Mapping[str, tuple[MaybeValue, MaybeValue]]
    writes: tuple[RestoreWrite, ...]
    later: tuple[LaterEdit, ...]
