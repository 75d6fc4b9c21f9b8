"""A source as the doctor meets it: a database set up by the book, so that every check starts from ok."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from cdc_merge.doctor.check_list import run_checks
from cdc_merge.doctor.collect import collect_facts
from cdc_merge.doctor.findings import CheckResult
from cdc_merge.doctor.preflight import with_probes
from cdc_merge.doctor.source_facts import Facts, Subject, Thresholds
from cdc_merge.model import Position
from tests.support.databases import drop_slots, fresh_database

WELL: Mapping[str, str] = {"max_slot_wal_keep_size": "10GB", "max_prepared_transactions": "4"}
SETUP = """
CREATE SCHEMA app;
CREATE TABLE app.customer (no text PRIMARY KEY, name text NOT NULL, phone text, points int);
INSERT INTO app.customer VALUES ('C1', 'Li', '1', 1);
CREATE PUBLICATION cdc_merge FOR TABLE app.customer WITH (publish_via_partition_root = true);
"""
GRANTS = """
CREATE ROLE {role} LOGIN REPLICATION CONNECTION LIMIT 8;
GRANT USAGE ON SCHEMA app TO {role};
GRANT SELECT ON app.customer TO {role};
GRANT pg_read_all_stats TO {role};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO {role};
"""
CLEANING = (
    "DROP PUBLICATION IF EXISTS cdc_merge",
    "DROP SCHEMA app CASCADE",
    "DROP SCHEMA IF EXISTS cdc_merge CASCADE",
    "ALTER DATABASE {database} RESET ALL",
    "ALTER DATABASE {database} CONNECTION LIMIT -1",
    "GRANT EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() TO public",
    "DO $$ BEGIN EXECUTE (SELECT format('GRANT EXECUTE ON FUNCTION %s TO public', oid::regprocedure) FROM pg_proc"
    " WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype); END $$",
    "DROP OWNED BY {role} CASCADE",
    "DROP ROLE {role}",
)
TABLES = {"app.customer": ("no", "name", "points")}
KEYS = {"customer": ("app.customer", ("no",))}
_SQL = re.compile(r"\b(?:SELECT|ALTER|ROLLBACK|DROP|GRANT)\b.*")
_numbers = itertools.count(1)


class Patient:
    """One database with its own role, table and publication. `wanted` are changes to the Subject."""

    def __init__(self, server: DemoServer, dsn: str, role: str) -> None:
        self.server = server
        self.dsn = dsn
        self.role = role
        self.database = re.search(r"dbname=(\S+)", dsn).group(1)  # type: ignore[union-attr] # fresh_database made it
        self.slot = f"slot_{self.database}"
        self.wanted: dict[str, Any] = {}
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def own_dsn(self) -> str:
        return self.dsn.replace("user=postgres", f"user={self.role}")

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run as the DBA, each statement by itself; {role}, {database} and {slot} are filled in."""
        rows: list[tuple[Any, ...]] = []
        if self._connection is None:
            self._connection = psycopg.connect(self.dsn, autocommit=True)
            self._connection.add_notice_handler(lambda notice: None)
        for statement in statements:
            cursor = self._connection.execute(self.filled(statement).encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows

    def hang_up(self) -> None:
        """Close the DBA's connection; the next statement opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def filled(self, text: str) -> str:
        return text.replace("{role}", self.role).replace("{database}", self.database).replace("{slot}", self.slot)

    def write(self) -> None:
        """The application's own update and delete."""
        self.sql("UPDATE app.customer SET name = 'Wang' WHERE no = 'C1'", "DELETE FROM app.customer WHERE no = 'C9'")

    def refuses_writes(self) -> str:
        """The SQLSTATE with which the application's own update fails."""
        with pytest.raises(psycopg.Error) as caught:
            self.write()
        return str(caught.value.sqlstate)

    # ---------------------------------------------------------------- the doctor

    def subject(self) -> Subject:
        given: dict[str, Any] = {
            "source": "crm",
            "slot": self.slot,
            "publication": "cdc_merge",
            "tables": TABLES,
            "keys": KEYS,
        }
        return Subject(**given | self.wanted)

    def facts(self, *, probing: bool = False, ahead_us: int = 0) -> Facts:
        facts = collect_facts(self.subject(), self.own_dsn, lambda: time.time_ns() // 1000 - ahead_us)
        return with_probes(facts, self.own_dsn) if probing else facts

    def checks(self, code: str, *, probing: bool = False, ahead_us: int = 0) -> list[CheckResult]:
        facts = self.facts(probing=probing, ahead_us=ahead_us)
        return [check for check in run_checks(facts) if check.code == code]

    def severities(self, code: str, **how: Any) -> dict[str, str]:
        """about → severity of one check."""
        return {check.about: check.severity for check in self.checks(code, **how)}

    def apply_fix(self, check: CheckResult, *, deciding: bool = False) -> None:
        """Run the printed fix as the DBA, in one session; `deciding` also what it leaves to a person."""
        statements = [s for s in check.fix.sql if not s.startswith("--")]
        if deciding:
            statements += [found.group() for s in check.fix.sql if s.startswith("--") and (found := _SQL.search(s))]
        assert statements, f"{check.code} has nothing to run: {check.fix.sql}"
        self.sql(*statements)

    def limits(self, **changes: Any) -> None:
        self.wanted["limits"] = Thresholds(**changes)

    def position(self, *, system: str | None = None, timeline: int = 1, lsn: int | None = None) -> Position:
        found = self.sql(
            "SELECT system_identifier::text, (pg_current_wal_flush_lsn() - '0/0')::int8 FROM pg_control_system()"
        )
        return Position(system or found[0][0], timeline, found[0][1] if lsn is None else lsn, "done", self.slot)


@contextmanager
def bed(server: DemoServer, dsn: str) -> Iterator[Patient]:
    """A patient in a database that others have used and will use: it is left as it was found."""
    patient = Patient(server, dsn, f"reader_{next(_numbers)}")
    patient.sql(*(s for s in SETUP.split(";\n") if s.strip()), *(s for s in GRANTS.split(";\n") if s.strip()))
    yield patient
    with psycopg.connect(dsn, autocommit=True) as connection:
        drop_slots(connection, patient.database)
    patient.sql(*CLEANING)
    patient.hang_up()


@contextmanager
def admitted(server: DemoServer) -> Iterator[Patient]:
    """A patient in a database of its own."""
    with fresh_database(server) as dsn, bed(server, dsn) as patient:
        yield patient
