"""The least privileges that a source must grant, as SQL for its DBA, per platform; and their removal. Pure.

The sidecar never executes this SQL. Passwords are neither read nor printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cdc_merge.doctor.naming import identifier, literal, qualified
from cdc_merge.doctor.source_facts import Subject

CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Platform:
    """How one platform creates a replication role, changes settings, and permits connections."""

    role: tuple[str, ...]
    settings: tuple[str, ...]
    access: tuple[str, ...]


PLATFORMS: Final[Mapping[str, Platform]] = {
    "plain": Platform(
        role=("CREATE ROLE {role} LOGIN REPLICATION CONNECTION LIMIT {connections};",),
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
        role=("CREATE ROLE {role} LOGIN CONNECTION LIMIT {connections};", "GRANT rds_replication TO {role};"),
        settings=(
            "-- In the parameter group: rds.logical_replication = 1, max_slot_wal_keep_size = 10240 (MB); reboot.",
        ),
        access=("-- In the security group: allow the sidecar's address on the server's port.",),
    ),
    "cloudsql": Platform(
        role=(
            "CREATE ROLE {role} LOGIN CONNECTION LIMIT {connections};",
            "ALTER ROLE {role} WITH REPLICATION;                     -- as a member of cloudsqlsuperuser",
        ),
        settings=(
            "-- Flags of the instance: cloudsql.logical_decoding = on, max_slot_wal_keep_size = 10240; it restarts.",
        ),
        access=("-- Authorise the sidecar's network, or use the Cloud SQL Auth Proxy.",),
    ),
    "azure": Platform(
        role=(
            "CREATE ROLE {role} LOGIN CONNECTION LIMIT {connections};",
            "ALTER ROLE {role} WITH REPLICATION;                     -- as a member of azure_pg_admin",
        ),
        settings=("-- Server parameters: wal_level = logical, max_slot_wal_keep_size = 10240 (MB); restart.",),
        access=("-- Allow the sidecar's address with a firewall rule or a private endpoint.",),
    ),
}


def grants(subject: Subject, role: str, database: str, platform: str) -> Iterator[str]:
    """The lines of the script for one source."""
    sections = PLATFORMS[platform]
    names = {"role": identifier(role), "database": identifier(database), "connections": CONNECTIONS}
    publication = identifier(subject.publication)
    tables = ", ".join(qualified(table) for table in subject.tables) or "…"
    yield f"-- Source {subject.source}: the least privileges that cdc-merge needs. It executes none of this itself."
    yield from _section("The server (once)", sections.settings, names)
    yield from _section("The role (as a user who may create roles)", (*sections.role, *_GRANTED), names)
    yield from _section(
        "SELECT for the initial snapshot; the stream needs no grant (as the tables' owner)",
        (
            *(f"GRANT USAGE ON SCHEMA {schema} TO {{role}};" for schema in _schemas(subject)),
            f"GRANT SELECT ON {tables} TO {{role}};",
        ),
        names,
    )
    yield from _section(
        "The publication (as the tables' owner, with CREATE on the database)",
        (
            f"CREATE PUBLICATION {publication} FOR TABLE {tables}",
            "    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);",
        ),
        {},
    )
    yield from _section("Access", sections.access, names)
    yield from _section("To revoke all of it", tuple(f"-- {line}" for line in removal(subject, role, database)), {})


_GRANTED: Final = (
    "-- Set its password so that it appears in no history: \\password {role}",
    "GRANT CONNECT ON DATABASE {database} TO {role};",
    "GRANT pg_read_all_stats TO {role};                      -- optional: doctor shows blocking sessions",
)


def _schemas(subject: Subject) -> list[str]:
    return [*dict.fromkeys(identifier(table.partition(".")[0]) for table in subject.tables)]


def _section(title: str, lines: tuple[str, ...], names: Mapping[str, object]) -> Iterator[str]:
    yield ""
    yield f"-- {title}"
    for line in lines:
        yield line.format(**names) if names else line


def removal(subject: Subject, role: str, database: str) -> tuple[str, ...]:
    """SQL that reverts `grants`, the slot first: it keeps WAL.

    Not DROP OWNED: where the sidecar uses an application's role, that would drop the application's tables. DROP ROLE
    refuses instead while the role owns anything.
    """
    name = identifier(role)
    schemas = _schemas(subject)
    return (
        f"SELECT pg_drop_replication_slot({literal(subject.slot)});",
        f"DROP PUBLICATION IF EXISTS {identifier(subject.publication)};",
        f"REVOKE ALL ON {', '.join(qualified(table) for table in subject.tables)} FROM {name};",
        *(f"REVOKE ALL ON SCHEMA {schema} FROM {name};" for schema in schemas),
        f"REVOKE ALL ON DATABASE {identifier(database)} FROM {name};",
        f"DROP ROLE {name};",
    )
