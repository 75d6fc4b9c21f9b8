"""The committed state of a store in memory. `Disk` outlives a worker: a second store on it sees what the first committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Lock
from typing import Final

from cdc_merge.model import Change, Checkpoint, Conflict, Place, Position, RecordKey, Stamp
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.memory.quarantine import Quarantined

Trail = dict[Place, Change]
Slots = dict[int, Checkpoint]

_stamp_and_place: Final = itemgetter(2, 3)


@dataclass(slots=True)
class Disk:
    """Everything committed, the claim, and the lock under which both change."""

    trails: dict[RecordKey, Trail] = field(default_factory=dict)
    checkpoints: dict[RecordKey, Slots] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    conflicts: dict[str, Conflict] = field(default_factory=dict)
    positions: dict[str, tuple[Position, Stamp]] = field(default_factory=dict)
    orders: dict[str, SourceOrders] = field(default_factory=dict)
    identities: dict[tuple[str, str, str], str] = field(default_factory=dict)
    deadlines: dict[RecordKey, int] = field(default_factory=dict)
    digests: dict[RecordKey, frozenset[bytes]] = field(default_factory=dict)
    holders: dict[tuple[str, bytes], frozenset[str]] = field(default_factory=dict)
    evaluated: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    missing: dict[RecordKey, Mapping[str, int]] = field(default_factory=dict)
    parked: Quarantined = ()
    claimed: tuple[object, str] | None = None
    lock: Lock = field(default_factory=Lock)
    writing: Lock = field(default_factory=Lock)


def ordered_trail(trail: Trail, after: Stamp | None = None) -> list[Change]:
    """The changes later than `after` in stamp order."""
    changes = trail.values() if after is None else [change for change in trail.values() if change.stamp > after]
    return sorted(changes, key=_stamp_and_place)


def newest_before(slots: Slots, before: Stamp | None) -> Checkpoint | None:
    """The newest checkpoint earlier than `before`, of all of them when None."""
    earlier = [each for each in slots.values() if before is None or each.stamp < before]
    return max(earlier, key=itemgetter(0), default=None)
