"""SLT: our slot, and those of others that could be blamed on us. Pure; the probes' results are facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cdc_merge.doctor.findings import Check, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.readable_units import size, span
from cdc_merge.doctor.source_facts import (
    Blocker,
    Canary,
    Facts,
    Probed,
    RoleFacts,
    ServerFacts,
    SlotFacts,
    StandbyFacts,
)

PLUGIN: Final = "pgoutput"
INACTIVE_SINCE: Final = 170000
FAILOVER_SINCE: Final = 170000
XID_FACTOR: Final = 4  # so many times the limit is no longer a warning


def exists(facts: Facts) -> Findings:
    subject, slot, server = facts.subject, facts.our_slot(), facts.one(ServerFacts)
    if slot is None:
        yield from _missing(facts)
    elif slot.is_physical or slot.plugin != PLUGIN:
        yield fail(
            f"Slot {slot.name} belongs to {slot.plugin or 'a physical standby'}.",
            Fix(("-- Give this source a slot name of its own in the configuration.",)),
        )
    elif not slot.is_here:
        yield fail(
            f"Slot {slot.name} belongs to another database than {server.database}.",
            Fix(("-- Give this source a slot name of its own in the configuration.",)),
        )
    else:
        yield ok(f"Slot {subject.slot} exists.")


def _missing(facts: Facts) -> Findings:
    subject = facts.subject
    create = Fix((f"SELECT pg_create_logical_replication_slot({facts.one(ServerFacts).slot_sql}, '{PLUGIN}');",))
    if subject.position is not None and not subject.position.is_copying:
        yield fail(
            f"Slot {subject.slot} is gone, and we have read from it: changes since then are kept nowhere.",
            Fix((f"-- cdc-merge source resync {subject.source}",)),
        )
    elif subject.snapshot == "never":
        yield fail(f"Slot {subject.slot} does not exist, and with snapshot: never nobody creates it.", create)
    else:
        yield ok(f"Slot {subject.slot} does not exist yet: the first start creates it.")


def holder(facts: Facts) -> Findings:
    slot, role, server = facts.our_slot(), facts.one(RoleFacts), facts.one(ServerFacts)
    if slot is None or not slot.active:
        yield ok("Nobody reads our slot at present.")
    elif slot.holder_is_hidden:
        fix = Fix((f"GRANT pg_read_all_stats TO {server.role_sql};",), superuser=True)
        yield unknown(
            f"Process {slot.active_pid} of another role reads our slot; who that is, the role {role.name} may not see.",
            fix,
        )
    elif not (slot.holder or "").startswith(f"cdc_merge/{facts.subject.source}"):
        fix = Fix((f"-- SELECT pg_terminate_backend({slot.active_pid});",))
        yield fail(f"Somebody else reads our slot: {slot.holder}.", fix)
    else:
        yield ok(f"The sidecar reads it: {slot.holder}.")


def wal_status(facts: Facts) -> Findings:
    slot = facts.our_slot()
    if slot is None or slot.wal_status is None and slot.invalidation_reason is None:
        yield ok("There is no slot that could lose WAL.")
    elif slot.wal_status == "lost":
        yield fail("wal_status is lost: WAL that the slot needs is gone.", _drop_lost(facts))
    elif slot.wal_status == "unreserved":
        yield fail("wal_status is unreserved: at the next checkpoint the slot is lost.", _room(facts))
    elif slot.wal_status == "extended":
        yield warn("wal_status is extended: WAL is kept beyond max_wal_size for a slot.", _room(facts))
    else:
        yield ok(f"wal_status is {slot.wal_status}.")


def _room(facts: Facts) -> Fix:
    return Fix((f"-- Start the sidecar of {facts.subject.source}, or raise max_slot_wal_keep_size at once.",))


def _drop_lost(facts: Facts) -> Fix:
    slot = facts.one(ServerFacts).slot_sql
    return Fix((f"SELECT pg_drop_replication_slot({slot});", f"-- cdc-merge source resync {facts.subject.source}"))


def invalidated(facts: Facts) -> Findings:
    slot = facts.our_slot()
    if slot is None:
        yield ok("There is no slot yet.")
    elif slot.invalidation_reason or slot.conflicting:
        yield fail(
            f"The server has given our slot up: {slot.invalidation_reason or 'conflict with recovery'}.",
            _drop_lost(facts),
        )
    else:
        yield ok("The slot is valid.")


def inactive(facts: Facts) -> Findings:
    slot, server = facts.our_slot(), facts.one(ServerFacts)
    if slot is None or slot.active:
        yield ok("The slot is read." if slot else "There is no slot yet.")
    elif slot.inactive_s is None:
        tells = (
            "before version 17 the server does not tell since when"
            if server.version < INACTIVE_SINCE
            else "unknown since when"
        )
        yield unknown(f"Nobody reads our slot; {tells}.")
    elif slot.inactive_s > facts.subject.limits.inactive_s:
        yield warn(
            f"Nobody has read our slot for {span(slot.inactive_s)}: the server keeps WAL for it.",
            Fix((f"-- Start the sidecar, or, if it is gone: SELECT pg_drop_replication_slot({server.slot_sql});",)),
        )
    else:
        yield ok(f"Nobody has read our slot for {span(slot.inactive_s)}.")


def retained(facts: Facts) -> Findings:
    slot, limit = facts.our_slot(), facts.subject.limits.retained_bytes
    if slot is None or slot.retained_bytes is None:
        yield ok("No WAL is kept for our slot.")
        return
    unconfirmed = slot.unconfirmed_bytes or 0
    seen = f"{size(slot.retained_bytes)} of WAL are kept for our slot, {size(unconfirmed)} of it not confirmed yet."
    if unconfirmed > limit and slot.active:
        yield warn(f"{seen} The sidecar is behind; `cdc-merge source list` shows how far.")
    elif unconfirmed > limit:
        yield warn(f"{seen} Nobody reads it.", Fix((f"-- Start the sidecar of {facts.subject.source}.",)))
    elif slot.retained_bytes - unconfirmed > limit:
        yield warn(
            f"{seen} A transaction that began long ago holds the rest.",
            Fix(tuple(f"-- {blocker.end_sql}" for blocker in facts.rows(Blocker))),
        )
    else:
        yield ok(seen)


def horizon(facts: Facts) -> Findings:
    slot, limit = facts.our_slot(), facts.subject.limits.xid_age
    if slot is None or slot.xid_age is None:
        yield ok("Our slot holds back no vacuum.")
    elif slot.xid_age > limit:
        severity = fail if slot.xid_age > XID_FACTOR * limit else warn
        yield severity(
            f"Our slot holds back vacuum of the catalogs for {slot.xid_age} transactions.",
            Fix((f"-- Start the sidecar of {facts.subject.source}, or drop its slot.",)),
        )
    else:
        yield ok(f"Our slot is {slot.xid_age} transactions old.")


def failover(facts: Facts) -> Findings:
    slot, server = facts.our_slot(), facts.one(ServerFacts)
    has_standbys = any(other.is_physical for other in facts.rows(SlotFacts))
    if facts.subject.failover and slot is not None and not slot.failover:
        yield fail("The configuration wants a failover slot, and ours is none.", _altered(slot))
    elif slot is None or server.version < FAILOVER_SINCE or not has_standbys:
        yield ok(
            "No standby has a slot here."
            if not has_standbys
            else "Slots are not synchronised before version 17."
            if server.version < FAILOVER_SINCE
            else "There is no slot yet."
        )
    elif slot.failover:
        yield ok("The slot is synchronised to standbys.")
    else:
        yield warn(
            "A standby exists, and our slot is not synchronised to it: after a failover a new first copy is needed.",
            _altered(slot),
        )


def _altered(slot: SlotFacts) -> Fix:
    name = '"' + slot.name.replace('"', '""') + '"'
    return Fix((f"-- With the sidecar stopped, in replication mode: ALTER_REPLICATION_SLOT {name} (FAILOVER true);",))


def abandoned(facts: Facts) -> Findings:
    limit, found = facts.subject.limits.abandoned_bytes, False
    for slot in facts.rows(SlotFacts):
        is_left = slot.name != facts.subject.slot and not slot.active and not slot.temporary
        if is_left and (slot.retained_bytes or 0) > limit:
            found = True
            fix = Fix((f"-- If nobody needs it: SELECT pg_drop_replication_slot({slot.sql});",))
            yield warn(f"Nobody reads it, and {size(slot.retained_bytes or 0)} of WAL are kept for it.", fix, slot.name)
    if not found:
        yield ok("No other slot is abandoned.")


def blockers(facts: Facts) -> Findings:
    limit_s = facts.subject.limits.blocker_s
    found = [blocker for blocker in facts.rows(Blocker) if (blocker.age_s or 0) > limit_s]
    waits = facts.our_slot() is None
    for blocker in found:
        what = "a new slot must wait for it" if waits else "it holds WAL for our slot"
        yield warn(f"Open for {span(blocker.age_s or 0)}: {what}.", Fix((f"-- {blocker.end_sql}",)), blocker.who)
    if found:
        return
    role, server = facts.one(RoleFacts), facts.one(ServerFacts)
    if not role.sees_all:
        yield unknown(
            "Other roles' transactions are hidden.",
            Fix((f"GRANT pg_read_all_stats TO {server.role_sql};",), superuser=True),
        )
    else:
        yield ok("No transaction has been open for long.")


STEPS: Final = {
    "create": "creating a temporary slot",
    "start": "starting the stream",
    "message": "sending a logical message",
    "receive": "receiving that message from the stream",
    "leave": "leaving nothing behind",
}


def probe(facts: Facts) -> Findings:
    found = facts.maybe(Probed) if facts.asked(Probed) else None
    if found is None:
        return
    if found.step == "done":
        yield ok(f"Slot, stream and message went through in {found.seconds:.1f} s; nothing was left behind.")
    elif found.step == "skipped":
        yield unknown(found.refusal)
    else:
        yield fail(f"The path ends at {STEPS[found.step]}: {found.refusal}")


def canary(facts: Facts) -> Findings:
    found = facts.maybe(Canary) if facts.asked(Canary) else None
    if found is None:
        return
    if found.came_back:
        yield ok(f"A message sent now was merged and confirmed after {found.seconds:.1f} s.")
    else:
        yield fail(
            f"The sidecar did not confirm a message within {found.seconds:.0f} s: it has a backlog, is stuck, or its "
            "store does not commit.",
            Fix((f"-- cdc-merge source list shows how far {facts.subject.source} is.",)),
        )


def standbys(facts: Facts) -> Findings:
    server, setting, slot = facts.one(ServerFacts), facts.setting("synchronized_standby_slots"), facts.our_slot()
    if server.version < FAILOVER_SINCE or slot is None or not slot.failover:
        yield ok("No failover slot of ours.")
        return
    names = [name.strip() for name in (setting.setting if setting else "").split(",") if name.strip()]
    physical = {other.name: other for other in facts.rows(SlotFacts) if other.is_physical}
    listed = ", ".join(sorted(physical))
    if not names:
        statements = (f"ALTER SYSTEM SET synchronized_standby_slots = '{listed}';", "SELECT pg_reload_conf();")
        yield warn(
            "synchronized_standby_slots is empty: we can be ahead of a standby that is promoted.",
            Fix(statements if physical else (), superuser=True),
        )
    bad = [name for name in names if name not in physical or not physical[name].active]
    for name in bad:
        yield warn(
            "synchronized_standby_slots names a slot that no standby reads: our stream waits for it.",
            Fix(("-- Start that standby, or take the slot out of synchronized_standby_slots.",), superuser=True),
            name,
        )
    if names and not bad:
        yield ok(f"We never get ahead of {', '.join(names)}.")


SETTLE: Final = "SELECT pg_reload_conf();"


def readiness(facts: Facts) -> Findings:
    slot, found = facts.our_slot(), facts.rows(StandbyFacts)
    if slot is None or not slot.failover:
        yield ok("No failover slot of ours.")
        return
    for standby in found:
        wrong = [(what, sql) for is_wrong, what, sql in _STANDBY if is_wrong(standby)]
        if wrong:
            statements = tuple(sql for _, sql in wrong)
            seen = f"If it is promoted, our slot is not there: {'; '.join(what for what, _ in wrong)}."
            yield fail(seen, Fix(("-- At this standby:", *statements, SETTLE), superuser=True), standby.host)
        elif not standby.is_ready:
            what = "is not synchronised yet" if standby.has_slot else "is not there yet"
            yield warn(
                f"Its copy of our slot {what}: `SELECT pg_sync_replication_slots()` there says why.", about=standby.host
            )
        else:
            yield ok("It has our slot, and can be promoted.", standby.host)
    if not found:
        yield unknown("The DSN names no standby: whether one has our slot cannot be seen from here.")


_STANDBY: Final[tuple[tuple[Callable[[StandbyFacts], bool], str, str], ...]] = (
    (
        lambda standby: standby.syncs_slots == "off",
        "sync_replication_slots is off",
        "ALTER SYSTEM SET sync_replication_slots = on;",
    ),
    (
        lambda standby: standby.feedback == "off",
        "hot_standby_feedback is off",
        "ALTER SYSTEM SET hot_standby_feedback = on;",
    ),
    (
        lambda standby: standby.physical_slot == "",
        "primary_slot_name is empty",
        "-- ALTER SYSTEM SET primary_slot_name = 'the slot that the primary has for it';",
    ),
    (
        lambda standby: standby.has_dbname is False,
        "primary_conninfo has no dbname",
        "-- Add dbname=postgres to primary_conninfo.",
    ),
)


CHECKS: Final = (
    Check("SLT01", "Our slot", "The slot is what makes the server keep changes for us.", exists),
    Check(
        "SLT02", "Who reads our slot", "A slot has one reader: what somebody else reads from it is lost to us.", holder
    ),
    Check("SLT03", "wal_status", "It says whether the WAL that the slot needs is still there.", wal_status),
    Check("SLT04", "Invalidation", "A slot that the server has given up never works again.", invalidated),
    Check("SLT05", "Time without a reader", "While nobody reads it, WAL grows.", inactive),
    Check("SLT06", "WAL kept for us", "It takes disk space on the server.", retained),
    Check(
        "SLT07",
        "Vacuum held back",
        "A slot keeps old catalog rows, and in the end stops the database (wraparound).",
        horizon,
    ),
    Check("SLT08", "Failover slot", "Only a synchronised slot survives a failover.", failover),
    Check("SLT09", "Slots of others", "An abandoned slot fills the disk, whoever it belonged to.", abandoned),
    Check(
        "SLT10",
        "Long transactions",
        "A new slot waits for every transaction that is open, and old ones hold WAL.",
        blockers,
    ),
    Check(
        "SLT11",
        "The whole path",
        "A temporary slot, a stream with our options, a message sent and received: what no setting can prove.",
        probe,
    ),
    Check("SLT12", "The running sidecar", "A message through the real slot, merged, on disk and confirmed.", canary),
    Check(
        "FOV01",
        "Standbys before us",
        "A standby that is behind us at its promotion lacks changes that we have merged.",
        standbys,
    ),
    Check(
        "FOV02",
        "Standbys with our slot",
        "After a failover the stream goes on only where the promoted standby has it.",
        readiness,
    ),
)
