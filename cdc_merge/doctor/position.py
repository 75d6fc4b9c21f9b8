"""POS: what is on disk against server and slot. Pure; the reader compares the same before and after it starts."""

from __future__ import annotations

from typing import Final

from cdc_merge.doctor.findings import Check, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.source_facts import Facts, Identified, NotAnswered, SlotFacts, Stored
from cdc_merge.model import Position, lsn_from_text, lsn_text

RESYNC: Final = "-- If this is as it should be: cdc-merge source resync {source}"


def system(facts: Facts) -> Findings:
    position, found = _known(facts), facts.one(Identified).server
    if position is None:
        yield ok("Nothing of this source is on disk yet.")
    elif found is None:
        yield unknown("The system identifier was not told.")
    elif found.system != position.system:
        yield fail(
            f"The server is {found.system}, what is on disk was read from {position.system}: another server.",
            _resync(facts),
        )
    else:
        yield ok(f"The server is the one that was read: {found.system}.")


def timeline(facts: Facts) -> Findings:
    position, found = _known(facts), facts.one(Identified).server
    if position is None:
        yield ok("Nothing of this source is on disk yet.")
    elif found is None:
        yield unknown("The timeline was not told.")
    elif found.system == position.system and not found.timelines.has(position.timeline, position.lsn):
        yield fail(
            f"We have read up to {lsn_text(position.lsn)} on timeline {position.timeline}, which is not in the past of "
            f"the server's timeline {found.timelines.current}: what we merged behind that no longer exists there.",
            _resync(facts),
        )
    else:
        yield ok(f"Timeline {found.timelines.current} has in its past what was read.")


def ahead(facts: Facts) -> Findings:
    position, slot = _stored(facts), facts.our_slot()
    if position is None or slot is None or slot.confirmed_lsn is None:
        yield ok("No position to compare.")
    elif lsn_from_text(slot.confirmed_lsn) > position.lsn:
        yield fail(
            f"The slot starts at {slot.confirmed_lsn}, we have read only up to {lsn_text(position.lsn)}: "
            "it was dropped and created again, or advanced by somebody else: what lies between would be missed.",
            _resync(facts),
        )
    else:
        yield ok("The slot has everything behind what was read.")


def behind(facts: Facts) -> Findings:
    position, slot = _stored(facts), facts.our_slot()
    if position is None or slot is None or slot.confirmed_lsn is None:
        yield ok("No position to compare.")
    elif lsn_from_text(slot.confirmed_lsn) < position.lsn:
        yield ok(
            f"The slot repeats from {slot.confirmed_lsn}; up to {lsn_text(position.lsn)} it is recognised and dropped."
        )
    else:
        yield ok("Nothing is repeated.")


def beyond(facts: Facts) -> Findings:
    position, found = _known(facts), facts.one(Identified).server
    if position is None:
        yield ok("Nothing of this source is on disk yet.")
    elif found is None:
        yield unknown("The end of WAL was not told.")
    elif found.system == position.system and position.lsn > found.wal_lsn:
        yield fail(
            f"We have read up to {lsn_text(position.lsn)}, the server's WAL ends at {lsn_text(found.wal_lsn)}: "
            "it was restored to the past.",
            _resync(facts),
        )
    else:
        yield ok("The server has what was read.")


def generation(facts: Facts) -> Findings:
    position, slot = _known(facts), facts.our_slot()
    if position is None or slot is None:
        yield ok("No slot to compare.")
    elif position.slot != slot.name:
        yield warn(
            f"What is on disk was read from slot {position.slot}; {slot.name} continues it where it stands.",
            Fix((f"-- If {position.slot} is no longer needed: SELECT pg_drop_replication_slot('{position.slot}');",)),
        )
    elif _begins_behind(facts, slot):
        yield fail(
            f"The slot keeps WAL only from behind {lsn_text(position.lsn)} on, up to where we have read: it is another slot "
            "of the same name.",
            _resync(facts),
        )
    else:
        yield ok(f"What is on disk was read from slot {slot.name}.")


def _begins_behind(facts: Facts, slot: SlotFacts) -> bool:
    """A slot of ours keeps WAL from before what it confirmed, which is before what is on disk."""
    stored = _stored(facts)
    return slot.restart_lsn is not None and stored is not None and lsn_from_text(slot.restart_lsn) > stored.lsn


def following(facts: Facts) -> Findings:
    position, slot = _stored(facts), facts.our_slot()
    if position is None or slot is None or not slot.active or slot.confirmed_lsn is None:
        yield ok("Nobody reads the slot at present.")
    elif lsn_from_text(slot.confirmed_lsn) > position.lsn:
        yield fail(
            f"Whoever reads the slot has confirmed {slot.confirmed_lsn}; only up to {lsn_text(position.lsn)} is on disk "
            "here: what lies between is lost to us.",
            _resync(facts),
        )
    else:
        yield ok("Nothing is confirmed that is not on disk.")


def _known(facts: Facts) -> Position | None:
    position = facts.subject.position
    if not facts.subject.position_is_known:
        raise NotAnswered("The store could not be asked what was read.")
    return None if position is None or position.is_copying else position


def _stored(facts: Facts) -> Position | None:
    known = _known(facts)
    return facts.one(Stored).position if known is not None and facts.asked(Stored) else known


def _resync(facts: Facts) -> Fix:
    return Fix((RESYNC.format(source=facts.subject.source),))


CHECKS: Final = (
    Check("POS01", "The same server", "Positions of one server mean nothing on another.", system),
    Check(
        "POS02",
        "The same past",
        "After a failover or a restore, part of what we read may never have happened.",
        timeline,
    ),
    Check("POS03", "No gap", "Postgres skips to the slot's position without a word.", ahead),
    Check("POS04", "Repeats", "After a crash some changes come again.", behind),
    Check(
        "POS05",
        "Nothing from the future",
        "A server that lost WAL will write other changes under the same positions.",
        beyond,
    ),
    Check(
        "POS06",
        "The same slot",
        "A slot that was dropped and created again under the same name looks healthy.",
        generation,
    ),
    Check(
        "POS07",
        "Confirmed and on disk",
        "What was confirmed the server forgets; the reader itself compares again after it has started.",
        following,
    ),
)
