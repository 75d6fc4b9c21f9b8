"""PUB: the publication sends every mapped table, and does not break the application's own writes. Pure.

There is no PUB08 (different column lists in two publications of one stream, 0A000): the sidecar reads one publication.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdc_merge.doctor.findings import DoctorCheck, Finding, Findings, Fix, fail, ok, warn
from cdc_merge.doctor.source_facts import Facts, PublicationFacts, PublishedTables, RoleFacts, ServerFacts, TableFacts
from cdc_merge.sources.postgres.publication_members import describe_changes, publication_changes

FULL: Final = "f"
PARTITIONED: Final = "p"
OPTIONS: Final = "WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
GENERATED_CHECKED_SINCE: Final = 180000
BREAKS: Final = "the application's own UPDATE and DELETE on it fail (42P10)"


def exists(facts: Facts) -> Findings:
    name = facts.subject.publication
    if facts.maybe(PublicationFacts) is not None:
        yield ok(f"Publication {name} exists.")
        return
    tables = [table.sql for mapped in facts.subject.tables if (table := facts.table(mapped)) is not None]
    is_silent = facts.one(ServerFacts).version >= GENERATED_CHECKED_SINCE
    what = "this version then sends nothing, without an error" if is_silent else "the stream cannot start"
    sql = facts.one(ServerFacts).publication_sql
    statement = f"CREATE PUBLICATION {sql} FOR TABLE {', '.join(tables)} {OPTIONS};"
    yield fail(f"Publication {name} does not exist: {what}.", Fix((statement,) if tables else ()))


def operations(facts: Facts) -> Findings:
    publication = facts.one(PublicationFacts)
    published = {
        "insert": publication.publishes_insert,
        "update": publication.publishes_update,
        "delete": publication.publishes_delete,
        "truncate": publication.publishes_truncate,
    }
    hidden = [name for name, sent in published.items() if not sent]
    sql = facts.one(ServerFacts).publication_sql
    fix = Fix((f"ALTER PUBLICATION {sql} SET (publish = 'insert, update, delete, truncate');",))
    if not hidden:
        yield ok("Insert, update, delete and truncate are published.")
    elif hidden == ["truncate"]:
        yield warn("TRUNCATE is not published: truncated tables keep their records.", fix)
    else:
        yield fail(f"Not published: {', '.join(hidden)}.", fix)


def partitions(facts: Facts) -> Findings:
    publication = facts.one(PublicationFacts)
    roots = [table for table in facts.rows(TableFacts) if table.kind == PARTITIONED]
    fix = Fix((f"ALTER PUBLICATION {facts.one(ServerFacts).publication_sql} SET (publish_via_partition_root = true);",))
    if publication.via_root or not roots:
        seen = "Partitions are published under their root's name; TRUNCATE of a single partition is not sent."
        yield ok(seen if roots else "No table is partitioned.")
        return
    for table in roots:
        yield fail(
            "Changes are published under the partitions' names; a row moved between partitions as delete and insert.",
            fix,
            table.table,
        )


def membership(facts: Facts) -> Findings:
    publication, server = facts.one(PublicationFacts), facts.one(ServerFacts)
    tables = facts.rows(TableFacts)
    roots = {table.table for table in tables if table.kind == PARTITIONED}
    found = False
    for name in facts.subject.tables:
        table = facts.table(name)
        if table is None:
            found = True
            yield fail("The table does not exist.", about=name)
        elif table.published_as is None and (name not in roots or publication.via_root):
            found = True
            yield fail(
                "Mapped but not published: its changes are never sent.",
                Fix((f"ALTER PUBLICATION {server.publication_sql} ADD TABLE {table.sql};",)),
                name,
            )
    for table in tables:
        if table.published_as == table.table and table.table not in facts.subject.tables:
            found = True
            yield _unmapped(table, publication, server)
    if not found:
        yield ok("Exactly the mapped tables are published.")


def _unmapped(table: TableFacts, publication: PublicationFacts, server: ServerFacts) -> Finding:
    seen = (
        "Published but not mapped: its changes are decoded and sent without use, and the sidecar's role can read them."
    )
    if not table.is_listed:
        scope = "FOR ALL TABLES" if publication.all_tables else "for a whole schema or a partitioned table"
        return warn(f"{seen} The publication is {scope}.", about=table.table)
    return warn(seen, Fix((f"ALTER PUBLICATION {server.publication_sql} DROP TABLE {table.sql};",)), table.table)


def own_tables(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    ours = [table for table in facts.rows(TableFacts) if table.published_as and table.table.startswith("cdc_merge.")]
    for table in ours:
        yield fail(
            "One of the sidecar's own tables is published: it would read its own writes.",
            Fix((f"ALTER PUBLICATION {server.publication_sql} DROP TABLE {table.sql};",)),
            table.table,
        )
    if not ours:
        yield ok("None of the sidecar's own tables is published.")


def column_lists(facts: Facts) -> Findings:
    broken = False
    for table in written_tables(facts):
        if table.listed is None:
            continue
        missing = [column for column in table.identity_columns if column not in table.listed]
        if table.identity != FULL and not missing:
            continue
        broken = True
        what = (
            "replica identity FULL allows none"
            if table.identity == FULL
            else f"it lacks {', '.join(missing)} of the replica identity"
        )
        yield fail(
            f"The publication has a column list for it, and {what}: {BREAKS}.", _without(facts, table), table.table
        )
    if not broken:
        yield ok("No column list breaks the application's writes.")


def row_filters(facts: Facts) -> Findings:
    filtered = False
    for table in written_tables(facts):
        if table.row_filter is None:
            continue
        filtered = True
        outside = [column for column in table.filter_columns if column not in table.identity_columns]
        if table.identity != FULL and outside:
            seen = f"The row filter uses {', '.join(outside)}, not part of the replica identity: {BREAKS}."
            yield fail(seen, _without(facts, table), table.table)
        else:
            seen = "A row filter: a row that no longer matches it is sent as a delete, without a delete in the source."
            yield warn(seen, _without(facts, table), table.table)
    if not filtered:
        yield ok("No row filter.")


def _without(facts: Facts, table: TableFacts) -> Fix:
    """Publish the table without column list and row filter."""
    publication = facts.one(ServerFacts).publication_sql
    member = facts.table(table.published_as or "") or table
    statements = (
        f"ALTER PUBLICATION {publication} DROP TABLE {member.sql};",
        f"ALTER PUBLICATION {publication} ADD TABLE {member.sql};",
    )
    return Fix(("BEGIN;", *statements, "COMMIT;"))


def generated(facts: Facts) -> Findings:
    publication, server = facts.one(PublicationFacts), facts.one(ServerFacts)
    found = False
    for table in written_tables(facts):
        unsent = {*table.generated_virtual} | (set() if publication.sends_generated else {*table.generated_stored})
        checked = unsent if table.identity == FULL else unsent & {*table.identity_columns}
        wanted = unsent & {*facts.subject.tables.get(table.table, ())} - {*(table.listed or ())}
        if checked and server.version >= GENERATED_CHECKED_SINCE and table.listed is None:
            found = True
            seen = f"The replica identity has generated columns that are not published ({_listed(checked)}): {BREAKS}."
            yield fail(seen, _publish_generated(facts, table, checked), table.table)
        elif wanted:
            found = True
            yield fail(
                f"Mapped generated columns are not sent: {_listed(wanted)}.",
                _publish_generated(facts, table, wanted),
                table.table,
            )
    if not found:
        yield ok("No generated column is missing.")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _publish_generated(facts: Facts, table: TableFacts, columns: set[str]) -> Fix:
    server = facts.one(ServerFacts)
    if server.version >= GENERATED_CHECKED_SINCE and not columns & {*table.generated_virtual}:
        return Fix((f"ALTER PUBLICATION {server.publication_sql} SET (publish_generated_columns = stored);",))
    if table.identity == FULL:
        return Fix((f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;",), lock=True)
    return Fix(("-- This version cannot send them: map the columns from which they are computed.",))


def unchanged(facts: Facts) -> Findings:
    yield from owner(facts)
    position, subject = facts.subject.position, facts.subject
    if position is None or not position.membership:
        return
    changed = publication_changes(position.membership, facts.one(PublishedTables).membership)
    if changed:
        yield fail(
            f"It has changed since it was last read: {describe_changes(changed)}. Changes made meanwhile may be missing.",
            Fix((f"-- If the change is intended: cdc-merge source resync {subject.source}",)),
            subject.publication,
        )


def owner(facts: Facts) -> Findings:
    publication, server = facts.one(PublicationFacts), facts.one(ServerFacts)
    if publication.is_ours and not facts.one(RoleFacts).is_super:
        owners = [table.owner_sql for table in facts.rows(TableFacts) if not table.owns]
        give = (f"ALTER PUBLICATION {server.publication_sql} OWNER TO {owners[0]};",) if owners else ()
        fix = Fix(give, superuser=True)
        yield warn("The sidecar's role owns the publication and could change it: give it to the tables' owner.", fix)
    else:
        yield ok(f"{publication.owner} owns the publication; the sidecar never changes it.")


def written_tables(facts: Facts) -> Iterator[TableFacts]:
    """The published tables that store rows; none while neither updates nor deletes are published."""
    publication = facts.maybe(PublicationFacts)
    if publication is None or not (publication.publishes_update or publication.publishes_delete):
        return
    yield from (table for table in facts.rows(TableFacts) if table.published_as and table.kind != PARTITIONED)


CHECKS: Final = (
    DoctorCheck(
        "PUB01", "Publication", "It selects the changes that are sent. The sidecar never creates or alters one.", exists
    ),
    DoctorCheck(
        "PUB02",
        "PublishedTables operations",
        "Operations that are not published are missed without an error.",
        operations,
    ),
    DoctorCheck("PUB03", "Partitioned tables", "The configuration maps the table, not its partitions.", partitions),
    DoctorCheck(
        "PUB04",
        "PublishedTables and mapped tables",
        "A mapped table that is not published is silently out of date.",
        membership,
    ),
    DoctorCheck(
        "PUB05", "The sidecar's own tables", "A sidecar that reads its own writes never comes to rest.", own_tables
    ),
    DoctorCheck(
        "PUB06",
        "Column lists",
        "A list without all replica identity columns makes the application's own writes fail.",
        column_lists,
    ),
    DoctorCheck(
        "PUB07",
        "Row filters",
        "A filter on columns outside the replica identity makes the application's own writes fail.",
        row_filters,
    ),
    DoctorCheck(
        "PUB09",
        "Generated columns",
        "They are sent only when the publication includes them; in a replica identity they make writes fail.",
        generated,
    ),
    DoctorCheck(
        "PUB10",
        "Unchanged publication",
        "A change of the publication changes what the sidecar sees, and Postgres does not report it.",
        unchanged,
    ),
)
