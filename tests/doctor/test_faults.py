# ruff: noqa: E501 - a fault is one line of a table, however long its SQL
"""Each fault is reported with its code and severity, and the printed fix removes it.

The table is the text: what the DBA or the application did, what the doctor says, and what it says after its own fix.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from cdc_merge.cli.doctor import lines
from cdc_merge.doctor.check_list import run_checks
from cdc_merge.doctor.collect import collect_facts
from tests.doctor.patient import Patient


class Fault(NamedTuple):
    """`then` is what the check says once its fix ran; `deciding`: the fix is left to a person, who decides for it."""

    code: str
    severity: str
    made_by: tuple[str, ...]
    about: str = ""
    then: str = "ok"
    deciding: bool = False


FAULTS = {
    "the role may not read its identity": Fault("SRV06", "unknown", ("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public",)),
    "the role has too few connections": Fault("CAP03", "fail", ("ALTER ROLE {role} CONNECTION LIMIT 3",), "role"),
    "the database has too few connections": Fault("CAP03", "warn", ("ALTER DATABASE {database} CONNECTION LIMIT 3",), "database"),
    "dead readers are never noticed": Fault("CAP06", "warn", ("ALTER ROLE {role} SET wal_sender_timeout = 0",)),
    "a short stall ends the stream": Fault("CAP06", "warn", ("ALTER ROLE {role} SET wal_sender_timeout = '1s'",)),
    "the role may not look at WAL": Fault("CAP08", "unknown", ("REVOKE EXECUTE ON FUNCTION pg_ls_waldir() FROM {role}",)),
    "the password expires soon": Fault("ROL03", "warn", ("DO $$ BEGIN EXECUTE format('ALTER ROLE {role} VALID UNTIL %L', now() + interval '3 days'); END $$",)),
    "the password has expired": Fault("ROL03", "fail", ("ALTER ROLE {role} VALID UNTIL '2020-01-01'",)),
    "the role may not select": Fault("ROL05", "fail", ("REVOKE SELECT ON app.customer FROM {role}",), "app.customer"),
    "the role may not select one column": Fault("ROL05", "fail", ("REVOKE SELECT ON app.customer FROM {role}", "GRANT SELECT (no, name) ON app.customer TO {role}"), "app.customer"),
    "the role may not enter the schema": Fault("ROL05", "fail", ("REVOKE USAGE ON SCHEMA app FROM {role}",), "app.customer"),
    "policies hide rows": Fault("ROL06", "fail", ("ALTER TABLE app.customer ENABLE ROW LEVEL SECURITY",), "app.customer"),
    "the role's statements time out": Fault("ROL08", "warn", ("ALTER ROLE {role} SET statement_timeout = '5s'",), "statement_timeout"),
    "the database's transactions time out": Fault("ROL08", "warn", ("ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '5s'",), "idle_in_transaction_session_timeout"),
    "the role may not send messages": Fault("ROL09", "warn", ("DO $$ BEGIN EXECUTE (SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM public', oid::regprocedure) FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype); END $$",)),
    "other sessions are hidden": Fault("ROL10", "warn", ("REVOKE pg_read_all_stats FROM {role}",)),
    "the publication is missing": Fault("PUB01", "fail", ("DROP PUBLICATION cdc_merge",)),
    "updates are not published": Fault("PUB02", "fail", ("ALTER PUBLICATION cdc_merge SET (publish = 'insert, delete, truncate')",)),
    "truncates are not published": Fault("PUB02", "warn", ("ALTER PUBLICATION cdc_merge SET (publish = 'insert, update, delete')",)),
    "a mapped table is not published": Fault("PUB04", "fail", ("ALTER PUBLICATION cdc_merge DROP TABLE app.customer",), "app.customer"),
    "another table is published": Fault("PUB04", "warn", ('CREATE TABLE app."Odd name" (id int PRIMARY KEY)', 'ALTER PUBLICATION cdc_merge ADD TABLE app."Odd name"'), "app.Odd name"),
    "the sidecar's table is published": Fault("PUB05", "fail", ("CREATE SCHEMA cdc_merge", "CREATE TABLE cdc_merge.change (id int PRIMARY KEY)", "ALTER PUBLICATION cdc_merge ADD TABLE cdc_merge.change"), "cdc_merge.change"),
    "a row filter keeps to the key": Fault("PUB07", "warn", ("ALTER PUBLICATION cdc_merge SET TABLE app.customer WHERE (no <> '')",), "app.customer"),
    "the publication is our role's": Fault("PUB10", "warn", ("GRANT CREATE ON DATABASE {database} TO {role}", "ALTER PUBLICATION cdc_merge OWNER TO {role}")),
    "identity full without a key": Fault("TAB02", "warn", ("ALTER TABLE app.customer DROP CONSTRAINT customer_pkey", "ALTER TABLE app.customer REPLICA IDENTITY FULL"), "app.customer"),
    "the table is unlogged": Fault("TAB04", "fail", ("ALTER PUBLICATION cdc_merge DROP TABLE app.customer", "ALTER TABLE app.customer SET UNLOGGED"), "app.customer"),
    "a prepared transaction was forgotten": Fault("SLT10", "warn", ("BEGIN; INSERT INTO app.customer VALUES ('C2', 'x'); PREPARE TRANSACTION 'left_{database}'",), "prepared transaction left_{database} of postgres", deciding=True),
}  # fmt: skip


# Roles and limits are the same everywhere; what publications can do differs between versions.
CASES = [
    (version, name)
    for name, fault in FAULTS.items()
    for version in ("18", "15")
    if version == "18" or fault.code.startswith(("PUB", "TAB"))
]


@pytest.mark.parametrize(("either", "name"), CASES, indirect=["either"])
def test_a_fault_is_reported_and_its_fix_fixes_it(either: Patient, name: str) -> None:
    fault = FAULTS[name]
    either.limits(blocker_s=0.0)
    assert set(either.severities(fault.code).values()) == {"ok"}
    either.sql(*fault.made_by)
    found = {check.about: check for check in either.checks(fault.code)}
    result = found[either.filled(fault.about)]
    assert result.severity == fault.severity
    assert result.seen
    assert result.why
    either.apply_fix(result, deciding=fault.deciding)
    assert set(either.severities(fault.code).values()) == {fault.then}


# A role that people or applications log in as is never changed: the fix is a role of the sidecar's own.
FOREIGN_ROLES = {
    "no replication": ("ROL01", "ALTER ROLE {role} NOREPLICATION"),
    "powerful": ("ROL02", "ALTER ROLE {role} CREATEDB CREATEROLE BYPASSRLS"),
    "superuser": ("ROL02", "ALTER ROLE {role} SUPERUSER"),
    "reads everything": ("ROL02", "GRANT pg_read_all_data TO {role}"),
    "owns a mapped table": ("ROL02", "ALTER TABLE app.customer OWNER TO {role}"),
}


@pytest.mark.parametrize(("code", "made_by"), FOREIGN_ROLES.values(), ids=FOREIGN_ROLES.keys())
def test_the_fix_for_a_role_of_others_is_a_role_of_the_sidecars_own(either: Patient, code: str, made_by: str) -> None:
    either.sql(made_by, "ALTER ROLE {role} CONNECTION LIMIT 3")
    found = run_checks(either.facts())
    assert [check.severity for check in found if check.code == code] in (["warn"], ["fail"])
    statements = [line for check in found for line in check.fix.sql]
    assert not [line for line in statements if not line.startswith("--") and either.role in line]
    try:
        (result,) = (check for check in found if check.code == code)
        either.apply_fix(result)
        either.apply_fix(result)  # another source of the same server prints the same
        assert result.fix.sql[-1].endswith("write user=cdc_merge into the DSN of crm.")
        either.sql("ALTER TABLE app.customer OWNER TO postgres")
        facts = collect_facts(either.subject(), either.dsn.replace("user=postgres", "user=cdc_merge"), lambda: 0)
        assert {c.code for c in run_checks(facts) if c.severity != "ok"} <= {"SRV07"}
    finally:
        either.sql("DROP OWNED BY cdc_merge CASCADE", "DROP ROLE cdc_merge")


BREAKING = {
    "no primary key": ("TAB01", "55000", ("ALTER TABLE app.customer DROP CONSTRAINT customer_pkey",)),
    "a deferrable primary key": (
        "TAB01",
        "55000",
        ("ALTER TABLE app.customer DROP CONSTRAINT customer_pkey", "ALTER TABLE app.customer ADD PRIMARY KEY (no) DEFERRABLE"),
    ),
    "an identity index that was dropped": (
        "TAB01",
        "55000",
        ("CREATE UNIQUE INDEX one ON app.customer (name)", "ALTER TABLE app.customer REPLICA IDENTITY USING INDEX one", "DROP INDEX app.one"),
    ),
    "identity nothing": ("TAB01", "55000", ("ALTER TABLE app.customer REPLICA IDENTITY NOTHING",)),
    "no primary key, but a unique index": (
        "TAB01",
        "55000",
        ("ALTER TABLE app.customer DROP CONSTRAINT customer_pkey", "ALTER TABLE app.customer ALTER no SET NOT NULL", "CREATE UNIQUE INDEX two ON app.customer (no)"),
    ),
    "a column list without the key": ("PUB06", "42P10", ("ALTER PUBLICATION cdc_merge SET TABLE app.customer (name)",)),
    "a column list with identity full": (
        "PUB06",
        "42P10",
        ("ALTER TABLE app.customer REPLICA IDENTITY FULL", "ALTER PUBLICATION cdc_merge SET TABLE app.customer (no, name)"),
    ),
    "a row filter on another column": ("PUB07", "42P10", ("ALTER PUBLICATION cdc_merge SET TABLE app.customer WHERE (name <> '')",)),
}  # fmt: skip


@pytest.mark.parametrize(("code", "sqlstate", "made_by"), BREAKING.values(), ids=BREAKING.keys())
def test_what_breaks_the_applications_own_writes_is_reported_and_fixed(
    either: Patient, code: str, sqlstate: str, made_by: tuple[str, ...]
) -> None:
    either.write()
    assert "fail" not in either.severities(code).values()
    either.sql(*made_by)
    assert either.refuses_writes() == sqlstate
    results = either.checks(code)
    assert [(check.severity, check.about) for check in results] == [("fail", "app.customer")]
    assert sqlstate in results[0].seen
    either.apply_fix(results[0])
    assert either.severities(code) == {"": "ok"}
    either.write()


GENERATED = {
    "a generated column in the key": (
        "ALTER TABLE app.customer ADD code text GENERATED ALWAYS AS (upper(no)) STORED NOT NULL",
        "ALTER TABLE app.customer DROP CONSTRAINT customer_pkey",
        "ALTER TABLE app.customer ADD PRIMARY KEY (code)",
    ),
    "a generated column with identity full": (
        "ALTER TABLE app.customer ADD code text GENERATED ALWAYS AS (upper(no)) STORED",
        "ALTER TABLE app.customer REPLICA IDENTITY FULL",
    ),
    "a virtual column with identity full": (
        "ALTER TABLE app.customer ADD code text GENERATED ALWAYS AS (upper(no)) VIRTUAL",
        "ALTER TABLE app.customer REPLICA IDENTITY FULL",
    ),
}  # fmt: skip


@pytest.mark.parametrize("made_by", GENERATED.values(), ids=GENERATED.keys())
def test_from_18_on_generated_columns_in_the_identity_break_writes(patient: Patient, made_by: tuple[str, ...]) -> None:
    patient.sql(*made_by)
    assert patient.refuses_writes() == "42P10"
    results = patient.checks("PUB09")
    assert [(check.severity, check.about) for check in results] == [("fail", "app.customer")]
    patient.apply_fix(results[0])
    patient.write()
    assert patient.severities("PUB09") == {"": "ok"}


def test_before_18_generated_columns_in_the_identity_break_nothing(old_patient: Patient) -> None:
    old_patient.sql(*GENERATED["a generated column in the key"])
    old_patient.write()
    assert old_patient.severities("PUB09") == {"": "ok"}


def test_a_mapped_generated_column_that_is_not_sent_is_reported(either: Patient) -> None:
    either.sql("ALTER TABLE app.customer ADD code text GENERATED ALWAYS AS (upper(name)) STORED")
    either.wanted["tables"] = {"app.customer": ("no", "name", "code")}
    results = either.checks("PUB09")
    assert [(check.severity, "code" in check.seen) for check in results] == [("fail", True)]
    if either.server.directory.name == "clinic":
        either.apply_fix(results[0])
        assert either.severities("PUB09") == {"": "ok"}


PARTITIONED = (
    "CREATE TABLE app.orders (no text, day date, PRIMARY KEY (no, day)) PARTITION BY RANGE (day)",
    "CREATE TABLE app.orders_old PARTITION OF app.orders FOR VALUES FROM ('2000-01-01') TO ('2020-01-01')",
    "CREATE TABLE app.orders_new PARTITION OF app.orders FOR VALUES FROM ('2020-01-01') TO ('2040-01-01')",
    "INSERT INTO app.orders VALUES ('O1', '2010-01-01'), ('O2', '2030-01-01')",
    "GRANT SELECT ON app.orders TO {role}",
    "ALTER PUBLICATION cdc_merge ADD TABLE app.orders",
)
WITH_ORDERS = {"app.customer": ("no", "name"), "app.orders": ("no", "day")}


def test_partitions_under_their_own_names_are_reported(either: Patient) -> None:
    either.wanted["tables"] = WITH_ORDERS
    either.sql(*PARTITIONED)
    assert either.severities("PUB03") == {"": "ok"}
    assert either.severities("PUB04") == {"": "ok"}
    either.sql("ALTER PUBLICATION cdc_merge SET (publish_via_partition_root = false)")
    results = either.checks("PUB03")
    assert [(check.severity, check.about) for check in results] == [("fail", "app.orders")]
    either.apply_fix(results[0])
    assert either.severities("PUB03") == {"": "ok"}


def test_unmapped_tables_are_one_line_with_all_their_sql_and_mapped_ones_are_in_full(either: Patient) -> None:
    either.sql(
        "DO $$ BEGIN FOR i IN 1..30 LOOP EXECUTE format('CREATE TABLE app.loose%s (id int)', i);"
        " EXECUTE format('ALTER PUBLICATION cdc_merge ADD TABLE app.loose%s', i); END LOOP; END $$",
        "ALTER TABLE app.customer REPLICA IDENTITY NOTHING",
    )
    assert either.severities("TAB01") == {"app.customer": "fail", "other tables": "fail"}
    assert either.severities("PUB04") == {"other tables": "warn"}
    (rest,) = either.checks("PUB04")
    assert rest.seen.startswith("30 tables that are not mapped (app.loose")
    assert len([*lines(rest)]) < 6
    for code in ("TAB01", "PUB04"):
        for check in either.checks(code):
            either.apply_fix(check)
        assert set(either.severities(code).values()) == {"ok"}


def test_one_leaf_without_identity_is_found_behind_its_root(either: Patient) -> None:
    either.wanted["tables"] = WITH_ORDERS
    either.sql(*PARTITIONED, "ALTER TABLE app.orders_old REPLICA IDENTITY NOTHING")
    results = either.checks("TAB01")
    assert [(check.severity, check.about) for check in results] == [("fail", "app.orders_old")]
    with pytest.raises(Exception, match="does not have a replica identity"):
        either.sql("UPDATE app.orders SET no = 'O3' WHERE no = 'O1'")
    either.apply_fix(results[0])
    either.sql("UPDATE app.orders SET no = 'O3' WHERE no = 'O1'")
    assert either.severities("TAB01") == {"": "ok"}


def test_what_cannot_be_fixed_with_sql_is_reported_all_the_same(patient: Patient) -> None:
    patient.sql(
        "CREATE TABLE app.odd (k float8, fee money, at timestamptz DEFAULT now(), made int GENERATED ALWAYS AS IDENTITY)",
        "CREATE FUNCTION app.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
        "CREATE TRIGGER upper_name BEFORE INSERT ON app.odd FOR EACH ROW EXECUTE FUNCTION app.keep()",
        "CREATE VIEW app.seen AS SELECT * FROM app.customer",
    )
    patient.wanted["tables"] = {"app.odd": ("k", "fee", "at"), "app.seen": ("no",), "app.gone": ("x",)}
    patient.wanted["keys"] = {"odd": ("app.odd", ("k",))}
    assert patient.severities("TAB05") == {"app.odd": "warn"}
    assert patient.severities("TAB06") == {"app.odd": "warn"}
    assert patient.severities("TAB04") == {"app.seen": "fail"}
    assert {check.seen.partition(" ")[0] for check in patient.checks("TAB08")} == {"at", "Triggers"}
    assert patient.severities("PUB04")["app.gone"] == "fail"


def test_a_database_by_the_book_has_no_problem(either: Patient) -> None:
    assert [(c.code, c.about, c.seen) for c in run_checks(either.facts(probing=True)) if c.severity != "ok"] == []
