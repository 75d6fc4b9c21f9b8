"""CAP: free slots and connections, WAL budget: can the slot fill the disk, how long may the sidecar be down. Pure."""

from __future__ import annotations

import re
from typing import Final

from cdc_merge.doctor.findings import DoctorCheck, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.grants import wal_directory_grant
from cdc_merge.doctor.readable_units import gib, size, span
from cdc_merge.doctor.sidecar_role import role_fix, role_sql
from cdc_merge.doctor.source_facts import (
    CapacityFacts,
    Facts,
    FactUnavailable,
    RoleFacts,
    ServerFacts,
    Setting,
    WalDirectory,
)

CONNECTIONS: Final = 4  # the stream, the catalog queries beside it, an initial snapshot, and this doctor
SHORTEST_SENDER_TIMEOUT_MS: Final = (
    6_000  # the sidecar replies twice a second; less leaves no margin for a network stall
)
DEFAULT_BUDGET_BYTES: Final = 10 << 30
BUDGET_SAFETY: Final = 3  # multiple of the WAL of the longest outage
BUSY_MARGIN_S: Final = 3600.0  # less time than this to invalidation is a failure


def slots(facts: Facts) -> Findings:
    free = facts.one(CapacityFacts).free_slots
    yield from _free(facts, "max_replication_slots", free, "slots", 1 if facts.our_slot() is not None else 2)


def senders(facts: Facts) -> Findings:
    free = facts.one(CapacityFacts).free_senders
    slot = facts.our_slot()
    yield from _free(facts, "max_wal_senders", free, "WAL senders", 1 if slot is not None and slot.active else 2)


def _free(facts: Facts, name: str, free: int, what: str, needed: int) -> Findings:
    """`needed`: one for the sidecar, unless it has its own already, and one spare for a resync, a standby, a backup."""
    setting = facts.setting(name)
    total = int(setting.setting) if setting is not None else 0
    fix = Fix((f"ALTER SYSTEM SET {name} = {max(10, total + 4)};",), restart=True, superuser=True)
    if free < needed - 1:
        yield fail(f"None of {total} {what} is free ({name}); the sidecar needs one.", fix)
    elif free < needed:
        yield warn(f"{free} of {total} {what} free ({name}): no spare for a standby, a backup or a resync.", fix)
    else:
        yield ok(f"{free} of {total} {what} are free.")


def connections(facts: Facts) -> Findings:
    room, role, server = facts.one(CapacityFacts), facts.one(RoleFacts), facts.one(ServerFacts)
    if room.free_connections < CONNECTIONS:
        fix = Fix(("-- Raise max_connections, or close idle connections.",), restart=True, superuser=True)
        seen = f"{max(0, room.free_connections)} connections are free; the sidecar uses up to {CONNECTIONS}."
        yield warn(seen, fix, "server")
    if not role.is_super and 0 <= role.connection_limit < CONNECTIONS:
        fix = role_fix(facts, f"ALTER ROLE {server.role_sql} CONNECTION LIMIT 8;")
        yield fail(
            f"The role may open {role.connection_limit} connections; the sidecar needs {CONNECTIONS}.", fix, "role"
        )
    if 0 <= room.database_limit < CONNECTIONS:
        fix = Fix((f"ALTER DATABASE {server.database_sql} CONNECTION LIMIT -1;",))
        yield warn(f"The database allows {room.database_limit} connections in all.", fix, "database")
    role_limit = float("inf") if role.is_super or role.connection_limit < 0 else role.connection_limit
    database_limit = float("inf") if room.database_limit < 0 else room.database_limit
    if room.free_connections >= CONNECTIONS and not 0 <= min(role_limit, database_limit) < CONNECTIONS:
        yield ok(f"{room.free_connections} connections are free; the sidecar uses up to {CONNECTIONS}.")


def keep_size(facts: Facts) -> Findings:
    setting = facts.setting("max_slot_wal_keep_size")
    if setting is None or setting.number is None:
        yield unknown("The server does not show max_slot_wal_keep_size.")
        return
    rate = facts.one(CapacityFacts).wal_bytes_per_s
    wanted = max(DEFAULT_BUDGET_BYTES, BUDGET_SAFETY * facts.subject.limits.outage_s * (rate or 0.0))
    statements = (f"ALTER SYSTEM SET max_slot_wal_keep_size = '{gib(wanted)}GB';", "SELECT pg_reload_conf();")
    fix, outage = Fix(statements, superuser=True), span(facts.subject.limits.outage_s)
    if setting.number < 0:
        yield warn("max_slot_wal_keep_size is -1: while the sidecar is down, WAL grows until the disk is full.", fix)
    elif setting.number == 0:
        yield fail(
            "max_slot_wal_keep_size is 0: the slot is invalidated at the first checkpoint that it is behind.", fix
        )
    elif rate is not None and setting.number < facts.subject.limits.outage_s * rate:
        lasts = span(setting.number / rate)
        yield warn(f"max_slot_wal_keep_size is {size(setting.number)}: about {lasts} of WAL, less than {outage}.", fix)
    else:
        yield ok(f"max_slot_wal_keep_size is {size(setting.number)}.")


def idle_timeout(facts: Facts) -> Findings:
    setting = facts.setting("idle_replication_slot_timeout")
    if setting is None:
        yield ok("This version does not invalidate idle slots.")
        return
    lasts_s = (setting.number or 0.0) / 1000
    if 0 < lasts_s < facts.subject.limits.downtime_s:
        statements = ("ALTER SYSTEM SET idle_replication_slot_timeout = 0;", "SELECT pg_reload_conf();")
        yield warn(
            f"idle_replication_slot_timeout is {span(lasts_s)}: a longer downtime of the sidecar invalidates its slot.",
            Fix(statements, superuser=True),
        )
    else:
        state = span(lasts_s) if lasts_s else "off"
        yield ok(f"idle_replication_slot_timeout is {state}.")


def sender_timeout(facts: Facts) -> Findings:
    setting = facts.setting("wal_sender_timeout")
    if setting is None or setting.number is None:
        yield unknown("The server does not show wal_sender_timeout.")
        return
    fix = role_fix(facts, f"ALTER ROLE {role_sql(facts)} SET wal_sender_timeout = '60s';")
    if setting.number == 0:
        yield warn("wal_sender_timeout is 0: after a network failure a dead session keeps the slot active.", fix)
    elif setting.number < SHORTEST_SENDER_TIMEOUT_MS:
        yield warn(f"wal_sender_timeout is {setting.number / 1000:g} s: a short stall ends the stream.", fix)
    else:
        yield ok(f"wal_sender_timeout is {setting.number / 1000:g} s; the sidecar replies twice a second.")


def invalidation(facts: Facts) -> Findings:
    rate, slot = facts.one(CapacityFacts).wal_bytes_per_s, facts.our_slot()
    if slot is None or slot.safe_bytes is None:
        yield ok("No limit invalidates the sidecar's slot at present." if slot else "There is no slot yet.")
        return
    if rate is None:
        yield unknown(f"{size(slot.safe_bytes)} of WAL are left; the rate of WAL is not measured yet.")
        return
    left_s = max(0, slot.safe_bytes) / max(rate, 1.0)
    seen = f"{size(slot.safe_bytes)} of WAL are left: {span(left_s)} at {size(rate)} a second."
    statements = (f"ALTER SYSTEM SET max_slot_wal_keep_size = '{gib(rate * facts.subject.limits.outage_s * 3)}GB';",)
    fix = Fix((*statements, "SELECT pg_reload_conf();"), superuser=True)
    if left_s < BUSY_MARGIN_S:
        yield fail(seen, fix)
    elif left_s < facts.subject.limits.outage_s:
        yield warn(seen, fix)
    else:
        yield ok(seen)


def disk(facts: Facts) -> Findings:
    try:
        wal_bytes = facts.one(WalDirectory).wal_bytes
    except FactUnavailable as missing:
        grant = wal_directory_grant(facts.one(ServerFacts).platform, role_sql(facts))
        yield unknown(str(missing), role_fix(facts, grant, superuser=True))
        return
    yield ok(f"{size(wal_bytes)} of WAL are on disk. SQL does not show the free space: monitor it.")


def spill(facts: Facts) -> Findings:
    room = facts.one(CapacityFacts)
    if not room.decoded_bytes or room.spill_bytes is None:
        yield ok("Nothing was decoded for the sidecar's slot yet.")
        return
    share = room.spill_bytes / room.decoded_bytes
    if share > facts.subject.limits.spill_share:
        fix = role_fix(facts, f"ALTER ROLE {role_sql(facts)} SET logical_decoding_work_mem = '256MB';")
        yield warn(f"{share:.0%} of the decoded bytes were spilled to the server's disk.", fix)
    else:
        yield ok(f"{share:.0%} of the decoded bytes were spilled to the server's disk.")


def shutdown_timeout(facts: Facts) -> Findings:
    setting = facts.setting("wal_sender_shutdown_timeout")
    if setting is None:
        yield ok("This version waits for its readers at shutdown; the sidecar confirms at once and disconnects.")
    else:
        state = setting.setting
        yield ok(f"wal_sender_shutdown_timeout is {state}; the sidecar confirms at once and disconnects.")


def synchronous(facts: Facts) -> Findings:
    setting = facts.setting("synchronous_standby_names")
    names = re.split(r"[\s,()\"]+", setting.setting if setting is not None else "")
    ours = f"cdc_merge/{facts.subject.source}"
    if "*" in names or ours in names:
        fix = Fix(
            (
                "-- List the standbys: ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1)';",
                "-- SELECT pg_reload_conf();",
            ),
            superuser=True,
        )
        yield warn("synchronous_standby_names matches the sidecar's session: commits would wait for the sidecar.", fix)
    else:
        yield ok("No commit waits for the sidecar.")


def commit_timestamps(facts: Facts) -> Findings:
    setting: Setting | None = facts.setting("track_commit_timestamp")
    state = setting.setting if setting is not None else "not shown"
    yield ok(f"track_commit_timestamp is {state}; it is not needed, the stream carries commit times.")


CHECKS: Final = (
    DoctorCheck("CAP01", "Free replication slots", "Without one the sidecar cannot start.", slots),
    DoctorCheck(
        "CAP02",
        "Free WAL senders",
        "Standbys and backups need them as well; without one the stream cannot start.",
        senders,
    ),
    DoctorCheck(
        "CAP03",
        "Free connections",
        "The stream, the queries beside it and an initial snapshot each need one.",
        connections,
    ),
    DoctorCheck(
        "CAP04",
        "WAL kept for slots",
        "Without a limit an absent reader fills the disk; with a low limit it loses its slot.",
        keep_size,
    ),
    DoctorCheck(
        "CAP05",
        "Idle slots",
        "The server invalidates a slot that is inactive for so long; unsent changes are lost.",
        idle_timeout,
    ),
    DoctorCheck(
        "CAP06",
        "wal_sender_timeout",
        "It ends sessions without a living reader, so that the slot is free again.",
        sender_timeout,
    ),
    DoctorCheck(
        "CAP07",
        "Time to invalidation",
        "At its end the slot is lost and a new initial snapshot is needed.",
        invalidation,
    ),
    DoctorCheck("CAP08", "WAL on disk", "A full disk stops the database.", disk),
    DoctorCheck(
        "CAP09",
        "Decoding through the disk",
        "Transactions larger than logical_decoding_work_mem are written to disk and read again.",
        spill,
    ),
    DoctorCheck(
        "CAP10",
        "Waiting at shutdown",
        "A reader that never confirms delays the server's shutdown.",
        shutdown_timeout,
    ),
    DoctorCheck(
        "CAP11",
        "Synchronous standbys",
        "A reader that counts as a synchronous standby delays every commit.",
        synchronous,
    ),
    DoctorCheck("CAP12", "track_commit_timestamp", "For audits only.", commit_timestamps),
)
