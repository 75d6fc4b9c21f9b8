"""POS: the stored position against server and slot. Pure; the reader makes the same comparison before and after it starts."""

from __future__ import annotations

from typing import Final

from cdc_merge.doctor.findings import DoctorCheck, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.source_facts import Facts, FactUnavailable, ReplicationLogin, SlotFacts, StoredPosition
from cdc_merge.model import Position, lsn_from_text, lsn_text

RESYNC: Final = "-- If this change is intended: cdc-merge source resync {source}"


def system(facts: Facts) -> Findings:
    position, server = _position(facts), facts.one(ReplicationLogin).server
    if position is None:
        yield ok("Nothing of this source is on disk yet.")
    elif server is None:
        yield unknown("The system identifier is not available.")
    elif server.system != position.system:
        yield fail(
            f"The server's system identifier is {server.system}; the stored position is of {position.system}, another "
            "server.",
            _resync(facts),
        )
    else:
        yield ok(f"The server has the system identifier of the stored position: {server.system}.")


def timeline(facts: Facts) -> Findings:
    position, server = _position(facts), facts.one(ReplicationLogin).server
    if position is None:
        yield ok("Nothing of this source is on disk yet.")
    elif server is None:
        yield unknown("The timeline is not available.")
    elif server.system == position.system and not server.timelines.has(position.timeline, position.lsn):
        yield fail(
            f"The stored position {lsn_text(position.lsn)} on timeline {position.timeline} is not in the history of the "
            f"server's timeline {server.timelines.current}: merged changes no longer exist on the server.",
            _resync(facts),
        )
    else:
        yield ok(f"The stored position is in the history of timeline {server.timelines.current}.")


def ahead(facts: Facts) -> Findings:
    position, slot = _latest_position(facts), facts.our_slot()
    if position is None or slot is None or slot.confirmed_lsn is None:
        yield ok("No position to compare.")
    elif lsn_from_text(slot.confirmed_lsn) > position.lsn:
        yield fail(
            f"The slot starts at {slot.confirmed_lsn}, the stored position is {lsn_text(position.lsn)}: the slot was "
            "dropped and recreated, or advanced by another reader. The changes between would be lost.",
            _resync(facts),
        )
    else:
        yield ok("The slot has everything after the stored position.")


def behind(facts: Facts) -> Findings:
    position, slot = _latest_position(facts), facts.our_slot()
    if position is None or slot is None or slot.confirmed_lsn is None:
        yield ok("No position to compare.")
    elif lsn_from_text(slot.confirmed_lsn) < position.lsn:
        yield ok(
            f"The slot resends from {slot.confirmed_lsn}; changes up to {lsn_text(position.lsn)} are recognised and "
            "skipped."
        )
    else:
        yield ok("Nothing is resent.")


def beyond(facts: Facts) -> Findings:
    position, server = _position(facts), facts.one(ReplicationLogin).server
    if position is None:
        yield ok("Nothing of this source is on disk yet.")
    elif server is None:
        yield unknown("The end of WAL is not available.")
    elif server.system == position.system and position.lsn > server.wal_lsn:
        yield fail(
            f"The stored position is {lsn_text(position.lsn)}, the server's WAL ends at {lsn_text(server.wal_lsn)}: the "
            "server was restored to an earlier state.",
            _resync(facts),
        )
    else:
        yield ok("The server's WAL includes the stored position.")


def generation(facts: Facts) -> Findings:
    position, slot = _position(facts), facts.our_slot()
    if position is None or slot is None:
        yield ok("No slot to compare.")
    elif position.slot != slot.name:
        yield warn(
            f"The stored position was read from slot {position.slot}; the configuration has {slot.name}.",
            Fix((f"-- If {position.slot} is no longer needed: SELECT pg_drop_replication_slot('{position.slot}');",)),
        )
    elif _starts_after_position(facts, slot):
        yield fail(
            f"The slot keeps WAL only from a point after the stored position {lsn_text(position.lsn)}: it is another slot of "
            "the same name.",
            _resync(facts),
        )
    else:
        yield ok(f"The stored position was read from slot {slot.name}.")


def _starts_after_position(facts: Facts, slot: SlotFacts) -> bool:
    """The sidecar's own slot keeps WAL from before its confirmed LSN, which is never after the stored position."""
    stored = _latest_position(facts)
    return slot.restart_lsn is not None and stored is not None and lsn_from_text(slot.restart_lsn) > stored.lsn


def following(facts: Facts) -> Findings:
    position, slot = _latest_position(facts), facts.our_slot()
    if position is None or slot is None or not slot.active or slot.confirmed_lsn is None:
        yield ok("The slot is not active.")
    elif lsn_from_text(slot.confirmed_lsn) > position.lsn:
        yield fail(
            f"The reader of the slot has confirmed {slot.confirmed_lsn}; the stored position is {lsn_text(position.lsn)}: "
            "the changes between are lost.",
            _resync(facts),
        )
    else:
        yield ok("Nothing is confirmed that is not on disk.")


def _position(facts: Facts) -> Position | None:
    position = facts.subject.position
    if not facts.subject.position_is_known:
        raise FactUnavailable("The stored position could not be read.")
    return None if position is None or position.is_copying else position


def _latest_position(facts: Facts) -> Position | None:
    position = _position(facts)
    return facts.one(StoredPosition).position if position is not None and facts.has(StoredPosition) else position


def _resync(facts: Facts) -> Fix:
    return Fix((RESYNC.format(source=facts.subject.source),))


CHECKS: Final = (
    DoctorCheck("POS01", "The same server", "Positions of one server mean nothing on another.", system),
    DoctorCheck(
        "POS02",
        "The same timeline",
        "After a failover or a restore, merged changes may not exist on the server.",
        timeline,
    ),
    DoctorCheck("POS03", "No gap", "Postgres skips to the slot's position without a warning.", ahead),
    DoctorCheck("POS04", "Repeats", "After a crash some changes are sent again.", behind),
    DoctorCheck(
        "POS05",
        "No position after the end of WAL",
        "A server that lost WAL will write other changes under the same positions.",
        beyond,
    ),
    DoctorCheck(
        "POS06",
        "The same slot",
        "A slot that was dropped and recreated under the same name looks healthy.",
        generation,
    ),
    DoctorCheck(
        "POS07",
        "Confirmed and on disk",
        "The server discards confirmed changes; the reader makes the same comparison after its start.",
        following,
    ),
)
