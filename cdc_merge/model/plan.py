"""The plan: the checked configuration as the core needs it. Entities, fields, merge types, mappings and rules.

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
    `agreement` is "on", "off" or "past" (semantics §2 rule 3). `writer_sources` and `writer_actors` are the authorized writers
    (None: any).
    `auto` are the automatic resolutions of concurrent writes (semantics §6), from the first matching rule; `tolerance_us` is
    how long sources may differ (§5, divergence).
    `value_type` is text, integer, decimal, boolean, float, date, timestamp, json, array or bytes; "" when unknown.
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
        """The label of this rule in metrics."""
        return f"unique({', '.join(self.fields)})"


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """One entity. `sources` are in the order of `from:`; `mapped` maps source → its mapped fields.

    `fields` are the fields that merge alone, `groups` the fields that merge as one value; a group's members are not in
    `fields`. `deletes` and `on_missing` are the policies for deletes and for records that a source lacks.
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
    """The mapping of one table of one source to one entity.

    `key` are the business key's columns in order, `fields` maps field → column. `actor_column` is the column with the actor of
    a change; it counts only in changes that wrote it, unless `actor_always_written`. `copy_origins` and `copy_actors` are
    replication origins and actors whose changes are copies (semantics §2 rule 2).
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

    `on` is `entity.field`, `entity.*`, `*.field` or `entity`. A rule with `tolerance_us` detects `divergence`, with `when`
    `business_rule`, with `threshold` `anomaly` (semantics §5); one without them applies to conflicts of every kind.
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
    """The plan of all entities and sources.

    `policy` is the digest of everything that influences merge and conflicts (`sha256:…`); every conflict has it. `settle_us` is
    the settling time of a conflict, `max_ahead_us` how far a commit time may lie ahead of our clock. `retention_us`: how long
    the log is kept, 0 for ever; younger changes than `keep_folded_us` are never pruned.
    """

    entities: Mapping[str, EntityPlan]
    tables: tuple[TableMap, ...]
    rules: tuple[Rule, ...] = ()
    settle_us: int = 2_000_000
    max_ahead_us: int = 5_000_000
    policy: str = ""
    retention_us: int = 0
    keep_folded_us: int = 600_000_000
