"""PUB: does the publication send what is mapped, and can it break the application's own writes? Pure.

There is no PUB08, column lists that differ between two publications of one stream (0A000): one publication is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdc_merge.doctor.findings import Check, Finding, Findings, Fix, fail, ok, warn
from cdc_merge.doctor.source_facts import Facts, PublicationFacts, Published, RoleFacts, ServerFacts, TableFacts
from cdc_merge.sources.postgres.publication_members import changes, told

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
    silent = facts.one(ServerFacts).version >= GENERATED_CHECKED_SINCE
    what = "this version then sends nothing and says nothing" if silent else "the stream cannot start"
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
        yield warn("TRUNCATE is not published: emptied tables keep their records.", fix)
    else:
        yield fail(f"Never sent: {', '.join(hidden)}.", fix)


def partitions(facts: Facts) -> Findings:
    publication = facts.one(PublicationFacts)
    roots = [table for table in facts.rows(TableFacts) if table.kind == PARTITIONED]
    fix = Fix((f"ALTER PUBLICATION {facts.one(ServerFacts).publication_sql} SET (publish_via_partition_root = true);",))
    if publication.via_root or not roots:
        leaves = "; TRUNCATE of a single partition is then not sent" if roots else ""
        yield ok(
            f"Partitions appear under their root's name{leaves}." if roots else "No partitioned table is concerned."
        )
        return
    for table in roots:
        yield fail(
            "Changes appear under the partitions' names, and moving a row between them as delete and insert.",
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
                "Mapped, and not published: its changes are never sent.",
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
    seen = "Published, and not mapped: its changes are decoded and sent for nothing, and readable by our role."
    if not table.is_listed:
        how = "FOR ALL TABLES" if publication.all_tables else "for a whole schema or a partitioned table"
        return warn(f"{seen} The publication is {how}.", about=table.table)
    return warn(seen, Fix((f"ALTER PUBLICATION {server.publication_sql} DROP TABLE {table.sql};",)), table.table)


def own_tables(facts: Facts) -> Findings:
    server = facts.one(ServerFacts)
    ours = [table for table in facts.rows(TableFacts) if table.published_as and table.table.startswith("cdc_merge.")]
    for table in ours:
        yield fail(
            "One of the sidecar's own tables is published: it would read what it writes.",
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
            else f"it lacks {', '.join(missing)} of the identity"
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
            seen = f"The row filter asks for {', '.join(outside)}, which the identity does not hold: {BREAKS}."
            yield fail(seen, _without(facts, table), table.table)
        else:
            seen = "A row filter: a row that leaves it comes as a delete, though nobody deleted it."
            yield warn(seen, _without(facts, table), table.table)
    if not filtered:
        yield ok("No row filter.")


def _without(facts: Facts, table: TableFacts) -> Fix:
    """The table published whole: without column list and row filter."""
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
            seen = f"The identity holds generated columns that are not published ({_listed(checked)}): {BREAKS}."
            yield fail(seen, _sending(facts, table, checked), table.table)
        elif wanted:
            found = True
            yield fail(
                f"Mapped columns that are generated are not sent: {_listed(wanted)}.",
                _sending(facts, table, wanted),
                table.table,
            )
    if not found:
        yield ok("No generated column is missing.")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _sending(facts: Facts, table: TableFacts, columns: set[str]) -> Fix:
    server = facts.one(ServerFacts)
    if server.version >= GENERATED_CHECKED_SINCE and not columns & {*table.generated_virtual}:
        return Fix((f"ALTER PUBLICATION {server.publication_sql} SET (publish_generated_columns = stored);",))
    if table.identity == FULL:
        return Fix((f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;",), lock=True)
    return Fix(("-- This version cannot send them: map the columns that they are computed from.",))


def unchanged(facts: Facts) -> Findings:
    yield from owner(facts)
    position, subject = facts.subject.position, facts.subject
    if position is None or not position.membership:
        return
    found = changes(position.membership, facts.one(Published).membership)
    if found:
        yield fail(
            f"It is not what it was when it was last read: {told(found)}. What was changed meanwhile may be missing.",
            Fix((f"-- If it is as it should be: cdc-merge source resync {subject.source}",)),
            subject.publication,
        )


def owner(facts: Facts) -> Findings:
    publication, server = facts.one(PublicationFacts), facts.one(ServerFacts)
    if publication.is_ours and not facts.one(RoleFacts).is_super:
        owners = [table.owner_sql for table in facts.rows(TableFacts) if not table.owns]
        give = (f"ALTER PUBLICATION {server.publication_sql} OWNER TO {owners[0]};",) if owners else ()
        fix = Fix(give, superuser=True)
        yield warn("The publication belongs to our role, which could change it: the tables' owner should have it.", fix)
    else:
        yield ok(f"{publication.owner} may change the publication; we never do.")


def written_tables(facts: Facts) -> Iterator[TableFacts]:
    """The published tables that rows are written to, while updates or deletes are published at all."""
    publication = facts.maybe(PublicationFacts)
    if publication is None or not (publication.publishes_update or publication.publishes_delete):
        return
    yield from (table for table in facts.rows(TableFacts) if table.published_as and table.kind != PARTITIONED)


CHECKS: Final = (
    Check("PUB01", "Publication", "It says which changes are sent. The sidecar never creates or alters one.", exists),
    Check("PUB02", "Published operations", "What is not published is never seen, and nobody says so.", operations),
    Check("PUB03", "Partitioned tables", "MappingResult is the table, not its partitions.", partitions),
    Check(
        "PUB04",
        "Published and mapped tables",
        "A table that is mapped and not published is silently out of date.",
        membership,
    ),
    Check("PUB05", "Our own tables", "A sidecar that reads its own writes never comes to rest.", own_tables),
    Check(
        "PUB06",
        "Column lists",
        "A list that leaves out identity columns makes the application's own writes fail.",
        column_lists,
    ),
    Check(
        "PUB07",
        "Row filters",
        "A filter on other columns than the identity's makes the application's own writes fail.",
        row_filters,
    ),
    Check(
        "PUB09",
        "Generated columns",
        "They are sent only where the publication says so; in an identity they make writes fail.",
        generated,
    ),
    Check(
        "PUB10",
        "Publication as it was",
        "Whoever may alter it decides what the sidecar sees, and Postgres says nothing about it.",
        unchanged,
    ),
)
