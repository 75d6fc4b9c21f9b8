"""The least privileges that a source must grant, as SQL for its DBA, per platform; and their removal. Pure.

The sidecar never executes this SQL. Passwords are neither read nor printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cdc_merge.doctor.naming import identifier, literal, qualified, schema_of
from cdc_merge.doctor.source_facts import Subject

PROPOSED_ROLE: Final = "cdc_merge"
CONNECTIONS: Final = 24  # up to eight per source; one role may read several databases of one server


@dataclass(frozen=True, slots=True)
class Platform:
    """How one platform creates a replication role, changes settings, and permits connections."""

    role: tuple[str, ...]
    monitoring: tuple[str, ...]
    settings: tuple[str, ...]
    access: tuple[str, ...]


MANAGED_MONITORING: Final = (
    "GRANT pg_monitor TO {role};                             -- for CAP08, SLT02, SLT10, ROL10",
)

PLATFORMS: Final[Mapping[str, Platform]] = {
    "plain": Platform(
        role=("{create} LOGIN REPLICATION CONNECTION LIMIT {connections}; END IF; END $$;",),
        monitoring=(
            "GRANT pg_read_all_stats TO {role};                      -- for SLT02, SLT10, ROL10",
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO {role};    -- for CAP08; as a superuser",
        ),
        settings=(
            "ALTER SYSTEM SET wal_level = 'logical';                 -- then restart the server",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';       -- what an absent reader may cost",
        ),
        access=(
            "-- pg_hba.conf: the database's name, not the word replication, which does not match logical replication:",
            "--   hostssl  {database}  {role}  ADDRESS/MASK  scram-sha-256",
        ),
    ),
    "rds": Platform(
        role=("{create} LOGIN CONNECTION LIMIT {connections}; END IF; END $$;", "GRANT rds_replication TO {role};"),
        monitoring=MANAGED_MONITORING,
        settings=(
            "-- In the parameter group: rds.logical_replication = 1, max_slot_wal_keep_size = 10240 (MB); reboot.",
        ),
        access=("-- In the security group: allow the sidecar's address on the server's port.",),
    ),
    "cloudsql": Platform(
        role=(
            "{create} LOGIN CONNECTION LIMIT {connections}; END IF; END $$;",
            "ALTER ROLE {role} WITH REPLICATION;                     -- as a member of cloudsqlsuperuser",
        ),
        monitoring=MANAGED_MONITORING,
        settings=(
            "-- Flags of the instance: cloudsql.logical_decoding = on, max_slot_wal_keep_size = 10240; it restarts.",
        ),
        access=("-- Authorise the sidecar's network, or use the Cloud SQL Auth Proxy.",),
    ),
    "azure": Platform(
        role=(
            "{create} LOGIN CONNECTION LIMIT {connections}; END IF; END $$;",
            "ALTER ROLE {role} WITH REPLICATION;                     -- as a member of azure_pg_admin",
        ),
        monitoring=MANAGED_MONITORING,
        settings=("-- Server parameters: wal_level = logical, max_slot_wal_keep_size = 10240 (MB); restart.",),
        access=("-- Allow the sidecar's address with a firewall rule or a private endpoint.",),
    ),
}


def grants(subject: Subject, role: str, database: str, platform: str) -> Iterator[str]:
    """The lines of the script for one source."""
    sections = PLATFORMS[platform]
    names = _names(role, database)
    publication = identifier(subject.publication)
    tables = _tables(subject)
    yield f"-- Source {subject.source}: the least privileges that cdc-merge needs. It executes none of this itself."
    yield from _section("The server (once)", _filled(sections.settings, names))
    yield from _section(
        "The role (as a user who may create roles)",
        (
            *role_grants(platform, role, database),
            f"-- Set its password so that it appears in no history: \\password {identifier(role)}",
        ),
    )
    yield from _section(
        "SELECT for the initial snapshot; the stream needs no grant (as the tables' owner)",
        read_grants(subject, role),
    )
    if subject.written:
        granted = f"GRANT INSERT, UPDATE, DELETE ON {_tables(subject, subject.written)} TO {identifier(role)};"
        yield from _section("Write-back (as the tables' owner)", (granted,))
    yield from _section(
        "The publication (as the tables' owner, with CREATE on the database)",
        (
            f"CREATE PUBLICATION {publication} FOR TABLE {tables}",
            "    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);",
        ),
    )
    yield from _section("Access", _filled(sections.access, names))
    yield from _section("To revoke all of it", tuple(f"-- {line}" for line in removal(subject, role, database)))


def role_grants(platform: str, role: str, database: str) -> tuple[str, ...]:
    """Creates the role, unless it exists, and grants what no table's owner grants."""
    sections = PLATFORMS[_SAME_AS.get(platform, platform)]
    connect = "GRANT CONNECT ON DATABASE {database} TO {role};"
    return _filled((*sections.role, connect, *sections.monitoring), _names(role, database))


def read_grants(subject: Subject, role: str) -> tuple[str, ...]:
    """SELECT on the tables of one source."""
    name = identifier(role)
    usage = (f"GRANT USAGE ON SCHEMA {schema} TO {name};" for schema in _schemas(subject))
    return (*usage, f"GRANT SELECT ON {_tables(subject)} TO {name};")


def wal_directory_grant(platform: str, role_sql: str) -> str:
    """What shows the size of WAL to a role; `role_sql` is its quoted name."""
    managed = f"GRANT pg_monitor TO {role_sql};"
    return f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO {role_sql};" if platform == "plain" else managed


_SAME_AS: Final = {"alloydb": "cloudsql"}


def _names(role: str, database: str) -> Mapping[str, object]:
    name = identifier(role)
    create = f"DO $$ BEGIN IF to_regrole({literal(name)}) IS NULL THEN CREATE ROLE {name}"
    return {"role": name, "create": create, "database": identifier(database), "connections": CONNECTIONS}


def _filled(lines: Iterable[str], names: Mapping[str, object]) -> tuple[str, ...]:
    """Only the templates above are filled: a table's own name may hold braces."""
    return tuple(line.format_map(names) for line in lines)


def _schemas(subject: Subject) -> list[str]:
    return [*dict.fromkeys(identifier(schema_of(table, subject.schemas)) for table in subject.tables)]


def _tables(subject: Subject, tables: Iterable[str] | None = None) -> str:
    named = subject.tables if tables is None else tables
    return ", ".join(qualified(table, subject.schemas) for table in named) or "…"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield f"-- {title}"
    yield from lines


def removal(subject: Subject, role: str | None, database: str) -> tuple[str, ...]:
    """SQL that reverts `grants`, the slot first: it keeps WAL. Without `role`, nothing that concerns the role.

    Not DROP OWNED: where the sidecar uses an application's role, that would drop the application's tables. DROP ROLE
    refuses instead while the role owns anything.
    """
    lines = (
        f"SELECT pg_drop_replication_slot({literal(subject.slot)});",
        f"DROP PUBLICATION IF EXISTS {identifier(subject.publication)};",
    )
    if role is None:
        return lines
    name = identifier(role)
    return (
        *lines,
        f"REVOKE ALL ON {_tables(subject)} FROM {name};",
        *(f"REVOKE ALL ON SCHEMA {schema} FROM {name};" for schema in _schemas(subject)),
        f"REVOKE ALL ON DATABASE {identifier(database)} FROM {name};",
        f"REVOKE ALL ON FUNCTION pg_catalog.pg_ls_waldir() FROM {name};",
        f"DROP ROLE {name};",
    )
