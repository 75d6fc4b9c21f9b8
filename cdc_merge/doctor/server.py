"""SRV: the server: version, WAL level, identity, clock, poolers. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cdc_merge.doctor.findings import DoctorCheck, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.sidecar_role import role_fix, role_sql
from cdc_merge.doctor.source_facts import (
    ClockFacts,
    Facts,
    FactUnavailable,
    IdentityFacts,
    LoginProcess,
    ServerFacts,
    Setting,
)

END_OF_LIFE: Final = {14: "2026-11-12", 15: "2027-11-11", 16: "2028-11-09", 17: "2029-11-08", 18: "2030-11-14"}
"""Major version → the day of its last release (postgresql.org/support/versioning)."""

OLDEST: Final = 140000
STANDBY_SINCE: Final = 160000
REPLICA_IS_ENOUGH_SINCE: Final = 190000

WAL_LEVEL_BY_PLATFORM: Final = {
    "rds": "-- RDS, Aurora: set rds.logical_replication = 1 in the parameter group, then reboot the instance.",
    "cloudsql": "-- Cloud SQL: set the flag cloudsql.logical_decoding = on; the instance restarts.",
    "alloydb": "-- AlloyDB: set the flag alloydb.logical_decoding = on; the instance restarts.",
    "azure": "-- Azure: set the server parameter wal_level = logical; the server restarts.",
}


def version(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    major = server.version // 10000
    if server.version < OLDEST:
        yield fail(f"PostgreSQL {major} is not supported: 14 is the oldest version that sends logical messages.")
        return
    end = END_OF_LIFE.get(major, "")
    today = datetime.fromtimestamp(server.now_us / 1e6, UTC).date().isoformat()
    if end and end < today:
        yield warn(f"PostgreSQL {major} has had no security releases since {end}.")
    else:
        yield ok(f"PostgreSQL {major}.{server.version % 10000}" + (f", maintained until {end}" if end else "") + ".")


def wal_level(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    level = server.effective_wal_level or server.wal_level
    if level == "logical" or (server.version >= REPLICA_IS_ENOUGH_SINCE and level == "replica"):
        yield ok(f"wal_level is {level}.")
        return
    by_platform = WAL_LEVEL_BY_PLATFORM.get(server.platform)
    fix = Fix((by_platform or "ALTER SYSTEM SET wal_level = 'logical';",), restart=True, superuser=True)
    yield fail(f"wal_level is {level}: the WAL lacks the data for logical decoding.", fix)


def pending(facts: Facts) -> Findings:
    waiting = [setting.name for setting in facts.rows(Setting) if setting.pending_restart]
    if not waiting:
        yield ok("No setting waits for a restart.")
    else:
        names = ", ".join(waiting)
        fix = Fix((f"-- Restart the server to apply {names}.",), restart=True, superuser=True)
        yield warn(f"{names}: changed in the configuration, takes effect after a restart.", fix)


def standby(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    if not server.standby:
        yield ok("The server is a primary.")
        return
    if server.version < STANDBY_SINCE:
        yield fail("The server is a standby; before version 16 logical decoding needs the primary.")
        return
    feedback, slot = facts.setting("hot_standby_feedback"), facts.setting("primary_slot_name")
    if feedback is None or feedback.setting != "on":
        statements = ("ALTER SYSTEM SET hot_standby_feedback = on;", "SELECT pg_reload_conf();")
        yield fail(
            "A standby without hot_standby_feedback: the primary removes rows that the slot needs.",
            Fix(statements, superuser=True),
            "hot_standby_feedback",
        )
    if slot is None or not slot.setting:
        yield warn(
            "The standby has no primary_slot_name: while it is disconnected, hot_standby_feedback has no effect.",
            Fix(("-- Create a physical slot for the standby and set primary_slot_name.",), superuser=True),
            "primary_slot_name",
        )
    if feedback is not None and feedback.setting == "on" and slot is not None and slot.setting:
        yield ok("A standby with hot_standby_feedback and a physical slot.")


def encoding(facts: Facts) -> Findings:
    name = facts.one(ServerFacts).encoding
    if name == "SQL_ASCII":
        yield fail("The database's encoding is SQL_ASCII: its text cannot be decoded reliably.")
    elif name != "UTF8":
        yield warn(
            f"The database's encoding is {name}: the server converts every value, and fails on those that it cannot convert."
        )
    else:
        yield ok("The database's encoding is UTF8.")


def identity(facts: Facts) -> Findings:
    try:
        server = facts.one(IdentityFacts)
    except FactUnavailable as missing:
        functions = "pg_catalog.pg_control_system(), pg_catalog.pg_control_checkpoint()"
        grant = f"GRANT EXECUTE ON FUNCTION {functions} TO {role_sql(facts)};"
        yield unknown(str(missing), role_fix(facts, grant, superuser=True))
        return
    yield ok(f"System {server.system}, timeline {server.timeline}.")


def clock(facts: Facts) -> Findings:
    reading, limit_s = facts.one(ClockFacts), facts.subject.limits.skew_s
    shown = f"{abs(reading.ahead_s):.3f} s {'ahead of' if reading.ahead_s >= 0 else 'behind'} the sidecar's"
    error = f"(± {reading.error_s:.3f} s)"
    if abs(reading.ahead_s) - reading.error_s > limit_s:
        fix = Fix(("-- Synchronise the clocks of both machines (NTP, chrony).",), superuser=True)
        yield warn(f"The server's clock is {shown} {error}, more than {limit_s:g} s.", fix)
    else:
        yield ok(f"The server's clock is {shown} {error}.")


def pooler(facts: Facts) -> Findings:
    login_pid, query_pid = facts.one(LoginProcess).login_pid, facts.one(ServerFacts).backend_pid
    if login_pid != query_pid:
        fix = Fix(("-- Set the DSN to the server itself, not to the pooler or load balancer.",))
        yield fail(
            f"Process {login_pid} answered the login, process {query_pid} the queries: a pooler is in between.", fix
        )
    else:
        yield ok("One server process answers the login and the queries.")


def platform(facts: Facts) -> Findings:
    name = facts.one(ServerFacts).platform
    words = {"rds": "Amazon RDS or Aurora", "cloudsql": "Cloud SQL", "alloydb": "AlloyDB", "azure": "Azure"}
    yield ok(words.get(name, "Self-managed, or a platform that is not detected."))


def foreign_time(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    if server.subscriptions or server.origins:
        yield warn(
            f"{server.subscriptions} subscriptions and {server.origins} replication origins: transactions applied "
            "under an origin carry the commit time of the server they come from.",
            Fix(("-- If they only copy changes of other sources, list the origins in copies.origins.",)),
        )
    else:
        yield ok("No subscription and no replication origin feeds this database.")


CHECKS: Final = (
    DoctorCheck(
        "SRV01", "Server version", "Older versions cannot send logical messages, or get no security releases.", version
    ),
    DoctorCheck("SRV02", "wal_level", "Without logical WAL there is nothing to decode.", wal_level),
    DoctorCheck(
        "SRV03", "Settings that wait for a restart", "A corrected setting has no effect before the restart.", pending
    ),
    DoctorCheck(
        "SRV04",
        "Primary or standby",
        "A standby can be read from version 16 on, and only if its primary keeps the rows that the slot needs.",
        standby,
    ),
    DoctorCheck("SRV05", "Encoding", "Text in an unknown encoding cannot be compared between systems.", encoding),
    DoctorCheck(
        "SRV06",
        "System identifier and timeline",
        "They distinguish a restored or replaced server from the one that was read.",
        identity,
    ),
    DoctorCheck("SRV07", "Clock", "Commit times decide which of two edits is later.", clock),
    DoctorCheck(
        "SRV08", "Pooler in the path", "A pooler breaks exported snapshots, session settings and replication.", pooler
    ),
    DoctorCheck("SRV09", "Platform", "It determines how settings are changed.", platform),
    DoctorCheck(
        "SRV10",
        "Foreign commit times",
        "Commit times of another server's clock put edits into the wrong order.",
        foreign_time,
    ),
)
