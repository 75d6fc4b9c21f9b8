"""ROL: the sidecar's role: required, missing and excessive privileges. Pure."""

from __future__ import annotations

from typing import Final

from cdc_merge.doctor.findings import DoctorCheck, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.readable_units import span
from cdc_merge.doctor.sidecar_role import excess, new_role_fix, role_fix, role_sql
from cdc_merge.doctor.source_facts import (
    Facts,
    ReplicationLogin,
    RoleFacts,
    RoleSetting,
    ServerFacts,
    TableFacts,
    WritePrivileges,
)

FIDELITY: Final = ("datestyle", "intervalstyle", "extra_float_digits", "bytea_output", "timezone", "client_encoding")
TIMEOUTS: Final = (
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
)


def attribute(facts: Facts) -> Findings:
    if facts.one(RoleFacts).may_replicate:
        yield ok("The role has the REPLICATION attribute.")
    else:
        yield fail("The role has no REPLICATION attribute: it may not read changes.", new_role_fix(facts))


def power(facts: Facts) -> Findings:
    unneeded = excess(facts)
    if unneeded:
        yield warn(f"The role has unnecessary privileges: {', '.join(unneeded)}.", new_role_fix(facts))
    else:
        yield ok("The role has no unnecessary privileges.")


def expiry(facts: Facts) -> Findings:
    role = facts.one(RoleFacts)
    fix = role_fix(facts, f"ALTER ROLE {role_sql(facts)} VALID UNTIL 'infinity';")
    if role.expires_in_s is None:
        yield ok("The role's password does not expire.")
    elif role.expires_in_s <= 0:
        yield fail("The role's password has expired: the next connection with it fails.", fix)
    elif role.expires_in_s < facts.subject.limits.expiry_s:
        yield warn(f"The role's password expires in {span(role.expires_in_s)}.", fix)
    else:
        yield ok(f"The role's password expires in {span(role.expires_in_s)}.")


def replication_login(facts: Facts) -> Findings:
    login, server = facts.one(ReplicationLogin), facts.one(ServerFacts)
    if login.server is not None:
        yield ok("A replication connection to this database is accepted.")
        return
    line = f"hostssl {server.database} {role_sql(facts)} ADDRESS/MASK scram-sha-256"
    yield fail(
        f"A replication connection is refused, although a plain one is accepted. {login.refusal}",
        Fix((f"-- pg_hba.conf needs the database's name, not the word replication: {line}",), superuser=True),
    )


def privileges(facts: Facts) -> Findings:
    role, columns = role_sql(facts), facts.needed_columns()
    unreadable = {column.table for column in columns if not column.may_select}
    missing = False
    for name in facts.subject.tables:
        table = facts.table(name)
        if table is None or (table.may_use_schema and table.may_select and name not in unreadable):
            continue
        missing = True
        usage = () if table.may_use_schema else (f"GRANT USAGE ON SCHEMA {table.schema_sql} TO {role};",)
        fix = role_fix(facts, *usage, f"GRANT SELECT ON {table.sql} TO {role};")
        severity = fail if facts.subject.snapshot == "initial" else warn
        yield severity(
            "The role has no SELECT on it, which an initial snapshot needs; the stream needs no grant.", fix, name
        )
    if not missing:
        yield ok("The role has SELECT on every mapped table.")


def row_security(facts: Facts) -> Findings:
    role = facts.one(RoleFacts)
    mapped = [table for name in facts.subject.tables if (table := facts.table(name)) is not None]
    hidden = [table for table in mapped if table.has_row_security and not table.owns]
    if role.bypasses_rls or not hidden:
        yield ok("No policy hides rows of mapped tables from the initial snapshot.")
        return
    for table in hidden:
        yield fail(
            "Row-level security is on: the stream sends every row, an initial snapshot reads only the rows that the "
            "policies permit (it refuses to run instead).",
            role_fix(facts, f"ALTER ROLE {role_sql(facts)} BYPASSRLS;", superuser=True),
            table.table,
        )


def reach(facts: Facts) -> Findings:
    count = len({table.published_as for table in facts.rows(TableFacts) if table.published_as})
    yield ok(f"Through the stream this role can read every row of {count} published tables, regardless of policies.")


def settings(facts: Facts) -> Findings:
    server, found = facts.one(ServerFacts), facts.rows(RoleSetting)
    cutting = [
        setting for setting in found if setting.name.lower() in TIMEOUTS and setting.value not in ("0", "0s", "")
    ]
    for setting in cutting:
        where = f"ALTER ROLE {role_sql(facts)} IN DATABASE {server.database_sql}"
        yield warn(
            f"{setting.name} = {setting.value} (set for the {setting.scope}): the sidecar resets it in its sessions; "
            "where that has no effect, it ends an initial snapshot.",
            role_fix(facts, f"{where} SET {setting.name} = 0;"),
            setting.name,
        )
    pinned = [setting.name for setting in found if setting.name.lower() in FIDELITY]
    if not cutting:
        yield ok(
            f"The sidecar's sessions override {', '.join(pinned)} of role or database."
            if pinned
            else "No setting of role or database affects the sidecar's sessions."
        )


def messages(facts: Facts) -> Findings:
    role = facts.one(RoleFacts)
    if role.message_function is None:
        yield unknown("pg_logical_emit_message does not exist.")
    elif not role.may_emit:
        fix = role_fix(
            facts, f"GRANT EXECUTE ON FUNCTION {role.message_function} TO {role_sql(facts)};", superuser=True
        )
        yield warn(
            "The role may not emit logical messages: no heartbeats, and the path cannot be probed.",
            fix,
        )
    else:
        yield ok("The role may emit logical messages.")


def statistics(facts: Facts) -> Findings:
    role = facts.one(RoleFacts)
    if role.sees_all:
        yield ok("The role sees other roles' sessions.")
    else:
        fix = role_fix(facts, f"GRANT pg_read_all_stats TO {role_sql(facts)};", superuser=True)
        yield warn(
            "Other roles' sessions are hidden: the reader of a slot and the blockers of its creation stay unknown.", fix
        )


def writing(facts: Facts) -> Findings:
    role = role_sql(facts)
    tables = facts.rows(WritePrivileges) if facts.subject.written else ()
    for table in tables:
        if table.ungranted:
            grant = f"GRANT {', '.join(table.ungranted)} ON {table.sql} TO {role};"
            seen = (
                f"Write-back is enabled, but the role lacks {', '.join(table.ungranted)}: decisions are refused there."
            )
            yield fail(seen, role_fix(facts, grant), table.table)
        elif table.rewriting:
            seen = f"Triggers may change the values of write-back: {', '.join(table.rewriting)}."
            yield warn(seen, Fix(("-- Check that they do not change the written fields.",)), table.table)
    if not any(table.ungranted or table.rewriting for table in tables):
        yield ok(
            "The role has the privileges for write-back." if tables else "Write-back into this source is disabled."
        )


CHECKS: Final = (
    DoctorCheck("ROL01", "REPLICATION attribute", "Only such a role may read changes.", attribute),
    DoctorCheck(
        "ROL02",
        "Unnecessary privileges",
        "The sidecar's password gives access to everything that its role may do.",
        power,
    ),
    DoctorCheck("ROL03", "Expiry of the password", "The sidecar stops when it expires.", expiry),
    DoctorCheck(
        "ROL04",
        "Replication login",
        "pg_hba.conf applies to replication connections as well; logical ones match by the database's name.",
        replication_login,
    ),
    DoctorCheck("ROL05", "SELECT on mapped tables", "The initial snapshot reads the tables themselves.", privileges),
    DoctorCheck(
        "ROL06", "Row-level security", "Policies apply to the initial snapshot and not to the stream.", row_security
    ),
    DoctorCheck("ROL07", "What the role can read", "REPLICATION gives read access to all published rows.", reach),
    DoctorCheck(
        "ROL08",
        "Settings of role and database",
        "They apply to the sidecar's sessions: they change the text of values and end long reads.",
        settings,
    ),
    DoctorCheck(
        "ROL09",
        "Logical messages",
        "They mark transactions and prove that the stream works, without a table.",
        messages,
    ),
    DoctorCheck("ROL10", "pg_read_all_stats", "Without it some checks stay unknown.", statistics),
    DoctorCheck("ROL11", "Privileges for write-back", "A decision must be stored exactly as it was made.", writing),
)
