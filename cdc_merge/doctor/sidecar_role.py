"""The role that a printed fix changes: the sidecar's own one, never a role that people or applications log in as. Pure.

A fix that made `postgres` a plain role, or gave an application's role REPLICATION, would break more than it mends. Where
the DSN names such a role, the fix is a role of the sidecar's own and another DSN.
"""

from __future__ import annotations

from typing import Final

from cdc_merge.doctor.findings import Fix
from cdc_merge.doctor.grants import PROPOSED_ROLE, read_grants, role_grants
from cdc_merge.doctor.naming import identifier
from cdc_merge.doctor.source_facts import Facts, FactUnavailable, RoleFacts, ServerFacts, TableFacts

EXCESSIVE: Final = (
    "rds_superuser",
    "cloudsqlsuperuser",
    "alloydbsuperuser",
    "azure_pg_admin",
    "pg_read_all_data",
    "pg_write_all_data",
)


def excess(facts: Facts) -> list[str]:
    """The privileges of the role that the sidecar has no use for, by their names in SQL."""
    role = facts.one(RoleFacts)
    tables = _tables(facts)
    if role.is_super:
        return ["SUPERUSER"]
    attributes = {
        "CREATEROLE": role.creates_roles,
        "CREATEDB": role.creates_databases,
        "BYPASSRLS": role.bypasses_rls and not any(table.has_row_security for table in tables),
    }
    groups = [name for name in role.member_of if name in EXCESSIVE]
    mapped = [table.table for table in tables if table.owns and table.table in facts.subject.tables]
    return [word for word, has in attributes.items() if has] + groups + [f"ownership of {name}" for name in mapped]


def _tables(facts: Facts) -> tuple[TableFacts, ...]:
    try:
        return facts.rows(TableFacts)
    except FactUnavailable:
        return ()


def is_dedicated(facts: Facts) -> bool:
    """Whether the role can be the sidecar's own: it replicates, and has no power beyond that."""
    return facts.one(RoleFacts).may_replicate and not excess(facts)


def role_sql(facts: Facts) -> str:
    """The quoted name of the sidecar's role: that of the DSN, or the proposed one."""
    return facts.one(ServerFacts).role_sql if is_dedicated(facts) else identifier(PROPOSED_ROLE)


def role_fix(facts: Facts, *statements: str, superuser: bool = False) -> Fix:
    """The statements change the role of the DSN. Where that is not the sidecar's own, the fix is to replace it."""
    if is_dedicated(facts):
        return Fix(statements, superuser=superuser)
    code = "ROL02" if facts.one(RoleFacts).may_replicate else "ROL01"
    return Fix((f"-- Give the sidecar a role of its own instead of changing this one: see {code}.",))


def new_role_fix(facts: Facts) -> Fix:
    """A role of the sidecar's own with all that it needs, and the DSN that names it."""
    server, subject = facts.one(ServerFacts), facts.subject
    name = _free_name(facts)
    tables = [table.sql for each in subject.tables if (table := facts.table(each)) is not None]
    return Fix(
        (
            *role_grants(server.platform, name, server.database),
            *(read_grants(subject, name) if len(tables) == len(subject.tables) else ()),
            f"-- Set its password (\\password {identifier(name)}), and write user={identifier(name)} into the DSN of "
            f"{subject.source}.",
        ),
        superuser=True,
    )


def _free_name(facts: Facts) -> str:
    """The proposed name, or another when people log in with that one."""
    return PROPOSED_ROLE if facts.one(RoleFacts).name != PROPOSED_ROLE else f"{PROPOSED_ROLE}_{facts.subject.source}"
