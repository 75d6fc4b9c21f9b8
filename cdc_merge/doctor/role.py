"""ROL: what our role may, must and should not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdc_merge.doctor.findings import Check, Findings, Fix, fail, ok, unknown, warn
from cdc_merge.doctor.readable_units import span
from cdc_merge.doctor.source_facts import Facts, Identified, RoleFacts, RoleSetting, ServerFacts, TableFacts, WritePower

FIDELITY: Final = ("datestyle", "intervalstyle", "extra_float_digits", "bytea_output", "timezone", "client_encoding")
TIMEOUTS: Final = (
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
)


def attribute(facts: Facts) -> Findings:
    role, server = facts.one(RoleFacts), facts.one(ServerFacts)
    if role.may_replicate:
        yield ok("The role may read changes.")
        return
    grant = f"GRANT rds_replication TO {server.role_sql};"
    statement = grant if server.platform == "rds" else f"ALTER ROLE {server.role_sql} REPLICATION;"
    yield fail("The role may not read changes: it has no REPLICATION attribute.", Fix((statement,), superuser=True))


def power(facts: Facts) -> Findings:
    role, server = facts.one(RoleFacts), facts.one(ServerFacts)
    needs_bypass = any(table.has_row_security for table in facts.rows(TableFacts))
    extra = {
        "NOSUPERUSER": role.is_super,
        "NOCREATEROLE": role.creates_roles and not role.is_super,
        "NOCREATEDB": role.creates_databases and not role.is_super,
        "NOBYPASSRLS": role.bypasses_rls and not needs_bypass and not role.is_super,
    }
    shed = [word for word, has in extra.items() if has]
    groups = [name for name in role.member_of if name.endswith("super") or name in _TOO_MUCH]
    statements = [f"ALTER ROLE {server.role_sql} {' '.join(shed)};"] if shed else []
    if role.is_super:
        # A superuser needs none of these; without that, it does.
        statements = [f"ALTER ROLE {server.role_sql} NOSUPERUSER REPLICATION;"]
    statements += [f"REVOKE {name} FROM {server.role_sql};" for name in groups]
    if statements:
        has = ", ".join([word.removeprefix("NO") for word in shed] + groups)
        yield warn(f"The role has more than it needs: {has}.", Fix(tuple(statements), superuser=True))
    else:
        yield ok("The role has no power that it does not need.")


_TOO_MUCH: Final = (
    "rds_superuser",
    "cloudsqlsuperuser",
    "alloydbsuperuser",
    "azure_pg_admin",
    "pg_read_all_data",
    "pg_write_all_data",
)


def expiry(facts: Facts) -> Findings:
    role = facts.one(RoleFacts)
    fix = Fix((f"ALTER ROLE {facts.one(ServerFacts).role_sql} VALID UNTIL 'infinity';",))
    if role.expires_in_s is None:
        yield ok("The role's password does not expire.")
    elif role.expires_in_s <= 0:
        yield fail("The role's password has expired: the next connection with it fails.", fix)
    elif role.expires_in_s < facts.subject.limits.expiry_s:
        yield warn(f"The role's password expires in {span(role.expires_in_s)}.", fix)
    else:
        yield ok(f"The role's password expires in {span(role.expires_in_s)}.")


def replication_login(facts: Facts) -> Findings:
    found, server = facts.one(Identified), facts.one(ServerFacts)
    if found.server is not None:
        yield ok("A replication connection to this database is let in.")
        return
    line = f"hostssl {server.database} {facts.one(RoleFacts).name} ADDRESS/MASK scram-sha-256"
    yield fail(
        f"A replication connection is refused, although a plain one is let in. {found.refusal}",
        Fix((f"-- pg_hba.conf needs the database's name, not the word replication: {line}",), superuser=True),
    )


def privileges(facts: Facts) -> Findings:
    server, columns = facts.one(ServerFacts), facts.needed_columns()
    unreadable = {column.table for column in columns if not column.may_select}
    missing = False
    for name in facts.subject.tables:
        table = facts.table(name)
        if table is None or (table.may_use_schema and table.may_select and name not in unreadable):
            continue
        missing = True
        usage = () if table.may_use_schema else (f"GRANT USAGE ON SCHEMA {table.schema_sql} TO {server.role_sql};",)
        fix = Fix((*usage, f"GRANT SELECT ON {table.sql} TO {server.role_sql};"))
        severity = fail if facts.subject.snapshot == "initial" else warn
        yield severity(
            "The role may not select from it, which a first copy needs; the stream needs no grant.", fix, name
        )
    if not missing:
        yield ok("The role may select from every mapped table.")


def row_security(facts: Facts) -> Findings:
    role, server = facts.one(RoleFacts), facts.one(ServerFacts)
    hidden = [table for table in _mapped(facts) if table.has_row_security and not table.owns]
    if role.bypasses_rls or not hidden:
        yield ok("No policy hides rows of mapped tables from the first copy.")
        return
    for table in hidden:
        yield fail(
            "Row-level security is on: the stream has every row, a first copy only those that the policies show (it "
            "refuses to run instead).",
            Fix((f"ALTER ROLE {server.role_sql} BYPASSRLS;",), superuser=True),
            table.table,
        )


def _mapped(facts: Facts) -> Iterable[TableFacts]:
    return [table for name in facts.subject.tables if (table := facts.table(name)) is not None]


def reach(facts: Facts) -> Findings:
    count = len({table.published_as for table in facts.rows(TableFacts) if table.published_as})
    yield ok(f"Through the stream this role can read every row of {count} published tables, whatever policies say.")


def settings(facts: Facts) -> Findings:
    server, found = facts.one(ServerFacts), facts.rows(RoleSetting)
    cutting = [
        setting for setting in found if setting.name.lower() in TIMEOUTS and setting.value not in ("0", "0s", "")
    ]
    for setting in cutting:
        where = f"ALTER ROLE {server.role_sql} IN DATABASE {server.database_sql}"
        yield warn(
            f"{setting.name} = {setting.value} (set for the {setting.scope}): we lift it in our sessions; where that "
            "does not reach, it ends a first copy.",
            Fix((f"{where} SET {setting.name} = 0;",)),
            setting.name,
        )
    pinned = [setting.name for setting in found if setting.name.lower() in FIDELITY]
    if not cutting:
        yield ok(
            f"We pin {', '.join(pinned)}, which role or database set." if pinned else "Nothing changes our sessions."
        )


def messages(facts: Facts) -> Findings:
    role, server = facts.one(RoleFacts), facts.one(ServerFacts)
    if role.message_function is None:
        yield unknown("pg_logical_emit_message was not found.")
    elif not role.may_emit:
        fix = Fix((f"GRANT EXECUTE ON FUNCTION {role.message_function} TO {server.role_sql};",), superuser=True)
        yield warn(
            "The role may not send logical messages: an idle source passes time later, and the path cannot be proved.",
            fix,
        )
    else:
        yield ok("The role may send logical messages.")


def statistics(facts: Facts) -> Findings:
    role, server = facts.one(RoleFacts), facts.one(ServerFacts)
    if role.sees_all:
        yield ok("The role sees what other sessions do.")
    else:
        fix = Fix((f"GRANT pg_read_all_stats TO {server.role_sql};",), superuser=True)
        yield warn("Other roles' sessions are hidden: who holds a slot or blocks its creation stays unknown.", fix)


def writing(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    found = facts.rows(WritePower) if facts.subject.written else ()
    for table in found:
        if table.ungranted:
            grant = f"GRANT {', '.join(table.ungranted)} ON {table.sql} TO {server.role_sql};"
            seen = f"Write-back is on, and the role may not {', '.join(table.ungranted)}: what is decided is refused there."
            yield fail(seen, Fix((grant,)), table.table)
        elif table.rewriting:
            seen = f"Triggers may rewrite what write-back writes: {', '.join(table.rewriting)}."
            yield warn(seen, Fix(("-- Look whether they leave the written fields alone.",)), table.table)
    if not any(table.ungranted or table.rewriting for table in found):
        yield ok("The role may write what write-back writes." if found else "Nothing is written into this source.")


CHECKS: Final = (
    Check("ROL01", "REPLICATION attribute", "Only such a role may read changes.", attribute),
    Check(
        "ROL02", "Power that is not needed", "Whoever gets hold of the sidecar's password gets the role's power.", power
    ),
    Check("ROL03", "Expiry of the password", "On that day the sidecar stops.", expiry),
    Check(
        "ROL04",
        "Replication login",
        "pg_hba.conf decides about replication connections too; for logical ones by the database's name.",
        replication_login,
    ),
    Check("ROL05", "SELECT on mapped tables", "The first copy reads the tables themselves.", privileges),
    Check("ROL06", "Row-level security", "Policies apply to the first copy and not to the stream.", row_security),
    Check("ROL07", "What the role can read", "REPLICATION is more than it seems; the DBA should know.", reach),
    Check(
        "ROL08",
        "Settings of role and database",
        "They reach into our sessions: values would look different, long reads would end.",
        settings,
    ),
    Check(
        "ROL09",
        "Logical messages",
        "They mark transactions and prove that the stream is alive, without a table.",
        messages,
    ),
    Check("ROL10", "pg_read_all_stats", "Without it some answers here stay unknown.", statistics),
    Check("ROL11", "Power to write back", "What is decided must arrive as it was decided.", writing),
)
