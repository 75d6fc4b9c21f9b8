"""Steps 4 and 5: a conflict as detected (a pure function of history and rules), and as the queue keeps it (id, revision,
life cycle)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from cdc_merge.model.positions import Place, Stamp
from cdc_merge.model.value_types import UNKNOWN, MaybeValue, Value


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to a conflict's question. `value` UNKNOWN: left out (an absent map key). `key`: whose it is, in a
    question about several records."""

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
    """A conflict as the merge sees it: a pure function of history and rules, without id or life. `records`: the keys of
    all the records that it is about, where `key` is only the first of them."""

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
    """A question with an id and a life. `status` is settling, open or closed; `resolution` auto, decided, converged,
    dismissed or superseded once closed."""

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
