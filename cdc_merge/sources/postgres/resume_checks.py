"""Resume checks: whether the slot can stream from a stored position, so that no gap is ever silent. Pure.

Postgres itself would not refuse: a slot that is past our position is fast-forwarded in silence, a recreated slot looks
healthy, a restored server answers as if nothing were missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from cdc_merge.errors import SourceRefused
from cdc_merge.model import Position, lsn_text
from cdc_merge.sources.postgres.protocol.timelines import Timelines

STOP, RESNAPSHOT = "stop", "resnapshot"
"""The policies of `on_lost_position`."""

RESYNC: Final = "`cdc-merge source resync {source}` takes a new snapshot and compares it with the merged history."


LOST: Final[Mapping[str, bool]] = {
    "slot_missing": True,
    "slot_lost": True,
    "slot_recreated": True,
    "server_restored": True,
    "failed_over": True,
    "publication_changed": True,
    "other_server": False,
}
"""Why a position is lost, and whether `on_lost_position: resnapshot` takes a new snapshot without an operator. Another server
may be a mistake in the DSN: an operator must confirm it (`source resync`)."""


WAL_REMOVED: Final = "wal_removed"
UNSPECIFIED: Final = "untold"
"""Why a slot was invalidated, where the server shows no invalidation_reason."""


class Server(NamedTuple):
    """The server's answer to IDENTIFY_SYSTEM: system identifier, timelines, and how far its WAL is flushed."""

    system: str
    timelines: Timelines
    wal_lsn: int


class Slot(NamedTuple):
    """A replication slot as pg_replication_slots shows it. Unknown figures are None.

    `confirmed_lsn` is its confirmed_flush_lsn, `retained_bytes` the WAL from its restart_lsn on. `inactive_since_us` is by the
    server's clock, from version 17 on; `spilled_bytes` was spilled while decoding, since the last reset of its statistics;
    `catalog_xmin_age` counts transactions whose catalog rows it retains.
    """

    name: str
    plugin: str
    is_ours: bool
    active: bool
    wal_status: str | None
    safe_bytes: int | None
    retained_bytes: int | None
    confirmed_lsn: int
    invalidation_reason: str | None
    conflicting: bool | None = None
    inactive_since_us: int | None = None
    catalog_xmin_age: int | None = None
    spilled_bytes: int | None = None

    @property
    def invalidation(self) -> str:
        """Why the server has invalidated the slot, "" while it is valid. Before version 17 the reason is shown for WAL only."""
        if self.invalidation_reason or self.wal_status != "lost":
            return self.invalidation_reason or ""
        return UNSPECIFIED if self.conflicting else WAL_REMOVED


def check_server(source: str, position: Position, server: Server) -> None:
    """SourceRefused `other_server`, `server_restored` or `failed_over` when the position is not part of this server's past."""
    if position.system != server.system:
        raise SourceRefused(
            f"Source {source}: the server's system identifier is {server.system}, "
            f"but the stored position is from {position.system}: this is another server.",
            problem="other_server",
            hint=f"Check the DSN. If the server was replaced on purpose: {RESYNC.format(source=source)}",
        )
    if position.lsn > server.wal_lsn:
        raise _restored(source, position, f"its WAL ends at {lsn_text(server.wal_lsn)}")
    if not server.timelines.has(position.timeline, position.lsn):
        raise SourceRefused(
            f"Source {source}: after a failover or a restore the server is on timeline {server.timelines.current}, which "
            f"does not contain {lsn_text(position.lsn)} on timeline {position.timeline}, up to where we have read.",
            problem="failed_over",
            hint=f"Changes that we have merged no longer exist there. {RESYNC.format(source=source)}",
        )


def _restored(source: str, position: Position, why: str) -> SourceRefused:
    return SourceRefused(
        f"Source {source}: the server was restored to the past: we have read up to {lsn_text(position.lsn)} "
        f"on timeline {position.timeline}, but {why}.",
        problem="server_restored",
        hint=f"Changes that we have merged no longer exist there. {RESYNC.format(source=source)}",
    )


def may_resnapshot(problem: str, *, policy: str, accepts_loss: bool) -> bool:
    """Whether a position that was lost for this reason is followed by a new snapshot; else the source stops."""
    return problem in LOST and (accepts_loss or (policy == RESNAPSHOT and LOST[problem]))


def check_owner(source: str, slot: Slot) -> None:
    """SourceRefused when the slot is not ours: it is then neither read nor dropped."""
    if slot.plugin != "pgoutput" or not slot.is_ours:
        raise SourceRefused(
            f"Source {source}: replication slot {slot.name} belongs to another database or plugin ({slot.plugin}).",
            problem="configuration",
            hint="Give this source a slot name of its own.",
        )


def check_slot(source: str, name: str, slot: Slot | None, lsn: int | None) -> Slot:
    """The slot, if it can stream from `lsn` (None: from its confirmed_flush_lsn); else SourceRefused.

    Problems: `slot_missing`, `slot_lost`, `slot_recreated`, and `configuration` for a slot of another owner.
    """
    if slot is None:
        raise _missing(source, name, has_position=lsn is not None)
    check_owner(source, slot)
    if slot.invalidation:
        raise SourceRefused(
            f"Source {source}: replication slot {name} is lost ({slot.invalidation}).",
            problem="slot_lost",
            hint=f"Drop it. {RESYNC.format(source=source)} Then give the server a larger max_slot_wal_keep_size.",
        )
    if lsn is not None and slot.confirmed_lsn > lsn:
        raise SourceRefused(
            f"Source {source}: replication slot {name} starts at {lsn_text(slot.confirmed_lsn)}, but we have read only "
            f"up to {lsn_text(lsn)}: it was dropped and created again, or advanced by another client.",
            problem="slot_recreated",
            hint=f"Changes in between would be missed in silence. {RESYNC.format(source=source)}",
        )
    return slot


def _missing(source: str, name: str, *, has_position: bool) -> SourceRefused:
    hint = f"Create it with `cdc-merge source create-slot {source}`, or set `snapshot: initial`."
    if has_position:
        hint = f"Changes since the last confirmed one are kept nowhere. {RESYNC.format(source=source)}"
    return SourceRefused(f"Source {source}: replication slot {name} does not exist.", problem="slot_missing", hint=hint)
