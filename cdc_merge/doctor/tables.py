"""TAB: the tables: replica identity, types, defaults, size. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from cdc_merge.config.type_pairs import EQUAL, NEVER, REFUSED, ColumnType, column_type, compare_keys
from cdc_merge.doctor.findings import DoctorCheck, Finding, Findings, Fix, fail, ok, warn
from cdc_merge.doctor.publication import FULL, written_tables
from cdc_merge.doctor.readable_units import size, span
from cdc_merge.doctor.source_facts import ColumnFacts, EventTrigger, Facts, TableFacts

READ_KINDS: Final = ("r", "p")
CHANGING_DEFAULTS: Final = (
    "now()",
    "CURRENT_TIMESTAMP",
    "clock_timestamp()",
    "gen_random_uuid()",
    "uuid",
    "nextval(",
    "random()",
    "CURRENT_USER",
)
COPY_BYTES_PER_S: Final = 50 << 20  # measured on small machines; an order of magnitude


def identity(facts: Facts) -> Findings:
    published = {table.table for table in written_tables(facts)}
    # Of the mapped tables also those that the publication lacks: its fix adds them.
    to_publish = {
        table.table for table in facts.rows(TableFacts) if table.published_as is None and table.kind == "r"
    } & facts.subject.tables.keys()
    broken = [
        table
        for table in facts.rows(TableFacts)
        if table.table in published | to_publish and table.identity != FULL and not table.identity_columns
    ]
    for table in broken:
        when = "" if table.table in published else "once it is published, "
        yield fail(
            f"{_why_unusable(table)}: {when}the application's own UPDATE and DELETE on it fail (55000).",
            _identity_fix(table),
            table.table,
        )
    if not broken:
        yield ok("Every published table has a usable replica identity.")


def _why_unusable(table: TableFacts) -> str:
    if table.identity == "n":
        return "Its replica identity is NOTHING"
    if table.identity == "i":
        return "Its replica identity is an index that was dropped"
    if table.primary_key_is_deferrable:
        return "Its primary key is DEFERRABLE and cannot be the replica identity"
    return "It has no primary key"


def _identity_fix(table: TableFacts) -> Fix:
    alter = f"ALTER TABLE {table.sql} REPLICA IDENTITY"
    if table.has_primary_key and not table.primary_key_is_deferrable:
        return Fix((f"{alter} DEFAULT;",), lock=True)
    if table.best_index is not None:
        return Fix((f"{alter} USING INDEX {table.best_index};",), lock=True)
    return Fix((f"{alter} FULL;",), lock=True)


def full(facts: Facts) -> Findings:
    found = False
    for table in written_tables(facts):
        if table.identity == FULL and table.best_index is None:
            found = True
            yield warn(
                "Replica identity FULL without any unique key: every update writes the whole old row into WAL.",
                _key_fix(facts, table),
                table.table,
            )
        elif table.identity == FULL and table.bytes > facts.subject.limits.large_bytes:
            found = True
            fix = Fix((f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;",), lock=True)
            yield warn(
                f"Replica identity FULL on {size(table.bytes)}: every update writes the whole old row into WAL.",
                fix,
                table.table,
            )
    if not found:
        yield ok("No table has replica identity FULL without need.")


def _key_fix(facts: Facts, table: TableFacts) -> Fix:
    keys = [columns for name, columns in facts.subject.keys.values() if name == table.table]
    quoted = {column.column: column.sql for column in facts.rows(ColumnFacts) if column.table == table.table}
    if not keys or not all(column in quoted for column in keys[0]):
        return Fix(("-- Add a primary key.",), lock=True)
    columns = ", ".join(quoted[column] for column in keys[0])
    return Fix((f"ALTER TABLE {table.sql} ADD PRIMARY KEY ({columns});",), lock=True)


def toast(facts: Facts) -> Findings:
    full_tables = {table.table for table in facts.rows(TableFacts) if table.identity == FULL}
    names = [f"{c.table}.{c.column}" for c in facts.needed_columns() if c.toastable and c.table not in full_tables]
    yield ok(
        _some(
            names, "mapped columns can be TOASTed: updates that do not write them omit them, and the last value stays"
        )
    )


def _some(names: Sequence[str], what: str) -> str:
    if not names:
        return f"No {what}."
    shown = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
    return f"{len(names)} {what}: {shown}."


def logged(facts: Facts) -> Findings:
    found = False
    for name in facts.subject.tables:
        table = facts.table(name)
        if table is None:
            continue
        finding = _unlogged(table)
        if finding is not None:
            found = True
            yield finding
    if not found:
        yield ok("Every mapped table is logged.")


def _unlogged(table: TableFacts) -> Finding | None:
    if table.kind not in READ_KINDS:
        return fail("It is not a table: views and foreign tables have no changes of their own.", about=table.table)
    if table.persistence != "p":
        fix = Fix((f"ALTER TABLE {table.sql} SET LOGGED;",), lock=True)
        return fail("It is unlogged: its changes never reach WAL, and after a crash it is empty.", fix, table.table)
    return None


def key_types(facts: Facts) -> Findings:
    wanted = {(table, column) for table, columns in facts.subject.keys.values() for column in columns}
    found = False
    for column in facts.rows(ColumnFacts):
        reason = _key_reason(column) if (column.table, column.column) in wanted else ""
        if reason:
            found = True
            yield warn(f"Key column {column.column} is {column.declared}: {reason}.", about=column.table)
    if not found:
        yield ok("The types of the keys compare equally in every system.")


def _key_reason(column: ColumnFacts) -> str:
    if column.type_name in ("float4", "float8"):
        return "equal numbers may differ in their last digit"
    if column.type_name == "bpchar":
        return "it is padded with blanks, which other systems may not do"
    if column.type_name == "citext" or column.nondeterministic:
        return "it treats values as equal that other systems distinguish"
    return ""


def careful_types(facts: Facts) -> Findings:
    found = False
    for column in facts.needed_columns():
        if column.type_name == "money":
            found = True
            fix = Fix((f"-- ALTER TABLE … ALTER COLUMN {column.sql} TYPE numeric;",), lock=True)
            yield warn(f"{column.column} is money: its text depends on lc_monetary.", fix, column.table)
        elif column.extension is not None and column.type_name not in ("citext", "hstore"):
            found = True
            yield warn(
                f"{column.column} is {column.declared} of extension {column.extension}: compared as text.",
                about=column.table,
            )
    zoneless = [f"{c.table}.{c.column}" for c in facts.needed_columns() if c.type_name == "timestamp"]
    if not found:
        yield ok(_some(zoneless, "mapped columns are timestamps without a time zone, read as UTC"))


def key_types_across(sources: Sequence[Facts]) -> list[tuple[Facts, Finding]]:
    """TAB07: the business keys of one entity have the same types in every examined source."""
    findings = []
    entities = sorted({entity for facts in sources for entity in facts.subject.keys})
    for entity in entities:
        types = {facts: _key_types(facts, entity) for facts in sources if entity in facts.subject.keys}
        verdicts = [
            compare_keys(*parts)
            for one, other in itertools.combinations(types.values(), 2)
            for parts in zip(one, other, strict=False)
        ]
        unequal = [verdict for verdict in verdicts if verdict.kind != EQUAL]
        if unequal:
            shown = ", ".join(
                f"{facts.subject.source} has {' and '.join(kind.declared for kind in kinds)}"
                for facts, kinds in types.items()
                if kinds
            )
            severity = fail if any(verdict.kind in (REFUSED, NEVER) for verdict in unequal) else warn
            reasons = "; ".join(dict.fromkeys(verdict.reason for verdict in unequal))
            seen = f"The keys of {entity} are not compared as Postgres compares them: {shown}; {reasons}."
            findings += [(facts, severity(seen, about=entity)) for facts in types]
    return findings or [(facts, ok("Keys have the same types in every examined source.")) for facts in sources]


def _key_types(facts: Facts, entity: str) -> list[ColumnType]:
    name, key = facts.subject.keys[entity]
    columns = {column.column: column for column in facts.rows(ColumnFacts) if column.table == name}
    return [column_type(columns[part].type_oid, columns[part].type_name) for part in key if part in columns]


def defaults(facts: Facts) -> Findings:
    found = False
    for column in facts.needed_columns():
        if column.default and any(word.lower() in column.default.lower() for word in CHANGING_DEFAULTS):
            found = True
            yield warn(
                f"{column.column} has the default {column.default}: every system fills in a different value.",
                about=column.table,
            )
    for name in facts.subject.tables:
        table = facts.table(name)
        if table is not None and table.triggers:
            found = True
            yield warn(f"Triggers may change values before they are stored: {', '.join(table.triggers)}.", about=name)
    if not found:
        yield ok("No default or trigger generates values in mapped columns.")


def sizes(facts: Facts) -> Findings:
    leaves = [
        table
        for table in facts.rows(TableFacts)
        if table.table in facts.subject.tables or table.published_as in facts.subject.tables
    ]
    stored = sum(table.bytes for table in leaves)
    rows = sum(table.expected_rows for table in leaves if table.kind != "p")
    yield ok(
        f"About {rows} rows, {size(stored)}: an initial snapshot takes at least {span(stored / COPY_BYTES_PER_S)}."
        if stored > COPY_BYTES_PER_S
        else f"About {rows} rows, {size(stored)}."
    )


def event_triggers(facts: Facts) -> Findings:
    names = [trigger.name for trigger in facts.rows(EventTrigger) if trigger.enabled != "D"]
    yield ok(
        f"Event triggers: {', '.join(names)}."
        if names
        else "None. Schema changes are detected in the stream and the catalog."
    )


ACROSS: Final = "TAB07"
CHECKS: Final = (
    DoctorCheck(
        "TAB01",
        "Replica identity",
        "On a published table without a replica identity Postgres refuses updates and deletes.",
        identity,
    ),
    DoctorCheck("TAB02", "Replica identity FULL", "Every update writes the whole old row into WAL.", full),
    DoctorCheck("TAB03", "Large values", "Postgres does not send TOASTed values that a change does not write.", toast),
    DoctorCheck("TAB04", "Logged tables", "Changes of unlogged tables are not in WAL.", logged),
    DoctorCheck("TAB05", "Types of keys", "Two systems must agree on which keys are equal.", key_types),
    DoctorCheck(
        "TAB06", "Types that need care", "Their text may have another meaning in another system.", careful_types
    ),
    DoctorCheck("TAB08", "Generated values", "They differ in every system, and look like conflicts.", defaults),
    DoctorCheck("TAB09", "Size", "The initial snapshot reads all rows once.", sizes),
    DoctorCheck("TAB10", "Event triggers", "Informational.", event_triggers),
)
