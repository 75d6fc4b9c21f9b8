"""Step 5: a conflict as detected (a pure function of history and rules), and as stored (id, revision, lifecycle)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from cdc_merge.model.positions import Place, Stamp
from cdc_merge.model.value_types import UNKNOWN, MaybeValue, Value


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the concurrent values of a conflict: its write's source, stamp, commit time, actor and place.

    `value` UNKNOWN: the field is absent (a map key). `seen` are the writes that its writer had seen. `delta` is the increment
    of a counter. `key` is the record of the candidate, in a conflict between several records.
    """

    source: str
    value: MaybeValue | Mapping[str, Value]
    stamp: Stamp
    committed_us: int
    actor: str | None
    place: Place
    seen: tuple[Stamp, ...] = ()
    delta: Decimal | int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class DetectedConflict:
    """A conflict as detected: a pure function of history and rules, without id or lifecycle.

    `field` is a unit's field, `group` a group that merges as one value. `base` is the value of the latest write that all
    candidates have seen, `provisional` the merged value while the conflict is open. `rule` is the rule that detected it.
    `records` are the keys of all records of a conflict between several, of which `key` is the first.
    """

    entity: str
    key: str
    field: str | None
    group: str | None
    kind: str
    severity: str
    candidates: tuple[Candidate, ...]
    base: MaybeValue = UNKNOWN
    provisional: MaybeValue | Mapping[str, Value] = UNKNOWN
    labels: tuple[str, ...] = ()
    rule: str | None = None
    records: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str | None, str, str | None]:
        """At most one open conflict of a record has this identity."""
        return (self.group or self.field, self.kind, self.rule)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A stored conflict: a detected conflict with id and lifecycle. `status` is settling, open or closed; once closed,
    `resolution` is auto, decided, converged, dismissed or superseded. `revision` counts its changes; `raised_us`,
    `announced_us` and `closed_us` are by our own clock; `policy` is the digest of the rules that detected it."""

    id: str
    detected: DetectedConflict
    status: str
    revision: int
    raised_us: int
    announced_us: int | None = None
    closed_us: int | None = None
    resolution: str | None = None
    labels: tuple[str, ...] = ()
    policy: str = ""
