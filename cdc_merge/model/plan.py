"""What the operator asked for, as the core needs it: entities, fields, their merge types and mappings.

Built by config/ from YAML, already checked; frozen; no I/O. The core never sees YAML, DSNs or secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["critical", "high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """How one field (or one group, whose `members` are then its fields) merges.

    `options` are the merge type's own settings (`min`, `max`, `order`, `separator`, `wins`, `keys` …), as plain values.
    `normalize` names entries of values/normalizers.py's table, applied in order before values are compared.
    `agreement` is "on", "off" or "past" (semantics §2 rule 3).
    `auto` is how questions of concurrent writes are answered by themselves (semantics §6), what the first matching
    rule says, `tolerance_us` how long sources may differ (§5, divergence).
    `value_type` is text, integer, decimal, boolean, float, date, timestamp, json, array or bytes; "" when not known
    yet.
    """

    name: str
    merge: str = "mv"
    options: Mapping[str, Any] = field(default_factory=dict)  # values are checked against the type's own table
    normalize: tuple[str, ...] = ()
    agreement: str = "on"
    severity: str = "medium"
    value_type: str = ""
    members: tuple[str, ...] = ()
    writer_sources: tuple[str, ...] | None = None
    writer_actors: tuple[str, ...] | None = None
    auto: tuple[str | tuple[str, ...], ...] = ()
    tolerance_us: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """An expression over the merged record that must hold (semantics §3, Checks)."""

    name: str
    expr: str
    severity: str = "medium"


@dataclass(frozen=True, slots=True)
class Unique:
    """Fields that no two live records may share (semantics §5, duplicate)."""

    fields: tuple[str, ...]
    normalize: tuple[str, ...] = ()
    when: str | None = None
    severity: str = "medium"

    @property
    def name(self) -> str:
        """The name under which what `when` gives is counted."""
        return f"unique({', '.join(self.fields)})"


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """One entity. `sources` are in the order of `from:`; `mapped` says which fields each of them has.

    `fields` holds every field that is merged for itself, `groups` the fields merged as one value; a group's members are
    not in `fields`. `unit_of` finds the field or group that a mapped field belongs to.
    """

    name: str
    sources: tuple[str, ...]
    mapped: Mapping[str, frozenset[str]]
    fields: Mapping[str, FieldPlan]
    groups: Mapping[str, FieldPlan] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    unique: tuple[Unique, ...] = ()
    deletes: str = "review"
    on_missing: str = "ignore"


@dataclass(frozen=True, slots=True)
class TableMap:
    """How the rows of one table of one source become changes of records.

    `key` are the business key's columns in order, `fields` maps field → column. `actor_column` names who changed a row,
    only in a change that wrote it unless `actor_always_written`. `copy_origins`, `copy_actors`: semantics §2 rule 2.
    """

    source: str
    entity: str
    table: str
    key: tuple[str, ...]
    fields: Mapping[str, str]
    actor_column: str | None = None
    actor_always_written: bool = False
    copy_origins: frozenset[str] = frozenset()
    copy_actors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the file, in order. Absent settings are None.

    `on` is `entity.field`, `entity.*`, `*.field` or `entity`. `tolerance_us` makes `divergence`, `when`
    `business_rule` and
    `threshold` `anomaly` (semantics §5); a rule without them is about conflicts of every kind.
    """

    name: str
    on: str
    when: str | None = None
    severity: str | None = None
    tolerance_us: int | None = None
    auto: tuple[str | tuple[str, ...], ...] = ()
    approve: tuple[tuple[str, ...], ...] = ()
    threshold: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the core needs to know of the configuration.

    `policy` is a digest of all that influences the answers (`sha256:…`); it is named by every conflict.
    `retention_us`: how long the log is kept, 0 for ever; `keep_folded_us`: what is younger never leaves it.
    """

    entities: Mapping[str, EntityPlan]
    tables: tuple[TableMap, ...]
    rules: tuple[Rule, ...] = ()
    settle_us: int = 2_000_000
    max_ahead_us: int = 5_000_000
    policy: str = ""
    retention_us: int = 0
    keep_folded_us: int = 600_000_000
