"""SLT, FOV: the sidecar's slot, abandoned slots of others, probes, failover. Pure; the probes' results are facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cdc_merge.doctor.findings import DoctorCheck, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.readable_units import size, span
from cdc_merge.doctor.sidecar_role import role_fix, role_sql
from cdc_merge.doctor.source_facts import (
    Blocker,
    Facts,
    PathProbe,
    RoleFacts,
    ServerFacts,
    SidecarProbe,
    SlotFacts,
    StandbyFacts,
)

PLUGIN: Final = "pgoutput"
INACTIVE_SINCE: Final = 170000
FAILOVER_SINCE: Final = 170000
XID_FACTOR: Final = 4  # a failure from this multiple of the limit on


def exists(facts: Facts) -> Findings:
    subject, slot, server = facts.subject, facts.our_slot(), facts.one(ServerFacts)
    if slot is None:
        yield from _missing(facts)
    elif slot.is_physical or slot.plugin != PLUGIN:
        yield fail(
            f"Slot {slot.name} belongs to {slot.plugin or 'a physical standby'}.",
            Fix(("-- Set a unique `slot:` for this source in the configuration.",)),
        )
    elif not slot.is_here:
        yield fail(
            f"Slot {slot.name} does not belong to the database {server.database}.",
            Fix(("-- Set a unique `slot:` for this source in the configuration.",)),
        )
    else:
        yield ok(f"Slot {subject.slot} exists.")


def _missing(facts: Facts) -> Findings:
    subject = facts.subject
    create = Fix((f"SELECT pg_create_logical_replication_slot({facts.one(ServerFacts).slot_sql}, '{PLUGIN}');",))
    if subject.position is not None and not subject.position.is_copying:
        yield fail(
            f"Slot {subject.slot} does not exist, but changes were read from it: changes since then are lost.",
            Fix((f"-- cdc-merge source resync {subject.source}",)),
        )
    elif subject.snapshot == "never":
        yield fail(f"Slot {subject.slot} does not exist; with snapshot: never the sidecar does not create it.", create)
    else:
        yield ok(f"Slot {subject.slot} does not exist yet: the first start creates it.")


def holder(facts: Facts) -> Findings:
    slot, role = facts.our_slot(), facts.one(RoleFacts)
    if slot is None or not slot.active:
        yield ok("The slot is not active.")
    elif slot.holder_is_hidden:
        fix = role_fix(facts, f"GRANT pg_read_all_stats TO {role_sql(facts)};", superuser=True)
        yield unknown(
            f"Process {slot.active_pid} of another role reads the slot; the role {role.name} may not see its details.",
            fix,
        )
    elif not (slot.holder or "").startswith(f"cdc_merge/{facts.subject.source}"):
        fix = Fix((f"-- Terminate the blocking session: SELECT pg_terminate_backend({slot.active_pid});",))
        yield fail(f"Another client reads the sidecar's slot: {slot.holder}.", fix)
    else:
        yield ok(f"The sidecar reads the slot: {slot.holder}.")


def wal_status(facts: Facts) -> Findings:
    slot = facts.our_slot()
    if slot is None or slot.wal_status is None and slot.invalidation_reason is None:
        yield ok("There is no slot yet.")
    elif slot.wal_status == "lost":
        yield fail("wal_status is lost: the server has removed WAL that the slot needs.", _drop_lost(facts))
    elif slot.wal_status == "unreserved":
        yield fail("wal_status is unreserved: the next checkpoint invalidates the slot.", _keep_slot(facts))
    elif slot.wal_status == "extended":
        yield warn("wal_status is extended: WAL is kept beyond max_wal_size for a slot.", _keep_slot(facts))
    else:
        yield ok(f"wal_status is {slot.wal_status}.")


def _keep_slot(facts: Facts) -> Fix:
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
            f"The server has invalidated the slot: {slot.invalidation_reason or 'conflict with recovery'}.",
            _drop_lost(facts),
        )
    else:
        yield ok("The slot is valid.")


def inactive(facts: Facts) -> Findings:
    slot, server = facts.our_slot(), facts.one(ServerFacts)
    if slot is None or slot.active:
        yield ok("The slot is active." if slot else "There is no slot yet.")
    elif slot.inactive_s is None:
        is_old = server.version < INACTIVE_SINCE
        reason = "before version 17 the server does not record since when" if is_old else "unknown since when"
        yield unknown(f"The slot is inactive; {reason}.")
    elif slot.inactive_s > facts.subject.limits.inactive_s:
        yield warn(
            f"The slot has been inactive for {span(slot.inactive_s)}: the server keeps WAL for it.",
            Fix(
                (
                    f"-- Start the sidecar, or, if it is no longer used: SELECT pg_drop_replication_slot({server.slot_sql});",
                )
            ),
        )
    else:
        yield ok(f"The slot has been inactive for {span(slot.inactive_s)}.")


def retained(facts: Facts) -> Findings:
    slot, limit = facts.our_slot(), facts.subject.limits.retained_bytes
    if slot is None or slot.retained_bytes is None:
        yield ok("No WAL is kept for the slot.")
        return
    unconfirmed = slot.unconfirmed_bytes or 0
    seen = f"{size(slot.retained_bytes)} of WAL are kept for the slot, {size(unconfirmed)} of it not confirmed yet."
    if unconfirmed > limit and slot.active:
        yield warn(f"{seen} The sidecar is behind. Check with `cdc-merge source list`.")
    elif unconfirmed > limit:
        yield warn(f"{seen} It is inactive.", Fix((f"-- Start the sidecar of {facts.subject.source}.",)))
    elif slot.retained_bytes - unconfirmed > limit:
        yield warn(
            f"{seen} A long-running transaction holds back the rest.",
            Fix(tuple(f"-- {blocker.end_sql}" for blocker in facts.rows(Blocker))),
        )
    else:
        yield ok(seen)


def horizon(facts: Facts) -> Findings:
    slot, limit = facts.our_slot(), facts.subject.limits.xid_age
    if slot is None or slot.xid_age is None:
        yield ok("The slot holds back no vacuum.")
    elif slot.xid_age > limit:
        severity = fail if slot.xid_age > XID_FACTOR * limit else warn
        yield severity(
            f"The slot holds back vacuum of the catalogs for {slot.xid_age} transactions.",
            Fix((f"-- Start the sidecar of {facts.subject.source}, or drop its slot.",)),
        )
    else:
        yield ok(f"The slot's catalog xmin is {slot.xid_age} transactions old.")


def failover(facts: Facts) -> Findings:
    slot, server = facts.our_slot(), facts.one(ServerFacts)
    has_standbys = any(other.is_physical for other in facts.rows(SlotFacts))
    if facts.subject.failover and slot is not None and not slot.failover:
        yield fail("The configuration has failover: true, but the slot is not a failover slot.", _make_failover(slot))
    elif slot is None or server.version < FAILOVER_SINCE or not has_standbys:
        yield ok(
            "No standby has a slot on this server."
            if not has_standbys
            else "Slots are not synchronised before version 17."
            if server.version < FAILOVER_SINCE
            else "There is no slot yet."
        )
    elif slot.failover:
        yield ok("The slot is synchronised to standbys.")
    else:
        yield warn(
            "The slot is not synchronised to the standbys: a failover requires a new initial snapshot.",
            _make_failover(slot),
        )


def _make_failover(slot: SlotFacts) -> Fix:
    name = '"' + slot.name.replace('"', '""') + '"'
    return Fix((f"-- With the sidecar stopped, in replication mode: ALTER_REPLICATION_SLOT {name} (FAILOVER true);",))


def abandoned(facts: Facts) -> Findings:
    limit, found = facts.subject.limits.abandoned_bytes, False
    for slot in facts.rows(SlotFacts):
        is_left = slot.name != facts.subject.slot and not slot.active and not slot.temporary
        if is_left and (slot.retained_bytes or 0) > limit:
            found = True
            fix = Fix((f"-- If it is no longer needed: SELECT pg_drop_replication_slot({slot.sql});",))
            yield warn(f"Inactive; {size(slot.retained_bytes or 0)} of WAL are kept for it.", fix, slot.name)
    if not found:
        yield ok("No other slot is abandoned.")


def blockers(facts: Facts) -> Findings:
    limit_s = facts.subject.limits.blocker_s
    long = [blocker for blocker in facts.rows(Blocker) if (blocker.age_s or 0) > limit_s]
    effect = "blocks the creation of a slot" if facts.our_slot() is None else "keeps WAL for the slot"
    for blocker in long:
        fix = Fix((f"-- Terminate the blocking session: {blocker.end_sql}",))
        yield warn(f"A transaction is open for {span(blocker.age_s or 0)}; it {effect}.", fix, blocker.who)
    if long:
        return
    if not facts.one(RoleFacts).sees_all:
        yield unknown(
            "Other roles' transactions are hidden.",
            role_fix(facts, f"GRANT pg_read_all_stats TO {role_sql(facts)};", superuser=True),
        )
    else:
        yield ok("No transaction has been open for long.")


STEPS: Final = {
    "create": "creating a temporary slot",
    "start": "starting the stream",
    "message": "sending a logical message",
    "receive": "receiving that message from the stream",
    "leave": "dropping the temporary slot",
}


def end_to_end(facts: Facts) -> Findings:
    result = facts.maybe(PathProbe) if facts.has(PathProbe) else None
    if result is None:
        return
    if result.step == "done":
        yield ok(
            f"A message was sent and received through a temporary slot in {result.seconds:.1f} s; nothing is left."
        )
    elif result.step == "skipped":
        yield unknown(result.refusal)
    else:
        yield fail(f"The probe failed at {STEPS[result.step]}: {result.refusal}")


def running_sidecar(facts: Facts) -> Findings:
    result = facts.maybe(SidecarProbe) if facts.has(SidecarProbe) else None
    if result is None:
        return
    if result.confirmed:
        yield ok(f"The sidecar confirmed a new message after {result.seconds:.1f} s.")
    else:
        yield fail(
            f"The sidecar did not confirm a message within {result.seconds:.0f} s: it has a backlog, is stuck, or its "
            "store does not commit.",
            Fix((f"-- Check the position of {facts.subject.source} with: cdc-merge source list",)),
        )


def standbys(facts: Facts) -> Findings:
    server, setting, slot = facts.one(ServerFacts), facts.setting("synchronized_standby_slots"), facts.our_slot()
    if server.version < FAILOVER_SINCE or slot is None or not slot.failover:
        yield ok("The slot is not a failover slot.")
        return
    names = [name.strip() for name in (setting.setting if setting else "").split(",") if name.strip()]
    physical = {other.name: other for other in facts.rows(SlotFacts) if other.is_physical}
    listed = ", ".join(sorted(physical))
    if not names:
        statements = (f"ALTER SYSTEM SET synchronized_standby_slots = '{listed}';", "SELECT pg_reload_conf();")
        yield warn(
            "synchronized_standby_slots is empty: the sidecar can be ahead of a standby that is promoted.",
            Fix(statements if physical else (), superuser=True),
        )
    bad = [name for name in names if name not in physical or not physical[name].active]
    for name in bad:
        yield warn(
            "synchronized_standby_slots lists an inactive slot: the sidecar's stream waits for it.",
            Fix(("-- Start that standby, or remove the slot from synchronized_standby_slots.",), superuser=True),
            name,
        )
    if names and not bad:
        yield ok(f"The sidecar is never ahead of {', '.join(names)}.")


RELOAD: Final = "SELECT pg_reload_conf();"


def readiness(facts: Facts) -> Findings:
    slot, standby_facts = facts.our_slot(), facts.rows(StandbyFacts)
    if slot is None or not slot.failover:
        yield ok("The slot is not a failover slot.")
        return
    for standby in standby_facts:
        wrong = [(what, sql) for is_wrong, what, sql in _STANDBY if is_wrong(standby)]
        if wrong:
            statements = tuple(sql for _, sql in wrong)
            seen = f"The slot does not survive its promotion: {'; '.join(what for what, _ in wrong)}."
            yield fail(seen, Fix(("-- On this standby:", *statements, RELOAD), superuser=True), standby.host)
        elif not standby.is_ready:
            what = "is not synchronised yet" if standby.has_slot else "does not exist yet"
            yield warn(
                f"Its copy of the slot {what}. Check there with `SELECT pg_sync_replication_slots()`.",
                about=standby.host,
            )
        else:
            yield ok("The slot is synchronised; the standby can be promoted.", standby.host)
    if not standby_facts:
        yield unknown("The DSN lists no standby: whether one has the slot cannot be checked.")


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
        "-- ALTER SYSTEM SET primary_slot_name = 'its physical slot on the primary';",
    ),
    (
        lambda standby: standby.has_dbname is False,
        "primary_conninfo has no dbname",
        "-- Add dbname=postgres to primary_conninfo.",
    ),
)


CHECKS: Final = (
    DoctorCheck("SLT01", "The sidecar's slot", "The slot makes the server keep changes for the sidecar.", exists),
    DoctorCheck(
        "SLT02", "Reader of the slot", "A slot has one reader: changes that another client reads are lost.", holder
    ),
    DoctorCheck(
        "SLT03", "wal_status", "It shows whether the server still has the WAL that the slot needs.", wal_status
    ),
    DoctorCheck("SLT04", "Invalidation", "An invalidated slot cannot be used again.", invalidated),
    DoctorCheck(
        "SLT05", "Time without a reader", "While the slot is inactive, the server keeps ever more WAL.", inactive
    ),
    DoctorCheck("SLT06", "WAL kept for the slot", "It takes disk space on the server.", retained),
    DoctorCheck(
        "SLT07",
        "Vacuum held back",
        "A slot keeps dead catalog rows and can stop the database in the end (wraparound).",
        horizon,
    ),
    DoctorCheck("SLT08", "Failover slot", "Only a synchronised slot survives a failover.", failover),
    DoctorCheck("SLT09", "Other slots", "An abandoned slot of any application fills the disk.", abandoned),
    DoctorCheck(
        "SLT10",
        "Long transactions",
        "A new slot waits for every open transaction, and long ones keep WAL.",
        blockers,
    ),
    DoctorCheck(
        "SLT11",
        "End-to-end probe",
        "A temporary slot, a stream with the sidecar's options, a message sent and received: the whole path works.",
        end_to_end,
    ),
    DoctorCheck(
        "SLT12", "The running sidecar", "A message through the real slot is on disk and confirmed.", running_sidecar
    ),
    DoctorCheck(
        "FOV01",
        "Standbys ahead of the sidecar",
        "A promoted standby that was behind the sidecar lacks merged changes.",
        standbys,
    ),
    DoctorCheck(
        "FOV02",
        "Standbys with the slot",
        "After a failover the stream continues only if the promoted standby has the slot.",
        readiness,
    ),
)
